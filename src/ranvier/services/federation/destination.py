"""One server that is sent things: what waits for it, and the transactions in which it goes out, one at a time.

A destination that answers is fed from memory. One that does not is forgotten, but for its position: when it
answers again, it gets the newest event of each room that it missed something of, and the rest is its own to
ask for.

Spec: server-server API, "Transactions".
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ranvier.core import canonical_json
from ranvier.core.errors import BadJson, ServerFault
from ranvier.core.federation.transactions import build_transaction, parse_results
from ranvier.core.identifiers import ServerName
from ranvier.core.limits import MAX_TRANSACTION_EDUS, MAX_TRANSACTION_PDUS
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.federation.ephemera import Ephemera
from ranvier.services.federation.leases import Holding, Leases
from ranvier.services.federation.sight import ServerSights, wire_form, wire_forms
from ranvier.services.remote.requests import Ask, Refused, Requests, path_of
from ranvier.services.remote.standing import HeldBack
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import destinations, events, outbox, rooms

log = logging.getLogger(__name__)

MAX_WAITING: Final = 500
"""Events that wait in memory for one server; with more it counts as one that was away."""

MAX_REPEATS: Final = 4
"""How often a transaction that was not taken is sent again as it is. Then the server was away for so long that
newer events tell it more."""

FIRST_PAUSE_S: Final = 2.0
MAX_PAUSE_S: Final = 3_600.0
"""Between attempts while the server refuses what we send, but is not failing."""

_PATH: Final = "/_matrix/federation/v1/send"


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction, the same bytes however often it is sent."""

    txn_id: str
    body: bytes
    position: (
        int | None
    )  # up to where the server has all events when it took this; None: it says nothing of that
    outbox_position: int | None  # the same for EDUs of the outbox


class Wires(msgspec.Struct, frozen=True):
    """What destinations need to reach their servers."""

    server: ServerName
    db: Database
    requests: Requests
    sights: ServerSights
    clock: Clock
    slots: asyncio.Semaphore  # transactions under way to all servers together
    leases: Leases


class Destination:
    """What waits for one server. `run` sends until nothing does."""

    def __init__(
        self, wires: Wires, server: ServerName, nid: int, prefix: str, *, since: int, is_behind: bool
    ) -> None:
        """`since`: the position from which on all events that concern the server are added."""
        self.server = server
        self.nid = nid
        self.ephemera = Ephemera()
        self.is_running = False
        self._wires = wires
        self._prefix = prefix  # of transaction ids: no other run of any process uses it
        self._count = 0
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._is_behind = is_behind
        self._is_looking = (
            False  # what the server missed is being read: what comes meanwhile may not be in it
        )
        self._has_outbox = True
        self._since = since
        self._caught_up_to = 0
        self._newest = since
        self._failures = 0
        self._unsent: Transaction | None = None
        self._wakeup = asyncio.Event()
        self._is_parked = False

    def add(self, position: int, pdu: bytes) -> None:
        """Queue an event for the server."""
        self._newest = position
        if (self._is_behind and not self._is_looking) or position <= self._caught_up_to:
            return
        self._waiting.append((position, pdu))
        if len(self._waiting) > MAX_WAITING:
            self._fall_behind()

    def note_outbox(self) -> None:
        """Something was queued in the outbox."""
        self._has_outbox = True

    def wake(self) -> None:
        """The server may be worth a try."""
        self._wakeup.set()

    def catch_up(self) -> None:
        """The server may lack what another process was to send it."""
        if not self.is_running:
            self._fall_behind()

    @property
    def waiting_count(self) -> int:
        """Events that wait in memory."""
        return len(self._waiting)

    @property
    def is_parked(self) -> bool:
        """Whether the server is not sent to until a later time."""
        return self._is_parked

    @property
    def has_work(self) -> bool:
        return bool(self._unsent or self._waiting or self._is_behind or self._has_outbox or self.ephemera)

    async def run(self) -> None:
        """Send all that waits. Never raises for what the server or the database does."""
        self.is_running = True
        try:
            while self.has_work:
                try:
                    if not await self._hold():
                        break
                    transaction = self._unsent or await self._next()
                    if transaction is None:
                        continue
                    self._unsent = transaction
                    await self._send(transaction)
                    self._unsent = None
                    self._failures = 0
                except RemoteFault as fault:
                    await self._rest(fault)
                except ServerFault as fault:
                    log.warning("cannot send to %s: %s", self.server, fault)
                    self._failures += 1
                    await self._pause(self._backoff_s())
        finally:
            self.is_running = False

    async def _hold(self) -> bool:
        """Whether it is for this process to send."""
        match await self._wires.leases.hold(self.nid):
            case Holding.OWN:
                return True
            case Holding.NEW:
                position, has_missed = await self._wires.db.read(self._read_standing)
                if has_missed or self._unsent is not None:
                    self._fall_behind()
                else:
                    self._waiting = deque(one for one in self._waiting if one[0] > position)
                self._has_outbox = True
                return True
        # Another process sends. What comes from here on is added again, and dropped again while that lasts.
        self._fall_behind()
        self._is_behind = self._has_outbox = False
        self._since = self._newest
        return False

    def _read_standing(self, txn: ReadTxn) -> tuple[int, bool]:
        """Up to where the server has all events, and whether it lacks some that are not in memory."""
        row = destinations.list_destinations(txn, (self.nid,)).get(self.nid)
        if row is None:
            return 0, False  # nothing was to be sent yet; should that be wrong, the next sweep finds it
        missed = destinations.list_missed(txn, self.nid, row.sent_position, 1)
        return row.sent_position, bool(missed) and missed[0][1] <= self._since

    async def _next(self) -> Transaction | None:
        """What to send next; None: nothing, for now."""
        if self._is_behind and (missed := await self._look_back()) is not None:
            return missed
        edus: list[bytes] = []
        outbox_position = None
        if self._has_outbox:
            self._has_outbox = False
            queued = await self._wires.db.read(outbox.list_queued, self.nid, MAX_TRANSACTION_EDUS)
            edus = [_encode_queued(edu) for edu in queued]
            outbox_position = queued[-1].position if queued else None
            self._has_outbox = self._has_outbox or len(queued) == MAX_TRANSACTION_EDUS
        edus += self.ephemera.take(MAX_TRANSACTION_EDUS - len(edus))
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_TRANSACTION_PDUS))]
        if not taken and not edus:
            return None
        return self._build([pdu for _, pdu in taken], edus, taken[-1][0] if taken else None, outbox_position)

    async def _look_back(self) -> Transaction | None:
        """What the server missed; None: nothing any more, it is no longer behind."""
        self._waiting.clear()
        self._is_looking = True
        try:
            pdus, position = await self._wires.db.read(self._read_missed)
        finally:
            self._is_looking = False
        if pdus:
            return self._build(pdus, (), position, None)
        self._is_behind = False
        self._caught_up_to = position
        self._waiting = deque(one for one in self._waiting if one[0] > position)
        return None

    def _build(
        self, pdus: Sequence[bytes], edus: Sequence[bytes], position: int | None, outbox_position: int | None
    ) -> Transaction:
        self._count += 1
        return Transaction(
            txn_id=f"{self._prefix}{self._count}",
            body=build_transaction(self._wires.server, self._wires.clock.now_ms(), pdus, edus),
            position=position,
            outbox_position=outbox_position,
        )

    async def _send(self, transaction: Transaction) -> None:
        """Send, and note that it was taken. Raises: RemoteFault, StoreFault."""
        wires = self._wires
        ask = Ask(method="PUT", path=path_of(_PATH, transaction.txn_id), content=transaction.body)
        async with wires.slots:
            answer = await wires.requests.fetch(self.server, ask)
        with suppress(BadJson):
            for event_id, error in parse_results(answer).items():
                log.info("%s did not take %s: %s", self.server, event_id, error)
        if transaction.position is not None or transaction.outbox_position is not None:
            await wires.db.write(self._note, transaction)

    def _note(self, txn: WriteTxn, transaction: Transaction) -> None:
        if transaction.position is not None:
            destinations.note_success(txn, self.nid, transaction.position, self._wires.clock.now_ms())
        if transaction.outbox_position is not None:
            outbox.delete_sent(txn, self.nid, transaction.outbox_position)

    def _read_missed(self, txn: ReadTxn) -> tuple[list[bytes], int]:
        """The newest events of rooms of which the server missed something, as far as they concern it, and up to
        which position that is all; none if it missed nothing."""
        row = destinations.list_destinations(txn, (self.nid,)).get(self.nid)
        after = 0 if row is None else row.sent_position
        pdus: list[bytes] = []
        while not pdus:
            missed = destinations.list_missed(txn, self.nid, after, MAX_TRANSACTION_PDUS)
            if not missed:
                return [], txn.position
            newest = self._read_newest(txn, missed)
            for room_nid, position in missed:
                of_room = newest.get(room_nid, [])
                if len(pdus) + len(of_room) > MAX_TRANSACTION_PDUS:
                    break
                pdus += of_room
                after = position
        return pdus, after

    def _read_newest(self, txn: ReadTxn, missed: Sequence[tuple[int, int]]) -> dict[int, list[bytes]]:
        """By room: our newest event there, and in a room with branches all those of ours that nothing follows yet. The
        server may have come in beside them: see `Outbound`."""
        found = rooms.list_rooms(txn, [room_nid for room_nid, _ in missed])
        branches = {nid for room in found.values() if len(room.extremities) > 1 for nid in room.extremities}
        heads = events.list_events(txn, branches) if branches else {}
        records = {one.event_nid: one for one in heads.values() if one.is_local}
        records |= {
            one.event_nid: one for one in events.list_events_at(txn, [position for _, position in missed])
        }
        newest: dict[int, list[bytes]] = {}
        for record in records.values():
            room = found[record.room_nid]
            version = get_room_version(room.version)
            pdus = newest.setdefault(record.room_nid, [])
            if len(pdus) == MAX_TRANSACTION_PDUS:
                continue
            if self._wires.sights.concerns(txn, self.server, room, record):
                pdus.append(wire_form(record, version))
            elif record.event_nid in branches:
                seen = self._wires.sights.visible(txn, self.server, room, [record])
                pdus += wire_forms([record], version, seen)
        return newest

    async def _rest(self, fault: RemoteFault) -> None:
        """Wait until the server is worth another try."""
        if isinstance(fault, HeldBack):
            self.ephemera.clear()
            await self._pause((fault.retry_at_ms - self._wires.clock.now_ms()) / 1000)
            return
        log.info("cannot send to %s: %s", self.server, fault)
        self._failures += 1
        is_refused = isinstance(fault, Refused) and 400 <= fault.status < 500 and fault.status != 429
        if is_refused or self._failures > MAX_REPEATS:
            # What it does not take now it would not take later either.
            self._fall_behind()
        if is_refused:
            await self._pause(self._backoff_s())

    def _fall_behind(self) -> None:
        """Forget what waits: the tables know where to go on."""
        self._is_behind = True
        self._has_outbox = True
        self._unsent = None
        self._waiting.clear()
        self.ephemera.clear()

    def _backoff_s(self) -> float:
        return min(FIRST_PAUSE_S * float(2 ** min(self._failures, 20)), MAX_PAUSE_S)

    async def _pause(self, seconds: float) -> None:
        self._wakeup.clear()
        self._is_parked = True
        try:
            with suppress(TimeoutError):
                async with self._wires.clock.timeout(max(0.0, min(seconds, MAX_PAUSE_S))):
                    await self._wakeup.wait()
        finally:
            self._is_parked = False


def _encode_queued(edu: outbox.QueuedEdu) -> bytes:
    """The EDU in canonical form, with its envelope."""
    content = canonical_json.parse_object(edu.content)
    return canonical_json.encode({"content": content, "edu_type": edu.edu_type})
