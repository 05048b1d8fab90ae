from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.errors import BadToken
from ranvier.core.tokens import (
    MAX_POSITION,
    MAX_ROOM_ORDER,
    MIN_ROOM_ORDER,
    SyncToken,
    encode_list_token,
    encode_room_token,
    encode_sync_token,
    parse_list_token,
    parse_room_token,
    parse_sync_token,
)

int64 = st.integers(MIN_ROOM_ORDER, MAX_ROOM_ORDER)


@given(st.integers(0, MAX_POSITION), st.integers(0, 2**63 - 1))
def test_sync_token_is_read_back(position, epoch):
    token = SyncToken(position, epoch)
    assert parse_sync_token(encode_sync_token(token)) == token


@given(int64)
def test_room_token_is_read_back(order):
    assert parse_room_token(encode_room_token(order)) == order


@given(st.integers(0, MAX_POSITION))
def test_a_sync_token_is_a_point_of_every_timeline(position):
    assert parse_room_token(encode_sync_token(SyncToken(position, 7))) == position << 20 <= MAX_ROOM_ORDER


@given(st.lists(int64 | st.text(max_size=20), min_size=1, max_size=4))
def test_list_token_is_read_back(keys):
    shape = [type(key) for key in keys]
    assert parse_list_token(encode_list_token(*keys), shape) == tuple(keys)


BAD = [
    *(None, 5, b"s1", ["s1"], "", "s", "S1", "x1", "s01", "s-1", "s+1", "s1 ", "s1\n", "s٣"),
    *("s1_", "s1_0", "s1_01", "s1__2", "s1_2_3", f"s1_{2**63}"),
    *(f"s{MAX_POSITION + 1}", "s" + "9" * 5000),
]


@pytest.mark.parametrize("text", BAD)
def test_strict_sync_tokens(text):
    with pytest.raises(BadToken):
        parse_sync_token(text)
    with pytest.raises(BadToken):
        parse_room_token(text)


@pytest.mark.parametrize(
    "text", ["t", "t-0", "t01", "t--1", "t 1", f"t{2**63}", f"t-{2**63 + 1}", "t1.0", "t1e3", "T1"]
)
def test_strict_room_tokens(text):
    with pytest.raises(BadToken):
        parse_room_token(text)
    with pytest.raises(BadToken):
        parse_sync_token(text)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (encode_list_token(1), [str]),
        (encode_list_token(1), [int, int]),
        (encode_list_token("a"), [int]),
        (encode_list_token(2**63), [int]),
        ("pWzEsMV0", [int]),  # [1,1]
        ("pWyAxXQ", [int]),  # [ 1], with white space
        ("pW3RydWVd", [int]),  # [true]
        ("pe30", []),  # {}
        ("p", []),
        ("p!", [int]),
        ("p" + "W1tb" * 1000, [int]),
        (7, [int]),
    ],
)
def test_strict_list_tokens(text, shape):
    with pytest.raises(BadToken):
        parse_list_token(text, shape)


@given(st.text(max_size=30) | st.from_regex(r"[stp][0-9A-Za-z_-]{0,20}", fullmatch=True))
@settings(max_examples=300)
def test_what_is_accepted_is_what_we_would_issue(text):
    for parse, encode in (
        (parse_sync_token, encode_sync_token),
        (lambda text: parse_list_token(text, [int]), lambda keys: encode_list_token(*keys)),
    ):
        with suppress(BadToken):
            assert encode(parse(text)) == text
