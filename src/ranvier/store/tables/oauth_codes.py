"""Authorization codes.

Table: oauth_codes. Owner: services.oauth. Growth: one row each time that a person agrees, for an hour.
Index -> query: primary key -> take; by_expiry -> sweep; by_user -> deactivation.

Spec: RFC 6749, 4.1; RFC 7636.
"""

from typing import Final

import msgspec

from ranvier.store.database import WriteTxn


class Code(msgspec.Struct, frozen=True):
    client_id: str
    user_nid: int
    redirect_uri: str
    scope: str
    code_challenge: str
    expires_ms: int
    is_used: bool = False  # before this time
    device_nid: int | None = None  # what it was exchanged for


_INSERT: Final = """
    INSERT INTO oauth_codes (code_hash, client_id, user_nid, redirect_uri, scope, code_challenge, expires_ms)
    VALUES (:code_hash, :client_id, :user_nid, :redirect_uri, :scope, :code_challenge, :expires_ms)
"""
_FIND: Final = """
    SELECT client_id, user_nid, redirect_uri, scope, code_challenge, expires_ms, is_used, device_nid
    FROM oauth_codes WHERE code_hash = :code_hash {for_update}
"""
_USE: Final = "UPDATE oauth_codes SET is_used = 1 WHERE code_hash = :code_hash"
_EXCHANGED: Final = "UPDATE oauth_codes SET device_nid = :device_nid WHERE code_hash = :code_hash"
_DELETE_EXPIRED: Final = "DELETE FROM oauth_codes WHERE expires_ms < :before_ms"


def insert_code(txn: WriteTxn, code_hash: bytes, code: Code) -> None:
    txn.execute(
        _INSERT,
        code_hash=code_hash,
        client_id=code.client_id,
        user_nid=code.user_nid,
        redirect_uri=code.redirect_uri,
        scope=code.scope,
        code_challenge=code.code_challenge,
        expires_ms=code.expires_ms,
    )


def use_code(txn: WriteTxn, code_hash: bytes) -> Code | None:
    """Use a code up, whatever comes of it: the code as it was before, or None if there is no such code."""
    row = txn.first(_FIND, code_hash=code_hash)
    if row is None:
        return None
    txn.execute(_USE, code_hash=code_hash)
    client_id, user_nid, redirect_uri, scope, code_challenge, expires_ms, is_used, device_nid = row
    return Code(
        client_id, user_nid, redirect_uri, scope, code_challenge, expires_ms, bool(is_used), device_nid
    )


def note_exchange(txn: WriteTxn, code_hash: bytes, device_nid: int) -> None:
    """Remember what came of a code, in case that somebody shows it again."""
    txn.execute(_EXCHANGED, code_hash=code_hash, device_nid=device_nid)


def delete_codes(txn: WriteTxn, before_ms: int) -> int:
    """Delete those that expired before a time."""
    return txn.execute(_DELETE_EXPIRED, before_ms=before_ms)
