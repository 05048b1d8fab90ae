"""Transactions of other servers: each is taken once, whatever happens to the answer.

Spec: server-server API, "Transactions".
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import (
    BadJsonValue,
    LimitExceeded,
    MatrixError,
    NotFound,
    ProtocolFault,
    ServerFault,
)
from ranvier.core.events.format import check_format
from ranvier.core.events.parse import find_room_id
from ranvier.core.federation.edus import Edu, parse_edu
from ranvier.core.federation.transactions import Transaction, build_results, parse_transaction
from ranvier.core.hashes import event_id_of
from ranvier.core.identifiers import EventID, RoomID, ServerName
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.services.federation.arrivals import Arrivals
from ranvier.services.federation.gate import Gate
from ranvier.services.federation.room_queues import RoomQueues
from ranvier.services.federation.withdrawals import Withdrawals
from ranvier.services.remote.flights import Flights
from ranvier.services.rooms.admission import Reasons
from ranvier.services.rooms.checking import RoomRef
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import received_transactions, rooms
from ranvier.store.tables.interned import Interner, find_server_nids, intern_servers

log = logging.getLogger(__name__)

MAX_AT_A_TIME: Final = 4
"""Transactions of one server. It is to wait for each before it sends the next, but not all do."""

KEPT_MS: Final = 24 * 3_600_000
"""How long the answer to a transaction is kept for a server that did not get it."""


EduHandler = Callable[[ServerName, Any], Awaitable[None]]
"""Takes one kind of EDU from a server. What it names belongs to that server, and was checked for shape alone:
whether the server may take part in a room is for the handler. Raises: MatrixError to ignore it; StoreFault."""

EduHandlers = Mapping[type[Edu], EduHandler]

_TransactionKey = tuple[ServerName, str]


class _Sorted(msgspec.Struct, frozen=True):
    """The events of a transaction by room, and the reasons of those that go to none."""

    by_room: Mapping[RoomRef, Sequence[JsonObject]]
    elsewhere: Mapping[RoomID, tuple[Sequence[JsonObject], Reasons]]  # with why they are not taken
    refused: Reasons


class TransactionAnswers:
    """What was answered to transactions, for servers that did not get the answer."""

    def __init__(self, db: Database, interner: Interner, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock

    async def find(self, origin: ServerName, txn_id: str) -> bytes | None:
        return await self._db.read(self._find, origin, txn_id)

    async def keep(self, origin: ServerName, txn_id: str, answer: bytes) -> None:
        await self._db.write(self._store, origin, txn_id, answer)

    def _find(self, txn: ReadTxn, origin: ServerName, txn_id: str) -> bytes | None:
        nid = find_server_nids(txn, self._interner, (origin,)).get(origin)
        return None if nid is None else received_transactions.find_received(txn, nid, txn_id)

    def _store(self, txn: WriteTxn, origin: ServerName, txn_id: str, answer: bytes) -> None:
        nid = intern_servers(txn, self._interner, (origin,))[origin]
        received_transactions.insert_received(txn, nid, txn_id, answer, self._clock.now_ms())


class Inbound:
    """Takes transactions."""

    def __init__(
        self,
        db: Database,
        answers: TransactionAnswers,
        gate: Gate,
        queues: RoomQueues,
        arrivals: Arrivals,
        withdrawals: Withdrawals,
        handlers: EduHandlers,
    ) -> None:
        self._db = db
        self._answers = answers
        self._gate = gate
        self._queues = queues
        self._arrivals = arrivals
        self._withdrawals = withdrawals
        self._handlers = handlers
        self._flights: Flights[_TransactionKey, bytes] = Flights()
        self._under_way: dict[ServerName, set[str]] = {}

    async def receive(self, origin: ServerName, txn_id: str, body: bytes) -> bytes:
        """The answer to a transaction; the same one whenever it comes again, also while it is under way.

        Raises: BadJson, BadIdentifier, BadJsonValue (it claims another origin); LimitExceeded; StoreFault:
        then the server is to send it again.
        """
        under_way = self._under_way.setdefault(origin, set())
        if txn_id not in under_way and len(under_way) >= MAX_AT_A_TIME:
            raise LimitExceeded("Send one transaction after the other.", retry_after_ms=1_000)
        under_way.add(txn_id)
        try:
            return await self._flights.fly((origin, txn_id), lambda: self._receive(origin, txn_id, body))
        finally:
            under_way.discard(txn_id)
            if not under_way:
                self._under_way.pop(origin, None)

    async def _receive(self, origin: ServerName, txn_id: str, body: bytes) -> bytes:
        transaction = parse_transaction(body)
        if transaction.origin != origin:
            raise BadJsonValue("The transaction is not of the server that signed the request.")
        answered = await self._answers.find(origin, txn_id)
        if answered is not None:
            return answered
        reasons, _ = await asyncio.gather(
            self._take_pdus(origin, transaction), self._take_edus(origin, transaction)
        )
        answer = build_results(reasons)
        await self._answers.keep(origin, txn_id, answer)
        return answer

    async def _take_pdus(self, origin: ServerName, transaction: Transaction) -> Reasons:
        if not transaction.pdus:
            return {}
        events = [event for raw in transaction.pdus if (event := _parse(origin, raw)) is not None]
        entering = self._arrivals.rooms
        sorted_events = await self._db.read(self._sort, origin, events)
        if any(room_id in entering and room_id not in self._arrivals for room_id in sorted_events.elsewhere):
            # We may have come in since.
            sorted_events = await self._db.read(self._sort, origin, events)
        kept = {
            room_id
            for room_id, (sent, _) in sorted_events.elsewhere.items()
            if self._arrivals.keep(origin, room_id, sent)
        }
        taken = await asyncio.gather(
            *(self._queues.receive(origin, room, sent) for room, sent in sorted_events.by_room.items()),
            return_exceptions=True,
        )
        reasons = dict(sorted_events.refused)
        for room_id, (sent, not_taken) in sorted_events.elsewhere.items():
            if room_id not in kept:
                reasons |= not_taken
            reasons |= await self._withdrawals.take(room_id, sent)
        faults: list[BaseException] = []
        for one in taken:
            if isinstance(one, BaseException):
                faults.append(one)
            else:
                reasons |= one
        # All rooms have been served; the transaction comes again for the one that could not be.
        if faults:
            raise faults[0]
        return reasons

    async def _take_edus(self, origin: ServerName, transaction: Transaction) -> None:
        for raw in transaction.edus:
            try:
                edu = parse_edu(raw, origin)
                handler = None if edu is None else self._handlers.get(type(edu))
                if handler is not None:
                    await handler(origin, edu)
            except (ProtocolFault, MatrixError) as fault:
                log.info("an EDU of %s is ignored: %s", origin, fault)
            except ServerFault:
                raise
            except Exception:
                # A kind that one server sends must not stop all else that it sends.
                log.exception("an EDU of %s", origin)

    def _sort(self, txn: ReadTxn, origin: ServerName, events: Sequence[JsonObject]) -> _Sorted:
        by_room_id: dict[RoomID, list[JsonObject]] = {}
        for event in events:
            try:
                room_id = find_room_id(event)
            except ProtocolFault as fault:
                log.info("an event of %s is dropped: %s", origin, fault)
                continue
            # An m.room.create without room id (v12): a room that is known here has its create event.
            if room_id is not None:
                by_room_id.setdefault(room_id, []).append(event)
        by_room: dict[RoomRef, Sequence[JsonObject]] = {}
        elsewhere: dict[RoomID, tuple[Sequence[JsonObject], Reasons]] = {}
        refused: Reasons = {}
        for room_id, sent in by_room_id.items():
            try:
                room = self._gate.approach(txn, origin, room_id)
                by_room[RoomRef(room.room_nid, room_id, get_room_version(room.version))] = sent
            except NotFound as error:
                elsewhere[room_id] = sent, dict.fromkeys(_list_ids(txn, room_id, sent), error.message)
            except MatrixError as error:
                refused |= dict.fromkeys(_list_ids(txn, room_id, sent), error.message)
        return _Sorted(by_room, elsewhere, refused)


def forget_answers(txn: WriteTxn, now_ms: int) -> None:
    """Transactions that came so long ago do not come again."""
    received_transactions.delete_received(txn, now_ms - KEPT_MS)


def _parse(origin: ServerName, raw: msgspec.Raw) -> JsonObject | None:
    try:
        return parse_object(bytes(raw))
    except ProtocolFault as fault:
        log.info("an event of %s is dropped: %s", origin, fault)
        return None


def _list_ids(txn: ReadTxn, room_id: RoomID, events: Collection[JsonObject]) -> list[EventID]:
    """The ids of events, as far as they have any: where the room is not known, only they themselves tell."""
    room = rooms.find_room(txn, room_id)
    version = get_room_version("1" if room is None else room.version)
    ids: list[EventID] = []
    for event in events:
        try:
            check_format(event, version)
            ids.append(event_id_of(event, version))
        except ProtocolFault:
            continue
    return ids
