"""Server discovery: each row of the specification's table, and what hostile DNS or web servers may answer."""

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.errors import BadIdentifier, BadJson
from ranvier.core.federation import well_known
from ranvier.core.federation.discovery import (
    FetchWellKnown,
    Found,
    LookUpSrv,
    Route,
    SrvRecord,
    order_by_priority_and_weight,
    start,
)
from ranvier.core.federation.well_known import Delegation
from ranvier.core.identifiers import ServerName

FED = "_matrix-fed._tcp."
OLD = "_matrix._tcp."
SRV = SrvRecord(10, 5, 8443, "srv.example.net.")


def _discover(
    name: str, delegations: dict[str, str], srv: dict[str, list[SrvRecord]]
) -> tuple[tuple[Route, ...], list[str]]:
    """The routes, and what was asked for on the way."""
    step, asked = start(ServerName(name)), []
    while not isinstance(step, Found):
        if isinstance(step, FetchWellKnown):
            asked.append(f"well-known {step.host}")
            delegated = delegations.get(step.host)
            step = step.answered(None if delegated is None else ServerName(delegated))
        else:
            asked.append(f"SRV {step.name}")
            step = step.answered(srv.get(step.name, []), lambda: 0.5)
    return step.routes, asked


# name, what the well-known file of N says, SRV records -> (host, port, Host header, certificate), questions
ROWS = {
    "1 IPv4": ("1.2.3.4", None, {}, ("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4"), 0),
    "1 IPv4 port": ("1.2.3.4:99", None, {}, ("1.2.3.4", 99, "1.2.3.4:99", "1.2.3.4"), 0),
    "1 IPv6": ("[2001:db8::1]", None, {}, ("2001:db8::1", 8448, "[2001:db8::1]", "2001:db8::1"), 0),
    "1 IPv6 port": ("[::1]:99", None, {}, ("::1", 99, "[::1]:99", "::1"), 0),
    "2": (
        "n.example:99",
        "d.example:1",
        {FED + "n.example": [SRV]},
        ("n.example", 99, "n.example:99", "n.example"),
        0,
    ),
    "3.1": ("n.example", "5.6.7.8", {}, ("5.6.7.8", 8448, "5.6.7.8", "5.6.7.8"), 1),
    "3.1 port": ("n.example", "[::2]:77", {}, ("::2", 77, "[::2]:77", "::2"), 1),
    "3.2": ("n.example", "d.example:77", {}, ("d.example", 77, "d.example:77", "d.example"), 1),
    "3.3": (
        "n.example",
        "d.example",
        {
            FED + "d.example": [SRV],
            OLD + "d.example": [SrvRecord(1, 1, 1, "no.example")],
            FED + "n.example": [SRV],
        },
        ("srv.example.net", 8443, "d.example", "d.example"),
        2,
    ),
    "3.4": (
        "n.example",
        "d.example",
        {OLD + "d.example": [SRV]},
        ("srv.example.net", 8443, "d.example", "d.example"),
        3,
    ),
    "3.5": (
        "n.example",
        "d.example",
        {OLD + "n.example": [SRV]},
        ("d.example", 8448, "d.example", "d.example"),
        3,
    ),
    "4": (
        "n.example",
        None,
        {FED + "n.example": [SRV]},
        ("srv.example.net", 8443, "n.example", "n.example"),
        2,
    ),
    "5": (
        "n.example",
        None,
        {OLD + "n.example": [SRV]},
        ("srv.example.net", 8443, "n.example", "n.example"),
        3,
    ),
    "6": ("n.example", None, {}, ("n.example", 8448, "n.example", "n.example"), 3),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_of_the_table(row) -> None:
    name, delegated, srv, (host, port, host_header, certificate_name), questions = row
    delegations = {} if delegated is None else {"n.example": delegated}
    routes, asked = _discover(name, delegations, srv)
    assert routes == (
        Route(host=host, port=port, host_header=host_header, certificate_name=certificate_name),
    )
    assert len(asked) == questions, asked


def test_the_current_service_name_is_asked_for_before_the_deprecated_one() -> None:
    _, asked = _discover("n.example", {}, {})
    assert asked == ["well-known n.example", f"SRV {FED}n.example", f"SRV {OLD}n.example"]


def test_a_delegation_is_followed_only_once() -> None:
    routes, asked = _discover("n.example", {"n.example": "d.example", "d.example": "e.example"}, {})
    assert routes[0].host == "d.example"
    assert "well-known d.example" not in asked


@pytest.mark.parametrize("target", [".", "127.0.0.1", "::1", "", "a b", "host:80", "x" * 300])
def test_srv_targets_that_are_no_host_name_lead_nowhere(target: str) -> None:
    """RFC 2782: "." means that the service is not offered: there is no falling back to port 8448."""
    assert LookUpSrv("n.example", FED[:-1]).answered([SrvRecord(0, 0, 8448, target)], lambda: 0.0) == Found(
        ()
    )


def test_the_number_of_srv_records_is_bounded() -> None:
    records = [SrvRecord(0, 0, 8448, f"h{number}.example") for number in range(500)]
    found = LookUpSrv("n.example", FED[:-1]).answered(records, lambda: 0.0)
    assert isinstance(found, Found)
    assert len(found.routes) == 20


@settings(max_examples=100)
@given(
    st.lists(
        st.builds(SrvRecord, st.integers(0, 3), st.integers(0, 65535), st.just(1), st.text(max_size=2)),
        max_size=20,
    ),
    st.randoms(use_true_random=False),
)
def test_srv_order_keeps_every_record_and_never_breaks_priority(records, rng: random.Random) -> None:
    ordered = order_by_priority_and_weight(records, rng.random)
    assert sorted(ordered, key=repr) == sorted(records, key=repr)
    assert [record.priority for record in ordered] == sorted(record.priority for record in records)


def test_srv_weight_decides_how_often_a_record_comes_first() -> None:
    rng = random.Random(1)
    records = [SrvRecord(0, 10, 1, "light"), SrvRecord(0, 30, 1, "heavy"), SrvRecord(0, 0, 1, "idle")]
    first = [order_by_priority_and_weight(records, rng.random)[0].target for _ in range(4000)]
    assert 2850 < first.count("heavy") < 3150
    assert first.count("idle") == 0


# -- well-known


@pytest.mark.parametrize(
    ("body", "server"),
    [
        (b'{"m.server":"d.example"}', "d.example"),
        (b' {"x":[1],"m.server":"d.example:443"} ', "d.example:443"),
        (b'{"m.server":"[::1]:1"}', "[::1]:1"),
    ],
)
def test_valid_well_known_bodies(body: bytes, server: str) -> None:
    assert well_known.parse_body(body) == server


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"m.server":1}',
        b'{"m.server":""}',
        b'{"m.server":"https://d.example"}',
        b'{"m.server":"d.example:70000"}',
        b'{"m.server":"d.example/path"}',
        b'{"m.server":"\xff"}',
        b'{"m.server":"d.example","x":"' + b"a" * well_known.MAX_BODY_BYTES + b'"}',
        b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b',"m.server":"d.example"}',
    ],
)
def test_invalid_well_known_bodies(body: bytes) -> None:
    with pytest.raises((BadJson, BadIdentifier)):
        well_known.parse_body(body)


@settings(max_examples=200)
@given(st.binary() | st.text().map(lambda text: b'{"m.server":"' + text.encode("utf-8", "replace") + b'"}'))
def test_hostile_well_known_bodies_raise_only_what_is_declared(body: bytes) -> None:
    with contextlib.suppress(BadJson, BadIdentifier):
        well_known.parse_body(body)


HOUR = 3_600_000
NOW = 1_700_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "lifetime_ms"),
    [
        ({}, 24 * HOUR),
        ({"cache-control": "max-age=7200"}, 2 * HOUR),
        ({"cache-control": 'public, MAX-AGE="7200"'}, 2 * HOUR),
        ({"cache-control": "s-max-age=1, max-age=7200", "expires": "0"}, 2 * HOUR),
        ({"cache-control": "max-age=999999999999"}, 48 * HOUR),
        ({"cache-control": "max-age=0"}, HOUR // 12),
        ({"cache-control": "no-store, max-age=7200"}, HOUR // 12),
        ({"cache-control": "private"}, 24 * HOUR),
        ({"expires": "Wed, 15 Nov 2023 00:13:20 GMT"}, 2 * HOUR),
        ({"expires": "Wed, 15 Nov 2023 00:13:20 GMT", "date": "Tue, 14 Nov 2023 21:13:20 GMT"}, 3 * HOUR),
        ({"expires": "0"}, HOUR // 12),
        ({"expires": "Mon, 01 Jan 0000 99:99:99 GMT"}, HOUR // 12),
        ({"expires": "Tue, 01 Nov 2022 00:00:00 GMT"}, HOUR // 12),
    ],
)
def test_cache_headers(headers: dict[str, str], lifetime_ms: int) -> None:
    assert well_known.lifetime_ms(headers, NOW) == lifetime_ms


@settings(max_examples=200)
@given(st.text(), st.text())
def test_hostile_cache_headers_stay_within_bounds(first: str, second: str) -> None:
    for headers in ({"cache-control": first}, {"expires": first, "date": second}):
        lifetime = well_known.lifetime_ms(headers, NOW)
        assert well_known.MIN_LIFETIME_MS <= lifetime <= well_known.MAX_LIFETIME_MS


def test_failures_back_off_up_to_an_hour_and_a_success_forgets_them() -> None:
    delegation, pauses = None, []
    for _ in range(9):
        delegation = well_known.remember_answer(404, {}, b"", previous=delegation, now_ms=NOW)
        pauses.append(delegation.valid_until_ms - NOW)
    assert pauses == [60_000 * 2**n for n in range(6)] + [HOUR] * 3
    good = well_known.remember_answer(200, {}, b'{"m.server":"d.example"}', previous=delegation, now_ms=NOW)
    assert good == Delegation(
        server=ServerName("d.example"), valid_until_ms=NOW + 24 * HOUR, failures=0, confirmed_ms=NOW
    )


def test_silence_keeps_a_delegation_for_at_most_48_hours_but_a_404_ends_it() -> None:
    good = well_known.remember_answer(200, {}, b'{"m.server":"d.example"}', previous=None, now_ms=NOW)
    silent = well_known.remember_silence(previous=good, now_ms=NOW + 25 * HOUR)
    assert silent.server == "d.example"
    assert silent.valid_until_ms == NOW + 25 * HOUR + 60_000
    late = well_known.remember_silence(previous=silent, now_ms=NOW + 48 * HOUR - 1)
    assert (late.server, late.valid_until_ms, late.failures) == ("d.example", NOW + 48 * HOUR, 2)
    assert well_known.remember_silence(previous=late, now_ms=NOW + 48 * HOUR).server is None
    assert well_known.remember_answer(404, {}, b"", previous=silent, now_ms=NOW + 26 * HOUR).server is None
