"""What came into a room while its state was not whole, decided again on the whole one: on a database thread.

All of it takes effect in one transaction: what each event is, the state before it, the extremities, the room's state.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.events.parse import parse_stored
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.deciding import Again, Case, Claimed, Decisions, decide
from ranvier.services.rooms.elsewhere import is_here, list_servers
from ranvier.services.rooms.outliers import sorted_by_history
from ranvier.services.rooms.state_before import States, StateView
from ranvier.services.rooms.summaries import make_summary
from ranvier.store.database import Conflict, ReadTxn, WriteTxn
from ranvier.store.tables import events, partial_rooms, rooms
from ranvier.store.tables.append import append
from ranvier.store.tables.corrections import Correction, correct_events, reject_citing
from ranvier.store.tables.events import EventRecord, Status
from ranvier.store.tables.interned import Interner, list_server_names, list_state_keys
from ranvier.store.tables.placement import STATUS
from ranvier.store.tables.prepared import Appended, Batch, Outcome
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes, SnapshotNodes

log = logging.getLogger(__name__)

AT_ONCE: Final = 500
"""Events that are looked at together."""

_Made = dict[tuple[int, frozenset[tuple[int, int | None]]], int]


class Entered(msgspec.Struct, frozen=True):
    """A room whose state is not whole, and the event by which this server entered it."""

    room: RoomRef
    join_nid: int
    join_id: EventID


class Since(msgspec.Struct, frozen=True):
    """What came into it since, that event included."""

    records: Mapping[EventID, EventRecord]
    pdus: Sequence[Pdu]  # each after its parents
    gaps: Mapping[EventID, Collection[EventID]]  # those of whose prev_events some are not here, and these


class Moot(Exception):
    """The room's state is whole, or nobody of this server is in it any more."""


class KeptOut(Exception):
    """What is said to be the state does not let this server's user in."""


class Redeciding:
    """Its functions run in transactions, on any thread."""

    def __init__(self, interner: Interner, nodes: NodeCache) -> None:
        self._interner = interner
        self._nodes = nodes

    def count_doubts(self, txn: ReadTxn, entered: Entered, claimed: int) -> int:
        """In how many ways what is claimed to be the state before we entered is less than what we were told then:
        slots that nothing fills any more, servers of which nobody was ever in the room."""
        partial = partial_rooms.find(txn, entered.room.nid)
        join = events.list_events(txn, (entered.join_nid,))[entered.join_nid]
        if partial is None or join.state_root is None:
            return 0
        nodes = SnapshotNodes(txn, self._nodes)
        state = state_map.to_dict(nodes, claimed)
        lacking = state_map.to_dict(nodes, join.state_root).keys() - state.keys()
        slots = list_state_keys(txn, self._interner, state.keys()).values()
        present = set(list_servers(key for type_, key in slots if type_ == "m.room.member"))
        told = list_server_names(txn, self._interner, partial.server_nids).values()
        return len(lacking) + len(set(told) - present)

    def reconcile(self, txn: WriteTxn, entered: Entered, claimed: int) -> int:
        """The root of the state before we entered: as it is claimed now, resolved with the part that we were given
        then, where the two do not agree."""
        (room,) = rooms.list_rooms(txn, (entered.room.nid,)).values()
        join = events.list_events(txn, (entered.join_nid,))[entered.join_nid]
        if not room.is_partial or join.state_root is None:
            return claimed
        nodes = PendingNodes(txn, self._nodes)
        given = state_map.to_dict(nodes, join.state_root)
        states = States(txn, self._interner, self._nodes, room)
        view = states.merge([StateView(claimed), StateView(claimed, given)])
        return _store(nodes, view, {})

    def read_since(self, txn: ReadTxn, entered: Entered) -> Since:
        """What is to be decided again."""
        room = entered.room
        stored = events.list_events(txn, partial_rooms.list_event_nids(txn, room.nid))
        # Whole, whatever was redacted since; in the order of arrival as far as their parents allow.
        pdus = [
            parse_stored(stored[nid].json, stored[nid].event_id, room.room_id, room.version)
            for nid in sorted(stored, key=lambda nid: (nid != entered.join_nid, nid))
        ]
        cited = {event_id for pdu in pdus for event_id in pdu.prev_events}
        known = events.list_known(txn, cited)
        placed = {
            event_id
            for event_id, one in known.items()
            if one.room_nid == room.nid and one.state_root is not None and not one.status.is_outlier
        }
        return Since(
            {record.event_id: record for record in stored.values()},
            sorted_by_history(pdus),
            {
                pdu.event_id: [event_id for event_id in pdu.prev_events if event_id not in placed]
                for pdu in pdus
                if pdu.event_id != entered.join_id and not placed.issuperset(pdu.prev_events)
            },
        )


class Rewriting:
    """What `RoomWriters.rewrite` asks in its transaction, which may run twice."""

    def __init__(
        self,
        redeciding: Redeciding,
        interner: Interner,
        nodes: NodeCache,
        entered: Entered,
        now_ms: int,
    ) -> None:
        self._redeciding = redeciding
        self._interner = interner
        self._nodes = nodes
        self._entered = entered
        self._now_ms = now_ms
        self.touched: Mapping[int, state_map.Node] = {}

    def write(self, txn: WriteTxn, claims: Claimed) -> Appended:
        """Decide all again, with the states at gaps, and that before this server entered, as they are claimed.

        Raises: Conflict if there are gaps without a claim; Moot; KeptOut.
        """
        room = self._check_standing(txn)
        since = self._redeciding.read_since(txn, self._entered)
        if not all(is_bridged(claims, *gap) for gap in since.gaps.items()):
            raise Conflict("the room went on")
        nodes = PendingNodes(txn, self._nodes)
        # Nodes that this transaction makes are read in it: it may come to nothing, and their numbers be used again.
        cache = NodeCache()
        partial_rooms.end(txn, room.room_nid)
        again = Again(self._entered.join_id, (), state_map.EMPTY)
        pdus = since.pdus
        while pdus:
            case = Case(room=self._entered.room, pdus=pdus[:AT_ONCE], claimed=claims, again=again)
            decisions = decide(txn, self._interner, cache, case)
            root = self._take(txn, nodes, since, decisions)
            heads = [since.records[event_id].event_nid for event_id in decisions.heads]
            again = Again(self._entered.join_id, tuple(heads), root)
            pdus = pdus[len(decisions.decided) :]
        batch = Batch(
            room_nid=room.room_nid,
            events=(),
            now_ms=self._now_ms,
            revision=room.revision,
            replace_state=again.root,
            replace_extremities=again.heads,
        )
        appended = append(txn, self._interner, self._nodes, batch)
        make_summary(txn, self._interner, self._entered.room)
        self.touched = nodes.touched
        return appended

    def _take(self, txn: WriteTxn, nodes: PendingNodes, since: Since, decisions: Decisions) -> int:
        """Write what was decided. Returns the root of the room's state then. Raises: KeptOut."""
        made: _Made = {}
        corrections: list[Correction] = []
        for one in decisions.decided:
            if one.pdu.event_id == self._entered.join_id and one.outcome is not Outcome.ACCEPTED:
                raise KeptOut(one.reason or "what authorizes the event is not here")
            record = since.records[one.pdu.event_id]
            # One of which nothing can be said any more is as if it had not come: it may come again.
            status = Status.OUTLIER if one.outcome is None else STATUS[one.outcome]
            if status is not record.status:
                log.info("%s is %s, not %s: %s", record.event_id, status.name, record.status.name, one.reason)
            corrections.append(
                Correction(
                    record=record,
                    pdu=one.pdu,
                    status=status,
                    state_root=None if one.before is None else _store(nodes, one.before, made),
                    redacts_target=one.redacts_target,
                    redacted_by=one.redacted_by,
                )
            )
        correct_events(txn, self._entered.room.nid, corrections, self._now_ms)
        for made_right in corrections:
            if made_right.status is Status.REJECTED and made_right.pdu.is_state:
                reject_citing(txn, made_right.record.event_nid)
        return _store(nodes, decisions.now, made)

    def _check_standing(self, txn: WriteTxn) -> rooms.Room:
        """Raises: Moot."""
        nid = self._entered.room.nid
        partial = partial_rooms.find(txn, nid)
        if (
            partial is None
            or partial.join_nid != self._entered.join_nid
            or not is_here(txn, self._interner, nid)
        ):
            raise Moot
        return rooms.list_rooms(txn, (nid,))[nid]


def is_bridged(claims: Claimed, event_id: EventID, missing: Collection[EventID]) -> bool:
    """Whether it is known what the state before an event was, of whose prev_events some are missing."""
    return event_id in claims.before or all(one in claims.after for one in missing)


def leave_undecided(txn: WriteTxn, room: RoomRef, now_ms: int) -> None:
    """This server left the room before its state was whole, and is about to enter it anew: of what came then, nothing
    can be built on. It is history that is fetched like any other."""
    if partial_rooms.find(txn, room.nid) is None:
        return
    stored = events.list_events(txn, partial_rooms.list_event_nids(txn, room.nid))
    corrections = [
        Correction(
            record=record,
            pdu=parse_stored(record.json, record.event_id, room.room_id, room.version),
            status=Status.OUTLIER,
            state_root=None,
            redacts_target=False,
            redacted_by=None,
        )
        for record in stored.values()
    ]
    correct_events(txn, room.nid, corrections, now_ms)
    partial_rooms.forget(txn, room.nid)


def _store(nodes: PendingNodes, view: StateView, made: _Made) -> int:
    """The root of a state. `made`: those that were stored before; events in a row mostly have the same."""
    if not view.changes:
        return view.root
    key = view.root, frozenset(view.changes.items())
    if key not in made:
        made[key] = state_map.update(nodes, view.root, view.changes)
    return made[key]
