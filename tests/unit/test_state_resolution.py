"""`resolve` against the specification's text, done literally over whole states and whole auth chains."""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha1

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.select import auth_keys_for
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey
from ranvier.core.room_versions import V1, V2, V6, V11, V12, RoomVersion
from ranvier.core.state_resolution import Slots, resolve
from ranvier.core.state_resolution.in_memory import InMemoryGraph
from tests.unit.state_resolution_samples import Room, State, make_event

CREATE = ("m.room.create", "")
POWER = ("m.room.power_levels", "")
USERS = [f"@{name}:example.com" for name in ("ann", "bob", "cat", "dan")]

Events = Mapping[str, Pdu]


# The text, word by word. Sets of event ids; nothing is bounded, nothing is shared.


def auth_chain(events: Events, starts: Collection[str]) -> set[str]:
    """With the starts themselves: see auth_difference."""
    chain, stack = set(starts), list(starts)
    while stack:
        new = set(events[stack.pop()].auth_events) - chain
        chain |= new
        stack += new
    return chain


def allowed(event: Pdu, lookup: Callable[[StateKey], Pdu | None], version: RoomVersion) -> bool:
    try:
        check_state_dependent(event, lambda *key: lookup(key), version)
    except AuthRejected:
        return False
    return True


def split(states: Sequence[State]) -> tuple[dict[StateKey, str], set[str]]:
    rows = {key: {state.get(key) for state in states} for state in states for key in state}
    unconflicted = {key: states[0][key] for key, row in rows.items() if len(row) == 1}
    conflicted = {event for key, row in rows.items() if len(row) > 1 for event in row if event is not None}
    return unconflicted, conflicted


def full_conflicted_set(states: Sequence[State], events: Events, version: RoomVersion) -> set[str]:
    _, conflicted = split(states)
    chains = [auth_chain(events, state.values()) for state in states]
    full = conflicted | set.union(*chains) - set.intersection(*chains)
    if version is V12:
        below = auth_chain(events, conflicted)
        full |= {event for event in below if not conflicted.isdisjoint(auth_chain(events, [event]))}
    return full


def is_power(event: Pdu) -> bool:
    if event.slot in {CREATE, POWER, ("m.room.join_rules", "")}:
        return True
    leaves = event.content.get("membership") in ("leave", "ban")
    return event.type == "m.room.member" and leaves and event.sender != event.state_key


def cited(events: Events, event: str, key: StateKey, version: RoomVersion) -> Pdu | None:
    if version is V12 and key == CREATE:
        return next(other for other in events.values() if other.slot == CREATE)
    found = [events[auth] for auth in events[event].auth_events if events[auth].slot == key]
    return found[0] if found else None


def power_order(chosen: set[str], events: Events, version: RoomVersion) -> list[str]:
    def rank(event: str) -> tuple[int, int, str]:
        create, levels = cited(events, event, CREATE, version), cited(events, event, POWER, version)
        power = PowerLevels.from_events(create, levels, version)
        return -power.user_level(events[event].sender), events[event].origin_server_ts, event

    ordered: list[str] = []
    while rest := chosen - set(ordered):
        ordered.append(min((event for event in rest if rest.isdisjoint(events[event].auth_events)), key=rank))
    return ordered


def mainline_order(others: set[str], top: str | None, events: Events, version: RoomVersion) -> list[str]:
    def powers_below(event: str) -> list[str]:
        power = cited(events, event, POWER, version)
        return [] if power is None else [power.event_id, *powers_below(power.event_id)]

    mainline = [] if top is None else [top, *powers_below(top)]

    def rank(event: str) -> tuple[float, int, str]:
        positions = [mainline.index(power) for power in powers_below(event) if power in mainline]
        return -min(positions, default=float("inf")), events[event].origin_server_ts, event

    return sorted(others, key=rank)


def check_all(order: Sequence[str], state: dict[StateKey, str], events: Events, version: RoomVersion) -> None:
    for event in order:
        pdu = events[event]
        keys = auth_keys_for(pdu.type, pdu.sender, pdu.state_key, pdu.content, version)

        def lookup(key: StateKey, event: str = event, keys: list[StateKey] = keys) -> Pdu | None:
            return events[state[key]] if key in keys and key in state else cited(events, event, key, version)

        if allowed(pdu, lookup, version):
            state[pdu.slot] = event


def literal_v2(states: Sequence[State], events: Events, version: RoomVersion) -> dict[StateKey, str]:
    unconflicted, _ = split(states)
    full = full_conflicted_set(states, events, version)
    chosen = {event for event in full if is_power(events[event])}
    while more := {auth for event in chosen for auth in events[event].auth_events if auth in full} - chosen:
        chosen |= more
    state: dict[StateKey, str] = {} if version is V12 else dict(unconflicted)
    check_all(power_order(chosen, events, version), state, events, version)
    check_all(mainline_order(full - chosen, state.get(POWER), events, version), state, events, version)
    return {**state, **unconflicted}


def literal_v1(states: Sequence[State], events: Events, version: RoomVersion) -> dict[StateKey, str]:
    union = {key: {state[key] for state in states if key in state} for state in states for key in state}
    result = {key: next(iter(row)) for key, row in union.items() if len(row) == 1}
    conflict = {key: row for key, row in union.items() if len(row) > 1}

    def rank(event: str) -> tuple[int, str]:
        return -events[event].depth, sha1(event.encode()).hexdigest()

    def is_allowed(event: str, state: State) -> bool:
        return allowed(events[event], lambda key: events[state[key]] if key in state else None, version)

    for event_type in ("m.room.power_levels", "m.room.join_rules", "m.room.member"):
        outcome = {}
        for key in [key for key in conflict if key[0] == event_type]:
            first, *rest = sorted(conflict.pop(key), key=rank, reverse=True)
            outcome[key] = first
            for event in rest:
                if not is_allowed(event, {**result, key: outcome[key]}):
                    break
                outcome[key] = event
        result |= outcome
    rest = {}
    for key, row in conflict.items():
        ordered = sorted(row, key=rank)
        rest[key] = next((event for event in ordered if is_allowed(event, result)), ordered[-1])
    return result | rest


# Rooms by chance: a few people on a few forks, quarrelling.


def random_content(rng: random.Random, event_type: str, version: RoomVersion) -> JsonObject:
    if event_type == "m.room.power_levels":
        people = USERS[1:] if version is V12 else USERS
        return {
            "users": {user: rng.choice([0, 50, 100]) for user in people if rng.random() < 0.8}
            | ({} if version is V12 else {USERS[0]: 100})
        }
    if event_type == "m.room.join_rules":
        return {"join_rule": rng.choice(["public", "public", "invite"])}
    if event_type == "m.room.member":
        return {"membership": rng.choice(["join", "join", "join", "leave", "invite", "ban"])}
    return {"topic": "t"}


def random_room(seed: int, version: RoomVersion, steps: int) -> tuple[list[Pdu], list[dict[StateKey, str]]]:
    """Events that were allowed where they were sent, and the states of the forks."""
    rng = random.Random(seed)
    create = make_event("$create", USERS[0], "m.room.create", "", {"creator": USERS[0]}, room_id="!create")
    events: dict[str, Pdu] = {create.event_id: create}
    forks: list[dict[StateKey, str]] = [{CREATE: create.event_id}]

    def send(state: dict[StateKey, str], sender: str, event_type: str, key: str, content: JsonObject) -> None:
        keys = auth_keys_for(event_type, sender, key, content, version)
        auth = [state[one] for one in keys if one in state]
        # Some forget to cite what they could have cited, and depths and times are what a sender says.
        auth = [event for event in auth if event == create.event_id or rng.random() < 0.98]
        prev = [create.event_id] if len(events) == 1 else ["$other"]
        event = make_event(
            f"${rng.randrange(16**6):06x}{len(events)}",
            sender,
            event_type,
            key,
            content,
            auth,
            ts=rng.randrange(12),
            depth=rng.randrange(5),
            prev=prev,
            room_id="!create",
        )
        own = {events[one].slot: events[one] for one in auth} | {CREATE: create}
        if allowed(event, own.get, version) and allowed(
            event, lambda one: events.get(state.get(one, "")), version
        ):
            events[event.event_id] = event
            state[event.slot] = event.event_id

    send(forks[0], USERS[0], "m.room.member", USERS[0], {"membership": "join"})
    send(forks[0], USERS[0], *POWER, random_content(rng, POWER[0], version))
    send(forks[0], USERS[0], "m.room.join_rules", "", {"join_rule": "public"})
    for user in USERS[1:]:
        send(forks[0], user, "m.room.member", user, {"membership": "join"})
    for _ in range(steps):
        if len(forks) < 4 and rng.random() < 0.1:
            forks.append(dict(rng.choice(forks)))
        sender = rng.choice([*USERS, USERS[0], USERS[0]])
        event_type = rng.choice(
            ["m.room.power_levels", "m.room.join_rules", "m.room.topic", *["m.room.member"] * 4]
        )
        content = random_content(rng, event_type, version)
        target = rng.choice(USERS) if content.get("membership") in ("invite", "ban", "leave") else sender
        send(rng.choice(forks), sender, event_type, target if "membership" in content else "", content)
    # Some servers know only part of a state; and what none of them has, auth chains may still bring back.
    nobody_has = rng.choice([CREATE, ("m.room.join_rules", ""), ("m.room.member", USERS[3])])
    for state in forks:
        for key in [key for key in state if key != CREATE and (key == nobody_has or rng.random() < 0.05)]:
            del state[key]
    return list(events.values()), forks


@pytest.mark.parametrize("version", [V1, V2, V6, V11, V12], ids=lambda version: version.name)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(5, 150))
def test_resolution_is_what_the_text_says(version: RoomVersion, seed: int, steps: int) -> None:
    events, forks = random_room(seed, version, steps)
    literal = literal_v1 if version is V1 else literal_v2
    by_id = {event.event_id: event for event in events}
    room = Room(version, events)
    resolved = room.resolve(forks)
    assert resolved == literal(forks, by_id, version)
    assert room.resolve([resolved, resolved]) == resolved

    # The order in which states came, and events were stored, is nobody's business.
    random.Random(seed).shuffle(events)
    random.Random(seed + 1).shuffle(forks)
    assert Room(version, events).resolve(forks) == resolved

    unconflicted, _ = split(forks)
    assert unconflicted.items() <= resolved.items()
    assert set(resolved.values()) <= auth_chain(by_id, [event for state in forks for event in state.values()])


def numbers(room: Room, event_ids: Sequence[str]) -> dict[int, int]:
    nids = [room.graph.nids[EventID(event_id)] for event_id in event_ids]
    return {room.graph.slot_of(nid): nid for nid in nids}


def lookup_in(state: Mapping[int, int]) -> Slots:
    return lambda slots: {slot: state[slot] for slot in slots if slot in state}


def small_room(version: RoomVersion, *more: Pdu) -> Room:
    """Ann's public room, which Bob joined."""
    first = [] if version is V12 else ["$create"]
    events = [
        make_event("$create", USERS[0], *CREATE, {"creator": USERS[0]}, room_id="!create"),
        make_event(
            "$ann", USERS[0], "m.room.member", USERS[0], {"membership": "join"}, first, prev=["$create"]
        ),
        make_event(
            "$power", USERS[0], *POWER, {"users": {} if version is V12 else {USERS[0]: 100}}, [*first, "$ann"]
        ),
        make_event(
            "$rules", USERS[0], "m.room.join_rules", "", {"join_rule": "public"}, [*first, "$ann", "$power"]
        ),
        make_event(
            "$bob", USERS[1], "m.room.member", USERS[1], {"membership": "join"}, [*first, "$power", "$rules"]
        ),
    ]
    return Room(version, [*events, *more])


BASE = ["$create", "$ann", "$power", "$rules", "$bob"]


@pytest.mark.parametrize("version", [V2, V12], ids=lambda version: version.name)
def test_a_ban_wins_over_what_the_banned_did_elsewhere(version: RoomVersion) -> None:
    first = [] if version is V12 else ["$create"]
    auth = [*first, "$power", "$ann", "$bob"]
    ban = make_event("$ban", USERS[0], "m.room.member", USERS[1], {"membership": "ban"}, auth, ts=9)
    rename = make_event(
        "$rename",
        USERS[1],
        "m.room.member",
        USERS[1],
        {"membership": "join"},
        [*first, "$power", "$rules", "$bob"],
    )
    room = small_room(version, ban, rename)
    states = [room.state(*BASE, "$ban"), room.state(*BASE, "$rename")]
    assert room.resolve(states)["m.room.member", USERS[1]] == "$ban"


def test_a_rejected_auth_event_authorizes_nothing() -> None:
    topic = make_event("$topic", USERS[0], "m.room.topic", "", {"topic": "t"}, ["$create", "$power", "$ann"])
    room = small_room(V11, topic)
    without_ann = room.state("$create", "$power", "$rules", "$bob")
    states = [{**without_ann, ("m.room.topic", ""): "$topic"}, without_ann]
    assert room.resolve(states)["m.room.topic", ""] == "$topic"
    room.graph.rejections.add(room.graph.nids["$ann"])
    assert ("m.room.topic", "") not in room.resolve(states)


def test_what_stands_but_was_rejected_yields_to_the_auth_event() -> None:
    gone = make_event(
        "$gone", USERS[0], "m.room.member", USERS[0], {"membership": "leave"}, ["$create", "$ann"]
    )
    topic = make_event("$topic", USERS[0], "m.room.topic", "", {"topic": "t"}, ["$create", "$power", "$ann"])
    room = small_room(V11, gone, topic)
    base = room.state("$create", "$gone", "$power", "$rules")
    states = [{**base, ("m.room.topic", ""): "$topic"}, base]
    assert ("m.room.topic", "") not in room.resolve(states)
    room.graph.rejections.add(room.graph.nids["$gone"])
    assert room.resolve(states)["m.room.topic", ""] == "$topic"


@pytest.mark.parametrize("version", [V11, V12], ids=lambda version: version.name)
def test_what_all_states_agree_on_stays(version: RoomVersion) -> None:
    """Bob came by join rules that have been replaced since; nothing else that stands rests on them."""
    auth = ["$ann", "$power"] if version is V12 else ["$create", "$ann", "$power"]
    rules = make_event("$new", USERS[0], "m.room.join_rules", "", {"join_rule": "invite"}, auth)
    room = small_room(version, rules)
    common = room.state("$create", "$ann", "$power", "$new")
    resolved = room.resolve([{**common, **room.state("$bob")}, common])
    assert resolved == {**common, **room.state("$bob")}


def test_a_slot_that_no_answer_fills_is_told_to_be_emptied() -> None:
    """Bob's topic was allowed nowhere: the changes must say so, whichever state they are made to."""
    topic = make_event("$topic", USERS[1], "m.room.topic", "", {"topic": "t"}, ["$create", "$power", "$bob"])
    room = small_room(V11, topic)
    nid = room.graph.nids["$topic"]
    base = numbers(room, BASE)
    slot = room.graph.slot_of(nid)
    assert resolve({slot: (nid, None)}, lookup_in(base), V11, room.graph) == {slot: None}


def test_in_version_1_a_state_without_an_entry_does_not_dispute_it() -> None:
    topic = make_event("$topic", USERS[1], "m.room.topic", "", {"topic": "t"}, ["$create", "$power", "$bob"])
    room = small_room(V1, topic)
    assert room.resolve([room.state(*BASE), room.state(*BASE, "$topic")])["m.room.topic", ""] == "$topic"


def test_no_conflict_asks_nothing() -> None:
    class Silent(InMemoryGraph):
        def slots(self, keys: Collection[StateKey]) -> Mapping[StateKey, int]:
            raise AssertionError

    assert resolve({}, lambda slots: {}, V11, Silent()) == {}


@pytest.mark.parametrize("version", [V1, V2], ids=lambda version: version.name)
def test_events_that_cite_each_other_do_not_hang(version: RoomVersion) -> None:
    room = small_room(version)
    ban = make_event(
        "$x", USERS[0], "m.room.member", USERS[1], {"membership": "ban"}, ["$create", "$ann", "$power"]
    )
    kick = make_event(
        "$y", USERS[0], "m.room.member", USERS[1], {"membership": "leave"}, ["$create", "$ann", "$x"]
    )
    x, y = room.graph.add(ban), room.graph.add(kick)
    nodes = room.graph._nodes
    nodes[x] = type(nodes[x])(nodes[x].slot, nodes[x].auth_depth, (*nodes[x].auth, y))
    slot = room.graph.slot_of(x)
    changes = resolve({slot: (x, y)}, lookup_in(numbers(room, BASE)), version, room.graph)
    assert changes.keys() == {slot}
