"""Transactions of peers: each is taken once, and answered the same however often it comes.

Source: docs/federation-2014.md, "Transactions".
"""

import logging
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject, encode, parse_json
from ranvier.core.errors import BadJson, BadJsonValue, Forbidden, NotJson
from ranvier.core.identifiers import ServerName
from ranvier.core.limits import MAX_SAFE_INTEGER
from ranvier.historical.federation_2014.admitting import Admitting, admit_all
from ranvier.historical.federation_2014.edus import Edus
from ranvier.historical.federation_2014.outgoing import Outgoing
from ranvier.historical.federation_2014.pdu import BadPdu, OldPdu, parse_pdu
from ranvier.historical.federation_2014.peers import Peers
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.remote.flights import Flights
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import historical_transactions as transactions

log = logging.getLogger(__name__)

MAX_BYTES: Final = 16 * 1_048_576
MAX_PDUS: Final = 1_000
MAX_EDUS: Final = 1_000

KEPT_MS: Final = 7 * 24 * 3_600_000


class Envelope(msgspec.Struct, frozen=True):
    """A transaction but for its id, which the path tells, and its destination, which is this server."""

    origin: str
    prev_ids: list[str]
    pdus: list[object]
    edus: list[object]


def parse_envelope(body: bytes) -> Envelope:
    """Raises: NotJson, BadJsonValue."""
    try:
        sent = parse_json(body, MAX_BYTES)
    except BadJson as error:
        raise NotJson("Invalid transaction") from error
    if not isinstance(sent, dict):
        raise BadJsonValue("Invalid transaction: it is no object.")
    origin = sent.get("origin")
    if not isinstance(origin, str) or not origin:
        raise BadJsonValue("Invalid transaction: origin is missing or no string.")
    ts = sent.get("ts", sent.get("origin_server_ts"))
    if type(ts) is not int or abs(ts) > MAX_SAFE_INTEGER:
        raise BadJsonValue("Invalid transaction: ts is missing or no integer.")
    prev_ids = sent.get("prev_ids", sent.get("previous_ids")) or []
    if not isinstance(prev_ids, list) or not all(isinstance(one, str) for one in prev_ids):
        raise BadJsonValue("Invalid transaction: prev_ids is no list of strings.")
    return Envelope(origin, prev_ids[:100], _list(sent, "pdus", MAX_PDUS), _list(sent, "edus", MAX_EDUS))


def _list(sent: JsonObject, key: str, most: int) -> list[object]:
    value = sent.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise BadJsonValue(f"Invalid transaction: {key} is no list of at most {most}.")
    return value


class Transactions:
    """Takes them."""

    def __init__(
        self, db: Database, peers: Peers, admitting: Admitting, edus: Edus, outgoing: Outgoing, clock: Clock
    ) -> None:
        self._db = db
        self._peers = peers
        self._admitting = admitting
        self._edus = edus
        self._outgoing = outgoing
        self._clock = clock
        self._flights: Flights[tuple[str, str], bytes] = Flights()

    async def receive(self, txn_id: str, body: bytes) -> bytes:
        """The answer. Raises: NotJson, BadJsonValue; Forbidden (the origin is no peer); StoreFault."""
        envelope = parse_envelope(body)
        if not self._peers.is_peer(envelope.origin):
            raise Forbidden("This server takes transactions from configured peers alone.")
        answer = await self._flights.fly(
            (envelope.origin, txn_id), lambda: self._receive(ServerName(envelope.origin), txn_id, envelope)
        )
        self._outgoing.note_alive(ServerName(envelope.origin))
        return answer

    async def _receive(self, origin: ServerName, txn_id: str, envelope: Envelope) -> bytes:
        answered = await self._db.read(transactions.find_response, origin, txn_id)
        if answered is not None:
            return answered
        await self._close_gap(origin, envelope)
        results: dict[str, JsonObject] = {}
        taken: list[OldPdu] = []
        for number, value in enumerate(envelope.pdus):
            try:
                taken.append(parse_pdu(value))
            except BadPdu as fault:
                results[_label(value, number)] = {"error": str(fault)}
        reasons = await admit_all(self._admitting, taken)
        results |= {label: {} if reason is None else {"error": reason} for label, reason in reasons.items()}
        self._outgoing.look()
        await self._edus.take_all(origin, envelope.edus)
        answer = encode({"pdus": results})
        await self._db.write(transactions.insert_received, origin, txn_id, answer, self._clock.now_ms())
        return answer

    async def _close_gap(self, origin: ServerName, envelope: Envelope) -> None:
        """Ask for what was sent between the last transaction that came and this one."""
        last = await self._db.read(_find_last_before_gap, origin, envelope.prev_ids)
        if last is None:
            return
        try:
            pulled = await self._peers.pull(origin, last)
        except RemoteFault as fault:
            # What a room lacks is found by prev_pdus, too.
            log.info("%s does not repeat what was lost: %s", origin, fault)
            return
        await admit_all(self._admitting, pulled)


def forget_answers(txn: WriteTxn, now_ms: int) -> None:
    """Transactions that came so long ago do not come again."""
    transactions.forget_received(txn, now_ms - KEPT_MS)


def _find_last_before_gap(txn: ReadTxn, origin: str, prev_ids: list[str]) -> str | None:
    """The last transaction of `origin` that came, if one of `prev_ids` did not. None at the first contact."""
    if all(transactions.find_response(txn, origin, txn_id) is not None for txn_id in prev_ids):
        return None
    return transactions.find_newest_received(txn, origin)


def _label(value: object, number: int) -> str:
    """How the result of a malformed PDU is found: by its name if it has one, else by its place."""
    if isinstance(value, dict):
        pdu_id, origin = value.get("pdu_id"), value.get("origin")
        if isinstance(pdu_id, str) and isinstance(origin, str):
            return f"{pdu_id[:255]}@{origin[:255]}"
    return f"#{number}"
