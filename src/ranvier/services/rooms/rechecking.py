"""States that were taken without events that could not be checked: asked for again when the keys of those can be had.

All that came into the room since is decided again then, as when a room's state becomes whole (`redeciding`). Servers
that are gone never tell their keys: after a day what was taken stays.

See "Events that cannot be checked" in docs/adr/0003-federation.md.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from ranvier.core.events.parse import parse_stored
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.services.remote.keyring import Keyring, KeyWanted
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.claimed_state import Claim, ClaimedStates
from ranvier.services.rooms.deciding import Again, Case, Claimed, Decisions, decide
from ranvier.services.rooms.elsewhere import is_here
from ranvier.services.rooms.filling import Filling, Rows
from ranvier.services.rooms.outliers import sorted_by_history
from ranvier.services.rooms.rechecks import Recheck, ask_for_recheck, list_wanted
from ranvier.services.rooms.redeciding import (
    AT_ONCE,
    Course,
    Entered,
    KeptOut,
    Moot,
    Redeciding,
    Since,
    is_bridged,
    is_late,
)
from ranvier.services.rooms.standings import UNDECIDED, Standings
from ranvier.services.rooms.writer import RoomWriters
from ranvier.store.database import Conflict, Database, ReadTxn, WriteTxn
from ranvier.store.tables import edges, events, memberships, partial_rooms, rooms, unchecked_states
from ranvier.store.tables.events import EventRecord, KnownEvent
from ranvier.store.tables.interned import Interner, list_server_names
from ranvier.store.tables.jobs import Job
from ranvier.store.tables.prepared import Appended
from ranvier.store.tables.state_nodes import NodeCache
from ranvier.store.tables.unchecked_states import AskedState, UncheckedState, WantedKey

log = logging.getLogger(__name__)

MAX_SERVERS: Final = 4
"""Servers that are asked for one state."""

MAX_TRIES: Final = 20
"""How often it is looked for what came meanwhile."""

PATIENCE_MS: Final = 24 * 3_600_000
"""How long keys are waited for. Servers that are gone never tell them."""

MAX_EVENTS: Final = 5_000
"""That may come meanwhile; if there are more, what was taken stays."""


class _Task(msgspec.Struct, frozen=True):
    room: RoomRef
    state: UncheckedState
    entered_id: EventID  # "": the server was in the room
    heads: Mapping[EventID, int]  # the extremities before
    others: Sequence[ServerName]  # in the room, the largest first
    history: Sequence[int]  # that was fetched meanwhile
    is_over: bool  # too much came meanwhile


class _NotTold(Exception):
    """Nobody tells a state that is asked for again."""


class Rechecking:
    """Looks at such rooms again."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        nodes: NodeCache,
        writers: RoomWriters,
        claimed: ClaimedStates,
        keyring: Keyring,
        clock: Clock,
    ) -> None:
        self._db = db
        self._interner = interner
        self._writers = writers
        self._nodes = nodes
        self._claimed = claimed
        self._keyring = keyring
        self._clock = clock
        self._redeciding = Redeciding(interner, nodes)
        self._filling = Filling(db, interner, nodes, clock)

    async def run(self, job: Job) -> None:
        """Take the keys that can be had now, and what follows from that; ask for another attempt while some lack.

        Raises: StoreFault. The job is done again then.
        """
        wanted = msgspec.json.decode(job.payload, type=Recheck)
        task = await self._db.read(self._read_task, wanted.room_id)
        if task is None:
            return
        is_last = task.is_over or self._clock.now_ms() > task.state.since_ms + PATIENCE_MS
        try:
            is_done = await self._try(task)
        except Moot:
            return
        except (_NotTold, Conflict, KeptOut) as error:
            log.info("what could not be checked of %s still waits: %s", wanted.room_id, error)
            is_done = False
        if is_last and not is_done:
            log.warning("some keys for the state of %s cannot be had", wanted.room_id)
            await self._leave(task.room)
        elif not is_done:
            await self._db.write(
                ask_for_recheck, wanted.room_id, self._clock.now_ms(), attempt=wanted.attempt + 1
            )

    async def _leave(self, room: RoomRef) -> None:
        """Leave the room as it is: an attempt that came to nothing may have written rows ahead of its state."""

        def find(txn: ReadTxn) -> rooms.Room:
            return rooms.list_rooms(txn, (room.nid,))[room.nid]

        now = await self._db.read(find)
        if now.state_root:
            await self._filling.bring_near(find, now.state_root)
        await self._db.write(_give_up, room.nid)

    async def _try(self, task: _Task) -> bool:
        """Whether all is done. Raises: Moot; _NotTold; Conflict; KeptOut; StoreFault."""
        wanted = {KeyWanted(key.server, key.key_id, key.valid_at_ms): key for key in task.state.wanted}
        found = await self._keyring.find_keys(wanted.keys(), task.state.claims[0].server)
        if not found:
            return False
        claims = {one: await self._ask(task, one) for one in task.state.claims}
        waited_for = {want: None for claim in claims.values() for want in claim.unchecked}
        still = list_wanted(waited_for)
        await self._decide_again(task, claims, still)
        return not still

    async def _ask(self, task: _Task, asked: AskedState) -> Claim:
        """The state as somebody tells it of which most can be checked. Raises: _NotTold; StoreFault."""
        ask = self._claimed.claim_after if asked.is_after else self._claimed.claim_before
        best: Claim | None = None
        for server in list(dict.fromkeys((asked.server, *task.others)))[:MAX_SERVERS]:
            claim = await ask(server, task.room, asked.event_id)
            if claim is not None and (best is None or len(claim.unchecked) < len(best.unchecked)):
                best = claim
            if best is not None and not best.unchecked:
                break
        if best is None:
            raise _NotTold(f"nobody tells the state at {asked.event_id}")
        return best

    async def _decide_again(
        self, task: _Task, told: Mapping[AskedState, Claim], still: Sequence[WantedKey]
    ) -> None:
        """Decide again what came since. Raises: Moot; Conflict; KeptOut; StoreFault."""
        room = task.room
        claims = Claimed(
            after={asked.event_id: claim.root for asked, claim in told.items() if asked.is_after},
            before={asked.event_id: claim.root for asked, claim in told.items() if not asked.is_after},
        )
        course = _begin(task)
        await self._look_back(task, course, claims)
        for _ in range(MAX_TRIES):
            since = await self._db.read(self._redeciding.read_since, course)
            if is_late(since, course):
                course = _begin(task)
                await self._look_back(task, course, claims)
                continue
            claims = await self._db.read(_bridge, since, claims)
            await self._decide(course, since, claims)
            rows = await self._filling.bring_near(partial(self._check, task=task), course.root)
            write = partial(self._write, task=task, course=course, claims=claims, rows=rows, still=still)
            try:
                await self._writers.rewrite(room.nid, room.room_id, write)
            except Conflict:
                continue
            log.info("the state of %s was decided again; %d keys lack", room.room_id, len(still))
            return
        raise Conflict(f"{room.room_id} changes too fast")

    async def _look_back(self, task: _Task, course: Course, claims: Claimed) -> None:
        """Decide history again. Raises: StoreFault."""
        ordered = await self._db.read(_sort_history, task)
        # Nor does the entrance count yet: it is decided after what lies before it.
        course.standings.update(dict.fromkeys((*ordered, task.state.entered_nid), UNDECIDED))
        waiting = ordered
        while waiting:
            decisions, records = await self._db.read(
                self._decide_history, task, course, claims, waiting[:AT_ONCE]
            )
            await self._take(course, decisions, records)
            waiting = [nid for nid in waiting if nid not in course.verdicts]

    async def _take(
        self, course: Course, decisions: Decisions, records: Mapping[EventID, EventRecord]
    ) -> None:
        step = await self._db.write(self._redeciding.store, course, decisions, records)
        self._nodes.remember(step.nodes)
        course.take(step)

    def _decide_history(
        self, txn: ReadTxn, task: _Task, course: Course, claims: Claimed, nids: Sequence[int]
    ) -> tuple[Decisions, Mapping[EventID, EventRecord]]:
        stored = events.list_events(txn, nids)
        pdus = [_parse(stored[nid], task.room) for nid in nids]
        cited = {event_id for pdu in pdus for event_id in pdu.prev_events}
        known = events.list_known(txn, cited)
        before = {
            pdu.event_id: root
            for nid, pdu in zip(nids, pdus, strict=True)
            if not all(one in claims.after or _is_placed(known.get(one)) for one in pdu.prev_events)
            and (root := stored[nid].state_root) is not None
        }
        case = Case(
            room=task.room,
            pdus=pdus,
            claimed=Claimed(claims.after, {**before, **claims.before}),
            is_backfill=True,
            again=Again(task.entered_id, course.heads, course.root, Standings(course.standings)),
        )
        decisions = decide(txn, self._interner, self._nodes, case)
        return decisions, {record.event_id: record for record in stored.values()}

    async def _decide(self, course: Course, since: Since, claims: Claimed) -> None:
        course.expect(since)
        waiting = list(since.nids.values())
        while waiting:
            decisions, records = await self._db.read(
                self._redeciding.decide, course, claims, waiting[:AT_ONCE]
            )
            await self._take(course, decisions, records)
            waiting = [nid for nid in waiting if nid not in course.verdicts]

    def _write(
        self,
        txn: WriteTxn,
        task: _Task,
        course: Course,
        claims: Claimed,
        rows: Rows,
        still: Sequence[WantedKey],
    ) -> Appended:
        """Raises: Conflict; Moot; KeptOut."""
        room = self._check(txn, task)
        appended, _ = self._redeciding.rewrite(txn, room, course, claims, rows, self._clock.now_ms())
        unchecked_states.note_decided(txn, room.room_nid)
        if still:
            # What came since is to be decided once more when they are here.
            unchecked_states.update_wanted(txn, task.state, still)
        else:
            _give_up(txn, room.room_nid)
        return appended

    def _check(self, txn: ReadTxn, task: _Task) -> rooms.Room:
        """The room, if it still waits for the same. Raises: Moot; Conflict."""
        nid = task.room.nid
        state = unchecked_states.find(txn, nid)
        if state is None or not is_here(txn, self._interner, nid):
            raise Moot
        if state != task.state:
            raise Conflict("another state came that could not be checked")
        return rooms.list_rooms(txn, (nid,))[nid]

    def _read_task(self, txn: ReadTxn, room_id: RoomID) -> _Task | None:
        room = rooms.find_room(txn, room_id)
        state = None if room is None else unchecked_states.find(txn, room.room_nid)
        if room is None or state is None or not is_here(txn, self._interner, room.room_nid):
            return None
        stored = events.list_event_ids(txn, (*state.extremities, state.entered_nid))
        nids = [nid for nid, _ in memberships.list_servers_in_room(txn, room.room_nid)]
        names = list_server_names(txn, self._interner, nids)
        return _Task(
            RoomRef(room.room_nid, room_id, get_room_version(room.version)),
            state,
            stored.get(state.entered_nid, EventID("")),
            {stored[nid]: nid for nid in state.extremities},
            [names[nid] for nid in nids if names[nid] != self._interner.own_server],
            unchecked_states.list_history(txn, room.room_nid),
            len(partial_rooms.list_event_nids(txn, room.room_nid)) > MAX_EVENTS,
        )


def _begin(task: _Task) -> Course:
    """The room as it was before the first such state was taken."""
    course = Course(Entered(task.room, task.state.entered_nid, task.entered_id))
    course.nids.update(task.heads)
    course.heads, course.root = tuple(task.heads.values()), task.state.state_root
    return course


def _bridge(txn: ReadTxn, since: Since, claims: Claimed) -> Claimed:
    """The claims, with those that could be checked: they stand as they were taken."""
    after, before = dict(claims.after), dict(claims.before)
    for event_id, missing in since.gaps.items():
        nid = since.nids[event_id]
        for gap in edges.list_gaps_above(txn, missing):
            if gap.event_nid == nid and gap.claimed_root is not None:
                after.setdefault(gap.missing_event_id, gap.claimed_root)
        if not is_bridged(Claimed(after, before), event_id, missing):
            root = events.list_events(txn, (nid,))[nid].state_root
            if root is not None:
                before[event_id] = root
    return Claimed(after, before)


def _sort_history(txn: ReadTxn, task: _Task) -> list[int]:
    """Each event after its parents."""
    stored = events.list_events(txn, task.history)
    nids = {record.event_id: record.event_nid for record in stored.values()}
    pdus = [_parse(stored[nid], task.room) for nid in sorted(stored)]
    return [nids[pdu.event_id] for pdu in sorted_by_history(pdus)]


def _is_placed(known: KnownEvent | None) -> bool:
    return known is not None and known.state_root is not None and not known.status.is_outlier


def _parse(record: EventRecord, room: RoomRef) -> Pdu:
    # Whole, whatever was redacted since.
    return parse_stored(record.json, record.event_id, room.room_id, room.version)


def _give_up(txn: WriteTxn, room_nid: int) -> None:
    """What there is of the room counts."""
    unchecked_states.forget(txn, room_nid)
    partial_rooms.forget_events(txn, room_nid, partial_rooms.list_event_nids(txn, room_nid))
