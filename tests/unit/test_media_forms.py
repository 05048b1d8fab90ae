"""Headers, parts and sizes of media: what goes out comes in again, and nothing that comes in breaks them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.media.disposition import (
    DEFAULT_TYPE,
    clean_name,
    clean_type,
    encode_disposition,
    parse_file_name,
)
from ranvier.core.media.multipart import BadMultipart, TwoParts, encode_two_parts, parse_boundary
from ranvier.core.media.thumbnail_sizes import CROPPED_SIDES, SCALED, round_up


@given(st.text(max_size=60), st.sampled_from(["image/png", "text/html"]))
def test_a_name_comes_back_from_its_header(name: str, content_type: str) -> None:
    header = encode_disposition(content_type, name)
    assert header.isascii()
    assert not any(ord(character) < 32 for character in header)
    assert parse_file_name(header) == clean_name(name)
    assert header.startswith("inline" if content_type == "image/png" else "attachment")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (None, None),
        ("", None),
        ("inline", None),
        ("attachment; filename=a.txt", "a.txt"),
        ("attachment;filename = a.txt ; x=y", "a.txt"),
        ('attachment; FileName="a b.txt"', "a b.txt"),
        ("inline; filename*=utf-8''%E2%98%95; filename=coffee", "☕"),
        ("inline; filename=coffee; filename*=UTF-8'en'%E2%98%95", "☕"),
        ("inline; filename=coffee; filename*=utf-8''%FF", "coffee"),
        ("inline; filename*=iso-8859-1''%FC", "ü"),
        ("inline; filename*=nonsense''x; filename=y", "y"),
        ('inline; filename="', None),
        ("inline; filename=" + "x" * 5000, None),
        ("inline; filename=\x00\x01", None),
    ],
)
def test_names_as_others_write_them(header: str | None, name: str | None) -> None:
    assert parse_file_name(header) == name


@given(st.text(max_size=300))
def test_whatever_a_header_says_nothing_breaks(text: str) -> None:
    parse_file_name(text)
    cleaned = clean_type(text)
    assert cleaned == DEFAULT_TYPE or (cleaned.isascii() and cleaned.isprintable())


@settings(max_examples=60)
@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=30))
def test_a_file_comes_out_of_its_parts_however_they_are_cut(content: bytes, cuts: list[int]) -> None:
    before, behind = encode_two_parts("b0undary", {"Content-Type": "a/b", "X-Empty": ""})
    whole = before + content + behind
    reader = TwoParts(parse_boundary("multipart/mixed; boundary=b0undary"))
    got = b""
    for cut in [*cuts, len(whole)]:
        got += reader.feed(whole[:cut])
        whole = whole[cut:]
    assert reader.is_complete
    assert got == content
    assert reader.headers == {"content-type": "a/b", "x-empty": ""}


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from([b"--b", b"\r\n", b"--", b"x", b"a: b", b"\r\n\r\n", b"{}", b"\xff"]), max_size=60
    )
)
def test_nonsense_is_no_file_or_some_bytes_of_it(pieces: list[bytes]) -> None:
    reader = TwoParts(b"b")
    got = b""
    try:
        for piece in pieces:
            got += reader.feed(piece)
    except BadMultipart:
        return
    assert len(got) <= sum(map(len, pieces))


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/mixed; boundary=abc", b"abc"),
        ('Multipart/Mixed;charset=x; boundary="a b;c"', b"a b;c"),
        ("multipart/mixed; boundary=abc; more=1", b"abc"),
        ("multipart/form-data; boundary=abc", None),
        ("multipart/mixed", None),
        ("multipart/mixed; boundary=", None),
        ('multipart/mixed; boundary=""', None),
        ("multipart/mixed; boundary=" + "x" * 71, None),
        ("multipart/mixed; boundary=é", None),
        (None, None),
    ],
)
def test_boundaries(header: str | None, boundary: bytes | None) -> None:
    if boundary is None:
        with pytest.raises(BadMultipart):
            parse_boundary(header)
    else:
        assert parse_boundary(header) == boundary


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_sizes_are_few_and_large_enough(width: int, height: int) -> None:
    scaled, cropped = round_up(width, height, crop=False), round_up(width, height, crop=True)
    assert scaled in SCALED
    assert max(cropped) in CROPPED_SIDES
    assert min(cropped) >= 1
    if max(width, height) <= 4096:
        assert scaled[0] >= width
        assert scaled[1] >= height
        assert cropped[0] >= width
        assert cropped[1] >= height
        assert cropped[0] * height == pytest.approx(
            cropped[1] * width, rel=0.1, abs=max(width, height) * max(cropped) / 16
        )


def test_a_picture_has_only_so_many_thumbnails() -> None:
    sizes = {round_up(width, height, crop=True) for width in range(1, 700, 3) for height in range(1, 700, 3)}
    assert len(sizes) <= len(CROPPED_SIDES) * 32
