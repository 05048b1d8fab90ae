"""What becomes of received events whose parents are here: accepted, soft-failed, rejected, or dropped.

Runs on a database thread, for several events of one room at once, each after its parents. Nothing is written.

Spec: server-server API, "Checks performed on receipt of a PDU", steps 4 to 6; "Soft failure".
"""

from collections.abc import Mapping, Sequence

import msgspec

from ranvier.core import state_map
from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.power import may_redact
from ranvier.core.auth.select import CREATE, auth_keys_for
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.live import pdu_of
from ranvier.services.rooms.outliers import Authorizers, check_by_own_citations, cited_by, read_authorizers
from ranvier.services.rooms.state_before import Changes, States, StateView
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, redactions, rooms
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import Interner, find_state_key_nids
from ranvier.store.tables.prepared import Outcome, PreparedEvent, StateChanges
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one event. `outcome` None: it is dropped, and `reason` says why."""

    pdu: Pdu
    outcome: Outcome | None
    reason: str | None = None  # why it was not accepted
    before: StateView | None = None
    changes: Changes = {}  # of the room's state now
    redacts_target: bool = False
    redacted_by: int | None = None


class Decisions(msgspec.Struct, frozen=True):
    """What becomes of all, if the room is still at `revision`."""

    revision: int
    decided: Sequence[Decision]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be decided. State events are stored as outliers before, so that they have numbers."""

    room: RoomRef
    pdus: Sequence[Pdu]  # each after its parents
    # The state before an event of whose prev_events some are not here, as another server claims it.
    claimed: Mapping[EventID, int] = {}
    is_relayed: bool = False  # this server passes the events on to the others in the room
    is_backfill: bool = False  # history: it says nothing about the room now
    soft_failed: Mapping[EventID, str] = {}  # what fails for other reasons than the state now, and why


class _Facts(msgspec.Struct, frozen=True):
    """What is stored of what the events name."""

    records: Mapping[EventID, EventRecord]
    authorizers: Authorizers
    waiting: Mapping[EventID, Sequence[int]]  # redactions that came before what they redact
    slots: Mapping[StateKey, int]


def decide(txn: ReadTxn, interner: Interner, nodes: NodeCache, case: Case) -> Decisions:
    """Cost: about 8 queries, and 3 for each event whose state differs from the one before."""
    return _Deciding(txn, interner, nodes, case).run()


class _Deciding:
    """One call of `decide`: the room as each event leaves it."""

    def __init__(self, txn: ReadTxn, interner: Interner, nodes: NodeCache, case: Case) -> None:
        self._txn = txn
        self._case = case
        self._version = case.room.version
        self._room = rooms.list_rooms(txn, (case.room.nid,))[case.room.nid]
        self._states = States(txn, interner, nodes, self._room)
        self._facts = self._read_facts(interner)
        self._now = StateView(self._room.state_root)
        self._after: dict[EventID, StateView] = {}  # of events decided here
        self._decided: dict[EventID, Pdu] = {}
        heads = events.list_events(txn, self._room.extremities).values()
        self._heads = {head.event_id: self._states.after(head) for head in heads}

    def run(self) -> Decisions:
        return Decisions(self._room.revision, [self._decide(pdu) for pdu in self._case.pdus])

    def _read_facts(self, interner: Interner) -> _Facts:
        pdus = self._case.pdus
        names: set[EventID] = set()
        for pdu in pdus:
            names.update((pdu.event_id, *pdu.prev_events))
            if pdu.redacts is not None:
                names.add(pdu.redacts)
        cited = {event_id for pdu in pdus for event_id in cited_by(pdu, self._version)}
        return _Facts(
            {
                event_id: record
                for event_id, record in events.list_events_by_id(self._txn, names).items()
                if record.room_nid == self._case.room.nid
            },
            read_authorizers(self._txn, self._case.room, cited),
            redactions.list_redactions(self._txn, {pdu.event_id for pdu in pdus}),
            find_state_key_nids(self._txn, interner, {pdu.slot for pdu in pdus if pdu.is_state}),
        )

    def _decide(self, pdu: Pdu) -> Decision:
        before = self._find_before(pdu)
        if before is None:
            return Decision(pdu=pdu, outcome=None, reason="what came before it is not known here")
        # The state before it is kept of rejected events too: what follows them is built on it.
        self._after[pdu.event_id] = before
        try:
            # 4. allowed by the events that it cites
            check_by_own_citations(pdu, self._facts.authorizers, self._version)
            # 5. allowed by the state before it
            self._check(pdu, before)
        except KeyError:
            del self._after[pdu.event_id]
            return Decision(pdu=pdu, outcome=None, reason="what authorizes it is not known here")
        except AuthRejected as fault:
            return Decision(pdu=pdu, outcome=Outcome.REJECTED, reason=str(fault), before=before)
        after = before
        if pdu.is_state:
            after = before.with_event(
                self._facts.slots[pdu.slot], self._facts.records[pdu.event_id].event_nid
            )
        self._after[pdu.event_id] = after
        self._decided[pdu.event_id] = pdu
        if self._case.is_backfill:
            return self._accept(pdu, Outcome.BACKFILLED, before, {})
        try:
            # 6. allowed by the state now
            self._check(pdu, self._find_now(pdu, before))
        except AuthRejected as fault:
            return Decision(pdu=pdu, outcome=Outcome.SOFT_FAILED, reason=str(fault), before=before)
        if pdu.event_id in self._case.soft_failed:
            reason = self._case.soft_failed[pdu.event_id]
            return Decision(pdu=pdu, outcome=Outcome.SOFT_FAILED, reason=reason, before=before)
        return self._accept(pdu, Outcome.ACCEPTED, before, self._move_on(pdu, after))

    def _find_before(self, pdu: Pdu) -> StateView | None:
        if pdu.type == "m.room.create":
            # A room has one, and every state of it holds it: a second one has no place anywhere.
            create = self._states.pdus(self._now, (CREATE,)).get(CREATE)
            return StateView(state_map.EMPTY) if create == pdu and not pdu.prev_events else None
        views: list[StateView] = []
        claimed = self._case.claimed.get(pdu.event_id)
        for event_id in pdu.prev_events:
            view = self._after.get(event_id)
            if view is None and event_id in self._facts.records:
                view = self._states.after(self._facts.records[event_id])
            if view is not None:
                views.append(view)
            elif claimed is None:
                return None
        if claimed is not None:
            views.append(StateView(claimed))
        return self._states.merge(views) if views else None

    def _find_now(self, pdu: Pdu, before: StateView) -> StateView:
        """The state of the room now. Behind a gap, what is known here may be old, but gaps are easily made on
        purpose: there the state before the event counts as one branch of several."""
        if pdu.event_id not in self._case.claimed:
            return self._now
        return self._states.merge([*(view for view in self._heads.values() if view is not None), before])

    def _check(self, pdu: Pdu, view: StateView) -> None:
        """Raises: AuthRejected."""
        slots = auth_keys_for(pdu.type, pdu.sender, pdu.state_key, pdu.content, self._version)
        # Also where the create event is not cited, since the room id implies it.
        state = self._states.pdus(view, (CREATE, *slots))
        check_state_dependent(
            pdu, lambda event_type, state_key: state.get((event_type, state_key)), self._version
        )

    def _move_on(self, pdu: Pdu, after: StateView) -> Changes:
        """Make the event an extremity of the room; how that changes the room's state."""
        for event_id in pdu.prev_events:
            self._heads.pop(event_id, None)
        self._heads[pdu.event_id] = after
        views = [view for view in self._heads.values() if view is not None]
        now = self._states.merge(views)
        changes = self._states.difference(self._now, now)
        self._now = now
        return changes

    def _accept(self, pdu: Pdu, outcome: Outcome, before: StateView, changes: Changes) -> Decision:
        return Decision(
            pdu=pdu,
            outcome=outcome,
            before=before,
            changes=changes,
            redacts_target=self._redacts_target(pdu, before),
            redacted_by=self._find_redaction(pdu),
        )

    def _redacts_target(self, pdu: Pdu, before: StateView) -> bool:
        if pdu.redacts is None:
            return False
        target = self._decided.get(pdu.redacts)
        if target is None:
            record = self._facts.records.get(pdu.redacts)
            if record is None or record.status.is_outlier:
                return False
            target = pdu_of(record, self._room.room_id, self._version)
        return may_redact(pdu, target, self._states.power(before))

    def _find_redaction(self, pdu: Pdu) -> int | None:
        """The redaction that waited for the event and may take effect on it."""
        waiting = self._facts.waiting.get(pdu.event_id, ())
        for nid, record in sorted(events.list_events(self._txn, waiting).items()):
            if record.room_nid != self._room.room_nid or record.state_root is None:
                continue
            redaction = pdu_of(record, self._room.room_id, self._version)
            if may_redact(redaction, pdu, self._states.power(StateView(record.state_root))):
                return nid
        return None


def prepare(nodes: PendingNodes, one: Decision, changes: StateChanges) -> PreparedEvent:
    """What `append` takes of a decision that is not to drop the event."""
    assert one.outcome is not None, "what is dropped is not appended"
    assert one.before is not None, "what is not dropped has a state before it"
    view = one.before
    return PreparedEvent(
        pdu=one.pdu,
        outcome=one.outcome,
        state_before=state_map.update(nodes, view.root, view.changes) if view.changes else view.root,
        changes=changes,
        redacts_target=one.redacts_target,
        redacted_by=one.redacted_by,
    )
