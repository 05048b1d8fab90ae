"""Rooms to resolve: events made by hand, and states as plain dicts from slot to event id."""

from collections.abc import Mapping, Sequence

from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, StateKey, UserID
from ranvier.core.room_versions import RoomVersion
from ranvier.core.state_resolution import resolve
from ranvier.core.state_resolution.in_memory import InMemoryGraph

State = Mapping[StateKey, str]


def make_event(
    event_id: str,
    sender: str,
    event_type: str,
    state_key: str | None,
    content: JsonObject,
    auth: Sequence[str] = (),
    *,
    ts: int = 0,
    depth: int = 0,
    prev: Sequence[str] = (),
    room_id: str = "!room:example.com",
) -> Pdu:
    return Pdu(
        event_id=EventID(event_id),
        room_id=RoomID(room_id),
        sender=UserID(sender),
        type=event_type,
        state_key=state_key,
        content=content,
        origin_server_ts=ts,
        depth=depth,
        prev_events=tuple(EventID(event) for event in prev),
        auth_events=tuple(EventID(event) for event in auth),
        signatures={},
        json=b"",
    )


class Room:
    """Resolves states given by event ids, through numbers and back."""

    def __init__(self, version: RoomVersion, events: Sequence[Pdu]) -> None:
        self.version = version
        self.events = {event.event_id: event for event in events}
        self.graph = InMemoryGraph(_auth_events_first(self.events))

    def resolve(self, states: Sequence[State]) -> dict[StateKey, str]:
        numbered = [self._numbers(state) for state in states]
        changes = resolve(conflict_between(numbered), self._lookup(numbered[0]), self.version, self.graph)
        merged = {**numbered[0], **changes}
        ids = {nid: event_id for event_id, nid in self.graph.nids.items()}
        resolved = [ids[nid] for nid in merged.values() if nid is not None]
        return {self.events[event_id].slot: event_id for event_id in resolved}

    def state(self, *event_ids: str) -> dict[StateKey, str]:
        return {self.events[EventID(event_id)].slot: event_id for event_id in event_ids}

    def _numbers(self, state: State) -> dict[int, int]:
        nids = [self.graph.nids[EventID(event_id)] for event_id in state.values()]
        return {self.graph.slot_of(nid): nid for nid in nids}

    @staticmethod
    def _lookup(state: Mapping[int, int]):
        return lambda slots: {slot: state[slot] for slot in slots if slot in state}


def conflict_between(states: Sequence[Mapping[int, int]]) -> dict[int, tuple[int | None, ...]]:
    rows = {slot: tuple(state.get(slot) for state in states) for state in states for slot in state}
    return {slot: row for slot, row in rows.items() if len(set(row)) > 1}


def _auth_events_first(events: Mapping[EventID, Pdu]) -> list[Pdu]:
    ordered: dict[EventID, Pdu] = {}

    def add(event: Pdu) -> None:
        if event.event_id not in ordered:
            for cited in event.auth_events:
                add(events[cited])
            ordered[event.event_id] = event

    for event in events.values():
        add(event)
    return list(ordered.values())
