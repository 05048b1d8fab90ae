"""Joining a room that this server is not in, through one that is.

Spec: server-server API, "Joining Rooms".
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import ProtocolFault
from ranvier.core.events.build import with_signatures
from ranvier.core.events.parse import pdu_of_object
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.core.room_versions import RoomVersion
from ranvier.io.clock import Clock
from ranvier.io.ports import Misbehaved, RemoteFault
from ranvier.services.flows.entrance import BadEntrance, Entrance, build_entrance
from ranvier.services.flows.handshake import Handshake, Made, explain, is_final
from ranvier.services.remote.flights import Flights
from ranvier.services.remote.requests import Ask
from ranvier.services.rooms.admission import Admission
from ranvier.services.rooms.checking import Checking, RoomRef
from ranvier.services.rooms.deciding import Case
from ranvier.services.rooms.elsewhere import is_here
from ranvier.services.rooms.live import LiveRooms
from ranvier.services.rooms.remote import AlreadyHere
from ranvier.services.rooms.summaries import store_summary
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import rooms
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.prepared import Appended, Batch, Outcome, PreparedEvent
from ranvier.store.tables.state import build_state
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes

log = logging.getLogger(__name__)

# A room with 100,000 members has about 100 MB of state.
SEND_BOUNDS: Final = Ask(
    method="PUT", path="", timeout_s=180.0, max_response_bytes=256 * 1_048_576, despite_standing=True
)


MAX_EVENTS: Final = 500_000
"""Of a room's state, and of what authorizes it."""


class RoomStore:
    """Puts rooms into the database that came as a whole."""

    def __init__(
        self, db: Database, interner: Interner, nodes: NodeCache, live: LiveRooms, clock: Clock
    ) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._live = live
        self._clock = clock

    async def is_here(self, room_id: RoomID) -> bool:
        """Whether this server is in the room."""
        return await self._db.read(self._read_presence, room_id)

    async def find_nid(self, room_id: RoomID) -> int:
        """The number of a room that is here."""
        room = await self._db.read(rooms.find_room, room_id)
        return 0 if room is None else room.room_nid

    async def enter(self, room_id: RoomID, version: RoomVersion, entrance: Entrance, join: Pdu) -> None:
        """Store the room with `join` as its only head. What was known of the room before stays as history."""
        known = await self._live.find(room_id)
        appended = await self._db.write(self._write, room_id, version, entrance, join)
        for one in appended:
            remember_appended(self._interner, self._nodes, one)
        if known is not None:
            self._live.drop(known)

    def _read_presence(self, txn: ReadTxn, room_id: RoomID) -> bool:
        room = rooms.find_room(txn, room_id)
        return room is not None and is_here(txn, self._interner, room.room_nid)

    def _write(
        self, txn: WriteTxn, room_id: RoomID, version: RoomVersion, entrance: Entrance, join: Pdu
    ) -> list[Appended]:
        room = rooms.insert_room(txn, room_id, version.name)
        if room.version != version.name:
            rooms.correct_version(txn, room.room_nid, version.name)
        now_ms = self._clock.now_ms()
        outliers = Batch(room_nid=room.room_nid, events=entrance.events, now_ms=now_ms)
        first = append(txn, self._interner, self._nodes, outliers)
        nodes = PendingNodes(txn, self._nodes)
        root = build_state(
            txn, self._interner, nodes, {slot: pdu.event_id for slot, pdu in entrance.state.items()}
        )
        batch = Batch(
            room_nid=room.room_nid,
            events=(PreparedEvent(pdu=join, outcome=Outcome.ACCEPTED),),
            now_ms=now_ms,
            revision=room.revision,
            replace_state=root,
        )
        second = append(txn, self._interner, self._nodes, batch)
        store_summary(txn, room.room_nid, [*entrance.state.values(), join])
        return [first, second]


class RemoteJoining:
    """Joins, one at a time for each room."""

    def __init__(
        self, handshake: Handshake, checking: Checking, store: RoomStore, admission: Admission
    ) -> None:
        self._handshake = handshake
        self._checking = checking
        self._store = store
        self._admission = admission
        self._flights: Flights[tuple[RoomID, UserID], EventID] = Flights()
        self._locks: dict[RoomID, asyncio.Lock] = {}

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
        lock = self._locks.setdefault(room_id, asyncio.Lock())
        try:
            async with lock:
                if await self._store.is_here(room_id):
                    raise AlreadyHere
                return await self._try_servers(user_id, room_id, servers, content, self._enter)
        finally:
            if not lock.locked():
                self._locks.pop(room_id, None)

    async def _try_servers(
        self,
        user_id: UserID,
        room_id: RoomID,
        servers: Sequence[ServerName],
        content: JsonObject,
        take: Callable[[Made, JsonObject], Awaitable[None]],
    ) -> EventID:
        faults: list[RemoteFault] = []
        for server in self._handshake.candidates(servers):
            try:
                made = await self._handshake.make(server, room_id, user_id, content)
                answer = await self._handshake.hand_in(server, "v2/send_join", made.pdu, SEND_BOUNDS)
                await take(made, answer)
                return made.pdu.event_id
            except (RemoteFault, ProtocolFault, BadEntrance) as fault:
                log.info("cannot join %s through %s: %s", room_id, server, fault)
                faults.append(fault if isinstance(fault, RemoteFault) else Misbehaved(str(fault)))
                if is_final(faults[-1]):
                    break
        raise explain(faults)

    async def _enter(self, made: Made, answer: JsonObject) -> None:
        """Take the room as the server gives it. Raises: RemoteFault, ProtocolFault, BadEntrance."""
        ref = RoomRef(0, made.pdu.room_id, made.version)
        join = await self._with_their_signatures(ref, made.pdu, answer)
        state, auth_chain = (_list_events(answer, name) for name in ("state", "auth_chain"))
        # History may be older than the limits on what an event cites.
        checked = await self._checking.check(ref, state + auth_chain, limit_parents=False)
        state_ids = [pdu.event_id for pdu in checked[: len(state)] if isinstance(pdu, Pdu)]
        pdus = [pdu for pdu in checked if isinstance(pdu, Pdu)]
        entrance = await asyncio.to_thread(build_entrance, pdus, state_ids, join, made.version)
        await self._store.enter(made.pdu.room_id, made.version, entrance, join)

    async def _admit(self, made: Made, answer: JsonObject) -> None:
        """Take our event into the room as it is here. Raises: RemoteFault, ProtocolFault."""
        nid = await self._store.find_nid(made.pdu.room_id)
        ref = RoomRef(nid, made.pdu.room_id, made.version)
        join = await self._with_their_signatures(ref, made.pdu, answer)
        reasons = await self._admission.admit(Case(room=ref, pdus=[join]))
        if (reason := reasons[join.event_id]) is not None:
            # What it cites is not here yet; the server sends both, as to any other in the room.
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


def _list_events(answer: JsonObject, name: str) -> list[JsonObject]:
    """Raises: BadEntrance."""
    events = answer.get(name)
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        raise BadEntrance(f"{name} is no list of events, or a longer one than any room has")
    return [event for event in events if isinstance(event, dict)]
