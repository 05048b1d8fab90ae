"""multipart/form-data as browsers send it, and anything else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.media.form_data import MAX_PARTS, BadFormData, FormField, parse_form_data

KIND = "multipart/form-data; boundary=----WebKitFormBoundaryAb1"
MARK = b"------WebKitFormBoundaryAb1"


def encode(*parts: tuple[str, bytes]) -> bytes:
    """Each: what stands behind `form-data; `, and the data."""
    lines = [
        MARK + b"\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"
        for head, data in parts
    ]
    return b"".join(lines) + MARK + b"--\r\n"


def test_what_a_browser_sends() -> None:
    file = b"\x89PNG\r\n\r\n--\r\n" + MARK[:-1] + b"\r\n"
    body = encode(
        ('name="csrf"', b"token"),
        ('name="picture"; filename="me %22.png"\r\nContent-Type: image/png', file),
        ('name="empty"; filename=""\r\nContent-Type: application/octet-stream', b""),
        ('name="twice"', b"1"),
        ('name="twice"', "ä".encode()),
    )
    assert parse_form_data(KIND, body) == {
        "csrf": FormField(b"token"),
        "picture": FormField(file, "me %22.png"),
        "empty": FormField(b"", ""),
        "twice": FormField("ä".encode()),
    }
    assert (
        parse_form_data('Multipart/Form-Data;boundary="----WebKitFormBoundaryAb1"', body)["csrf"].data
        == b"token"
    )


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (None, encode(('name="a"', b"1"))),
        ("application/x-www-form-urlencoded", b"a=1"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=", b"--\r\n"),
        ("multipart/form-data; boundary=\xff", b"--\xff--"),
        (KIND, b""),
        (KIND, b"before" + encode(('name="a"', b"1"))),
        (KIND, encode(('name="a"', b"1"))[:-6]),
        (KIND, encode(("filename=x", b"1"))),
        (KIND, MARK + b"\r\n\r\n\r\n1\r\n" + MARK + b"--"),
        (KIND, MARK + b'\r\nContent-Disposition: form-data; name="a"\r\n' + MARK + b"--"),
        (KIND, MARK + b'\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n' + MARK + b"--"),
        (KIND, encode(*[('name="a"', b"1")] * (MAX_PARTS + 1))),
    ],
)
def test_what_it_does_not_send(kind: str | None, body: bytes) -> None:
    with pytest.raises(BadFormData):
        parse_form_data(kind, body)


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from(
            [MARK, b"--", b"\r\n", b"\r\n\r\n", b'Content-Disposition: form-data; name="a"', b"x"]
        )
    )
)
def test_nothing_else_comes_out(pieces: list[bytes]) -> None:
    try:
        parse_form_data(KIND, b"".join(pieces))
    except BadFormData:
        return


@given(st.dictionaries(st.sampled_from("abc"), st.binary(max_size=50)))
def test_every_file_comes_back(fields: dict[str, bytes]) -> None:
    body = encode(*[(f'name="{name}"; filename="f"', data) for name, data in fields.items()])
    assert {name: field.data for name, field in parse_form_data(KIND, body).items()} == fields
