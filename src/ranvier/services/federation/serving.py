"""What other servers may ask of our rooms: events, states, what authorizes them, and what came before them.

Spec: server-server API, "Retrieving events", "Backfilling and retrieving missing events", "Retrieving
authorization chain".
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ranvier.core import canonical_json, state_map
from ranvier.core.errors import Forbidden, NotFound
from ranvier.core.identifiers import EventID, RoomID, ServerName
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.services.federation.gate import Gate
from ranvier.services.federation.sight import ServerSights, wire_form, wire_forms
from ranvier.services.federation.walking import Walk
from ranvier.services.rooms.doubts import Doubts
from ranvier.services.rooms.erasure import list_erased_events
from ranvier.services.rooms.live import pdu_of
from ranvier.services.rooms.wholeness import Wholeness
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, rooms
from ranvier.store.tables.edges import list_auth_chain
from ranvier.store.tables.events import EventRecord, Status
from ranvier.store.tables.rooms import Room
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes
from ranvier.store.tables.timeline import list_events_near

MAX_BACKFILL: Final = 100
MAX_MISSING: Final = 50
MAX_WAIT_S: Final = 20.0
"""For the state of a room that this server has just entered: others do not wait much longer for an answer."""
MAX_STARTS: Final = 50
"""Events that one request may name."""

_REJECTED: Final = (Status.REJECTED, Status.REJECTED_OUTLIER)
_NEAR: Final = 100
_NO_EVENT: Final = "There is no such event in this room."


class MissingQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /get_missing_events."""

    earliest_events: tuple[EventID, ...]
    latest_events: tuple[EventID, ...]
    limit: int = 10
    min_depth: int = 0


class FoundEvent(msgspec.Struct, frozen=True):
    """What GET /timestamp_to_event answers."""

    event_id: EventID
    origin_server_ts: int


_ReadState = Callable[[ReadTxn, ServerName, RoomID, EventID], bytes]


class _NotWhole(NotFound):
    """The room has been entered with a part of its state."""


class Serving:
    """Answers are JSON, put together from the bytes of the events as they are stored."""

    def __init__(
        self,
        server: ServerName,
        db: Database,
        clock: Clock,
        nodes: NodeCache,
        gate: Gate,
        sights: ServerSights,
        wholeness: Wholeness,
        doubts: Doubts,
    ) -> None:
        self._server = server
        self._db = db
        self._clock = clock
        self._nodes = nodes
        self._gate = gate
        self._sights = sights
        self._wholeness = wholeness
        self._doubts = doubts

    async def event(self, origin: ServerName, event_id: EventID) -> bytes:
        """One event, whole or redacted, as a transaction. Raises: NotFound, also when the server is not in the
        event's room."""
        return self._transaction([await self._db.read(self._read_event, origin, event_id)])

    async def state(self, origin: ServerName, room_id: RoomID, event_id: EventID) -> bytes:
        """The state before an event, and what authorizes it. Raises: Forbidden, NotFound."""
        return await self._when_whole(self._read_state, origin, room_id, event_id)

    async def state_ids(self, origin: ServerName, room_id: RoomID, event_id: EventID) -> bytes:
        """The same by ids alone. Raises: Forbidden, NotFound."""
        return await self._when_whole(self._read_state_ids, origin, room_id, event_id)

    async def event_auth(self, origin: ServerName, room_id: RoomID, event_id: EventID) -> bytes:
        """All that authorizes an event, directly or not. Raises: Forbidden, NotFound."""
        return await self._db.read(self._read_event_auth, origin, room_id, event_id)

    async def backfill(
        self, origin: ServerName, room_id: RoomID, event_ids: Sequence[EventID], limit: int
    ) -> bytes:
        """Events and what precedes them, those first that lie deepest. Raises: Forbidden."""
        pdus = await self._db.read(self._read_backfill, origin, room_id, event_ids[:MAX_STARTS], limit)
        return self._transaction(pdus)

    async def missing_events(self, origin: ServerName, room_id: RoomID, query: MissingQuery) -> bytes:
        """What lies between some events and later ones, both excluded, oldest first. Raises: Forbidden."""
        return await self._db.read(self._read_missing, origin, room_id, query)

    async def event_near(self, origin: ServerName, room_id: RoomID, ts: int, *, forwards: bool) -> FoundEvent:
        """The event next to a time that the server may see. Raises: Forbidden, NotFound."""
        return await self._db.read(self._read_near, origin, room_id, ts, forwards=forwards)

    async def _when_whole(
        self, read: _ReadState, origin: ServerName, room_id: RoomID, event_id: EventID
    ) -> bytes:
        """What is read; a while later, if the room has just been entered with a part of its state, or what could not be
        checked of it can be now."""
        await self._db.read(self._gate.enter, origin, room_id)
        await self._doubts.settle(room_id, event_id)
        try:
            return await self._db.read(read, origin, room_id, event_id)
        except _NotWhole:
            if not await self._wholeness.wait(room_id, MAX_WAIT_S):
                raise
        return await self._db.read(read, origin, room_id, event_id)

    def _transaction(self, pdus: Sequence[bytes]) -> bytes:
        head = canonical_json.encode({"origin": self._server, "origin_server_ts": self._clock.now_ms()})
        return head[:-1] + b',"pdus":' + _array(pdus) + b"}"

    def _read_event(self, txn: ReadTxn, origin: ServerName, event_id: EventID) -> bytes:
        record = events.find_event(txn, event_id)
        if record is None or record.status in _REJECTED:
            raise NotFound(_NO_EVENT)
        room = rooms.list_rooms(txn, (record.room_nid,))[record.room_nid]
        try:
            self._gate.enter(txn, origin, room.room_id)
        except Forbidden as error:
            # Event ids of rooms v1 and v2 can be guessed: that there is such an event is not told.
            raise NotFound(_NO_EVENT) from error
        seen = self._list_seen(txn, origin, room, (record,))
        return wire_form(record, get_room_version(room.version), in_full=record.event_nid in seen)

    def _read_state(self, txn: ReadTxn, origin: ServerName, room_id: RoomID, event_id: EventID) -> bytes:
        room, nids = self._state_before(txn, origin, room_id, event_id)
        chain = list_auth_chain(txn, nids)
        stored = events.list_events(txn, {*nids, *chain})
        version = get_room_version(room.version)
        state = wire_forms([stored[nid] for nid in nids], version)
        auth_chain = wire_forms([stored[nid] for nid in chain], version)
        return b'{"auth_chain":%b,"pdus":%b}' % (_array(auth_chain), _array(state))

    def _read_state_ids(self, txn: ReadTxn, origin: ServerName, room_id: RoomID, event_id: EventID) -> bytes:
        _, nids = self._state_before(txn, origin, room_id, event_id)
        chain = list_auth_chain(txn, nids)
        names = events.list_event_ids(txn, {*nids, *chain})
        return msgspec.json.encode(
            {"auth_chain_ids": [names[nid] for nid in chain], "pdu_ids": [names[nid] for nid in nids]}
        )

    def _state_before(
        self, txn: ReadTxn, origin: ServerName, room_id: RoomID, event_id: EventID
    ) -> tuple[Room, list[int]]:
        room, record = self._find(txn, origin, room_id, event_id)
        if room.is_partial:
            raise _NotWhole("The state of this room is not known here yet: other servers are to be asked.")
        if record.state_root is None:
            raise NotFound("The state at this event is not known here.")
        return room, list(state_map.to_dict(SnapshotNodes(txn, self._nodes), record.state_root).values())

    def _find(
        self, txn: ReadTxn, origin: ServerName, room_id: RoomID, event_id: EventID
    ) -> tuple[Room, EventRecord]:
        room = self._gate.enter(txn, origin, room_id)
        record = events.find_event(txn, event_id)
        if record is None or record.room_nid != room.room_nid or record.status in _REJECTED:
            raise NotFound(_NO_EVENT)
        return room, record

    def _read_event_auth(self, txn: ReadTxn, origin: ServerName, room_id: RoomID, event_id: EventID) -> bytes:
        room, record = self._find(txn, origin, room_id, event_id)
        version = get_room_version(room.version)
        # Edges are kept for state events only, so the first step is read from the event itself.
        cited = events.list_events_by_id(txn, pdu_of(record, room_id, version).auth_events)
        first = {one.event_nid for one in cited.values()}
        chain = events.list_events(txn, first | list_auth_chain(txn, first))
        return b'{"auth_chain":%b}' % _array(wire_forms(chain.values(), version))

    def _read_backfill(
        self, txn: ReadTxn, origin: ServerName, room_id: RoomID, event_ids: Sequence[EventID], limit: int
    ) -> list[bytes]:
        room = self._gate.enter(txn, origin, room_id)
        walk = Walk(txn, room, max(0, min(limit, MAX_BACKFILL)))
        return self._shown(txn, origin, room, walk.back(walk.load(event_ids), ()))

    def _read_missing(self, txn: ReadTxn, origin: ServerName, room_id: RoomID, query: MissingQuery) -> bytes:
        room = self._gate.enter(txn, origin, room_id)
        walk = Walk(txn, room, max(0, min(query.limit, MAX_MISSING)))
        latest = walk.load(query.latest_events[:MAX_STARTS])
        stops = {*query.earliest_events, *(record.event_id for record in latest)}
        starts = walk.load([event_id for event_id in walk.list_parents(latest) if event_id not in stops])
        found = [record for record in walk.back(starts, stops) if record.depth >= query.min_depth]
        return b'{"events":%b}' % _array(self._shown(txn, origin, room, found[::-1]))

    def _read_near(
        self, txn: ReadTxn, origin: ServerName, room_id: RoomID, ts: int, *, forwards: bool
    ) -> FoundEvent:
        room = self._gate.enter(txn, origin, room_id)
        records = list_events_near(txn, room.room_nid, ts, forwards=forwards, limit=_NEAR, offset=0)
        seen = self._sights.visible(txn, origin, room, records)
        for record in records:
            if record.event_nid in seen:
                return FoundEvent(record.event_id, record.origin_server_ts)
        raise NotFound("There is no event next to this time.")

    def _shown(
        self, txn: ReadTxn, origin: ServerName, room: Room, records: Sequence[EventRecord]
    ) -> list[bytes]:
        seen = self._list_seen(txn, origin, room, records)
        return wire_forms(records, get_room_version(room.version), seen)

    def _list_seen(
        self, txn: ReadTxn, origin: ServerName, room: Room, records: Sequence[EventRecord]
    ) -> set[int]:
        """What the server may have in full: also nothing that was erased, unless the server was in the room when it
        came."""
        seen = self._sights.visible(txn, origin, room, records)
        erased = list_erased_events(txn, records)
        return {
            record.event_nid
            for record in records
            if record.event_nid in seen
            and (record.event_nid not in erased or self._sights.was_joined(txn, origin, room, record))
        }


def _array(items: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"
