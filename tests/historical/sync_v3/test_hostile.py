"""Whatever a client sends, it is told what is wrong, and no session is made of it."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranvier.core.errors import BadToken, MatrixError, ProtocolFault
from ranvier.historical.sync_v3.requests import Wanted, read_request
from ranvier.historical.sync_v3.tokens import (
    Page,
    Positions,
    Token,
    encode_page,
    encode_token,
    parse_page,
    parse_token,
)

from .client import PATH, V3
from .conftest import KINDS

ROOM = "!room:test"

BODIES = [
    (b"", "M_NOT_JSON"),
    (b"{", "M_NOT_JSON"),
    (b"\xff", "M_NOT_JSON"),
    (b"[]", "M_BAD_JSON"),
    (b"null", "M_BAD_JSON"),
    (b'{"typing": 1}', "M_BAD_JSON"),
    (b'{"typing": []}', "M_BAD_JSON"),
    (b'{"typing": {}}', "M_MISSING_PARAM"),
    (b'{"typing": {"room_id": 5}}', "M_BAD_JSON"),
    (b'{"typing": {"room_id": "x"}}', "M_INVALID_PARAM"),
    (b'{"room_members": {"limit": 5}}', "M_MISSING_PARAM"),
    (b'{"to_device": {"limit": 0}}', "M_INVALID_PARAM"),
    (b'{"to_device": {"limit": -5}}', "M_INVALID_PARAM"),
    (b'{"to_device": {"limit": 1.5}}', "M_BAD_JSON"),
    (b'{"to_device": {"limit": true}}', "M_BAD_JSON"),
    (b'{"to_device": {"limit": "9"}}', "M_BAD_JSON"),
    (b'{"rooms": {"p": 1}}', "M_BAD_JSON"),
    (b'{"rooms": {"p": {"since": 1}}}', "M_BAD_JSON"),
    (b'{"rooms": {"p": {"since": "0"}}}', "M_INVALID_PARAM"),
    (b'{"rooms": {"p": {"since": "-1"}}}', "M_INVALID_PARAM"),
    (b'{"rooms": {"p": {"since": "x"}}}', "M_INVALID_PARAM"),
    (b'{"rooms": {"p": {"since": "2-99999999999"}}}', "M_INVALID_PARAM"),
    (b'{"rooms": {"p": {"since": "999999999"}}}', "M_INVALID_PARAM"),
    (b'{"rooms": {"sort": 5}}', "M_BAD_JSON"),
    (b'{"rooms": {"sort": [5]}}', "M_BAD_JSON"),
    (b'{"rooms": {}, "room_list": {}}', "M_INVALID_PARAM"),
    (b'{"account_data": {"room_id": "nowhere"}}', "M_INVALID_PARAM"),
    (b"[" * 100_000, None),
    (b'{"x": "' + b"x" * 70_000 + b'"}', "M_TOO_LARGE"),
]


@pytest.mark.parametrize("kind", KINDS[:2], indirect=True)
async def test_bodies(homeserver, v3):
    client = v3(await homeserver.register("alice")).client
    for body, errcode in BODIES:
        answer = await client.request("POST", PATH, body=body)
        assert answer.status in (400, 413), (body[:80], answer.body)
        assert answer.errcode == errcode if errcode else answer.errcode, (body[:80], answer.body)


@pytest.mark.parametrize("kind", KINDS[:2], indirect=True)
async def test_tokens_and_parameters(homeserver, v3):
    client = v3(await homeserver.register("alice"))
    token = (await client.sync({"to_device": {}}))["next"]
    parts = token.split("_")
    bad = ["garbage", "", "V3", "V3_S1", "V2_S1_0_0_0", "V3_S1_0_0", "V3_S1_0_0_0_0", "V3_S1_F_0_0_0"]
    bad += [
        "V3_S-1_0_0_0",
        "V3_S1_0_0_x",
        "V3_S01_0_0_0",
        f"{token} ",
        f"V3_S1_{'9' * 18}_0_0",
        "V3_S٣_0_0_0",
    ]
    for since in bad:
        answer = await client.ask({}, since)
        assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM"), (since, answer.body)
    for wait_ms in ("x", "-1", "1.5", ""):
        answer = await client.ask({}, token, wait_ms)
        assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM"), wait_ms
    without = "_".join([*parts[:2], *parts[3:]])
    assert "to_device" not in await client.sync({}, without)


async def test_no_session_is_made_of_a_bad_request(homeserver):
    alice = await homeserver.register("alice")
    for body in (b"{", b'{"typing": 1}', b'{"rooms": {"p": {"since": "x"}}}'):
        assert (await alice.request("POST", PATH, body=body)).status == 400
    assert (await V3(alice).ask({}, None, "x")).status == 400
    db = homeserver.foundation.ports.db
    assert await db.read(lambda txn: txn.value("SELECT COUNT(*) FROM sync_v3_sessions")) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
STREAMS = st.sampled_from(
    ["typing", "to_device", "room_members", "room_member", "rooms", "room_list", "account_data"]
)
PARAMS = st.dictionaries(
    st.sampled_from(["room_id", "limit", "sort", "p", "as"]),
    JSON
    | st.just(ROOM)
    | st.dictionaries(st.sampled_from(["limit", "sort", "since", "next"]), JSON | st.just("1")),
    max_size=4,
)
REQUESTS = st.dictionaries(STREAMS, JSON | PARAMS, max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.lists(REQUESTS, max_size=4))
def test_a_request_is_understood_or_refused(bodies):
    sticky = {}
    for body in bodies:
        try:
            wanted = read_request(sticky, body)
        except (MatrixError, ProtocolFault):
            continue
        assert isinstance(wanted, Wanted)
        for stream in wanted.streams.values():
            assert 1 <= stream.limit <= 1000
        # What is stored is what it means: read again it is the same.
        again = read_request(wanted.sticky, {})
        assert again.sticky == wanted.sticky
        assert not any(stream.is_fresh or stream.page for stream in again.streams.values())
        sticky = wanted.sticky


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**17),
    st.none() | st.integers(0, 10**17),
    st.lists(st.integers(0, 2**43 - 1), min_size=3, max_size=3),
)
def test_tokens_come_back(session, filter_id, positions):
    token = Token(session, filter_id, Positions(*positions))
    assert parse_token(encode_token(token)) == token


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.none() | st.integers(0, 2**43 - 1))
def test_pages_come_back(index, position):
    page = Page(index, position)
    assert parse_page(encode_page(page)) == page


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.text(alphabet="V3SF_0123456789-x", max_size=30))
def test_any_other_token_is_refused(text):
    with suppress(BadToken):
        assert encode_token(parse_token(text)) == text
