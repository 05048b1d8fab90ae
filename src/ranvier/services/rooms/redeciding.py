"""What came into a room while its state was not whole, decided again on the whole one: on database threads.

It is decided piece by piece, while the room goes on as it is, and kept in memory (`Course`). In one transaction all of
it takes effect then: what each event is, the state before it, the extremities, the room's state. What comes in until
that moment is decided in it. A process that dies meanwhile begins anew.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.events.parse import parse_stored
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, ServerName
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.deciding import Again, Case, Claimed, Decision, Decisions, decide
from ranvier.services.rooms.elsewhere import is_here, list_servers
from ranvier.services.rooms.filling import Rows, list_changed_rows
from ranvier.services.rooms.outliers import sorted_by_history
from ranvier.services.rooms.rechecks import ask_for_recheck
from ranvier.services.rooms.standings import UNDECIDED, Standing, Standings
from ranvier.services.rooms.state_before import States, StateView
from ranvier.services.rooms.summaries import make_summary
from ranvier.store.database import Conflict, Kind, ReadTxn, WriteTxn
from ranvier.store.tables import events, memberships, partial_rooms, rooms, unchecked_states
from ranvier.store.tables.append import append
from ranvier.store.tables.corrections import (
    Correction,
    correct_events,
    correct_roots,
    list_citing_outliers,
    reject_outliers,
)
from ranvier.store.tables.edges import claim_gaps
from ranvier.store.tables.events import EventRecord, Status
from ranvier.store.tables.interned import Interner, intern_servers, list_server_names, list_state_keys
from ranvier.store.tables.placement import STATUS
from ranvier.store.tables.prepared import Appended, Batch, Outcome
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes, SnapshotNodes
from ranvier.store.tables.unchecked_states import AskedState, WantedKey

log = logging.getLogger(__name__)

AT_ONCE: Final = 200
"""Events that are decided together."""

FEW: Final = 20
"""So many may be decided in the transaction in which all takes effect."""


class Entered(msgspec.Struct, frozen=True):
    """A room whose state is not whole, and the event by which this server entered it."""

    room: RoomRef
    join_nid: int
    join_id: EventID


class Since(msgspec.Struct, frozen=True):
    """What came into it since, that event included, as far as it is not decided again yet."""

    nids: Mapping[EventID, int]  # each after its parents
    gaps: Mapping[EventID, Collection[EventID]]  # those of whose prev_events some are not here, and these


class Lacking(msgspec.Struct, frozen=True):
    """What could not be checked of the states that are taken."""

    asked: Sequence[AskedState]
    wanted: Sequence[WantedKey]


class Verdict(msgspec.Struct, frozen=True):
    """What one event is, by what was decided again."""

    standing: Standing
    was: Status
    is_redaction: bool
    redacts_target: bool
    redacted_by: int | None
    claimed: Mapping[EventID, int]  # roots of the states after those of its prev_events that are not here

    @property
    def has_news(self) -> bool:
        """Whether more changes than the state before it."""
        return self.standing.status is not self.was or (self.is_redaction and self.was is Status.ACCEPTED)


class Step(msgspec.Struct, frozen=True):
    """Some events that were decided."""

    verdicts: Mapping[int, Verdict]
    heads: tuple[int, ...]  # the extremities then
    root: int  # of the room's state then
    citing: Collection[int]  # outliers that cite what is rejected
    servers: Collection[ServerName]  # of those whose memberships they are
    nodes: Mapping[int, state_map.Node]  # to be remembered when the transaction has committed


class Course:
    """How far it has come: changed on the event loop alone, between transactions."""

    def __init__(self, entered: Entered) -> None:
        self.entered = entered
        self.nids: dict[EventID, int] = {}
        self.verdicts: dict[int, Verdict] = {}
        self.standings: dict[int, Standing] = {}
        self.servers: set[ServerName] = set()
        self.missing: set[EventID] = set()  # what is cited and was not here when that was decided
        self.heads: tuple[int, ...] = ()
        self.root = state_map.EMPTY

    def expect(self, since: Since) -> None:
        """These are to be decided next: what is stored of them does not count."""
        self.nids.update(since.nids)
        self.standings.update(dict.fromkeys(since.nids.values(), UNDECIDED))
        self.missing.update(one for missing in since.gaps.values() for one in missing)

    def take(self, step: Step) -> None:
        """Take in what was decided."""
        self.verdicts.update(step.verdicts)
        self.standings.update({nid: one.standing for nid, one in step.verdicts.items()})
        self.standings.update(dict.fromkeys(step.citing, Standing(Status.REJECTED_OUTLIER, None)))
        self.servers.update(step.servers)
        self.heads, self.root = step.heads, step.root

    def copy(self) -> "Course":
        """The same, to go on with in a transaction that may come to nothing."""
        copy = Course(self.entered)
        copy.nids = dict(self.nids)
        copy.verdicts = dict(self.verdicts)
        copy.standings = dict(self.standings)
        copy.servers = set(self.servers)
        copy.missing = set(self.missing)
        copy.heads, copy.root = self.heads, self.root
        return copy


class Moot(Exception):
    """The room's state is whole, or nobody of this server is in it any more."""


class KeptOut(Exception):
    """What is said to be the state does not let this server's user in."""


class Redeciding:
    """Its functions run in transactions, on any thread."""

    def __init__(self, interner: Interner, nodes: NodeCache) -> None:
        self._interner = interner
        self._nodes = nodes

    def count_doubts(
        self, txn: ReadTxn, entered: Entered, claimed: int, excused: Collection[ServerName]
    ) -> int:
        """In how many ways what is claimed to be the state before we entered is less than what we were told then:
        slots that nothing fills any more, servers of which nobody was ever in the room, but for those `excused`."""
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
        return len(lacking) + len(set(told) - present - set(excused))

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
        return state_map.update(nodes, view.root, view.changes)

    def read_since(self, txn: ReadTxn, course: Course) -> Since:
        """What is to be decided next."""
        room, join_nid = course.entered.room, course.entered.join_nid
        waiting = [nid for nid in partial_rooms.list_event_nids(txn, room.nid) if nid not in course.verdicts]
        stored = events.list_events(txn, waiting)
        # In the order of arrival as far as their parents allow.
        pdus = [_parse(stored[nid], room) for nid in sorted(stored, key=lambda nid: (nid != join_nid, nid))]
        known = events.list_known(txn, {event_id for pdu in pdus for event_id in pdu.prev_events})
        placed = {
            event_id
            for event_id, one in known.items()
            if one.room_nid == room.nid and one.state_root is not None and not one.status.is_outlier
        }
        nids = {record.event_id: record.event_nid for record in stored.values()}
        return Since(
            {pdu.event_id: nids[pdu.event_id] for pdu in sorted_by_history(pdus)},
            {
                pdu.event_id: [event_id for event_id in pdu.prev_events if event_id not in placed]
                for pdu in pdus
                if pdu.event_id != course.entered.join_id and not placed.issuperset(pdu.prev_events)
            },
        )

    def decide(
        self,
        txn: ReadTxn,
        course: Course,
        claims: Claimed,
        nids: Sequence[int],
        nodes: NodeCache | None = None,
    ) -> tuple[Decisions, Mapping[EventID, EventRecord]]:
        """Decide some of them, perhaps not all: their states are not stored yet.

        Raises: KeptOut.
        """
        entered = course.entered
        stored = events.list_events(txn, nids)
        case = Case(
            room=entered.room,
            # Whole, whatever was redacted since.
            pdus=[_parse(stored[nid], entered.room) for nid in nids],
            claimed=claims,
            again=Again(entered.join_id, course.heads, course.root, Standings(course.standings)),
        )
        decisions = decide(txn, self._interner, self._nodes if nodes is None else nodes, case)
        for one in decisions.decided:
            if one.pdu.event_id == entered.join_id and one.outcome is not Outcome.ACCEPTED:
                raise KeptOut(one.reason or "what authorizes the event is not here")
        return decisions, {record.event_id: record for record in stored.values()}

    def store(
        self,
        txn: WriteTxn,
        course: Course,
        decisions: Decisions,
        records: Mapping[EventID, EventRecord],
    ) -> Step:
        """Store the states of what was decided; nothing else of it."""
        nodes = PendingNodes(txn, self._nodes)
        made: dict[tuple[int, frozenset[tuple[int, int | None]]], int] = {}

        def root_of(view: StateView) -> int:
            # Events in a row mostly have the same.
            if not view.changes:
                return view.root
            key = view.root, frozenset(view.changes.items())
            if key not in made:
                made[key] = state_map.update(nodes, view.root, view.changes)
            return made[key]

        verdicts: dict[int, Verdict] = {}
        for one in decisions.decided:
            record = records[one.pdu.event_id]
            # One of which nothing can be said any more is as if it had not come: it may come again.
            status = Status.OUTLIER if one.outcome is None else STATUS[one.outcome]
            if status is not record.status:
                log.info("%s is %s, not %s: %s", record.event_id, status.name, record.status.name, one.reason)
            verdicts[record.event_nid] = Verdict(
                Standing(status, None if one.before is None else root_of(one.before)),
                record.status,
                one.pdu.redacts is not None,
                one.redacts_target,
                one.redacted_by,
                one.claimed,
            )
        return Step(
            verdicts,
            tuple(course.nids[event_id] for event_id in decisions.heads),
            root_of(decisions.now),
            list_citing_outliers(txn, _list_rejected_state(decisions.decided, records)),
            set(
                list_servers(one.pdu.slot[1] for one in decisions.decided if one.pdu.type == "m.room.member")
            ),
            nodes.touched,
        )

    def take_effect(
        self, txn: WriteTxn, course: Course, claims: Claimed, rows: Rows, lacking: Lacking, now_ms: int
    ) -> Appended:
        """Let all that was decided take effect, and what came in since.

        Raises: Conflict if that is more than a little, or not behind what was decided; Moot; KeptOut.
        """
        room = check_standing(txn, self._interner, course.entered)
        appended, course = self.rewrite(txn, room, course, claims, rows, now_ms)
        self._end(txn, room.room_nid, course, keeps_events=bool(lacking.wanted))
        if lacking.wanted:
            # All of it is decided once more when the keys are here: see `rechecking`.
            first, *rest = lacking.asked
            unchecked_states.begin_entrance(txn, room.room_nid, first, lacking.wanted, now_ms)
            unchecked_states.note_entrance(txn, room.room_nid, course.entered.join_nid)
            unchecked_states.add(txn, room.room_nid, rest, (), now_ms)
            ask_for_recheck(txn, course.entered.room.room_id, now_ms)
        return appended

    def rewrite(
        self, txn: WriteTxn, room: rooms.Room, course: Course, claims: Claimed, rows: Rows, now_ms: int
    ) -> tuple[Appended, Course]:
        """Write what was decided, and what came in since; the course with that. Raises: Conflict; KeptOut."""
        course, made = self._catch_up(txn, course, claims)
        changed = list_changed_rows(txn, PendingNodes(txn, self._nodes), rows, room, course.root)
        self._correct(txn, course, now_ms)
        batch = Batch(
            room_nid=room.room_nid,
            events=(),
            now_ms=now_ms,
            revision=room.revision,
            replace_state=course.root,
            replace_extremities=course.heads,
            replace_rows=changed,
        )
        appended = append(txn, self._interner, self._nodes, batch)
        make_summary(txn, self._interner, course.entered.room)
        return msgspec.structs.replace(appended, nodes={**appended.nodes, **made}), course

    def _end(self, txn: WriteTxn, room_nid: int, course: Course, *, keeps_events: bool) -> None:
        """Note that the state is whole, and who was in the room meanwhile besides those that we were told of."""
        partial = partial_rooms.find(txn, room_nid)
        assert partial is not None, "it was checked"
        partial_rooms.end(txn, room_nid, keeps_events=keeps_events)
        present = {nid for nid, _ in memberships.list_servers_in_room(txn, room_nid)}
        present.update(intern_servers(txn, self._interner, course.servers).values())
        own = intern_servers(txn, self._interner, (self._interner.own_server,))
        partial_rooms.note_missed(txn, room_nid, present.difference(partial.server_nids, own.values()))
        for user_nid in memberships.list_local_members(txn, room_nid):
            # Those servers are to hear of the user's devices.
            txn.hint(Kind.USER, user_nid)

    def _catch_up(
        self, txn: WriteTxn, course: Course, claims: Claimed
    ) -> tuple[Course, Mapping[int, state_map.Node]]:
        """The course with what came in since, and the nodes that were made. Raises: Conflict; KeptOut."""
        since = self.read_since(txn, course)
        if not since.nids:
            return course, {}
        if len(since.nids) > FEW or is_late(since, course):
            raise Conflict("the room went on")
        if not all(is_bridged(claims, *gap) for gap in since.gaps.items()):
            raise Conflict("the room went on behind a gap")
        # The transaction may run twice, or come to nothing.
        course = course.copy()
        course.expect(since)
        made: dict[int, state_map.Node] = {}
        while waiting := [nid for nid in since.nids.values() if nid not in course.verdicts]:
            # Nodes that this transaction makes are read in it: it may come to nothing, and their numbers be used
            # again.
            decisions, records = self.decide(txn, course, claims, waiting, NodeCache())
            step = self.store(txn, course, decisions, records)
            course.take(step)
            made |= step.nodes
        return course, made

    def _correct(self, txn: WriteTxn, course: Course, now_ms: int) -> None:
        room = course.entered.room
        correct_roots(
            txn,
            [
                (nid, one.standing.state_root)
                for nid, one in course.verdicts.items()
                if not one.has_news and one.standing.state_root is not None
            ],
        )
        news = {nid: one for nid, one in course.verdicts.items() if one.has_news}
        stored = events.list_events(txn, news.keys())
        corrections = [
            Correction(
                record=stored[nid],
                pdu=_parse(stored[nid], room),
                status=one.standing.status,
                state_root=one.standing.state_root,
                redacts_target=one.redacts_target,
                redacted_by=one.redacted_by,
            )
            for nid, one in news.items()
        ]
        correct_events(txn, room.nid, corrections, now_ms)
        claim_gaps(
            txn,
            [
                (missing, nid, root)
                for nid, one in course.verdicts.items()
                for missing, root in one.claimed.items()
            ],
        )
        citing = [
            nid
            for nid, one in course.standings.items()
            if one.status is Status.REJECTED_OUTLIER and nid not in course.verdicts
        ]
        reject_outliers(txn, citing)


def check_standing(txn: ReadTxn, interner: Interner, entered: Entered) -> rooms.Room:
    """The room, if its state is not whole yet. Raises: Moot."""
    nid = entered.room.nid
    partial = partial_rooms.find(txn, nid)
    if partial is None or partial.join_nid != entered.join_nid or not is_here(txn, interner, nid):
        raise Moot
    return rooms.list_rooms(txn, (nid,))[nid]


def is_bridged(claims: Claimed, event_id: EventID, missing: Collection[EventID]) -> bool:
    """Whether it is known what the state before an event was, of whose prev_events some are missing."""
    return event_id in claims.before or all(one in claims.after for one in missing)


def is_late(since: Since, course: Course) -> bool:
    """Whether what came is cited by what was decided: then all is to be decided anew."""
    return not course.missing.isdisjoint(since.nids)


def _list_rejected_state(
    decided: Sequence[Decision], records: Mapping[EventID, EventRecord]
) -> Collection[int]:
    return [
        records[one.pdu.event_id].event_nid
        for one in decided
        if one.outcome is Outcome.REJECTED and one.pdu.is_state
    ]


def _parse(record: EventRecord, room: RoomRef) -> Pdu:
    return parse_stored(record.json, record.event_id, room.room_id, room.version)
