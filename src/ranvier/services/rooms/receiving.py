"""Events that other servers send: fetch what they need, in what order it takes, and admit them to their room.

One task at a time works on a room (`services.federation.inbound` sees to that); local users go on sending
meanwhile. How an event comes in: docs/adr/0003-federation.md.

Spec: server-server API, "Checks performed on receipt of a PDU".
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, ServerName
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.rooms.admission import Admission, Reasons
from ranvier.services.rooms.checking import Checking, RoomRef
from ranvier.services.rooms.claimed_state import Claim, ClaimedStates
from ranvier.services.rooms.deciding import Case, Claimed
from ranvier.services.rooms.missing import Missing
from ranvier.services.rooms.outliers import Outliers, cited_by, list_stored_ids, sorted_by_history
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, rooms
from ranvier.store.tables.unchecked_states import AskedState

log = logging.getLogger(__name__)

MAX_ROUNDS: Final = 5
"""How often missing events are asked for, each time for what the last ones lack: 100 events in all."""

MAX_MEMBERS: Final = 20
"""Asked for one by one, where a room's members are not here: an auth chain may be much longer."""

MAX_CHAINS: Final = 5
"""Auth chains asked for on behalf of one batch."""

MAX_CLAIMED: Final = 20
"""States asked for on behalf of one batch."""

MAX_UNCLAIMED: Final = 2
"""How often a server may fail to tell a state before it is not asked for more: each time may be hundreds of
requests."""

PATIENCE_S: Final = 300.0
"""With a server that tells what is missing, but slowly: others' events of this room wait."""


class _Known(msgspec.Struct, frozen=True):
    """What is stored of what events name."""

    is_of_other_room: Collection[EventID]
    placed: Collection[EventID]  # with a state before them: part of the room's history
    extremities: Sequence[EventID]
    is_partial: bool  # the room's state is not whole


class Receiving:
    """Takes events of one room from one server."""

    def __init__(
        self,
        db: Database,
        checking: Checking,
        missing: Missing,
        outliers: Outliers,
        claimed: ClaimedStates,
        admission: Admission,
        clock: Clock,
    ) -> None:
        self._db = db
        self._checking = checking
        self._missing = missing
        self._outliers = outliers
        self._claimed = claimed
        self._admission = admission
        self._clock = clock

    async def receive(self, origin: ServerName, room: RoomRef, sent: Sequence[JsonObject]) -> Reasons:
        """Take events as they were sent, in any order; for each of them None, or why it was dropped. Events
        without an id, because they are no events, are passed over. One that cites what cannot be had, to be
        authorized by that, has been dealt with, as one has that was rejected.

        Raises: StoreFault.
        """
        reasons: Reasons = {}
        pdus: dict[EventID, Pdu] = {}
        for checked in await self._checking.check(room, sent, origin):
            if isinstance(checked, Pdu):
                pdus[checked.event_id] = checked
            else:
                log.info("an event of %s from %s is dropped: %s", room.room_id, origin, checked)
        return reasons | await self.receive_checked(origin, room, pdus)

    async def receive_checked(
        self, origin: ServerName, room: RoomRef, pdus: Mapping[EventID, Pdu]
    ) -> Reasons:
        """The same for events whose format and signatures were checked.

        Raises: StoreFault.
        """
        known = await self._db.read(_read_known, room, pdus.values())
        reasons: Reasons = dict.fromkeys(pdus)
        reasons |= dict.fromkeys(known.is_of_other_room, "another room has an event of this id")
        new = {
            event_id: pdu
            for event_id, pdu in pdus.items()
            if event_id not in known.placed and event_id not in known.is_of_other_room
        }
        if not new:
            return reasons
        reasons |= await self._admission.admit(await self._prepare(origin, room, new, known))
        return {event_id: reasons[event_id] for event_id in pdus}

    async def _prepare(
        self, origin: ServerName, room: RoomRef, new: Mapping[EventID, Pdu], known: _Known
    ) -> Case:
        """The events with what they need, as far as the server tells it."""
        try:
            async with self._clock.timeout(PATIENCE_S):
                told, has_unchecked = await self._fetch_before(origin, room, new, known)
                # What it tells and cannot be checked is told, too.
                bridged = {*told, *new} if has_unchecked else told.keys()
                # A server that tells nothing of what came right before its event is not asked for the state
                # there (nor is it by Synapse). Its next event may find it in a better mood.
                return await self._complete(origin, room, {**new, **told}, bridged, known)
        except TimeoutError:
            log.warning("%s tells what is missing in %s too slowly", origin, room.room_id)
            return Case(room=room, pdus=sorted_by_history(new.values()))

    async def prepare_history(self, server: ServerName, room: RoomRef, pdus: Iterable[Pdu]) -> Case:
        """What `Past.add` takes, of checked events of which some may be here already.

        Raises: StoreFault.
        """
        by_id = {pdu.event_id: pdu for pdu in pdus}
        known = await self._db.read(_read_known, room, by_id.values())
        new = {
            event_id: pdu
            for event_id, pdu in by_id.items()
            if event_id not in known.placed and event_id not in known.is_of_other_room
        }
        case = await self._complete(server, room, new, new, known, is_history=True)
        return msgspec.structs.replace(case, is_backfill=True)

    async def _complete(
        self,
        origin: ServerName,
        room: RoomRef,
        new: Mapping[EventID, Pdu],
        bridged: Collection[EventID],
        known: _Known,
        *,
        is_history: bool = False,
    ) -> Case:
        """The events in order, those left out that cannot be authorized, with the states at the gaps below those
        that are `bridged`."""
        ordered = sorted_by_history(new.values())
        # A state comes with what authorizes it, which is mostly what authorizes the events behind it, too.
        claimed = await self._fetch_claimed(
            origin, room, [pdu for pdu in ordered if pdu.event_id in bridged], new, is_history=is_history
        )
        if known.is_partial:
            await self._fetch_members(origin, room, ordered)
        lacking = await self._fetch_authorizers(origin, room, ordered)
        for event_id in lacking:
            log.info("%s is dropped: what authorizes it cannot be had from %s", event_id, origin)
        pdus = [pdu for pdu in ordered if pdu.event_id not in lacking]
        return Case(room=room, pdus=pdus, claimed=claimed, bridged=bridged)

    async def _fetch_before(
        self, origin: ServerName, room: RoomRef, new: Mapping[EventID, Pdu], known: _Known
    ) -> tuple[dict[EventID, Pdu], bool]:
        """What the events cite in prev_events and is not here, as far as the server tells; whether it told what could
        not be checked."""
        found: dict[EventID, Pdu] = {}
        has_unchecked = False
        latest = _list_gaps(new.values(), new.keys() | set(known.placed))
        for _ in range(MAX_ROUNDS):
            if not latest:
                break
            try:
                told = await self._missing.fetch_missing(origin, room, known.extremities, latest)
            except RemoteFault as fault:
                log.info("%s does not tell what came before %s: %s", origin, sorted(latest), fault)
                break
            has_unchecked |= told.has_unchecked
            fresh = {pdu.event_id: pdu for pdu in told.pdus if pdu.event_id not in {*new, *found}}
            there = await self._db.read(_read_known, room, fresh.values())
            fresh = {
                event_id: pdu
                for event_id, pdu in fresh.items()
                if event_id not in there.placed and event_id not in there.is_of_other_room
            }
            if not fresh:
                break
            found |= fresh
            if told.is_all:
                break
            latest = _list_gaps(fresh.values(), found.keys() | new.keys() | set(there.placed))
        return found, has_unchecked

    async def _fetch_members(self, origin: ServerName, room: RoomRef, pdus: Iterable[Pdu]) -> None:
        """Store what the events cite and is not here, in a room whose members are not: mostly only those who speak."""
        waiting = {pdu.event_id: pdu for pdu in pdus}
        cited = {event_id for pdu in waiting.values() for event_id in cited_by(pdu, room.version)}
        wanted = cited - waiting.keys()
        wanted -= await self._db.read(list_stored_ids, room, wanted)
        if 0 < len(wanted) <= MAX_MEMBERS:
            fetched = await self._missing.fetch_events(origin, room, wanted)
            await self._outliers.store(room, fetched.pdus)

    async def _fetch_authorizers(
        self, origin: ServerName, room: RoomRef, pdus: Iterable[Pdu]
    ) -> set[EventID]:
        """Store what authorizes the events and is not here. Returns those for which it cannot be had."""
        waiting = {pdu.event_id: pdu for pdu in pdus}
        for _ in range(MAX_CHAINS):
            lacking = await self._list_lacking(room, waiting)
            if not lacking:
                return set()
            first = lacking[0]
            try:
                chain = await self._missing.fetch_auth_chain(origin, room, first.event_id)
            except RemoteFault as fault:
                log.info("%s does not tell what authorizes %s: %s", origin, first.event_id, fault)
                wanted = {event_id for pdu in lacking for event_id in cited_by(pdu, room.version)}
                chain = (await self._missing.fetch_events(origin, room, wanted)).pdus
            await self._outliers.store(room, [pdu for pdu in chain if pdu.event_id not in waiting])
            still = {pdu.event_id for pdu in await self._list_lacking(room, waiting)}
            if first.event_id in still:
                return still
        return {pdu.event_id for pdu in await self._list_lacking(room, waiting)}

    async def _list_lacking(self, room: RoomRef, pdus: Mapping[EventID, Pdu]) -> list[Pdu]:
        """Those of the events that cite in auth_events what is neither stored nor among them; what cites those
        in turn, too."""
        cited = {event_id for pdu in pdus.values() for event_id in cited_by(pdu, room.version)}
        stored = await self._db.read(list_stored_ids, room, cited)
        lacking: dict[EventID, Pdu] = {}
        for pdu in sorted_by_history(pdus.values()):
            for event_id in cited_by(pdu, room.version):
                if event_id in lacking or (event_id not in stored and event_id not in pdus):
                    lacking[pdu.event_id] = pdu
        return list(lacking.values())

    async def _fetch_claimed(
        self,
        origin: ServerName,
        room: RoomRef,
        ordered: Sequence[Pdu],
        new: Collection[EventID],
        *,
        is_history: bool,
    ) -> Claimed:
        """The states after those events that are cited and still not here, as the server says; where it does
        not, that before the event which cites them."""
        known = await self._db.read(_read_known, room, ordered)
        here = {*new, *known.placed}
        claims: dict[AskedState, Claim] = {}
        after: dict[EventID, int] = {}
        before: dict[EventID, int] = {}
        gaps = [pdu for pdu in ordered if not here.issuperset(pdu.prev_events)]
        if known.is_partial:
            # All of it is decided again on whole states, which are asked for then: see `completing`.
            return Claimed()
        failures = 0
        for pdu in gaps[:MAX_CLAIMED]:
            if failures == MAX_UNCLAIMED:
                break
            for event_id in pdu.prev_events:
                if event_id in here or event_id in after:
                    continue
                claim = await self._claimed.claim_after(origin, room, event_id)
                if claim is None:
                    claim = await self._claimed.claim_before(origin, room, pdu.event_id)
                    if claim is None:
                        failures += 1
                    else:
                        before[pdu.event_id] = claim.root
                        claims[AskedState(origin, pdu.event_id, is_after=False)] = claim
                    break
                after[event_id] = claim.root
                claims[AskedState(origin, event_id, is_after=True)] = claim
        history = [pdu.event_id for pdu in ordered] if is_history else []
        await self._claimed.note_unchecked(room, claims, history, self._clock.now_ms())
        return Claimed(after, before)


def _list_gaps(pdus: Iterable[Pdu], known: Collection[EventID]) -> list[EventID]:
    """Those events of whose prev_events some are not known."""
    return [pdu.event_id for pdu in pdus if any(event_id not in known for event_id in pdu.prev_events)]


def _read_known(txn: ReadTxn, room: RoomRef, pdus: Collection[Pdu]) -> _Known:
    own = {pdu.event_id for pdu in pdus}
    names = own | {event_id for pdu in pdus for event_id in pdu.prev_events}
    found = events.list_known(txn, names)
    now = rooms.list_rooms(txn, (room.nid,))[room.nid]
    return _Known(
        {event_id for event_id in own if event_id in found and found[event_id].room_nid != room.nid},
        {
            event_id
            for event_id, one in found.items()
            if one.room_nid == room.nid and not one.status.is_outlier and one.state_root is not None
        },
        list(events.list_event_ids(txn, now.extremities).values()),
        now.is_partial,
    )
