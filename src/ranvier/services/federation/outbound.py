"""What we owe other servers: a puller over our own events, and what else is to be told them.

It reads forward from a position; what concerns whom follows from the rooms at that moment. Nothing is written
for a server when a message is sent: docs/adr/0003-federation.md.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ranvier.core.errors import BadIdentifier, ServerFault
from ranvier.core.identifiers import RoomID, ServerName, server_of
from ranvier.core.room_versions import get_room_version
from ranvier.services.federation.destination import Destination, Wires
from ranvier.services.federation.leases import SWEEP_EVERY_S
from ranvier.services.federation.passing import Passing, PassingReader
from ranvier.services.federation.sight import wire_form, wire_forms
from ranvier.services.recent import Recent
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

ALONE_INTERVAL_S: Final = 0.05
"""After a read that found nothing for others: where nobody else is in the rooms, looking costs more than it brings."""

MAX_SERVERS: Final = 400_000
"""In all rooms whose servers are remembered: some 40 MB."""
_ROOM_WEIGHT: Final = 5
"""A room takes as much as so many servers."""

_MEMBER: Final = "m.room.member"

_Servers = frozenset[int]
_UNREAD: Final[tuple[int, _Servers]] = (-1, frozenset())


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
        # room_nid -> (state root, servers)
        self._servers: Recent[int, tuple[int, _Servers]] = Recent(MAX_SERVERS)
        # room_nid -> the state root up to which it was looked for servers that came
        self._looked: Recent[int, int] = Recent(MAX_SERVERS // _ROOM_WEIGHT)
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
                    is_for_others = await self._pull(tasks)
                    await self._wires.clock.sleep(LEAST_INTERVAL_S if is_for_others else ALONE_INTERVAL_S)
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

    async def _pull(self, tasks: asyncio.TaskGroup) -> bool:
        """Read on. Whether there was anything for other servers, or is more to be read."""
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
        return bool(touched) or pulled.has_more

    def _add_passing(self, pulled: _Pulled) -> set[int]:
        touched: set[int] = set()
        for nids, unit in pulled.passing:
            for nid in nids:
                destination = self._destination(nid, pulled.names[nid])
                destination.ephemera.add(unit, is_parked=destination.is_parked)
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
        touched = {record.room_nid for _, record in live if record.is_local or record.type == _MEMBER}
        touched.update(nid for nid in hinted_rooms if self._servers.get(nid) is not None)
        found = {
            nid: room
            for nid, room in rooms.list_rooms(txn, touched).items()
            if get_room_version(room.version).is_federated
        }
        come = {nid: self._list_come(txn, room) for nid, room in found.items()}
        own = [
            (position, record) for position, record in live if record.is_local and record.room_nid in found
        ]
        by_room: dict[int, list[EventRecord]] = {}
        for _, record in own:
            by_room.setdefault(record.room_nid, []).append(record)
        moved = {
            nid: self._wires.sights.list_moved(txn, found[nid], records) for nid, records in by_room.items()
        }
        outgoing = [
            _Outgoing(
                position,
                wire_form(record, get_room_version(found[record.room_nid].version)),
                self._list_recipients(txn, found[record.room_nid], record, moved[record.room_nid]),
            )
            for position, record in own
        ]
        outgoing += self._greet(txn, found, live)
        outgoing.sort(key=lambda one: one.position)
        outgoing += self._catch_up(txn, found, come, outgoing, upto)
        passing = self._passing.read(txn, after, upto, hinted_rooms, self._servers_of_room)
        nids = {nid for event in outgoing for nid in event.server_nids}
        nids.update(hinted_servers)
        nids.update(nid for unit_nids, _ in passing for nid in unit_nids)
        return _Pulled(outgoing, passing, list_server_names(txn, self._interner, nids), upto, has_more)

    def _greet(
        self, txn: ReadTxn, found: Mapping[int, Room], live: Sequence[tuple[int, EventRecord]]
    ) -> Iterator[_Outgoing]:
        """For servers that came into a room while others spoke: what we said last that their join does not follow.

        Nobody else tells them: who said it did not know of them, and who let them in may not have heard it yet. In
        a room that falls silent then they would never know.
        """
        for position, record in live:
            room = found.get(record.room_nid)
            if record.type != _MEMBER or room is None or len(room.extremities) == 1:
                continue
            version = get_room_version(room.version)
            member = pdu_of(record, room.room_id, version)
            nids = self._find_server(txn, member.state_key)
            if member.content.get("membership") != memberships.JOIN or not nids:
                continue
            (server,) = list_server_names(txn, self._interner, nids).values()
            if self._wires.sights.was_joined(txn, server, room, record):
                continue
            for pdu in self._list_heads(txn, room, server, but=record.event_nid):
                yield _Outgoing(position, pdu, nids)

    def _catch_up(
        self,
        txn: ReadTxn,
        found: Mapping[int, Room],
        come: Mapping[int, Mapping[int, ServerName]],
        told: Sequence[_Outgoing],
        upto: int,
    ) -> Iterator[_Outgoing]:
        """For servers that are in a room by no event that came now, but because its branches were resolved, or its
        state was decided again: what we said last, which they were not told while they were taken to be out of it."""
        known = {(nid, one.pdu) for one in told for nid in one.server_nids}
        for room_nid, servers in come.items():
            for nid, name in servers.items():
                for pdu in self._list_heads(txn, found[room_nid], name):
                    if (nid, pdu) not in known:
                        yield _Outgoing(upto, pdu, (nid,))

    def _list_heads(self, txn: ReadTxn, room: Room, server: ServerName, but: int = 0) -> list[bytes]:
        """What we said last in a room, as a server may have it, `but` for an event (event_nid), and what the server
        handed in itself."""
        heads = events.list_events(txn, set(room.extremities) - {but}).values()
        senders = list_user_ids(txn, self._interner, {head.sender_nid for head in heads})
        own = [head for head in heads if head.is_local and server_of(senders[head.sender_nid]) != server]
        seen = self._wires.sights.visible(txn, server, room, own)
        return wire_forms(own, get_room_version(room.version), seen)

    def _list_come(self, txn: ReadTxn, room: Room) -> dict[int, ServerName]:
        """The servers (by server_nid) that have come into a room since its servers were last read, if they were.
        Cost: nothing where the state is the same as when this looked last; else what changed of it."""
        known = self._servers.get(room.room_nid)
        if known is None:
            return {}
        looked = self._looked.get(room.room_nid) or known[0]
        if room.state_root in (known[0], looked):
            return {}
        self._looked.keep(room.room_nid, room.state_root, 1)
        moved = self._wires.sights.list_moved_since(txn, room, (looked,))
        before = known[1]
        if before.issuperset(moved):
            return {}
        now = self._servers_of(txn, room)
        return {nid: name for nid, name in moved.items() if nid in now and nid not in before}

    def _list_recipients(
        self, txn: ReadTxn, room: Room, record: EventRecord, moved: Mapping[int, ServerName]
    ) -> set[int]:
        """The servers that were in the room before the event, and that of a user whom it makes leave; not the
        one that sent it to us, as the sender's server does but for a third-party invite, which we made."""
        now = self._servers_of(txn, room)
        servers = {nid for nid in now if nid not in moved}
        servers.update(
            nid for nid, name in moved.items() if self._wires.sights.was_joined(txn, name, room, record)
        )
        if record.type == _MEMBER:
            # One that passed through two servers may follow an older state: who came since was not told of it by that.
            servers |= now
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
        root, servers = self._servers.get(room.room_nid) or _UNREAD
        if root != room.state_root:
            own = find_server_nids(txn, self._interner, (self._interner.own_server,)).values()
            servers = frozenset(
                nid for nid, _ in memberships.list_servers_in_room(txn, room.room_nid) if nid not in own
            )
            self._servers.keep(room.room_nid, (room.state_root, servers), _ROOM_WEIGHT + len(servers))
        return servers
