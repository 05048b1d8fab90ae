"""X-Matrix headers: what we send is read back, what peers send is understood, nothing else gets through."""

import contextlib

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core import canonical_json
from ranvier.core.errors import BadHeader, BadSignature
from ranvier.core.federation import xmatrix
from ranvier.core.identifiers import KeyID, ServerName
from ranvier.core.signing import SigningKey, sign_json

ORIGIN = ServerName("origin.example")
HERE = ServerName("here.example")
KEY = SigningKey(bytes(range(32)), "a_1")
SIG = "A" * 86


def test_a_built_header_has_the_form_that_old_servers_read() -> None:
    assert xmatrix.build_header(ORIGIN, HERE, KeyID("ed25519:a_1"), SIG) == (
        f'X-Matrix origin="origin.example",destination="here.example",key="ed25519:a_1",sig="{SIG}"'
    )


@pytest.mark.parametrize(
    "header",
    [
        f'X-Matrix origin="origin.example",destination="here.example",key="ed25519:a_1",sig="{SIG}"',
        f"X-Matrix origin=origin.example,destination=here.example,key=ed25519:a_1,sig={SIG}",
        f'x-mATRIX   Sig="{SIG}" ,\t KEY=ed25519:a_1, destination=here.example , ORIGIN="origin.example"',
        f'X-Matrix ,origin="origin\\.ex\\ample",,destination="here.example",key="ed25519:a_1",sig="{SIG}",',
        f'X-Matrix origin=origin.example,x="a,b=\\"c",destination=here.example,key="ed25519:a_1",sig="{SIG}"',
        f'X-Matrix origin = "origin.example", destination= here.example,key ="ed25519:a_1",sig="{SIG}=="',
    ],
    ids=["ours", "no quotes", "order, case, spaces", "escapes, empty elements", "unknown", "padding"],
)
def test_every_legal_or_tolerated_form_is_read(header: str) -> None:
    assert xmatrix.parse_header(header) == xmatrix.Credentials(
        origin=ORIGIN, destination=HERE, key_id=KeyID("ed25519:a_1"), signature=SIG
    )


def test_the_destination_may_be_absent() -> None:
    credentials = xmatrix.parse_header(f'X-Matrix origin="[::1]:8448",key="ed25519:a",sig="{SIG}"')
    assert credentials.origin == "[::1]:8448"
    assert credentials.destination is None
    xmatrix.check_destination(credentials, [HERE])


def test_a_request_for_another_server_is_refused() -> None:
    header = xmatrix.build_header(ORIGIN, ServerName("other.example"), KeyID("ed25519:a"), SIG)
    with pytest.raises(BadHeader):
        xmatrix.check_destination(xmatrix.parse_header(header), [HERE])


@pytest.mark.parametrize(
    "header",
    [
        "",
        "X-Matrix",
        "X-Matrix ",
        "Bearer abc",
        f'X-Matrix origin="o.example",key="ed25519:a",sig="{SIG[1:]}"',
        f'X-Matrix origin="o.example",key="ed25519:a",sig="{SIG[1:]}!"',
        f'X-Matrix origin="o.example",key="ed25519",sig="{SIG}"',
        f'X-Matrix origin="o example",key="ed25519:a",sig="{SIG}"',
        f'X-Matrix origin="",key="ed25519:a",sig="{SIG}"',
        f'X-Matrix key="ed25519:a",sig="{SIG}"',
        f'X-Matrix origin="a.example",origin="b.example",key="ed25519:a",sig="{SIG}"',
        f'X-Matrix origin="a.example",Origin="b.example",key="ed25519:a",sig="{SIG}"',
        f'X-Matrix origin="a.example" key="ed25519:a",sig="{SIG}"',
        f'X-Matrix origin="a.example"x,key="ed25519:a",sig="{SIG}"',
        f'X-Matrix origin="a.example,key="ed25519:a",sig="{SIG}"',
        'X-Matrix origin="a.example\\',
        f'X-Matrix origin="a.example",destination="",key="ed25519:a",sig="{SIG}"',
        f'X-Matrix origin=a.example,key=ed25519:a,sig="{SIG}"\n',
        "X-Matrix " + "a=b," * 1000,
    ],
)
def test_anything_else_is_refused(header: str) -> None:
    with pytest.raises(BadHeader):
        xmatrix.parse_header(header)


@settings(max_examples=200)
@given(
    st.one_of(st.text(), st.text(alphabet='aorigin=",\\ \t:\x00\n1é').map(lambda text: "X-Matrix " + text))
)
def test_hostile_headers_raise_only_bad_header(header: str) -> None:
    with contextlib.suppress(BadHeader):
        xmatrix.parse_header(header)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100)
@given(st.none() | st.dictionaries(st.text(), _VALUES, max_size=4))
def test_what_is_signed_is_the_json_object_of_the_specification(content: dict[str, object] | None) -> None:
    """Against the generic signing of JSON, of the object with all its keys."""
    uri = "/_matrix/federation/v1/send/1?a=%2F"
    request: dict[str, object] = {"method": "PUT", "uri": uri, "origin": ORIGIN, "destination": HERE}
    if content is not None:
        request["content"] = content
    message = xmatrix.bytes_to_sign(
        method="PUT",
        uri=uri,
        origin=ORIGIN,
        destination=HERE,
        content=None if content is None else canonical_json.encode(content),
    )
    assert message == canonical_json.encode(request)
    header = xmatrix.parse_header(xmatrix.sign_request(KEY, message, ORIGIN, HERE))
    assert header.signature == sign_json(request, ORIGIN, KEY)["signatures"][ORIGIN][KEY.key_id]
    xmatrix.check_signature(header, message, KEY.verify_key)


@pytest.mark.parametrize("changed", ["method", "uri", "origin", "destination", "content"])
def test_a_signature_covers_every_part_of_the_request(changed: str) -> None:
    parts = {
        "method": "GET",
        "uri": "/a",
        "origin": ORIGIN,
        "destination": HERE,
        "content": orjson.dumps({}),
    }
    header = xmatrix.parse_header(xmatrix.sign_request(KEY, xmatrix.bytes_to_sign(**parts), ORIGIN, HERE))
    xmatrix.check_signature(header, xmatrix.bytes_to_sign(**parts), KEY.verify_key)
    parts[changed] = None if changed == "content" else "x.example"
    with pytest.raises(BadSignature):
        xmatrix.check_signature(header, xmatrix.bytes_to_sign(**parts), KEY.verify_key)
