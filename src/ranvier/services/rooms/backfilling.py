"""History that was missed: the events below a gap of a room's timeline, put where they belong.

Spec: server-server API, "Backfilling and retrieving missing events".
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, ServerName
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.missing import MAX_BACKFILL, Missing
from ranvier.services.rooms.past import Past
from ranvier.services.rooms.receiving import Receiving
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import edges, memberships, rooms
from ranvier.store.tables.edges import Gap
from ranvier.store.tables.interned import Interner, list_server_names

log = logging.getLogger(__name__)

MAX_SERVERS: Final = 5
"""Servers that are asked for one gap."""

PAUSE_MS: Final = 300_000
"""After nobody could fill a gap."""

MAX_GIVEN_UP: Final = 10_000


class _GapAt(msgspec.Struct, frozen=True):
    room: RoomRef
    room_order: int  # of the event below which events are missing
    event_ids: Sequence[EventID]  # what it cites
    servers: Sequence[ServerName]


class Backfilling:
    """Fills gaps."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        missing: Missing,
        receiving: Receiving,
        past: Past,
        clock: Clock,
    ) -> None:
        self._db = db
        self._interner = interner
        self._missing = missing
        self._receiving = receiving
        self._past = past
        self._clock = clock
        self._retry_ms: OrderedDict[tuple[int, int], int] = OrderedDict()  # gap -> when to ask again

    async def fill(self, room_nid: int, below: int, limit: int = MAX_BACKFILL) -> int:
        """Fetch what is missing below the newest gap at or under a place in the timeline, from the servers in
        the room, one after the other until one has it. How many events were added; 0 when there is no gap, or
        when nobody tells.

        Args: below - a room_order; limit - of events, about.
        Cost: 1 read; 1 request and a few more for the state at the far end.
        Raises: StoreFault.
        """
        gap = await self._db.read(self._find_gap, room_nid, below)
        if gap is None or self._clock.now_ms() < self._retry_ms.get((room_nid, gap.room_order), 0):
            return 0
        for server in gap.servers:
            try:
                pdus = await self._missing.fetch_backfill(server, gap.room, gap.event_ids, limit)
            except RemoteFault as fault:
                log.info("no history of %s from %s: %s", gap.room.room_id, server, fault)
                continue
            added = await self._add(server, gap, pdus)
            if added:
                return added
        self._give_up(room_nid, gap.room_order)
        return 0

    def _give_up(self, room_nid: int, room_order: int) -> None:
        """Not every page that ends at the gap is to ask again."""
        self._retry_ms[room_nid, room_order] = self._clock.now_ms() + PAUSE_MS
        if len(self._retry_ms) > MAX_GIVEN_UP:
            self._retry_ms.popitem(last=False)

    async def _add(self, server: ServerName, gap: _GapAt, pdus: Sequence[Pdu]) -> int:
        case = await self._receiving.prepare_history(server, gap.room, pdus)
        return await self._past.add(case, gap.room_order)

    def _find_gap(self, txn: ReadTxn, room_nid: int, below: int) -> _GapAt | None:
        gaps: list[Gap] = edges.list_gaps_below(txn, room_nid, below, MAX_BACKFILL)
        if not gaps:
            return None
        room = rooms.list_rooms(txn, (room_nid,))[room_nid]
        if room.is_partial:
            # For each page it would take the whole state, which is on its way.
            return None
        order = gaps[0].room_order
        nids = [nid for nid, _ in memberships.list_servers_in_room(txn, room_nid)[: MAX_SERVERS + 1]]
        names = list_server_names(txn, self._interner, nids)
        servers = [names[nid] for nid in nids if names[nid] != self._interner.own_server]
        return _GapAt(
            RoomRef(room_nid, room.room_id, get_room_version(room.version)),
            order,
            [gap.missing_event_id for gap in gaps if gap.room_order == order],
            servers[:MAX_SERVERS],
        )
