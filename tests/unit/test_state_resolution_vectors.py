"""Fixtures of another implementation: resolved event by event, batch by batch and at once, with one answer.

That the three ways agree is no theorem; it holds for these rooms.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import StateKey
from ranvier.core.room_versions import get_room_version
from tests.unit.state_resolution_samples import Room, make_event

VECTORS = Path(__file__).parent.parent / "vectors" / "state_resolution"
CASES: dict[str, dict[str, Any]] = json.loads((VECTORS / "cases.json").read_bytes())


def load_events(path: str) -> list[Pdu]:
    return [
        make_event(
            raw["event_id"],
            raw["sender"],
            raw["type"],
            raw["state_key"],
            raw["content"],
            raw["auth_events"],
            ts=raw["origin_server_ts"],
            prev=raw["prev_events"],
            room_id=raw.get("room_id") or "!" + raw["event_id"][1:],
        )
        for raw in json.loads((VECTORS / path).read_bytes())
    ]


def make_room(events: Sequence[Pdu]) -> Room:
    assert events[0].type == "m.room.create"
    return Room(get_room_version(events[0].content["room_version"]), events)


def expected(case: str) -> dict[StateKey, str]:
    return {(entry["type"], entry["state_key"]): entry["event_id"] for entry in CASES[case]["expected"]}


def resolve_event_by_event(room: Room) -> dict[StateKey, str]:
    """As a server does that receives the events one after another."""
    after: dict[str, dict[StateKey, str]] = {}
    waiting = list(room.events.values())
    while waiting:
        ready = [event for event in waiting if all(prev in after for prev in event.prev_events)]
        assert ready, "prev_events that are not in the fixture"
        for event in ready:
            states = [after[prev] for prev in event.prev_events]
            before = room.resolve(states) if states else {}
            after[event.event_id] = room.resolve([before, {**before, event.slot: event.event_id}])
        waiting = [event for event in waiting if event.event_id not in after]
    cited = {prev for event in room.events.values() for prev in event.prev_events}
    return room.resolve([state for event_id, state in after.items() if event_id not in cited])


def resolve_batch(
    room: Room, batch: Sequence[Pdu], before: Sequence[dict[StateKey, str]]
) -> dict[StateKey, str]:
    """Each event alone is a state: that is how a batch without any order is resolved."""
    return room.resolve([*before, *(room.state(event.event_id) for event in batch)])


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "batches" in case])
def test_batches(case: str) -> None:
    batches = [load_events(path) for path in CASES[case]["batches"]]
    events = [event for batch in batches for event in batch]
    room = make_room(events)
    state: list[dict[StateKey, str]] = []
    for batch in batches:
        state = [resolve_batch(room, batch, state)]
    assert resolve_event_by_event(room) == expected(case)
    assert state[0] == expected(case)
    assert resolve_batch(room, events, []) == expected(case)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "state_maps" in case])
def test_states(case: str) -> None:
    room = make_room(load_events(CASES[case]["pdus"]))
    states = [room.state(*json.loads((VECTORS / path).read_bytes())) for path in CASES[case]["state_maps"]]
    assert room.resolve(states) == expected(case)
    assert room.resolve(states[::-1]) == expected(case)
