"""Codes with which a device without a browser waits for a person who has one.

Table: oauth_device_codes. Owner: services.oauth. Growth: one row a request, until it is exchanged or an hour after it
expired; `count_device_codes` bounds it. Index -> query: primary key -> poll; UNIQUE user_code_hash -> the page;
by_expiry -> sweep.

Spec: RFC 8628.
"""

from enum import Enum
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, Row, WriteTxn


class Decision(Enum):
    PENDING = "pending"
    ALLOWED = "allowed"
    DENIED = "denied"


class DeviceCode(msgspec.Struct, frozen=True):
    client_id: str
    scope: str
    expires_ms: int
    interval_s: int
    polled_ms: int | None = None
    state: Decision = Decision.PENDING
    user_nid: int | None = None


_INSERT: Final = """
    INSERT INTO oauth_device_codes (device_code_hash, user_code_hash, client_id, scope, expires_ms, interval_s, state)
    VALUES (:device_code_hash, :user_code_hash, :client_id, :scope, :expires_ms, :interval_s, 'pending')
    ON CONFLICT (user_code_hash) DO NOTHING
"""
_SELECT: Final = """
    SELECT client_id, scope, expires_ms, interval_s, polled_ms, state, user_nid FROM oauth_device_codes
"""
_FIND: Final = f"{_SELECT} WHERE device_code_hash = :device_code_hash {{for_update}}"
_FIND_FOR_USER: Final = f"""
    {_SELECT} WHERE user_code_hash = :user_code_hash AND state = 'pending' AND expires_ms > :now_ms
"""
_POLLED: Final = """
    UPDATE oauth_device_codes SET polled_ms = :now_ms, interval_s = :interval_s
    WHERE device_code_hash = :device_code_hash
"""
_DECIDE: Final = """
    UPDATE oauth_device_codes SET state = :state, user_nid = :user_nid
    WHERE user_code_hash = :user_code_hash AND state = 'pending' AND expires_ms > :now_ms
"""
_DELETE: Final = "DELETE FROM oauth_device_codes WHERE device_code_hash = :device_code_hash"
_DELETE_EXPIRED: Final = "DELETE FROM oauth_device_codes WHERE expires_ms < :before_ms"
_COUNT: Final = "SELECT COUNT(*) FROM oauth_device_codes WHERE expires_ms > :now_ms"


def insert_device_code(
    txn: WriteTxn, device_code_hash: bytes, user_code_hash: bytes, code: DeviceCode
) -> bool:
    """False: the user code is another device's."""
    inserted = txn.execute(
        _INSERT,
        device_code_hash=device_code_hash,
        user_code_hash=user_code_hash,
        client_id=code.client_id,
        scope=code.scope,
        expires_ms=code.expires_ms,
        interval_s=code.interval_s,
    )
    return inserted == 1


def find_device_code(txn: WriteTxn, device_code_hash: bytes) -> DeviceCode | None:
    """What the device waits for, expired or not."""
    row = txn.first(_FIND, device_code_hash=device_code_hash)
    return None if row is None else _code(row)


def find_by_user_code(txn: ReadTxn, user_code_hash: bytes, now_ms: int) -> DeviceCode | None:
    """What a person may decide now."""
    row = txn.first(_FIND_FOR_USER, user_code_hash=user_code_hash, now_ms=now_ms)
    return None if row is None else _code(row)


def note_poll(txn: WriteTxn, device_code_hash: bytes, interval_s: int, now_ms: int) -> None:
    txn.execute(_POLLED, device_code_hash=device_code_hash, interval_s=interval_s, now_ms=now_ms)


def decide(txn: WriteTxn, user_code_hash: bytes, state: Decision, user_nid: int, now_ms: int) -> bool:
    """False: there is nothing to decide any more."""
    decided = txn.execute(
        _DECIDE, user_code_hash=user_code_hash, state=state.value, user_nid=user_nid, now_ms=now_ms
    )
    return decided == 1


def delete_device_code(txn: WriteTxn, device_code_hash: bytes) -> None:
    txn.execute(_DELETE, device_code_hash=device_code_hash)


def delete_device_codes(txn: WriteTxn, before_ms: int) -> int:
    """Delete those that expired before a time."""
    return txn.execute(_DELETE_EXPIRED, before_ms=before_ms)


def count_device_codes(txn: ReadTxn, now_ms: int) -> int:
    """How many have not expired."""
    return int(txn.value(_COUNT, now_ms=now_ms))


def _code(row: Row) -> DeviceCode:
    client_id, scope, expires_ms, interval_s, polled_ms, state, user_nid = row
    return DeviceCode(client_id, scope, expires_ms, interval_s, polled_ms, Decision(state), user_nid)
