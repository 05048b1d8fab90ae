"""Transactions of the federation of 2014: those that came and what was answered, those that go out.

Tables: historical_received, historical_sent, historical_outgoing. Owner: historical.federation_2014. Growth: one
row a transaction that came, until it is old; one a transaction and one a PDU for each peer it went to.
Index -> query: (origin, txn_id) -> answer; (destination) where waiting -> what to send next; by_sent -> pull.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn

_RESPONSE: Final = "SELECT response FROM historical_received WHERE origin = :origin AND txn_id = :txn_id"
_INSERT_RECEIVED: Final = """
    INSERT INTO historical_received (origin, txn_id, response, received_ms)
    VALUES (:origin, :txn_id, :response, :received_ms) ON CONFLICT (origin, txn_id) DO NOTHING
"""
_NEWEST_RECEIVED: Final = """
    SELECT txn_id FROM historical_received WHERE origin = :origin ORDER BY received_nid DESC LIMIT 1
"""
_FORGET_RECEIVED: Final = """
    DELETE FROM historical_received WHERE received_ms < :before_ms AND received_nid NOT IN (
        SELECT MAX(received_nid) FROM historical_received GROUP BY origin
    )
"""
_QUEUE: Final = """
    INSERT INTO historical_outgoing (destination, pdu_nid) VALUES (:destination, :pdu_nid)
    ON CONFLICT (destination, pdu_nid) DO NOTHING
"""
_UNQUEUE: Final = """
    DELETE FROM historical_outgoing
    WHERE destination = :destination AND pdu_nid = :pdu_nid AND sent_nid IS NULL
"""
_WAITING: Final = """
    SELECT o.outgoing_nid, p.json FROM historical_outgoing o JOIN historical_pdus p ON p.pdu_nid = o.pdu_nid
    WHERE o.destination = :destination AND o.sent_nid IS NULL ORDER BY o.outgoing_nid LIMIT :limit
"""
_INSERT_SENT: Final = """
    INSERT INTO historical_sent (destination, txn_id, body, sender, until_ms)
    VALUES (:destination, :txn_id, :body, :sender, :until_ms)
"""
_FIND_SENT: Final = (
    "SELECT sent_nid FROM historical_sent WHERE destination = :destination AND txn_id = :txn_id"
)
_NEWEST_SENT: Final = """
    SELECT txn_id FROM historical_sent WHERE destination = :destination ORDER BY sent_nid DESC LIMIT 1
"""
_ASSIGN: Final = "UPDATE historical_outgoing SET sent_nid = :sent_nid WHERE outgoing_nid IN (:nids[])"
_UNSENT: Final = """
    SELECT txn_id, body, sender, until_ms FROM historical_sent WHERE destination = :destination AND body IS NOT NULL
    ORDER BY sent_nid LIMIT 1
"""
_CLAIM: Final = """
    UPDATE historical_sent SET sender = :sender, until_ms = :until_ms
    WHERE destination = :destination AND txn_id = :txn_id
"""
_RELEASE: Final = "UPDATE historical_sent SET until_ms = 0 WHERE sender = :sender AND body IS NOT NULL"
_DONE: Final = """
    UPDATE historical_sent SET body = NULL WHERE destination = :destination AND txn_id = :txn_id
"""
_TAKEN: Final = """
    UPDATE historical_outgoing SET refusal = '' WHERE destination = :destination AND sent_nid = (
        SELECT sent_nid FROM historical_sent WHERE destination = :destination AND txn_id = :txn_id
    )
"""
_REFUSED: Final = """
    UPDATE historical_outgoing SET refusal = :refusal WHERE destination = :destination AND pdu_nid IN (
        SELECT pdu_nid FROM historical_pdus WHERE origin = :origin AND pdu_id = :pdu_id
    )
"""
_FIND_REFUSAL: Final = """
    SELECT o.refusal FROM historical_outgoing o JOIN historical_pdus p ON p.pdu_nid = o.pdu_nid
    WHERE o.destination = :destination AND p.origin = :origin AND p.pdu_id = :pdu_id
"""
_NEWEST_OF: Final = """
    SELECT MAX(sent_nid) FROM historical_sent WHERE destination = :destination AND txn_id IN (:txn_ids[])
"""
_SENT_AFTER: Final = """
    SELECT p.json FROM historical_outgoing o JOIN historical_pdus p ON p.pdu_nid = o.pdu_nid
    WHERE o.destination = :destination AND o.sent_nid > :after ORDER BY o.sent_nid, o.outgoing_nid LIMIT :limit
"""


class Unsent(msgspec.Struct, frozen=True):
    """A transaction that its destination has not confirmed, and which process sends it until when."""

    txn_id: str
    body: bytes
    sender: str
    until_ms: int


def find_response(txn: ReadTxn, origin: str, txn_id: str) -> bytes | None:
    """What was answered to a transaction; None: it is new."""
    response: bytes | None = txn.value(_RESPONSE, origin=origin, txn_id=txn_id)
    return response


def insert_received(txn: WriteTxn, origin: str, txn_id: str, response: bytes, now_ms: int) -> None:
    txn.execute(_INSERT_RECEIVED, origin=origin, txn_id=txn_id, response=response, received_ms=now_ms)


def find_newest_received(txn: ReadTxn, origin: str) -> str | None:
    """The id of the transaction of `origin` that came last; None: there was none yet."""
    txn_id: str | None = txn.value(_NEWEST_RECEIVED, origin=origin)
    return txn_id


def forget_received(txn: WriteTxn, before_ms: int) -> None:
    """Drop what came before a time, but for the newest of each origin: the next gap is measured by that."""
    txn.execute(_FORGET_RECEIVED, before_ms=before_ms)


def queue_pdu(txn: WriteTxn, destination: str, pdu_nid: int) -> None:
    txn.execute(_QUEUE, destination=destination, pdu_nid=pdu_nid)


def unqueue_pdu(txn: WriteTxn, destination: str, pdu_nid: int) -> bool:
    """Take back a PDU that was not sent. False: it was put into a transaction."""
    return txn.execute(_UNQUEUE, destination=destination, pdu_nid=pdu_nid) > 0


def list_waiting(txn: ReadTxn, destination: str, limit: int) -> list[tuple[int, bytes]]:
    """(outgoing_nid, JSON) of PDUs that are in no transaction yet, oldest first."""
    return [(nid, json) for nid, json in txn.all(_WAITING, destination=destination, limit=limit)]


def insert_sent(txn: WriteTxn, destination: str, sent: Unsent, outgoing_nids: Sequence[int]) -> None:
    """Keep a transaction that is about to be sent, with what is in it."""
    txn.execute(
        _INSERT_SENT,
        destination=destination,
        txn_id=sent.txn_id,
        body=sent.body,
        sender=sent.sender,
        until_ms=sent.until_ms,
    )
    sent_nid = txn.value(_FIND_SENT, destination=destination, txn_id=sent.txn_id)
    txn.execute(_ASSIGN, sent_nid=sent_nid, nids=list(outgoing_nids))


def claim_unsent(txn: WriteTxn, destination: str, txn_id: str, sender: str, until_ms: int) -> None:
    """Another process, or the same one again, is going to send it."""
    txn.execute(_CLAIM, destination=destination, txn_id=txn_id, sender=sender, until_ms=until_ms)


def release_unsent(txn: WriteTxn, sender: str) -> None:
    """The process ends: others need not wait until its claims do."""
    txn.execute(_RELEASE, sender=sender)


def find_newest_sent(txn: ReadTxn, destination: str) -> str | None:
    """The id of the transaction that went to a destination last."""
    txn_id: str | None = txn.value(_NEWEST_SENT, destination=destination)
    return txn_id


def find_unsent(txn: ReadTxn, destination: str) -> Unsent | None:
    """The oldest transaction that a destination has not confirmed."""
    row = txn.first(_UNSENT, destination=destination)
    return None if row is None else Unsent(*row)


def confirm_sent(
    txn: WriteTxn, destination: str, txn_id: str, refused: Mapping[tuple[str, str], str]
) -> None:
    """The destination has it: its bytes are not needed any more. `refused`: (origin, pdu_id) -> why."""
    txn.execute(_DONE, destination=destination, txn_id=txn_id)
    txn.execute(_TAKEN, destination=destination, txn_id=txn_id)
    for (origin, pdu_id), refusal in refused.items():
        txn.execute(_REFUSED, destination=destination, origin=origin, pdu_id=pdu_id, refusal=refusal)


def find_refusal(txn: ReadTxn, destination: str, name: tuple[str, str]) -> str | None:
    """What a destination has against a PDU: empty if nothing; None: it has not said."""
    refusal: str | None = txn.value(_FIND_REFUSAL, destination=destination, origin=name[0], pdu_id=name[1])
    return refusal


def list_sent_after(txn: ReadTxn, destination: str, txn_ids: Sequence[str], limit: int) -> list[bytes]:
    """The PDUs in transactions to a destination after the newest of some; if none of these is known, all."""
    newest = txn.value(_NEWEST_OF, destination=destination, txn_ids=list(txn_ids)) if txn_ids else None
    rows = txn.all(_SENT_AFTER, destination=destination, after=newest or 0, limit=limit)
    return [row[0] for row in rows]
