"""Joining a room that this server is not in, through one that is.

Spec: server-server API, "Joining Rooms".
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import BadIdentifier, Forbidden, NotFound, ProtocolFault
from ranvier.core.events.build import with_signatures
from ranvier.core.events.parse import pdu_of_object
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID, parse_server_name
from ranvier.core.room_versions import RoomVersion
from ranvier.io.clock import Clock
from ranvier.io.ports import Misbehaved, RemoteFault
from ranvier.services.flows.entrance import BadEntrance, Entrance, build_entrance
from ranvier.services.flows.handshake import Handshake, Made, explain, is_final
from ranvier.services.remote.flights import Flights
from ranvier.services.remote.keyring import KeyWanted
from ranvier.services.remote.requests import Ask
from ranvier.services.rooms.admission import Admission, Reasons
from ranvier.services.rooms.checking import Checking, RoomRef, list_unchecked
from ranvier.services.rooms.completing import COMPLETION, Completion
from ranvier.services.rooms.deciding import Case
from ranvier.services.rooms.elsewhere import is_here
from ranvier.services.rooms.live import LiveRooms
from ranvier.services.rooms.outliers import Outliers, read_authorizers
from ranvier.services.rooms.rechecks import ask_for_recheck, list_wanted
from ranvier.services.rooms.remote import AlreadyHere
from ranvier.services.rooms.summaries import make_summary
from ranvier.services.rooms.unfinished import Unfinished
from ranvier.services.rooms.wholeness import Wholeness
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import jobs, memberships, partial_rooms, rooms, unchecked_states
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.prepared import Appended, Batch, Outcome, PreparedEvent
from ranvier.store.tables.state import build_state
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes
from ranvier.store.tables.unchecked_states import AskedState

log = logging.getLogger(__name__)

# A room with 100,000 members has about 100 MB of state.
SEND_BOUNDS: Final = Ask(
    method="PUT", path="", timeout_s=180.0, max_response_bytes=256 * 1_048_576, despite_standing=True
)


OUTLIERS_AT_ONCE: Final = 1_000
"""Stored in one transaction: while a large room comes in, others write in between."""

MAX_EVENTS: Final = 500_000
"""Of a room's state, and of what authorizes it."""


FEW_SERVERS: Final = 5
PATIENCE_S: Final = 1.0
"""How long a join waits for the whole state in a room of few servers, where it mostly comes at once: a client that
does not load members lazily sees the room then."""

MAX_TOLD: Final = 100_000
"""Servers that are said to be in a room."""


class Told(msgspec.Struct, frozen=True):
    """What comes with a state that lacks its members."""

    via: ServerName  # who told
    servers: Sequence[ServerName]  # in the room


class Doubt(msgspec.Struct, frozen=True):
    """What comes with a state of which some events could not be checked, since there were no keys for that."""

    via: ServerName  # who told
    unchecked: Collection[KeyWanted]


class RoomStore:
    """Puts rooms into the database that came as a whole."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        nodes: NodeCache,
        live: LiveRooms,
        wholeness: Wholeness,
        clock: Clock,
    ) -> None:
        self._wholeness = wholeness
        self._unfinished = Unfinished(db, interner, nodes, clock)
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._live = live
        self._clock = clock

    async def is_here(self, room_id: RoomID) -> bool:
        """Whether this server is in the room."""
        return await self._db.read(self._read_presence, room_id)

    async def find(self, room_id: RoomID) -> rooms.Room:
        """A room that is here. Raises: NotFound if it is not any more."""
        room = await self._db.read(rooms.find_room, room_id)
        if room is None:
            raise NotFound("This server is not in that room.")
        return room

    async def check_offer(self, made: Made) -> None:
        """Hold a join that was offered to us against what it cites, as far as that is here: for somebody banned it
        cites the ban. Whether that was taken here does not matter: others take it to be what counts.

        Raises: Forbidden.
        """
        if await self._db.read(_cites_ban, made):
            raise Forbidden("The room does not let you in.")

    async def enter(
        self,
        room_id: RoomID,
        version: RoomVersion,
        entrance: Entrance,
        join: Pdu,
        lack: Told | Doubt | None = None,
    ) -> None:
        """Store the room with `join` as its only head. What was known of the room before stays as history.
        `lack` comes with a state that lacks members, or what could not be checked: a job fetches the rest.

        If that fails midway, what was stored is known for what it authorizes alone; the room is not entered.
        """
        known = await self._live.find(room_id)
        await self._unfinished.clear(room_id)
        for start in range(0, len(entrance.events), OUTLIERS_AT_ONCE):
            part = entrance.events[start : start + OUTLIERS_AT_ONCE]
            stored = await self._db.write(self._store_outliers, room_id, version, part)
            remember_appended(self._interner, self._nodes, stored)
        appended = await self._db.write(self._write, room_id, version, entrance, join, lack)
        remember_appended(self._interner, self._nodes, appended)
        if known is not None:
            self._live.drop(known)
        if isinstance(lack, Told) and len(lack.servers) <= FEW_SERVERS:
            await self._wholeness.wait(room_id, PATIENCE_S)

    def _read_presence(self, txn: ReadTxn, room_id: RoomID) -> bool:
        room = rooms.find_room(txn, room_id)
        return room is not None and is_here(txn, self._interner, room.room_nid)

    def _store_outliers(
        self, txn: WriteTxn, room_id: RoomID, version: RoomVersion, outliers: tuple[PreparedEvent, ...]
    ) -> Appended:
        room = rooms.insert_room(txn, room_id, version.name)
        if room.version != version.name:
            rooms.correct_version(txn, room.room_nid, version.name)
        batch = Batch(room_nid=room.room_nid, events=outliers, now_ms=self._clock.now_ms())
        return append(txn, self._interner, self._nodes, batch)

    def _write(
        self,
        txn: WriteTxn,
        room_id: RoomID,
        version: RoomVersion,
        entrance: Entrance,
        join: Pdu,
        lack: Told | Doubt | None,
    ) -> Appended:
        room = rooms.insert_room(txn, room_id, version.name)
        nodes = PendingNodes(txn, self._nodes)
        root = build_state(
            txn, self._interner, nodes, {slot: pdu.event_id for slot, pdu in entrance.state.items()}
        )
        changed = self._unfinished.end(txn, room, root)
        rooms.update_partial(txn, room.room_nid, is_partial=isinstance(lack, Told))
        batch = Batch(
            room_nid=room.room_nid,
            events=(PreparedEvent(pdu=join, outcome=Outcome.ACCEPTED),),
            now_ms=self._clock.now_ms(),
            revision=room.revision,
            replace_state=root,
            replace_rows=changed,
        )
        if isinstance(lack, Doubt):
            claim = AskedState(lack.via, join.event_id, is_after=False)
            wanted = list_wanted(lack.unchecked)
            unchecked_states.begin_entrance(txn, room.room_nid, claim, wanted, self._clock.now_ms())
        appended = append(txn, self._interner, self._nodes, batch)
        # From what is stored: some of the state may have been redacted before.
        make_summary(txn, self._interner, RoomRef(room.room_nid, room_id, version))
        if isinstance(lack, Doubt):
            unchecked_states.note_entrance(txn, room.room_nid, appended.event_nids[0])
            ask_for_recheck(txn, room_id, self._clock.now_ms())
        elif lack is not None:
            partial_rooms.begin(txn, self._interner, room.room_nid, appended.event_nids[0], lack.servers)
            completion = msgspec.json.encode(Completion(room_id, lack.via))
            jobs.enqueue_job(txn, COMPLETION, room_id, completion, self._clock.now_ms())
        return appended


Receive = Callable[[ServerName, RoomRef, Mapping[EventID, Pdu]], Awaitable[Reasons]]
"""See `Receiving.receive_checked`."""

Entering = Callable[[RoomID], AbstractAsyncContextManager[None]]
"""See `Arrivals.entering`."""


class RemoteJoining:
    """Joins, one at a time for each room."""

    def __init__(
        self,
        handshake: Handshake,
        checking: Checking,
        store: RoomStore,
        admission: Admission,
        outliers: Outliers,
        receive: Receive,
        entering: Entering,
        *,
        omits_members: bool,
    ) -> None:
        """`receive` takes an event of another server with what it cites, which that one is asked for.
        `omits_members`: whether rooms are entered with a state that lacks its members, if the other server
        likes to give one."""
        self._handshake = handshake
        self._checking = checking
        self._store = store
        self._admission = admission
        self._outliers = outliers
        self._receive = receive
        self._entering = entering
        self._bounds = SEND_BOUNDS
        if omits_members:
            self._bounds = msgspec.structs.replace(SEND_BOUNDS, query=(("omit_members", "true"),))
        self._flights: Flights[tuple[RoomID, UserID], EventID] = Flights()
        self._locks: WeakValueDictionary[RoomID, asyncio.Lock] = WeakValueDictionary()

    async def join(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        """Join through one of `servers`; the room is usable here then.

        A client that gives up does not end it: it asks again and gets the outcome.
        Raises: AlreadyHere; Forbidden, NotFound, IncompatibleRoomVersion, UnableToAuthoriseJoin,
        UnableToGrantJoin, BadGateway.
        """
        return await self._flights.fly(
            (room_id, user_id), lambda: self._join_alone(user_id, room_id, servers, content)
        )

    async def join_through(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        """Join a room that is here, but for which only another server can vouch. Raises: as `join`."""
        return await self._try_servers(user_id, room_id, servers, content, self._admit)

    async def _join_alone(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        # It is there as long as anybody holds it or waits for it.
        lock = self._locks.setdefault(room_id, asyncio.Lock())
        async with lock:
            if await self._store.is_here(room_id):
                raise AlreadyHere
            async with self._entering(room_id):
                return await self._try_servers(user_id, room_id, servers, content, self._enter)

    async def _try_servers(
        self,
        user_id: UserID,
        room_id: RoomID,
        servers: Sequence[ServerName],
        content: JsonObject,
        take: Callable[[Made, JsonObject, ServerName], Awaitable[None]],
    ) -> EventID:
        faults: list[RemoteFault] = []
        for server in self._handshake.candidates(servers):
            try:
                made = await self._handshake.make(server, room_id, user_id, content)
                await self._store.check_offer(made)
                answer = await self._handshake.hand_in(server, "v2/send_join", made.pdu, self._bounds)
                await take(made, answer, server)
                return made.pdu.event_id
            except (RemoteFault, ProtocolFault, BadEntrance) as fault:
                log.info("cannot join %s through %s: %s", room_id, server, fault)
                faults.append(fault if isinstance(fault, RemoteFault) else Misbehaved(str(fault)))
                if is_final(faults[-1]):
                    break
        raise explain(faults)

    async def _enter(self, made: Made, answer: JsonObject, server: ServerName) -> None:
        """Take the room as the server gives it. Raises: RemoteFault, ProtocolFault, BadEntrance."""
        ref = RoomRef(0, made.pdu.room_id, made.version)
        join = await self._with_their_signatures(ref, made.pdu, answer)
        state, auth_chain = (_list_events(answer, name) for name in ("state", "auth_chain"))
        # History may be older than the limits on what an event cites.
        checked = await self._checking.check(ref, state + auth_chain, server, limit_parents=False)
        state_ids = [pdu.event_id for pdu in checked[: len(state)] if isinstance(pdu, Pdu)]
        pdus = [pdu for pdu in checked if isinstance(pdu, Pdu)]
        unchecked = list_unchecked(checked)
        lack: Told | Doubt | None = Doubt(server, unchecked) if unchecked else None
        if answer.get("members_omitted") is True:
            lack = Told(server, _list_servers(answer, server))
        entrance = await asyncio.to_thread(
            build_entrance, pdus, state_ids, join, made.version, lacks_members=isinstance(lack, Told)
        )
        await self._store.enter(made.pdu.room_id, made.version, entrance, join, lack)

    async def _admit(self, made: Made, answer: JsonObject, server: ServerName) -> None:
        """Take our event into the room as it is here. Raises: RemoteFault, ProtocolFault, StoreFault."""
        room = await self._store.find(made.pdu.room_id)
        ref = RoomRef(room.room_nid, made.pdu.room_id, made.version)
        join = await self._with_their_signatures(ref, made.pdu, answer)
        bridged: list[EventID] = []
        if room.is_partial:
            # What authorizes the user may be among what is not here yet, and what the event cites, too.
            listed = _list_events(answer, "auth_chain")
            chain = await self._checking.check(ref, listed, server, limit_parents=False)
            await self._outliers.store_many(ref, [pdu for pdu in chain if isinstance(pdu, Pdu)])
            bridged = [join.event_id]
        reasons = await self._admission.admit(Case(room=ref, pdus=[join], bridged=bridged))
        if reasons[join.event_id] is not None and not room.is_partial:
            # What it cites is not here yet, and not every server sends us our own event.
            reasons = await self._receive(server, ref, {join.event_id: join})
        if (reason := reasons[join.event_id]) is not None:
            log.info("the join %s waits: %s", join.event_id, reason)

    async def _with_their_signatures(self, ref: RoomRef, own: Pdu, answer: JsonObject) -> Pdu:
        """Our event, with what others signed of it on the way: restricted joins need that.

        Raises: BadEntrance, ProtocolFault.
        """
        event = answer.get("event")
        if isinstance(event, dict):
            theirs = pdu_of_object(event, ref.version)
            if theirs.event_id != own.event_id:
                raise BadEntrance("another event came back than ours")
            server = self._handshake.server
            added = {name: keys for name, keys in theirs.signatures.items() if name != server}
            own = with_signatures(own, added) if added else own
        (checked,) = await self._checking.check(ref, [parse_object(own.json)])
        if not isinstance(checked, Pdu):
            raise checked
        return own


def _cites_ban(txn: ReadTxn, made: Made) -> bool:
    room = rooms.find_room(txn, made.pdu.room_id)
    if room is None:
        return False
    ref = RoomRef(room.room_nid, made.pdu.room_id, made.version)
    stored = read_authorizers(txn, ref, made.pdu.auth_events).pdus.values()
    return any(
        one.is_state and one.slot == made.pdu.slot and one.content.get("membership") == memberships.BAN
        for one in stored
    )


def _list_events(answer: JsonObject, name: str) -> list[JsonObject]:
    """Raises: BadEntrance."""
    events = answer.get(name)
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        raise BadEntrance(f"{name} is no list of events, or a longer one than any room has")
    return [event for event in events if isinstance(event, dict)]


def _list_servers(answer: JsonObject, server: ServerName) -> list[ServerName]:
    """The servers in the room, as one says that is in it itself. Raises: BadEntrance."""
    names = answer.get("servers_in_room")
    if not isinstance(names, list) or len(names) > MAX_TOLD:
        raise BadEntrance("servers_in_room is no list of servers, or a longer one than any room has")
    told = {server: None}
    for name in names:
        try:
            told[parse_server_name(name)] = None
        except BadIdentifier:
            continue
    return list(told)
