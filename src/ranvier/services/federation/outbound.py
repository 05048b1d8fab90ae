"""What we owe other servers: a puller over our own events, and what else is to be told them.

It reads forward from a position; what concerns whom follows from the rooms at that moment. Nothing is written
for a server when a message is sent: docs/adr/0003-federation.md.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ranvier.core.errors import BadIdentifier, ServerFault
from ranvier.core.federation.edus import PresenceItem, Receipt, Typing
from ranvier.core.identifiers import RoomID, ServerName, server_of
from ranvier.core.room_versions import get_room_version
from ranvier.services.federation.destination import Destination, Wires
from ranvier.services.federation.leases import SWEEP_EVERY_S
from ranvier.services.federation.passing import Passing, PassingReader
from ranvier.services.federation.sight import wire_form
from ranvier.services.rooms.live import pdu_of
from ranvier.store.database import Hint, Kind, ReadTxn
from ranvier.store.tables import destinations, events, memberships, outbox, rooms
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import (
    Interner,
    find_server_nids,
    list_server_names,
    list_user_ids,
)
from ranvier.store.tables.rooms import Room

BATCH: Final = 500
"""Events of all rooms in one read."""

LEAST_INTERVAL_S: Final = 0.005
"""Between reads: what is sent in quick succession goes out together."""

MAX_ROOMS: Final = 5_000
"""Rooms whose servers are remembered."""

_Servers = frozenset[int]


class _Outgoing(msgspec.Struct, frozen=True):
    """An event and whom it concerns."""

    position: int
    pdu: bytes
    server_nids: Collection[int]


class _Pulled(msgspec.Struct, frozen=True):
    events: Sequence[_Outgoing]
    passing: Passing
    names: Mapping[int, ServerName]
    upto: int
    has_more: bool


class OutboundCounts(msgspec.Struct, frozen=True):
    """How much there is to do."""

    waiting_events: int
    sending: int
    parked: int


class Outbound:
    """The worker."""

    name = "outbound"

    def __init__(self, wires: Wires, interner: Interner, passing: PassingReader, prefix: str) -> None:
        self._wires = wires
        self._db = wires.db
        self._interner = interner
        self._passing = passing
        self._prefix = prefix
        self._destinations: dict[int, Destination] = {}
        self._by_name: dict[ServerName, Destination] = {}
        self._servers: dict[int, tuple[int, _Servers]] = {}  # room_nid -> (state root, servers)
        self._news = asyncio.Event()
        self._hinted_rooms: set[int] = set()
        self._hinted_servers: set[int] = set()
        self._position = self._db.position()
        self._db.subscribe(self._hear)

    def wake(self, server: ServerName) -> None:
        """A server that failed is in order again."""
        destination = self._by_name.get(server)
        if destination is not None:
            destination.wake()

    async def run(self) -> None:
        """Send for ever."""
        # After a failure: no task of the earlier run is left, and what it had begun to read is read again.
        for destination in self._destinations.values():
            destination.is_running = False
        self._news.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._resume(tasks)
                if self._wires.leases.is_shared:
                    tasks.create_task(self._sweep(tasks), name="servers that nobody sends to")
                while True:
                    await self._news.wait()
                    self._news.clear()
                    await self._pull(tasks)
                    await self._wires.clock.sleep(LEAST_INTERVAL_S)
        finally:
            # Without the database they end by themselves.
            with suppress(ServerFault):
                await self._wires.leases.release()

    def count(self) -> OutboundCounts:
        """For the metrics. Cost: follows the number of servers that were sent to."""
        known = self._destinations.values()
        return OutboundCounts(
            sum(one.waiting_count for one in known),
            sum(one.is_running and not one.is_parked for one in known),
            sum(one.is_parked for one in known),
        )

    def _hear(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            if hint.kind is Kind.ROOM:
                self._hinted_rooms.add(hint.key)
            elif hint.kind is Kind.SERVER:
                self._hinted_servers.add(hint.key)
            elif hint.kind not in (Kind.PRESENCE, Kind.GAP):
                continue
            self._news.set()

    async def _resume(self, tasks: asyncio.TaskGroup) -> None:
        """Go on with what an earlier process left to be sent, or one that ended beside this."""
        names = await self._db.read(self._read_waiting)
        others = await self._wires.leases.list_others()
        for nid, name in names.items():
            if name != self._interner.own_server and nid not in others:
                destination = self._destination(nid, name, is_behind=True)
                destination.catch_up()
                self._send(tasks, destination)

    async def _sweep(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._wires.clock.sleep(SWEEP_EVERY_S)
            await self._resume(tasks)

    def _read_waiting(self, txn: ReadTxn) -> dict[int, ServerName]:
        nids = {*destinations.list_behind(txn), *outbox.list_waiting_servers(txn)}
        return list_server_names(txn, self._interner, nids)

    async def _pull(self, tasks: asyncio.TaskGroup) -> None:
        # Every hint up to this position has been heard. A read sees more by now; that is for the next time.
        limit = self._db.position()
        hinted_rooms, self._hinted_rooms = self._hinted_rooms, set()
        hinted_servers, self._hinted_servers = self._hinted_servers, set()
        pulled = await self._db.read(self._read, self._position, limit, hinted_rooms, hinted_servers)
        touched: set[int] = set(hinted_servers)
        for event in pulled.events:
            for nid in event.server_nids:
                self._destination(nid, pulled.names[nid]).add(event.position, event.pdu)
            touched.update(event.server_nids)
        touched |= self._add_passing(pulled)
        for nid in hinted_servers:
            self._destination(nid, pulled.names[nid]).note_outbox()
        for nid in touched:
            self._send(tasks, self._destinations[nid])
        self._position = pulled.upto
        if pulled.has_more:
            self._hinted_rooms |= hinted_rooms
            self._news.set()

    def _add_passing(self, pulled: _Pulled) -> set[int]:
        touched: set[int] = set()
        for nids, unit in pulled.passing:
            for nid in nids:
                waiting = self._destination(nid, pulled.names[nid]).ephemera
                match unit:
                    case Typing():
                        waiting.add_typing(unit)
                    case Receipt():
                        waiting.add_receipt(unit)
                    case PresenceItem():
                        waiting.add_presence(unit)
            touched.update(nids)
        return touched

    def _destination(self, nid: int, name: ServerName, *, is_behind: bool = False) -> Destination:
        found = self._destinations.get(nid)
        if found is None:
            found = Destination(
                self._wires, name, nid, self._prefix, since=self._position, is_behind=is_behind
            )
            self._destinations[nid] = self._by_name[name] = found
        return found

    def _send(self, tasks: asyncio.TaskGroup, destination: Destination) -> None:
        if destination.has_work and not destination.is_running:
            # Set here: the task begins later, and there must be one at a time.
            destination.is_running = True
            tasks.create_task(destination.run(), name=f"send to {destination.server}")

    def _read(
        self,
        txn: ReadTxn,
        after: int,
        limit: int,
        hinted_rooms: Collection[int],
        hinted_servers: Collection[int],
    ) -> _Pulled:
        live = events.list_live_events(txn, after, limit, BATCH)
        has_more = len(live) == BATCH
        upto = live[-1][0] if has_more else limit
        local = [(position, record) for position, record in live if record.is_local]
        found = {
            nid: room
            for nid, room in rooms.list_rooms(txn, {record.room_nid for _, record in local}).items()
            if get_room_version(room.version).is_federated
        }
        own = [(position, record) for position, record in local if record.room_nid in found]
        moved = {nid: self._list_moved(txn, room, live) for nid, room in found.items()}
        outgoing = [
            _Outgoing(
                position,
                wire_form(record, get_room_version(found[record.room_nid].version)),
                self._list_recipients(txn, found[record.room_nid], record, moved[record.room_nid]),
            )
            for position, record in own
        ]
        passing = self._passing.read(txn, after, upto, hinted_rooms, self._servers_of_room)
        nids = {nid for event in outgoing for nid in event.server_nids}
        nids.update(hinted_servers)
        nids.update(nid for unit_nids, _ in passing for nid in unit_nids)
        return _Pulled(outgoing, passing, list_server_names(txn, self._interner, nids), upto, has_more)

    def _list_moved(
        self, txn: ReadTxn, room: Room, live: Sequence[tuple[int, EventRecord]]
    ) -> Mapping[int, ServerName]:
        """The servers that may have come into the room or left it lately: of each of them it is to be looked at
        whether it was there at an event."""
        _, before = self._servers.get(room.room_nid, (-1, frozenset()))
        now = self._servers_of(txn, room)
        nids = set(before ^ now) if before else set()
        for _, record in live:
            if record.room_nid == room.room_nid and record.type == "m.room.member":
                member = pdu_of(record, room.room_id, get_room_version(room.version))
                nids |= self._find_server(txn, member.state_key)
        return list_server_names(txn, self._interner, nids)

    def _list_recipients(
        self, txn: ReadTxn, room: Room, record: EventRecord, moved: Mapping[int, ServerName]
    ) -> set[int]:
        """The servers that were in the room before the event, and that of a user whom it makes leave; not the
        one that sent it to us, as the sender's server does but for a third-party invite, which we made."""
        servers = {nid for nid in self._servers_of(txn, room) if nid not in moved}
        servers.update(
            nid for nid, name in moved.items() if self._wires.sights.was_joined(txn, name, room, record)
        )
        if record.type == "m.room.member":
            member = pdu_of(record, room.room_id, get_room_version(room.version))
            if "third_party_invite" in member.content:
                return servers
            if member.content.get("membership") in (memberships.LEAVE, memberships.BAN):
                servers.update(self._find_server(txn, member.state_key))
        sender = list_user_ids(txn, self._interner, (record.sender_nid,))[record.sender_nid]
        return servers - self._find_server(txn, sender)

    def _find_server(self, txn: ReadTxn, user_id: str | None) -> set[int]:
        try:
            name = server_of(user_id or "")
        except BadIdentifier:
            return set()
        if name == self._interner.own_server:
            return set()
        return set(find_server_nids(txn, self._interner, (name,)).values())

    def _servers_of_room(self, txn: ReadTxn, room_nid: int) -> tuple[RoomID, _Servers]:
        room = rooms.list_rooms(txn, (room_nid,))[room_nid]
        return room.room_id, self._servers_of(txn, room)

    def _servers_of(self, txn: ReadTxn, room: Room) -> _Servers:
        """The other servers in a room. They are the same while its state is."""
        root, servers = self._servers.get(room.room_nid, (-1, frozenset()))
        if root != room.state_root:
            own = find_server_nids(txn, self._interner, (self._interner.own_server,)).values()
            servers = frozenset(
                nid for nid, _ in memberships.list_servers_in_room(txn, room.room_nid) if nid not in own
            )
            if len(self._servers) >= MAX_ROOMS:
                self._servers.clear()
            self._servers[room.room_nid] = (room.state_root, servers)
        return servers
