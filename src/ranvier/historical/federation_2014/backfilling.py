"""History that clients page back to and that is not here: fetched from a peer, and put where it belongs.

Source: docs/federation-2014.md, "History".
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.errors import ProtocolFault
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName
from ranvier.core.room_versions import get_room_version
from ranvier.historical.federation_2014.events import Signer, build_shown
from ranvier.historical.federation_2014.ledger import Ledger, is_shown, parse_held, resolve_prev
from ranvier.historical.federation_2014.naming import event_id_of, name_of_event
from ranvier.historical.federation_2014.pdu import BadPdu, OldPdu
from ranvier.historical.federation_2014.peers import Peers
from ranvier.historical.federation_2014.serving import read_backfill
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.rooms.history import FillGap
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import edges, events, rooms
from ranvier.store.tables import historical_contexts as contexts
from ranvier.store.tables import historical_pdus as pdus
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.historical_pdus import Name
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.prepared import Appended, Batch, Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import NodeCache

log = logging.getLogger(__name__)

PAGE: Final = 100

PAUSE_MS: Final = 300_000
"""After nobody could fill a gap."""

MAX_GIVEN_UP: Final = 10_000
MAX_GAPS: Final = 100
MAX_BACKWARD: Final = 1_000


class _Gap(msgspec.Struct, frozen=True):
    room_id: RoomID
    room_nid: int
    context: str
    room_order: int  # of the event below which events are missing
    state_root: int  # before that event
    names: Sequence[Name]  # what it cites
    servers: Sequence[ServerName]


class Backfilling:
    """Fills gaps in rooms of this protocol; those of all others are passed on."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        nodes: NodeCache,
        ledger: Ledger,
        peers: Peers,
        signer: Signer,
        clock: Clock,
        rest: FillGap,
    ) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._ledger = ledger
        self._peers = peers
        self._signer = signer
        self._clock = clock
        self._rest = rest
        self._retry_ms: OrderedDict[tuple[int, int], int] = OrderedDict()

    async def fill(self, room_nid: int, below: int) -> int:
        """Fetch what is missing below the newest gap at or under a place in a timeline; how many events came.

        Raises: StoreFault.
        """
        is_bridged, gap = await self._db.read(self._find_gap, room_nid, below)
        if not is_bridged:
            return await self._rest(room_nid, below)
        if gap is None or self._clock.now_ms() < self._retry_ms.get((room_nid, gap.room_order), 0):
            return 0
        added = await self._add(gap, await self._db.read(_read_held, gap))
        if added:
            return added
        for peer in gap.servers:
            added = await self._add(gap, await self._ask(peer, gap))
            if added:
                return added
        self._retry_ms[room_nid, gap.room_order] = self._clock.now_ms() + PAUSE_MS
        if len(self._retry_ms) > MAX_GIVEN_UP:
            self._retry_ms.popitem(last=False)
        return 0

    async def _ask(self, peer: ServerName, gap: _Gap) -> Sequence[OldPdu]:
        try:
            return await self._peers.fetch_backfill(peer, gap.context, gap.names, PAGE)
        except RemoteFault as fault:
            log.info("no history of %s from %s: %s", gap.context, peer, fault)
            return ()

    async def _add(self, gap: _Gap, history: Sequence[OldPdu]) -> int:
        if not history:
            return 0
        added, appended = await self._db.write(self._append, gap, history)
        remember_appended(self._interner, self._nodes, appended)
        return added

    def _append(self, txn: WriteTxn, gap: _Gap, history: Sequence[OldPdu]) -> tuple[int, Appended]:
        shown: list[PreparedEvent] = []
        for pdu in sorted(history[:PAGE], key=lambda one: (one.depth, one.name)):
            try:
                self._ledger.take_history(txn, pdu)
            except BadPdu as fault:
                log.info("%s is refused: %s", pdu.label, fault)
                continue
            event = self._build(txn, pdu, gap)
            if event is None:
                edges.close_gaps(txn, [event_id_of(pdu.name)])
            else:
                shown.append(
                    PreparedEvent(pdu=event, outcome=Outcome.BACKFILLED, state_before=gap.state_root)
                )
        known = events.list_known(txn, {one.pdu.event_id for one in shown})
        fresh = [
            one
            for one in shown
            if one.pdu.event_id not in known or known[one.pdu.event_id].room_order is None
        ]
        batch = Batch(
            room_nid=gap.room_nid,
            events=tuple(fresh),
            now_ms=self._clock.now_ms(),
            below_order=gap.room_order,
        )
        # What is in the timeline already is no gap, wherever it stands.
        edges.close_gaps(txn, [event_id_of(name) for name in self._list_placed(txn, gap)])
        return len(fresh), append(txn, self._interner, self._nodes, batch)

    def _list_placed(self, txn: ReadTxn, gap: _Gap) -> list[Name]:
        known = events.list_known(txn, {event_id_of(name) for name in gap.names})
        return [
            name
            for name in gap.names
            if (one := known.get(event_id_of(name))) is not None and one.room_order is not None
        ]

    def _build(self, txn: ReadTxn, pdu: OldPdu, gap: _Gap) -> Pdu | None:
        """The event that shows a PDU, citing what that cites; None if it is not for clients to see."""
        if not is_shown(pdu):
            return None
        cited: list[EventID] = []
        for name in resolve_prev(txn, pdu, self._peers.is_peer):
            held = pdus.find_pdu(txn, name)
            if held is None or is_shown(parse_held(held)):
                cited.append(event_id_of(name))
        try:
            return build_shown(pdu, gap.room_id, cited, pdu.depth + 1, self._signer)
        except ProtocolFault as fault:
            log.info("%s cannot be shown: %s", pdu.label, fault)
            return None

    def _find_gap(self, txn: ReadTxn, room_nid: int, below: int) -> tuple[bool, _Gap | None]:
        room = rooms.list_rooms(txn, (room_nid,))[room_nid]
        if get_room_version(room.version).is_federated:
            return False, None
        context = contexts.find_context_of_room(txn, room_nid)
        found = edges.list_gaps_below(txn, room_nid, below, MAX_GAPS)
        if context is None or not found:
            return True, None
        order = found[0].room_order
        citing = events.list_events(txn, (found[0].event_nid,))[found[0].event_nid]
        missing = {gap.missing_event_id for gap in found if gap.room_order == order}
        return True, _Gap(
            room.room_id,
            room_nid,
            context.context,
            order,
            citing.state_root or room.state_root,
            _list_names(txn, context.context, missing),
            [name for name in contexts.list_servers(txn, room_nid) if self._peers.is_peer(name)],
        )


def _read_held(txn: ReadTxn, gap: _Gap) -> Sequence[OldPdu]:
    """What is held of the history already: of a context in which this server was before."""
    return [parse_held(stored) for stored in read_backfill(txn, gap.context, gap.names, PAGE)]


def _list_names(txn: ReadTxn, context: str, missing: set[EventID]) -> list[Name]:
    """The PDUs that events would show. An id that tells no name is found among what is known to be missing."""
    names = [name for event_id in missing if (name := name_of_event(event_id)) is not None]
    if len(names) < len(missing):
        backward = pdus.list_backward(txn, context, MAX_BACKWARD)
        names += [name for name in backward if name not in names and event_id_of(name) in missing]
    return names
