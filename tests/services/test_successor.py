"""What a room begins with that replaces another one, whatever the old one's power levels look like."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.power_change import check_power_levels
from ranvier.core.auth.select import CREATE, POWER_LEVELS
from ranvier.core.auth.state import AuthState
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.core.limits import MAX_SAFE_INTEGER
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion
from ranvier.services.rooms.new_room import Founder
from ranvier.services.rooms.successor import (
    TRANSFERRED,
    OldRoom,
    build_successor_drafts,
    closed_power_levels,
)

ALICE, BOB = UserID("@alice:here"), UserID("@bob:here")
LEVELS = st.one_of(
    st.integers(-(2**70), 2**70), st.text(max_size=5), st.floats(), st.none(), st.booleans(), st.just("50")
)
USERS = st.one_of(st.dictionaries(st.sampled_from([ALICE, BOB, "nobody", "@x:", ""]), LEVELS), LEVELS)
EVENTS = st.one_of(st.dictionaries(st.sampled_from(["m.room.tombstone", "m.x"]), LEVELS), LEVELS)
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "users": USERS,
        "events": EVENTS,
        "notifications": EVENTS,
        "state_default": LEVELS,
        "users_default": LEVELS,
        "invite": LEVELS,
        "ban": LEVELS,
        "org.own": st.just({"kept": 1}),
    },
)
VERSIONS = st.sampled_from(list(ROOM_VERSIONS.values()))


def state_event(event_type: str, content: dict[str, Any]) -> Pdu:
    return Pdu(
        event_id=EventID("$x"),
        room_id=RoomID("!r:here"),
        sender=ALICE,
        type=event_type,
        state_key="",
        content=content,
        origin_server_ts=0,
        depth=1,
        prev_events=(),
        auth_events=(),
        signatures={},
        json=b"{}",
    )


def old_room(version: RoomVersion, content: dict[str, Any] | None) -> OldRoom:
    create = state_event("m.room.create", {"creator": ALICE})
    levels = None if content is None else state_event("m.room.power_levels", content)
    return OldRoom(
        room_nid=1,
        room_id=RoomID("!r:here"),
        version=version,
        state={CREATE: create, POWER_LEVELS: levels, **dict.fromkeys(TRANSFERRED)},
        children=(),
        banned=(),
        newest_event_id=EventID("$x"),
        canonical_alias=None,
        is_published=False,
    )


@settings(max_examples=200, deadline=None)
@given(VERSIONS, VERSIONS, st.one_of(st.none(), CONTENTS), st.sampled_from([ALICE, BOB]))
def test_power_levels_always_fit_the_new_version(old_version, version, content, founder):
    old = old_room(old_version, content)
    drafts = build_successor_drafts(old, Founder(founder, {"membership": "join"}), version, [])
    levels = drafts[-1]
    assert (drafts[0].type, levels.type) == ("m.room.create", "m.room.power_levels")
    create = state_event("m.room.create", drafts[0].content)
    before = PowerLevels.from_events(create, None, version)
    room = AuthState(lambda _type, _key: None, create, before, version)
    check_power_levels(state_event("m.room.power_levels", levels.content), room, before.user_level(ALICE))
    after = PowerLevels.from_events(create, state_event("m.room.power_levels", levels.content), version)
    if version.auth.privileged_creators:
        required = after.event_level("m.room.tombstone", is_state=True)
        assert required > after.single_level("state_default")
    if content is not None and content.get("org.own"):
        assert levels.content["org.own"] == {"kept": 1}


@settings(max_examples=100, deadline=None)
@given(VERSIONS, CONTENTS)
def test_a_closed_room_is_for_moderators(version, content):
    old = old_room(version, content)
    power = PowerLevels.from_events(old.state[CREATE], old.state[POWER_LEVELS], version)
    closed = closed_power_levels(power)
    for name in ("events_default", "invite"):
        assert closed[name] >= 50
        assert closed[name] > min(power.single_level("users_default"), MAX_SAFE_INTEGER - 1)
        assert closed[name] >= power.single_level(name)
