"""Whatever JSON an event or the state holds, a check answers or raises AuthRejected, and nothing else.

JSON is drawn by plain code from a seed: hypothesis chooses only seeds, for thousands of rooms cheap.
"""

import contextlib
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.auth.check import check_state_dependent, check_state_independent
from ranvier.core.auth.power import DEFAULT_LEVELS, PowerLevels, may_redact, parse_level
from ranvier.core.auth.select import auth_keys_for
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import StateKey
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion

from .auth_room import lookup, make_event, merge

VERSIONS = list(ROOM_VERSIONS.values())
ROOMS_PER_SEED = 20
USERS = ["@a:one", "@b:one", "@c:two"]
MEMBERSHIPS = ["join", "invite", "leave", "ban", "knock"]
JOIN_RULES = ["public", "invite", "knock", "restricted", "knock_restricted"]
STRINGS = [*USERS, *MEMBERSHIPS, *JOIN_RULES, "", "@", "!", "one", ":", "\ud800", "A" * 43]
ODD_LEVELS = [True, False, None, "50", " +7", "nan", "", 10**400, -(10**400), 1e308, 2**53, [], {}]
ODD_LEVELS += [float("inf"), float("nan"), "9" * 5000, "0" * 5000]
LEVELS = [0, 50, 100, -1, 49, 51]
SCALARS = [*STRINGS, *ODD_LEVELS, *LEVELS, 0.5]
TYPES = [
    "create",
    "member",
    "power_levels",
    "join_rules",
    "third_party_invite",
    "redaction",
    "aliases",
    "message",
]
KEYS = [
    "membership",
    "join_authorised_via_users_server",
    "third_party_invite",
    "signed",
    "signatures",
    "mxid",
]
KEYS += [
    "token",
    "public_key",
    "public_keys",
    "join_rule",
    "m.federate",
    "room_version",
    "creator",
    "ed25519:a",
]
KEYS += ["additional_creators", "users", "events", "notifications", *DEFAULT_LEVELS, *USERS]


def draw_json(random: Random, depth: int = 3) -> Any:
    kind = random.random()
    if depth == 0 or kind < 0.5:
        return random.choice(SCALARS)
    if kind < 0.65:
        return [draw_json(random, depth - 1) for _ in range(random.randrange(4))]
    return draw_object(random, depth - 1)


def draw_object(random: Random, depth: int = 3) -> dict[str, Any]:
    return {random.choice(KEYS): draw_json(random, depth) for _ in range(random.randrange(5))}


def draw_level(random: Random) -> Any:
    kind = random.random()
    return (
        random.choice(LEVELS)
        if kind < 0.9
        else random.choice(ODD_LEVELS)
        if kind < 0.97
        else draw_json(random)
    )


def draw_levels(random: Random) -> dict[str, Any]:
    content: dict[str, Any] = {name: draw_level(random) for name in DEFAULT_LEVELS if random.random() < 0.3}
    for name, keys in (("users", USERS), ("events", TYPES), ("notifications", ["room"])):
        if random.random() < 0.7:
            content[name] = {random.choice(keys): draw_level(random) for _ in range(random.randrange(3))}
    return content


def draw_content(random: Random, event_type: str) -> dict[str, Any]:
    """Mostly what such an event should hold, so that checks get past their first rule, and anything else."""
    content = draw_object(random) if random.random() < 0.5 else {}
    if random.random() < 0.1:
        return content
    match event_type:
        case "m.room.member":
            return content | {"membership": random.choice([*MEMBERSHIPS, "join", "join", "join"])}
        case "m.room.power_levels":
            return draw_levels(random)
        case "m.room.join_rules":
            return content | {"join_rule": random.choice(JOIN_RULES)}
    return content


def draw_event(random: Random, version: RoomVersion, event_id: str, event_type: str, **fields: Any) -> Pdu:
    defaults = {
        "sender": random.choice(USERS),
        "content": draw_content(random, event_type),
        "redacts": random.choice([None, "$event", "$a:one", ""]),
        "prev_events": random.choice([(), ("$create",), ("$a", "$b")]),
        "signatures": random.choice([{}, {"one": {}}, {"one": {"ed25519:a": "x"}, "": {}}]),
    }
    return make_event(version, event_id, type=event_type, **(defaults | fields))


def draw_state(random: Random, version: RoomVersion) -> list[Pdu]:
    slots: list[StateKey] = [("m.room.create", ""), *(("m.room.member", user_id) for user_id in USERS)]
    optional = [("m.room.power_levels", ""), ("m.room.join_rules", ""), ("m.room.third_party_invite", "join")]
    slots += [slot for slot in optional if random.random() < 0.7]
    names = ["$create", *(f"${number}" for number in range(1, len(slots)))]
    return [
        draw_event(random, version, name, event_type, state_key=state_key)
        for name, (event_type, state_key) in zip(names, slots, strict=True)
    ]


def power_of(events: list[Pdu], version: RoomVersion) -> PowerLevels:
    state = lookup(events)
    return PowerLevels.from_events(state("m.room.create", ""), state("m.room.power_levels", ""), version)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_checks_are_total(seed: int) -> None:
    random = Random(seed)
    for _ in range(ROOMS_PER_SEED):
        version = random.choice(VERSIONS)
        state = draw_state(random, version)
        cited = tuple(event.event_id for event in random.choices(state, k=random.randrange(5)))
        state_key = random.choice([None, "", *USERS, "one", "@", ":"])
        event_type = f"m.room.{random.choice(TYPES)}"
        event = draw_event(random, version, "$event:one", event_type, state_key=state_key, auth_events=cited)
        with contextlib.suppress(AuthRejected):
            check_state_dependent(event, lookup(state), version)
        with contextlib.suppress(AuthRejected):
            check_state_independent(event, {known.event_id: known for known in state}, version)
        auth_keys_for(event.type, event.sender, event.state_key, event.content, version)
        may_redact(event, random.choice(state), power_of(state, version))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_nobody_gains_power_by_changing_levels(seed: int) -> None:
    """Who changes levels lifts nobody above themselves, demotes no equal, and leaves alone what is above."""
    random = Random(seed)
    for _ in range(ROOMS_PER_SEED):
        version = random.choice(VERSIONS)
        sender = random.choice(USERS)
        state = [event for event in draw_state(random, version) if event.type != "m.room.power_levels"]
        old = draw_event(random, version, "$old", "m.room.power_levels", state_key="")
        content = merge(old.content, draw_levels(random))
        new = draw_event(
            random, version, "$new", "m.room.power_levels", state_key="", sender=sender, content=content
        )
        try:
            check_state_dependent(new, lookup([*state, old]), version)
        except AuthRejected:
            continue
        before, after = power_of([*state, old], version), power_of([*state, new], version)
        own_level = before.user_level(sender)
        for user_id in USERS:
            was, is_now = before.user_level(user_id), after.user_level(user_id)
            # Who is taken off the list falls back to the default, and that may be above the sender.
            assert is_now <= own_level or is_now in (was, before.single_level("users_default"))
            listed = parse_level(before.users.get(user_id), version) is not None
            if user_id != sender and listed and was >= own_level:
                assert is_now == was
        for name in DEFAULT_LEVELS:
            assert after.single_level(name) <= max(own_level, before.single_level(name))
            if before.single_level(name) > own_level:
                assert after.single_level(name) == before.single_level(name)
