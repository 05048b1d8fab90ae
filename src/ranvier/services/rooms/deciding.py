"""What becomes of received events whose parents are here: accepted, soft-failed, rejected, or dropped.

Runs on a database thread, for several events of one room at once, each after its parents. Nothing is written.

Spec: server-server API, "Checks performed on receipt of a PDU", steps 4 to 6; "Soft failure".
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

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
from ranvier.services.rooms.standings import AS_STORED, Standings
from ranvier.services.rooms.state_before import Changes, States, StateView
from ranvier.store.database import ReadTxn
from ranvier.store.tables import edges, events, redactions, rooms
from ranvier.store.tables.edges import Gap
from ranvier.store.tables.events import EventRecord, Status
from ranvier.store.tables.interned import Interner, find_state_key_nids
from ranvier.store.tables.prepared import Outcome, PreparedEvent, StateChanges
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes

MAX_UNACCEPTED: Final = 100
"""Steps back from an event, through events that were not accepted, in search of extremities behind them."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one event. `outcome` None: it is dropped, and `reason` says why."""

    pdu: Pdu
    outcome: Outcome | None
    reason: str | None = None  # why it was not accepted
    before: StateView | None = None
    changes: Changes = {}  # of the room's state now
    behind: Collection[EventID] = ()  # what is no extremity any more
    is_behind: bool = False  # itself no extremity: it comes late
    lacking: Collection[
        EventID
    ] = ()  # what is not here and what events cite that it cites and that were not accepted
    claimed: Mapping[EventID, int] = {}  # roots of the states that were taken as those after what is not here
    redacts_target: bool = False
    redacted_by: int | None = None


class Decisions(msgspec.Struct, frozen=True):
    """What becomes of all, if the room is still at `revision`."""

    revision: int
    decided: Sequence[Decision]
    heads: Collection[EventID]  # the extremities then
    now: StateView  # the room's state then


class Claimed(msgspec.Struct, frozen=True):
    """States at the far side of gaps, as another server claims them: their roots."""

    after: Mapping[EventID, int] = {}  # an event that is not here
    before: Mapping[EventID, int] = {}  # an event of whose prev_events some are not here


class Again(msgspec.Struct, frozen=True):
    """Events that came since this server entered the room by one of them, and that were decided before on a state
    that was not whole. What is stored of them does not count, but what was decided since."""

    entered_by: EventID
    heads: tuple[int, ...]  # the extremities that those before them left; none at first
    root: int  # of the room's state then
    standings: Standings


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be decided. State events are stored as outliers before, so that they have numbers."""

    room: RoomRef
    pdus: Sequence[Pdu]  # each after its parents
    claimed: Claimed = Claimed()
    is_relayed: bool = False  # this server passes the events on to the others in the room
    is_backfill: bool = False  # history: it says nothing about the room now
    soft_failed: Mapping[EventID, str] = {}  # what fails for other reasons than the state now, and why
    # Events of whose prev_events some are not here: while the room's state is not whole, what it is now counts as the
    # state before them.
    bridged: Collection[EventID] = ()
    again: Again | None = None


class _Facts(msgspec.Struct, frozen=True):
    """What is stored of what the events name."""

    records: dict[EventID, EventRecord]  # grows
    authorizers: Authorizers
    waiting: Mapping[EventID, Sequence[int]]  # redactions that came before what they redact
    above: Mapping[
        EventID, Mapping[int, Gap]
    ]  # the gap below each event that cites what was missing until now
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
        if case.again is not None:
            self._room = msgspec.structs.replace(
                self._room, extremities=case.again.heads, state_root=case.again.root
            )
        self._standings = AS_STORED if case.again is None else case.again.standings
        self._states = States(txn, interner, nodes, self._room, self._standings)
        self._facts = self._read_facts(interner)
        self._now = StateView(self._room.state_root)
        self._after: dict[EventID, StateView] = {}  # of events decided here
        self._decided: dict[EventID, Decision] = {}
        heads = self._standings.list_events(txn, self._room.extremities).values()
        views = {head.event_id: self._states.after(head) for head in heads}
        self._heads = {event_id: view for event_id, view in views.items() if view is not None}
        self._lacks_members = self._room.is_partial and case.again is None
        self._interner = interner
        self._given = self._find_given()

    def run(self) -> Decisions:
        decided: list[Decision] = []
        for pdu in self._case.pdus:
            decided.append(self._take(pdu))
            if self._case.again is not None and pdu.is_state and decided[-1].outcome is Outcome.REJECTED:
                # What cites it is to be held against what is stored of it.
                break
        return Decisions(self._room.revision, decided, self._heads.keys(), self._now)

    def _read_facts(self, interner: Interner) -> _Facts:
        pdus = self._case.pdus
        names: set[EventID] = set()
        for pdu in pdus:
            names.update((pdu.event_id, *pdu.prev_events))
            if pdu.redacts is not None:
                names.add(pdu.redacts)
        cited = {event_id for pdu in pdus for event_id in cited_by(pdu, self._version)}
        return _Facts(
            _of_room(self._standings.list_events_by_id(self._txn, names), self._case.room.nid),
            read_authorizers(self._txn, self._case.room, cited, self._standings),
            redactions.list_redactions(self._txn, {pdu.event_id for pdu in pdus}),
            _group_by_missing(edges.list_gaps_above(self._txn, [pdu.event_id for pdu in pdus])),
            find_state_key_nids(self._txn, interner, {pdu.slot for pdu in pdus if pdu.is_state}),
        )

    def _take(self, pdu: Pdu) -> Decision:
        record = self._facts.records.get(pdu.event_id)
        if record is not None and self._states.after(record) is not None:
            return Decision(pdu=pdu, outcome=None)  # it came in another way meanwhile
        decision = self._decide(pdu)
        if decision.outcome is None:
            return decision
        if not self._case.is_backfill:
            decision = self._move_on(decision)
        self._decided[pdu.event_id] = decision
        if self._entered_by(pdu):
            self._given = None
        return decision

    def _decide(self, pdu: Pdu) -> Decision:
        before = self._find_before(pdu)
        if before is None:
            return Decision(pdu=pdu, outcome=None, reason="what came before it is not known here")
        if self._lacks_members:
            before = self._with_members(pdu, before)
        # The state before it is kept of rejected events too: what follows them is built on it.
        self._after[pdu.event_id] = before
        try:
            # 4. allowed by the events that it cites
            check_by_own_citations(pdu, self._facts.authorizers, self._version)
            # 5. allowed by the state before it
            self._after[pdu.event_id] = before = self._allow(pdu, before)
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
        if self._case.is_backfill:
            return self._accept(pdu, Outcome.BACKFILLED, before)
        if self._entered_by(pdu):
            return self._accept(pdu, Outcome.ACCEPTED, before)
        try:
            # 6. allowed by the state now
            now = self._find_now(pdu, before)
            self._allow(pdu, self._with_members(pdu, now) if self._lacks_members else now)
        except AuthRejected as fault:
            return Decision(pdu=pdu, outcome=Outcome.SOFT_FAILED, reason=str(fault), before=before)
        if pdu.event_id in self._case.soft_failed:
            reason = self._case.soft_failed[pdu.event_id]
            return Decision(pdu=pdu, outcome=Outcome.SOFT_FAILED, reason=reason, before=before)
        return self._accept(pdu, Outcome.ACCEPTED, before)

    def _entered_by(self, pdu: Pdu) -> bool:
        return self._case.again is not None and pdu.event_id == self._case.again.entered_by

    def _find_given(self) -> StateView | None:
        """The state with which this server entered, until the event by which it did has been decided again: what lies
        before that is held against this one, too."""
        again, claimed = self._case.again, self._case.claimed
        if again is None:
            return None
        entrance = self._standings.list_events_by_id(self._txn, (again.entered_by,)).get(again.entered_by)
        if entrance is None or self._states.after(entrance) is not None:
            return None
        if again.entered_by in claimed.before:
            return StateView(claimed.before[again.entered_by])
        cited = self._read(entrance).prev_events
        views = [StateView(claimed.after[one]) for one in cited if one in claimed.after]
        return self._states.merge(views) if views else None

    def _find_before(self, pdu: Pdu) -> StateView | None:
        if pdu.type == "m.room.create":
            # A room has one, and every state of it holds it: a second one has no place anywhere.
            create = self._states.pdus(self._given or self._now, (CREATE,)).get(CREATE)
            return StateView(state_map.EMPTY) if create == pdu and not pdu.prev_events else None
        views: list[StateView] = []
        claimed = self._case.claimed.before.get(pdu.event_id)
        if claimed is not None and self._entered_by(pdu):
            # Where others say what was before, and what we were given then, was resolved.
            return StateView(claimed)
        if self._lacks_members and pdu.event_id in self._case.bridged:
            claimed = self._room.state_root
        for event_id in pdu.prev_events:
            view = self._find_after(event_id)
            if view is None and event_id in self._case.claimed.after:
                view = StateView(self._case.claimed.after[event_id])
            if view is not None:
                views.append(view)
            elif claimed is None:
                return None
        if claimed is not None:
            views.append(StateView(claimed))
        return self._states.merge(views) if views else None

    def _with_members(self, pdu: Pdu, view: StateView) -> StateView:
        """A state that lacks members, with those that the event cites where it has none.

        What is let in by this is decided again when the state is whole. Cost: 2 queries.
        """
        cited = self._list_cited_members(pdu)
        filled = self._states.slots(view, cited)
        added = {slot: nid for slot, nid in cited.items() if slot not in filled}
        return StateView(view.root, {**view.changes, **added}) if added else view

    def _allow(self, pdu: Pdu, view: StateView) -> StateView:
        """The state, which allows an event. One that lacks members may be wrong about others, too: a kick that was
        let in may be none. So where it does not allow the event, it is resolved with the members that this cites,
        as in Synapse.

        Raises: AuthRejected.
        """
        try:
            self._check(pdu, view)
        except AuthRejected:
            if not self._lacks_members:
                raise
            cited = StateView(view.root, {**view.changes, **self._list_cited_members(pdu)})
            view = self._states.merge([view, cited])
            self._check(pdu, view)
        return view

    def _list_cited_members(self, pdu: Pdu) -> dict[int, int]:
        """The members that an event cites, as slots of a state. Cost: 2 queries."""
        authorizers = self._facts.authorizers
        cited = {
            one.slot: event_id
            for event_id in cited_by(pdu, self._version)
            if event_id not in authorizers.rejected
            and (one := authorizers.pdus.get(event_id)) is not None
            and one.type == "m.room.member"
        }
        slots = find_state_key_nids(self._txn, self._interner, cited.keys()) if cited else {}
        known = events.list_known(self._txn, cited.values()) if cited else {}
        return {nid: known[cited[slot]].event_nid for slot, nid in slots.items()}

    def _find_after(self, event_id: EventID) -> StateView | None:
        """The state after an event that is here."""
        view = self._after.get(event_id)
        if view is None and event_id in self._facts.records:
            view = self._states.after(self._facts.records[event_id])
        return view

    def _find_now(self, pdu: Pdu, before: StateView) -> StateView:
        """The state of the room now. Behind a gap, what is known here may be old, but gaps are easily made on
        purpose: there the state before the event counts as one branch of several."""
        claimed = self._case.claimed
        if self._given is not None:
            return self._given
        if pdu.event_id not in (*claimed.before, *self._case.bridged) and all(
            event_id not in claimed.after or self._find_after(event_id) is not None
            for event_id in pdu.prev_events
        ):
            return self._now
        return self._states.merge([*self._heads.values(), before])

    def _check(self, pdu: Pdu, view: StateView) -> None:
        """Raises: AuthRejected."""
        slots = auth_keys_for(pdu.type, pdu.sender, pdu.state_key, pdu.content, self._version)
        # Also where the create event is not cited, since the room id implies it.
        state = self._states.pdus(view, (CREATE, *slots))
        check_state_dependent(
            pdu, lambda event_type, state_key: state.get((event_type, state_key)), self._version
        )

    def _move_on(self, decision: Decision) -> Decision:
        """Make an accepted event an extremity of the room, and those that are behind it none; what that changes
        of the room's state."""
        pdu = decision.pdu
        is_accepted = decision.outcome is Outcome.ACCEPTED
        above = self._list_above(pdu)
        is_behind = bool(above) or self._is_history(pdu)
        if not is_accepted and not is_behind:
            return decision
        behind = self._list_behind([pdu, *above])
        heads = {event_id: view for event_id, view in self._heads.items() if event_id not in behind}
        if is_accepted and not is_behind:
            heads[pdu.event_id] = self._after[pdu.event_id]
        if not heads:
            # Ids of rooms v1 and v2 can be made to cite each other in a circle.
            return decision
        now = self._states.merge(list(heads.values()))
        changes = self._states.difference(self._now, now)
        self._heads, self._now = heads, now
        return msgspec.structs.replace(
            decision,
            changes=changes,
            behind=behind,
            is_behind=is_behind,
            lacking=self._list_lacking(pdu) if is_accepted else (),
        )

    def _is_history(self, pdu: Pdu) -> bool:
        """Whether the room's state now holds an event that continues none of the room's branches, or is authorized by
        it. It is behind them then, and so is what lies behind it, though what would show that is not here: it is from
        before this server came, or from a gap, and somebody sends it again. Whether it soft-fails does not matter.

        Cost: nothing for an event that cites an extremity; else 2 queries for a state event.
        """
        if not pdu.is_state or not self._heads or not self._heads.keys().isdisjoint(pdu.prev_events):
            return False
        slot, nid = self._facts.slots[pdu.slot], self._facts.records[pdu.event_id].event_nid
        if self._states.slots(self._now, (slot,)).get(slot) == nid:
            return True
        # What is stored of the state does not count where that is being decided again.
        return self._case.again is None and edges.does_authorize_state(self._txn, nid)

    def _list_above(self, late: Pdu) -> list[Pdu]:
        """Events of the timeline that cite one which comes late, and that what follows from it agrees with.

        Where it does not, the state that another server claimed was not what we know now. Such an event stays
        one branch beside others: who withholds an event must not decide about the room by that.
        """
        gaps = self._facts.above.get(late.event_id, {})
        above: list[Pdu] = []
        for record in self._standings.list_events(self._txn, gaps).values():
            pdu = self._read(record)
            self._facts.records[pdu.event_id] = record
            # It cites the late one itself, or what it cites does and was not accepted.
            citing = [one for one in self._walk_unaccepted(pdu) if late.event_id in one.prev_events]
            if self._is_as_claimed(late, gaps[record.event_nid]) or (
                citing and all(self._agrees(one) for one in citing)
            ):
                above.append(pdu)
        return above

    def _is_as_claimed(self, late: Pdu, gap: Gap) -> bool:
        """Whether the state after an event that comes late is what was claimed of it. Other parents of the event above
        may still be missing."""
        after = self._after.get(late.event_id)
        if gap.claimed_root is None or after is None:
            return False
        return not self._states.difference(StateView(gap.claimed_root), after)

    def _agrees(self, pdu: Pdu) -> bool:
        """Whether what was before an event of the room's graph is what follows from the events that it cites."""
        if (decided := self._decided.get(pdu.event_id)) is not None:
            before = decided.before
        else:
            root = self._facts.records[pdu.event_id].state_root
            before = None if root is None else StateView(root)
        self._load(pdu.prev_events)
        views = [self._find_after(event_id) for event_id in pdu.prev_events]
        known = [view for view in views if view is not None]
        if before is None or len(known) < len(views):
            return False
        return not self._states.difference(before, self._states.merge(known))

    def _list_lacking(self, pdu: Pdu) -> list[EventID]:
        """What is not here behind those events that one cites and that were not accepted. When it comes, it is behind
        the event, though that does not cite it. Cost: nothing where all were accepted; else 1 query for each step."""
        behind = list(self._walk_unaccepted(pdu))[1:]
        self._load([event_id for one in behind for event_id in one.prev_events])
        cited = {event_id: None for one in behind for event_id in one.prev_events}
        return [event_id for event_id in cited if self._find_after(event_id) is None]

    def _walk_unaccepted(self, pdu: Pdu) -> Iterable[Pdu]:
        """An event, and those behind it that only events lead to that were not accepted, themselves included."""
        seen = {pdu.event_id}
        steps = [pdu]
        for _ in range(MAX_UNACCEPTED):
            yield from steps
            latest = {one: None for step in steps for one in step.prev_events if one not in seen}
            seen |= latest.keys()
            self._load(latest)
            steps = [one for event_id in latest if (one := self._find_unaccepted(event_id)) is not None]
            if not steps:
                return

    def _list_behind(self, pdus: Iterable[Pdu]) -> list[EventID]:
        """The prev_events, and what is behind those of them that were not accepted. What is behind an accepted
        event was found when that came; one that was not accepted left the extremities as they were.

        Cost: 1 query for each step, while there are extremities that may be behind.
        """
        behind: dict[EventID, None] = {}
        latest = {event_id: None for pdu in pdus for event_id in pdu.prev_events}
        for _ in range(MAX_UNACCEPTED):
            behind |= latest
            if not latest or behind.keys() >= self._heads.keys():
                break
            self._load(latest)
            steps = [pdu for event_id in latest if (pdu := self._find_unaccepted(event_id)) is not None]
            latest = {
                event_id: None for pdu in steps for event_id in pdu.prev_events if event_id not in behind
            }
        return list(behind)

    def _find_unaccepted(self, event_id: EventID) -> Pdu | None:
        """The event, if it is part of the room's graph and was not accepted."""
        decided = self._decided.get(event_id)
        if decided is not None:
            return None if decided.outcome is Outcome.ACCEPTED else decided.pdu
        record = self._facts.records.get(event_id)
        if record is None or record.status not in (Status.SOFT_FAILED, Status.REJECTED):
            return None
        return self._read(record)

    def _load(self, event_ids: Iterable[EventID]) -> None:
        records = self._facts.records
        unknown = [one for one in event_ids if one not in records and one not in self._after]
        if unknown:
            found = self._standings.list_events_by_id(self._txn, unknown)
            records.update(_of_room(found, self._room.room_nid))

    def _read(self, record: EventRecord) -> Pdu:
        return pdu_of(record, self._room.room_id, self._version)

    def _accept(self, pdu: Pdu, outcome: Outcome, before: StateView) -> Decision:
        return Decision(
            pdu=pdu,
            outcome=outcome,
            before=before,
            claimed=self._list_claimed(pdu),
            redacts_target=self._redacts_target(pdu, before),
            redacted_by=self._find_redaction(pdu),
        )

    def _list_claimed(self, pdu: Pdu) -> dict[EventID, int]:
        claims = self._case.claimed.after
        return {
            one: claims[one] for one in pdu.prev_events if one in claims and self._find_after(one) is None
        }

    def _redacts_target(self, pdu: Pdu, before: StateView) -> bool:
        if pdu.redacts is None:
            return False
        decided = self._decided.get(pdu.redacts)
        if decided is not None:
            return may_redact(pdu, decided.pdu, self._states.power(before))
        record = self._facts.records.get(pdu.redacts)
        if record is None:
            return False
        # Also where it came with a state, and its place is not known: clients are shown it.
        return may_redact(pdu, self._read(record), self._states.power(before))

    def _find_redaction(self, pdu: Pdu) -> int | None:
        """The redaction that waited for the event and may take effect on it."""
        waiting = self._facts.waiting.get(pdu.event_id, ())
        for nid, record in sorted(self._standings.list_events(self._txn, waiting).items()):
            if record.room_nid != self._room.room_nid or record.state_root is None:
                continue
            redaction = self._read(record)
            if may_redact(redaction, pdu, self._states.power(StateView(record.state_root))):
                return nid
        return None


def _of_room(records: Mapping[EventID, EventRecord], room_nid: int) -> dict[EventID, EventRecord]:
    return {event_id: record for event_id, record in records.items() if record.room_nid == room_nid}


def _group_by_missing(gaps: Iterable[Gap]) -> dict[EventID, dict[int, Gap]]:
    above: dict[EventID, dict[int, Gap]] = {}
    for gap in gaps:
        above.setdefault(gap.missing_event_id, {})[gap.event_nid] = gap
    return above


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
        behind=one.behind,
        is_behind=one.is_behind,
        lacking=one.lacking,
        claimed=one.claimed,
        redacts_target=one.redacts_target,
        redacted_by=one.redacted_by,
    )
