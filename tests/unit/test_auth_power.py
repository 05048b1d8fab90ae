"""Power levels as read from a room: defaults, creators, and the values that versions take for a level."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.core.auth.power import CREATOR_LEVEL, PowerLevels, creators_of, may_redact, parse_level
from ranvier.core.events.pdu import Pdu
from ranvier.core.limits import MAX_SAFE_INTEGER
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion

from .auth_room import CREATOR, make_event

VERSIONS = [pytest.param(version, id=f"v{version.name}") for version in ROOM_VERSIONS.values()]
V1, V5, V6, V9, V10, V11, V12 = (ROOM_VERSIONS[name] for name in ("1", "5", "6", "9", "10", "11", "12"))
MAX_DOUBLE = (2**53 - 1) * 2**971


def create(version: RoomVersion, **content: Any) -> Pdu:
    return make_event(version, type="m.room.create", state_key="", sender=CREATOR, content=content)


def levels(version: RoomVersion, content: dict[str, Any] | None = None, **created: Any) -> PowerLevels:
    power = (
        None
        if content is None
        else make_event(version, type="m.room.power_levels", state_key="", content=content)
    )
    return PowerLevels.from_events(create(version, **({"creator": CREATOR} | created)), power, version)


@pytest.mark.parametrize(
    ("value", "to_v5", "v6_to_v9", "since_v10"),
    [
        (0, 0, 0, 0),
        (-7, -7, -7, -7),
        (MAX_SAFE_INTEGER, MAX_SAFE_INTEGER, MAX_SAFE_INTEGER, MAX_SAFE_INTEGER),
        (-MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER),
        (2**53, 2**53, None, None),
        (-(2**53), -(2**53), None, None),
        (MAX_DOUBLE, MAX_DOUBLE, None, None),
        (MAX_DOUBLE + 1, None, None, None),
        (-(10**400), None, None, None),
        ("100", 100, 100, None),
        ("000100", 100, 100, None),
        ("+100", 100, 100, None),
        ("-100", -100, -100, None),
        (" 100 ", 100, 100, None),
        ("\t 00100\n", 100, 100, None),
        (" +100 ", 100, 100, None),
        (" -100 ", -100, -100, None),
        ("0" * 10_000, 0, 0, None),
        ("0" * 10_000 + "7", 7, 7, None),
        (str(MAX_DOUBLE), MAX_DOUBLE, MAX_DOUBLE, None),
        (str(MAX_DOUBLE + 1), None, None, None),
        ("9" * 10_000, None, None, None),
        ("", None, None, None),
        ("+", None, None, None),
        ("--1", None, None, None),
        ("+-1", None, None, None),
        ("- 1", None, None, None),
        ("1 0", None, None, None),
        ("1_0", None, None, None),
        ("1.0", None, None, None),
        ("1e2", None, None, None),
        ("0x10", None, None, None),
        ("NaN", None, None, None),
        ("Infinity", None, None, None),
        ("١", None, None, None),  # a digit, but not one of ASCII
        ("²", None, None, None),
        (50.57, 50, None, None),
        (-50.57, -50, None, None),
        (5.114698e4, 51146, None, None),
        (1e300, int(1e300), None, None),
        (float("inf"), None, None, None),
        (float("-inf"), None, None, None),
        (float("nan"), None, None, None),
        (True, None, None, None),
        (False, None, None, None),
        (None, None, None, None),
        ([100], None, None, None),
        ({"level": 100}, None, None, None),
    ],
    ids=lambda value: repr(value) if len(repr(value)) < 30 else "long",
)
def test_parse_level(value: object, to_v5: int | None, v6_to_v9: int | None, since_v10: int | None) -> None:
    for name, version in ROOM_VERSIONS.items():
        number = int(name)
        expected = to_v5 if number <= 5 else v6_to_v9 if number <= 9 else since_v10
        level = parse_level(value, version)
        assert level == expected
        assert level is None or type(level) is int


@given(number=st.integers(-(10**320), 10**320), pad=st.text(" \t\n", max_size=3), zeros=st.integers(0, 400))
def test_parse_level_agrees_with_integers(number: int, pad: str, zeros: int) -> None:
    sign = "-" if number < 0 else ""
    text = f"{pad}{sign}{'0' * zeros}{abs(number)}{pad}"
    assert parse_level(text, V9) == (number if abs(number) <= MAX_DOUBLE else None)
    assert parse_level(number, V1) == (number if abs(number) <= MAX_DOUBLE else None)


@given(st.floats())
def test_parse_level_cuts_floats_towards_zero(value: float) -> None:
    level = parse_level(value, V5)
    if value != value or abs(value) == float("inf"):
        assert level is None
    else:
        assert level is not None
        assert abs(level) <= abs(value) < abs(level) + 1 or abs(value) >= 2**53
        assert level == 0 or (level > 0) == (value > 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_defaults_without_power_levels(version: RoomVersion) -> None:
    power = levels(version)
    assert power.user_level(CREATOR) == (CREATOR_LEVEL if version is V12 else 100)
    assert power.user_level("@user:one") == 0
    assert (power.ban, power.kick, power.redact, power.invite) == (50, 50, 50, 0)
    assert power.event_level("m.room.name", is_state=True) == 50
    assert power.event_level("m.room.message", is_state=False) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_levels_of_an_event(version: RoomVersion) -> None:
    content = {
        "users": {"@user:one": 7, CREATOR: 3},
        "users_default": 1,
        "events": {"m.room.name": 60, "m.room.message": 5},
        "state_default": 40,
        "events_default": 2,
        "ban": 51,
        "kick": 52,
        "redact": 53,
        "invite": 54,
    }
    power = levels(version, content)
    assert power.user_level("@user:one") == 7
    assert power.user_level("@other:one") == 1
    assert power.user_level(CREATOR) == (CREATOR_LEVEL if version is V12 else 3)
    assert (power.ban, power.kick, power.redact, power.invite) == (51, 52, 53, 54)
    assert (
        power.event_level("m.room.name", is_state=True)
        == power.event_level("m.room.name", is_state=False)
        == 60
    )
    assert power.event_level("m.room.message", is_state=False) == 5
    assert power.event_level("m.room.topic", is_state=True) == 40
    assert power.event_level("m.room.topic", is_state=False) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_no_level_counts_as_absent(version: RoomVersion) -> None:
    broken = {
        "users": {"@user:one": "high"},
        "users_default": 4,
        "events": {"m.room.name": [], "m.room.message": None},
        "state_default": {},
        "ban": None,
        "invite": True,
    }
    power = levels(version, broken)
    assert power.user_level("@user:one") == 4
    assert power.event_level("m.room.name", is_state=True) == 50
    assert power.event_level("m.room.message", is_state=False) == 0
    assert (power.ban, power.invite) == (50, 0)
    hollow = levels(version, {"users": [], "events": "none"})
    assert hollow.user_level("@user:one") == 0
    assert hollow.event_level("m.room.name", is_state=True) == 50


def test_power_without_a_create_event() -> None:
    for version in ROOM_VERSIONS.values():
        assert PowerLevels.from_events(None, None, version).user_level(CREATOR) == 0


def test_creators() -> None:
    named = {"creator": "@named:one", "additional_creators": ["@more:one", 1, None, CREATOR]}
    assert creators_of(create(V1, **named), V1) == creators_of(create(V10, **named), V10) == {"@named:one"}
    assert creators_of(create(V11, **named), V11) == {CREATOR}
    assert creators_of(create(V12, **named), V12) == {CREATOR, "@more:one"}
    assert creators_of(create(V12, additional_creators="@more:one"), V12) == {CREATOR}
    assert creators_of(create(V10, creator=["@named:one"]), V10) == frozenset()
    assert creators_of(create(V10), V10) == frozenset()


def test_creators_of_v12_stand_above_every_level_that_can_be_given() -> None:
    power = levels(V12, {"users": {"@user:one": MAX_SAFE_INTEGER}}, additional_creators=["@more:one"])
    assert power.user_level("@more:one") == power.user_level(CREATOR) > power.user_level("@user:one")


@pytest.mark.parametrize("version", VERSIONS)
def test_may_redact(version: RoomVersion) -> None:
    power = levels(version, {"users": {"@mod:one": 50}})
    target = make_event(version, "$target:two", type="m.room.message", sender="@author:three")

    def redaction(sender: str, event_id: str) -> Pdu:
        return make_event(version, event_id, type="m.room.redaction", sender=sender, redacts="$target:two")

    assert may_redact(redaction("@mod:one", "$r:one"), target, power)
    assert not may_redact(redaction("@user:one", "$r:one"), target, power)
    # To v2 the servers of the event ids count, since v3 those of the senders.
    old = int(version.name) <= 2
    assert may_redact(redaction("@user:one", "$r:two"), target, power) == old
    assert may_redact(redaction("@user:three", "$r:one"), target, power) != old


def test_ids_without_a_server_are_not_of_one_server() -> None:
    target = make_event(V1, "$target", type="m.room.message")
    redaction = make_event(V1, "$redaction", type="m.room.redaction")
    assert not may_redact(redaction, target, levels(V1, {}))
