"""The whole state of a room that was entered with a part of it: asked of the servers in it until one tells it.

A job does it: see "A join into a large room" in docs/adr/0003-federation.md.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from ranvier.core.events.parse import parse_stored
from ranvier.core.identifiers import EventID, RoomID, ServerName
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.services.jobs import NotYet
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.claimed_state import Claim, ClaimedStates
from ranvier.services.rooms.deciding import Claimed
from ranvier.services.rooms.elsewhere import is_here
from ranvier.services.rooms.filling import Filling
from ranvier.services.rooms.rechecks import list_wanted
from ranvier.services.rooms.redeciding import (
    AT_ONCE,
    Course,
    Entered,
    KeptOut,
    Lacking,
    Moot,
    Redeciding,
    Since,
    check_standing,
    is_bridged,
    is_late,
)
from ranvier.services.rooms.writer import RoomWriters
from ranvier.store.database import Conflict, Database, ReadTxn
from ranvier.store.tables import events, memberships, partial_rooms, rooms
from ranvier.store.tables.interned import Interner, list_server_names
from ranvier.store.tables.jobs import Job
from ranvier.store.tables.state_nodes import NodeCache
from ranvier.store.tables.unchecked_states import AskedState

log = logging.getLogger(__name__)

COMPLETION: Final = "complete-room"
"""The kind of the job. Its key is the room's id."""

RUNNERS: Final = 4
"""Rooms that are completed at a time: a server may take minutes to answer."""

MAX_SERVERS: Final = 4
"""Servers that are asked in one attempt; the next one begins with the same, and goes on with others."""

MAX_TRIES: Final = 100
"""How often it is looked for what came meanwhile: each time that is less."""

PATIENCE: Final = 8
"""Attempts in which the state is to agree with what we were told on entering, and every gap is to be bridged; then the
state that agrees most is taken, and what lies behind a gap counts as what was there on entering."""


class Completion(msgspec.Struct, frozen=True):
    """What the job is asked to do."""

    room_id: RoomID
    via: ServerName  # which let us in


class NotWhole(NotYet):
    """No server told a state that can be the room's."""


class _Task(msgspec.Struct, frozen=True):
    entered: Entered
    cited: Sequence[EventID]  # by the event by which this server entered, as what came before
    others: Sequence[ServerName]  # in the room, the largest first


_Told = dict[AskedState, Claim]
"""States as servers tell them: first that before we entered, then those at gaps."""


class Completing:
    """Completes rooms."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        nodes: NodeCache,
        writers: RoomWriters,
        claimed: ClaimedStates,
        clock: Clock,
    ) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._writers = writers
        self._claimed = claimed
        self._clock = clock
        self._redeciding = Redeciding(interner, nodes)
        self._filling = Filling(db, interner, nodes, clock)

    async def run(self, job: Job) -> None:
        """Complete the room that a job names; nothing if nobody of this server is in it any more.

        Raises: NotWhole; Conflict; StoreFault. The job is done again then.
        """
        wanted = msgspec.json.decode(job.payload, type=Completion)
        task = await self._db.read(self._read_task, wanted.room_id)
        if task is None:
            return
        is_patient = job.attempts <= PATIENCE
        doubtful: list[tuple[int, _Told]] = []
        for server in _list_servers(wanted.via, task.others, job.attempts):
            told = await self._fetch(server, task)
            if told is None:
                continue
            # Who cannot be asked for keys is not missed: those may be gone for good.
            excused = {key.server for claim in told.values() for key in claim.unchecked}
            doubts = await self._db.read(self._redeciding.count_doubts, task.entered, _root_of(told), excused)
            if doubts:
                log.warning("%s tells less of %s than we were told on entering", server, wanted.room_id)
                doubtful.append((doubts, told))
            elif await self._try(task, told, is_patient=is_patient):
                return
        if not is_patient:
            # It may be that what we were told on entering was not true.
            for _, told in sorted(doubtful, key=lambda pair: pair[0]):
                if await self._try(task, told, is_patient=False):
                    return
        raise NotWhole(f"no server tells the state of {wanted.room_id}")

    async def _fetch(self, server: ServerName, task: _Task) -> _Told | None:
        """The state before we entered, as a server tells it; None if it does not."""
        room, join_id = task.entered.room, task.entered.join_id
        if len(task.cited) == 1:
            # Our own event may not have come to the server yet, or not been kept by it.
            claim = await self._claimed.claim_after(server, room, task.cited[0])
            if claim is not None:
                return {AskedState(server, task.cited[0], is_after=True): claim}
        claim = await self._claimed.claim_before(server, room, join_id)
        return None if claim is None else {AskedState(server, join_id, is_after=False): claim}

    async def _try(self, task: _Task, told: _Told, *, is_patient: bool) -> bool:
        """Complete the room with the state before we entered, as a server claims it; whether nothing is left to be
        done. Raises: NotWhole; Conflict; StoreFault."""
        entered = task.entered
        (asked,) = told
        before = await self._db.write(self._redeciding.reconcile, entered, _root_of(told))
        try:
            await self._complete(task, told, before, is_patient=is_patient)
        except KeptOut as error:
            log.warning(
                "%s tells a state of %s that cannot be: %s", asked.server, entered.room.room_id, error
            )
            return False
        except Moot:
            return True
        log.info("the state of %s is whole, by %s", entered.room.room_id, asked.server)
        return True

    async def _complete(self, task: _Task, told: _Told, before: int, *, is_patient: bool) -> None:
        """Decide again all that came since we entered, the state before that being `before`.

        Raises: NotWhole, KeptOut, Moot; Conflict; StoreFault.
        """
        entered = task.entered
        claims = Claimed(before={entered.join_id: before})
        told = dict(told)
        course = Course(entered)
        check = partial(check_standing, interner=self._interner, entered=entered)
        for _ in range(MAX_TRIES):
            since = await self._db.read(self._redeciding.read_since, course)
            if is_late(since, course):
                course = Course(entered)
                continue
            claims = await self._bridge(task, told, since, claims, is_patient=is_patient)
            await self._decide(course, since, claims)
            rows = await self._filling.bring_near(check, course.root)
            take_effect = partial(
                self._redeciding.take_effect,
                course=course,
                claims=claims,
                rows=rows,
                lacking=_list_lacking(told),
                now_ms=self._clock.now_ms(),
            )
            try:
                return await self._writers.rewrite(entered.room.nid, entered.room.room_id, take_effect)
            except Conflict:
                continue
        raise Conflict(f"{entered.room.room_id} changes too fast")

    async def _decide(self, course: Course, since: Since, claims: Claimed) -> None:
        """Decide what came, piece by piece. Raises: KeptOut; StoreFault."""
        course.expect(since)
        waiting = list(since.nids.values())
        while waiting:
            decisions, records = await self._db.read(
                self._redeciding.decide, course, claims, waiting[:AT_ONCE]
            )
            step = await self._db.write(self._redeciding.store, course, decisions, records)
            self._nodes.remember(step.nodes)
            course.take(step)
            waiting = [nid for nid in waiting if nid not in course.verdicts]

    async def _bridge(
        self, task: _Task, told: _Told, since: Since, claims: Claimed, *, is_patient: bool
    ) -> Claimed:
        """The claims, with those for events of which it cannot be told from what is here what was before them.

        Effects: `told` grows.
        Raises: NotWhole.
        """
        room = task.entered.room
        after, before = dict(claims.after), dict(claims.before)
        first = next(iter(told)).server
        servers = list(dict.fromkeys((first, *task.others)))[:MAX_SERVERS]
        for event_id, missing in since.gaps.items():
            for one in servers:
                for parent in missing:
                    if parent in after:
                        continue
                    claim = await self._claimed.claim_after(one, room, parent)
                    if claim is None:
                        break
                    after[parent] = claim.root
                    told[AskedState(one, parent, is_after=True)] = claim
                if is_bridged(Claimed(after, before), event_id, missing):
                    break
                claim = await self._claimed.claim_before(one, room, event_id)
                if claim is not None:
                    before[event_id] = claim.root
                    told[AskedState(one, event_id, is_after=False)] = claim
                    break
            else:
                if is_patient:
                    raise NotWhole(f"no server tells the state before {event_id}")
                # A gap that nobody bridges must not keep the room from being whole.
                before[event_id] = before[task.entered.join_id]
        return Claimed(after, before)

    def _read_task(self, txn: ReadTxn, room_id: RoomID) -> _Task | None:
        room = rooms.find_room(txn, room_id)
        held = None if room is None else partial_rooms.find(txn, room.room_nid)
        if room is None or held is None or not is_here(txn, self._interner, room.room_nid):
            return None
        join = events.list_events(txn, (held.join_nid,))[held.join_nid]
        nids = [nid for nid, _ in memberships.list_servers_in_room(txn, room.room_nid)]
        names = list_server_names(txn, self._interner, nids)
        ref = RoomRef(room.room_nid, room_id, get_room_version(room.version))
        others = [names[nid] for nid in nids if names[nid] != self._interner.own_server]
        cited = parse_stored(join.json, join.event_id, room_id, ref.version).prev_events
        return _Task(Entered(ref, join.event_nid, join.event_id), cited, others)


def _root_of(told: _Told) -> int:
    return next(iter(told.values())).root


def _list_lacking(told: _Told) -> Lacking:
    """What could not be checked of the states. That before we entered is always among them: what is decided again then
    begins with it."""
    keys = {key: None for claim in told.values() for key in claim.unchecked}
    first, *others = told
    return Lacking([first, *(asked for asked in others if told[asked].unchecked)], list_wanted(keys))


def _list_servers(via: ServerName, others: Sequence[ServerName], attempt: int) -> list[ServerName]:
    """Who is asked in an attempt, of which the first is 1: in the long run everybody."""
    rest = [server for server in others if server != via]
    start = (attempt - 1) * (MAX_SERVERS - 1) % len(rest) if rest else 0
    return [via, *(rest[start:] + rest[:start])[: MAX_SERVERS - 1]]
