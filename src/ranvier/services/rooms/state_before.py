"""The state before an event: that after each of its prev_events, resolved where these differ.

A state is looked at as a stored root and the few slots in which it differs from that: so nothing has to be
written to find out what it is.

Spec: rooms/v2.md, "State resolution".
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from ranvier.core import state_map
from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.select import CREATE, POWER_LEVELS
from ranvier.core.events.parse import parse_stored
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import StateKey
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.core.state_resolution import resolve
from ranvier.services.rooms.live import pdu_of
from ranvier.services.rooms.standings import AS_STORED, Standings
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events
from ranvier.store.tables.auth_graph import StoredAuthGraph
from ranvier.store.tables.events import EventRecord, Status
from ranvier.store.tables.interned import Interner, find_state_key_nids
from ranvier.store.tables.rooms import Room
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes

Changes = Mapping[int, int | None]
"""state_key_nid -> event_nid, or None where nothing is."""


class StateView(msgspec.Struct, frozen=True):
    """A state: what the map `root` holds, but for `changes`."""

    root: int
    changes: Changes = {}

    def with_event(self, slot: int, event_nid: int) -> "StateView":
        """The state after a state event."""
        return StateView(self.root, {**self.changes, slot: event_nid})


class States:
    """The states of one room, in one read transaction."""

    def __init__(
        self,
        txn: ReadTxn,
        interner: Interner,
        cache: NodeCache,
        room: Room,
        standings: Standings = AS_STORED,
    ) -> None:
        self._txn = txn
        self._standings = standings
        self._interner = interner
        self._room = room
        self._version: RoomVersion = get_room_version(room.version)
        self._reader = SnapshotNodes(txn, cache)
        self._pdus: dict[int, Pdu] = {}

    def after(self, record: EventRecord) -> StateView | None:
        """The state after a stored event; None if the one before it is not known."""
        if record.state_root is None or record.status.is_outlier:
            return None
        before = StateView(record.state_root)
        # A rejected event changes nothing; one that was only not shown does.
        if record.state_key_nid is None or record.status is Status.REJECTED:
            return before
        return before.with_event(record.state_key_nid, record.event_nid)

    def merge(self, views: Sequence[StateView]) -> StateView:
        """These states, of which there is one at least, resolved into one.

        Cost: follows what they differ in, and how many different ones there are.
        """
        # Branches of messages alone, however many, all have one state.
        views = list({(view.root, frozenset(view.changes.items())): view for view in views}.values())
        conflict = self._compare(views) if len(views) > 1 else {}
        if not conflict:
            return views[0]
        graph = StoredAuthGraph(
            self._txn, self._interner, self._room, self._read_pdu, self._standings.filter_rejected
        )
        changes = resolve(conflict, partial(self.slots, views[0]), self._version, graph)
        return StateView(views[0].root, {**views[0].changes, **changes})

    def difference(self, old: StateView, new: StateView) -> dict[int, int | None]:
        """What is to be changed in one state to get the other."""
        return {slot: values[1] for slot, values in self._compare((old, new)).items()}

    def slots(self, view: StateView, slot_nids: Collection[int]) -> dict[int, int]:
        """What fills these slots; those that nothing fills are left out."""
        found = state_map.get_many(
            self._reader, view.root, [nid for nid in slot_nids if nid not in view.changes]
        )
        for nid in slot_nids:
            event_nid = view.changes.get(nid)
            if event_nid is not None:
                found[nid] = event_nid
        return found

    def pdus(self, view: StateView, slots: Iterable[StateKey]) -> dict[StateKey, Pdu]:
        """The events that fill these slots, as redactions left them. Cost: 2 queries."""
        slot_nids = find_state_key_nids(self._txn, self._interner, set(slots))
        filled = self.slots(view, slot_nids.values())
        self._load(filled.values())
        return {slot: self._pdus[filled[nid]] for slot, nid in slot_nids.items() if nid in filled}

    def power(self, view: StateView) -> PowerLevels:
        """The power levels in a state."""
        found = self.pdus(view, (CREATE, POWER_LEVELS))
        return PowerLevels.from_events(found.get(CREATE), found.get(POWER_LEVELS), self._version)

    def _compare(self, views: Sequence[StateView]) -> dict[int, tuple[int | None, ...]]:
        """The slots in which they are not all the same, with what each has there."""
        conflict = state_map.difference(self._reader, [view.root for view in views])
        touched = {slot for view in views for slot in view.changes}
        unchanged = [slot for slot in touched if slot not in conflict]
        if unchanged:
            # There the roots agree, so any of them tells.
            values = state_map.get_many(self._reader, views[0].root, unchanged)
            conflict |= {slot: (values.get(slot),) * len(views) for slot in unchanged}
        for slot in touched:
            row = tuple(
                [view.changes.get(slot, value) for view, value in zip(views, conflict[slot], strict=True)]
            )
            if all(value == row[0] for value in row):
                del conflict[slot]
            else:
                conflict[slot] = row
        return conflict

    def _load(self, event_nids: Iterable[int]) -> None:
        missing = {nid for nid in event_nids if nid not in self._pdus}
        for nid, record in events.list_events(self._txn, missing).items():
            self._pdus[nid] = pdu_of(record, self._room.room_id, self._version)

    def _read_pdu(self, record: EventRecord) -> Pdu:
        # What authorizes is looked at whole: servers that have not heard of a redaction must come to the same
        # state. What the rules read survives redaction in any case.
        return parse_stored(record.json, record.event_id, self._room.room_id, self._version)
