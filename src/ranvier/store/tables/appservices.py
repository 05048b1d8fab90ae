"""Application services: how far each has got, and who was where when something happened.

Tables: appservices, appservice_transactions; reads memberships, membership_changes. Owner: services.appservices.
Growth: a row or two a service.
Index -> query: primary keys; membership_changes_by_position -> invites of rooms elsewhere.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.store.database import Conflict, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.events import COLUMNS, EventRecord, record_of
from ranvier.store.tables.to_device import delete_taken


class PendingTransaction(msgspec.Struct, frozen=True):
    """What is sent until it is acknowledged."""

    txn_id: str
    body: bytes  # JSON
    has_messages: bool


class Progress(msgspec.Struct, frozen=True):
    """How far a service has got."""

    position: int
    failing_since_ms: int | None
    retry_ms: int
    lease: str | None
    lease_until_ms: int
    pending: PendingTransaction | None


class Lease(msgspec.Struct, frozen=True):
    """Who wants to deliver to whom."""

    appservice_id: str
    holder: str
    now_ms: int
    until_ms: int


class Change(msgspec.Struct, frozen=True):
    """A local user's membership changed."""

    room_nid: int
    user_nid: int
    position: int
    membership: str
    previous: str


_BEGIN: Final = """
    INSERT INTO appservices (appservice_id, position) VALUES (:appservice_id, :position)
    ON CONFLICT (appservice_id) DO NOTHING
"""
_FIND: Final = """
    SELECT a.position, a.failing_since_ms, a.retry_ms, a.lease, a.lease_until_ms, t.txn_id, t.body, t.has_messages
    FROM appservices a LEFT JOIN appservice_transactions t ON t.appservice_id = a.appservice_id
    WHERE a.appservice_id = :appservice_id
"""
_MINE: Final = "(lease IS NULL OR lease = :holder OR lease_until_ms <= :now_ms)"
_CLAIM: Final = f"""
    UPDATE appservices SET lease = :holder, lease_until_ms = :until_ms
    WHERE appservice_id = :appservice_id AND {_MINE} AND EXISTS (
        SELECT 1 FROM appservice_transactions t
        WHERE t.appservice_id = appservices.appservice_id AND t.txn_id = :txn_id)
"""  # noqa: S608
_ADVANCE: Final = f"""
    UPDATE appservices SET position = :position
    WHERE appservice_id = :appservice_id AND position = :known AND {_MINE}
"""  # noqa: S608
_TAKE_NUMBER: Final = f"""
    UPDATE appservices SET position = :position, next_txn_id = next_txn_id + 1, lease = :holder,
        lease_until_ms = :until_ms
    WHERE appservice_id = :appservice_id AND position = :known AND {_MINE} RETURNING next_txn_id
"""  # noqa: S608
_INSERT: Final = """
    INSERT INTO appservice_transactions (appservice_id, txn_id, body, has_messages, created_ms)
    VALUES (:appservice_id, :txn_id, :body, :has_messages, :now_ms)
"""
_ACKNOWLEDGE: Final = """
    DELETE FROM appservice_transactions WHERE appservice_id = :appservice_id AND txn_id = :txn_id
"""
_RECOVERED: Final = """
    UPDATE appservices SET failing_since_ms = NULL, retry_ms = 0, lease = NULL WHERE appservice_id = :appservice_id
"""
_FAILED: Final = """
    UPDATE appservices SET failing_since_ms = COALESCE(failing_since_ms, :now_ms), retry_ms = :retry_ms, lease = NULL
    WHERE appservice_id = :appservice_id AND lease = :holder
"""
_RELEASE: Final = """
    UPDATE appservices SET lease = NULL WHERE appservice_id = :appservice_id AND lease = :holder
"""
_FREE: Final = "UPDATE appservices SET lease = NULL"
_LATER_CHANGES: Final = """
    SELECT c.room_nid, c.user_nid, c.position, c.membership, c.previous
    FROM memberships m JOIN membership_changes c
        ON c.user_nid = m.user_nid AND c.room_nid = m.room_nid AND c.position > :after
    WHERE m.room_nid IN (:room_nids[]) AND m.is_local = 1 AND m.position > :after ORDER BY c.position
"""
_ELSEWHERE: Final = f"""
    SELECT c.position, c.user_nid, {COLUMNS}
    FROM membership_changes c JOIN events e ON e.event_nid = c.event_nid
    WHERE c.position > :after AND c.position <= :upto AND e.room_order IS NULL
    ORDER BY c.position LIMIT :limit
"""  # noqa: S608
_LOCAL_JOINED: Final = """
    SELECT room_nid, user_nid FROM memberships
    WHERE room_nid IN (:room_nids[]) AND is_local = 1 AND membership = 'join'
"""
_ROOMS: Final = """
    SELECT user_nid, room_nid FROM memberships WHERE user_nid IN (:user_nids[]) AND membership = 'join'
"""


def begin_progress(txn: WriteTxn, appservice_id: str, position: int) -> None:
    """Note a service that is new: it gets what happens after `position`. A known one stays where it is."""
    txn.execute(_BEGIN, appservice_id=appservice_id, position=position)


def find_progress(txn: ReadTxn, appservice_id: str) -> Progress | None:
    row = txn.first(_FIND, appservice_id=appservice_id)
    if row is None:
        return None
    position, failing_since_ms, retry_ms, lease, lease_until_ms, txn_id, body, has_messages = row
    pending = None if txn_id is None else PendingTransaction(txn_id, body, bool(has_messages))
    return Progress(position, failing_since_ms, retry_ms, lease, lease_until_ms, pending)


def claim_delivery(txn: WriteTxn, lease: Lease, txn_id: str) -> bool:
    """Take the lease, or hold it for longer, to deliver this transaction. False: another process has it, or has
    delivered."""
    return txn.execute(_CLAIM, txn_id=txn_id, **msgspec.structs.asdict(lease)) == 1


def advance(txn: WriteTxn, lease: Lease, known: int, position: int) -> None:
    """Nothing from `known` to `position` concerns the service. Raises: Conflict: another process went ahead."""
    params = {"appservice_id": lease.appservice_id, "holder": lease.holder, "now_ms": lease.now_ms}
    if not txn.execute(_ADVANCE, known=known, position=position, **params):
        raise Conflict(f"{lease.appservice_id} is no longer at {known}")


def prepare_transaction(
    txn: WriteTxn, lease: Lease, known: int, position: int, body: bytes, *, has_messages: bool
) -> PendingTransaction:
    """Fix what the service is sent of (known, position], under the next id, and take the lease.

    Raises: Conflict: another process went ahead, or is about to deliver.
    """
    number = txn.value(_TAKE_NUMBER, known=known, position=position, **msgspec.structs.asdict(lease))
    if number is None:
        raise Conflict(f"{lease.appservice_id} is no longer at {known}")
    # With the time in it: a database that was restored from a backup must not use an id for something else.
    txn_id = f"{number - 1}-{lease.now_ms}"
    txn.execute(
        _INSERT,
        appservice_id=lease.appservice_id,
        txn_id=txn_id,
        body=body,
        has_messages=has_messages,
        now_ms=lease.now_ms,
    )
    return PendingTransaction(txn_id, body, has_messages)


def acknowledge(txn: WriteTxn, appservice_id: str, pending: PendingTransaction, position: int) -> None:
    """The service took the transaction, which reached up to `position`."""
    if not txn.execute(_ACKNOWLEDGE, appservice_id=appservice_id, txn_id=pending.txn_id):
        return
    txn.execute(_RECOVERED, appservice_id=appservice_id)
    if pending.has_messages:
        delete_taken(txn, appservice_id, position)


def note_failure(txn: WriteTxn, lease: Lease, retry_ms: int) -> None:
    """The service did not take it; who holds the lease gives it back."""
    txn.execute(
        _FAILED,
        appservice_id=lease.appservice_id,
        holder=lease.holder,
        now_ms=lease.now_ms,
        retry_ms=retry_ms,
    )


def release_delivery(txn: WriteTxn, appservice_id: str, holder: str) -> None:
    """Give the lease back without having delivered."""
    txn.execute(_RELEASE, appservice_id=appservice_id, holder=holder)


def free_leases(txn: WriteTxn) -> None:
    """Take all leases away: no other process works on this database, so they are of one that is gone."""
    txn.execute(_FREE)


def list_later_changes(txn: ReadTxn, room_nids: Collection[int], after: int) -> list[Change]:
    """Every change after a position of local users in these rooms, oldest first."""
    return [
        Change(*row)
        for batch in in_batches(list(room_nids))
        for row in txn.all(_LATER_CHANGES, room_nids=batch, after=after)
    ]


def list_events_elsewhere(
    txn: ReadTxn, after: int, upto: int, limit: int
) -> list[tuple[int, int, EventRecord]]:
    """(position, user_nid, member event) of local users in rooms in whose timelines these events have no place:
    invites of other servers, above all. Oldest first."""
    rows = txn.all(_ELSEWHERE, after=after, upto=upto, limit=limit)
    return [(row[0], row[1], record_of(row[2:])) for row in rows]


def list_local_joined(txn: ReadTxn, room_nids: Collection[int]) -> list[tuple[int, int]]:
    """(room_nid, user_nid) of the local users who are joined to these rooms."""
    return [
        (room_nid, user_nid)
        for batch in in_batches(list(room_nids))
        for room_nid, user_nid in txn.all(_LOCAL_JOINED, room_nids=batch)
    ]


def list_joined_rooms(txn: ReadTxn, user_nids: Collection[int]) -> list[tuple[int, int]]:
    """(user_nid, room_nid) of the rooms that these users, local or not, are joined to."""
    return [
        (user_nid, room_nid)
        for batch in in_batches(list(user_nids))
        for user_nid, room_nid in txn.all(_ROOMS, user_nids=batch)
    ]
