"""Access and refresh tokens.

Table: tokens. Owner: services.accounts. Growth: one row a login; a refresh adds one and its first use takes
one away.
Index -> query: the UNIQUE hashes -> every request's access check, refresh; by_device, by_user -> logout;
by_replaced -> the pair that takes another one's place.

A row is an access token with the refresh token that came with it. A refresh adds a row that *replaces* the
old one, which stays good until one of the new pair is used; a refresh that is repeated before that drops the
pair that the client never used. Tokens are random and long, so their SHA-256 is stored, and comparing hashes
in an index tells a prober nothing.

Spec: client-server API, "Refreshing access tokens".
"""

import hashlib
from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID, UserID
from ranvier.store.database import Kind, ReadTxn, Row, WriteTxn
from ranvier.store.tables.accounts import AccountKind


class Session(msgspec.Struct, frozen=True):
    """Who makes a request, as its access token tells. Nothing here was checked: not expiry, locks or
    deactivation.
    """

    token_nid: int
    user_nid: int
    user_id: UserID
    kind: AccountKind
    device_nid: int | None
    device_id: DeviceID | None
    expires_ms: int | None  # None: never
    is_confirmed: bool  # False: this is the first use of a refreshed token, call `confirm_token`
    is_locked: bool
    is_suspended: bool
    is_deactivated: bool
    issued_by_nid: int | None  # the administrator who acts as the user
    last_seen_ms: int | None  # of the device
    message_rate: tuple[float, int] | None = (
        None  # (messages a second, burst) of this user alone; 0: no bound
    )
    is_oauth: bool = False  # the device came by OAuth: `oauth_grants`


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    access_hash: bytes
    created_ms: int
    expires_ms: int | None = None
    refresh_hash: bytes | None = None
    refresh_expires_ms: int | None = None


class RefreshToken(msgspec.Struct, frozen=True):
    token_nid: int
    user_nid: int
    device_nid: int | None
    refresh_expires_ms: int | None


_FIND_SESSION: Final = """
    SELECT t.token_nid, t.user_nid, u.user_id, a.kind, t.device_nid, d.device_id, t.expires_ms,
        t.replaces_nid,
        a.is_locked, a.is_suspended, a.deactivated_ms, t.issued_by_nid, d.last_seen_ms,
        o.messages_per_second, o.burst_count, g.device_nid
    FROM tokens t
        JOIN users u ON u.user_nid = t.user_nid
        JOIN accounts a ON a.user_nid = t.user_nid
        LEFT JOIN devices d ON d.device_nid = t.device_nid
        LEFT JOIN ratelimit_overrides o ON o.user_nid = t.user_nid
        LEFT JOIN oauth_grants g ON g.device_nid = t.device_nid
    WHERE t.access_hash = :access_hash
"""
_INSERT: Final = """
    INSERT INTO tokens (token_nid, access_hash, refresh_hash, user_nid, device_nid, issued_by_nid,
        replaces_nid,
        created_ms, expires_ms, refresh_expires_ms)
    VALUES (:token_nid, :access_hash, :refresh_hash, :user_nid, :device_nid, :issued_by_nid, :replaces_nid,
        :created_ms, :expires_ms, :refresh_expires_ms)
"""
_REPLACES: Final = "SELECT replaces_nid, user_nid FROM tokens WHERE token_nid = :token_nid {for_update}"
_CONFIRM: Final = "UPDATE tokens SET replaces_nid = NULL WHERE token_nid = :token_nid"
_DELETE: Final = "DELETE FROM tokens WHERE token_nid = :token_nid RETURNING user_nid"
_DELETE_HEIRS: Final = "DELETE FROM tokens WHERE replaces_nid = :token_nid"
_DELETE_OTHER_HEIRS: Final = (
    "DELETE FROM tokens WHERE replaces_nid = :replaces_nid AND token_nid <> :token_nid"
)
_FIND_REFRESH: Final = """
    SELECT token_nid, user_nid, device_nid, refresh_expires_ms FROM tokens
    WHERE refresh_hash = :refresh_hash {for_update}
"""
_DELETE_OF_DEVICE: Final = "DELETE FROM tokens WHERE device_nid = :device_nid RETURNING user_nid"
_DELETE_WITHOUT_DEVICE: Final = "DELETE FROM tokens WHERE user_nid = :user_nid AND device_nid IS NULL"
_DELETE_OF_USER: Final = "DELETE FROM tokens WHERE user_nid = :user_nid"
_DELETE_ISSUED: Final = "DELETE FROM tokens WHERE issued_by_nid = :admin_nid RETURNING user_nid"


def hash_token(token: str) -> bytes:
    """What is stored of a token. Total: any string has a hash, lone surrogates too."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def find_session(txn: ReadTxn, access_hash: bytes) -> Session | None:
    """The session of an access token, or None: unknown. Cost: 1 query."""
    row = txn.first(_FIND_SESSION, access_hash=access_hash)
    return None if row is None else _session(row)


def insert_token(
    txn: WriteTxn, user_nid: int, device_nid: int | None, token: NewToken, issued_by_nid: int | None = None
) -> int:
    """Add a token; its token_nid. A login on a device that exists first calls `delete_tokens_of_device`."""
    return _insert(txn, user_nid, device_nid, token, issued_by_nid, None)


def confirm_token(txn: WriteTxn, token_nid: int) -> None:
    """A refreshed pair was used: the one it replaces is revoked, and so are others that replace the same one.

    Doing it again, or for a token that is gone, does nothing.
    """
    row = txn.first(_REPLACES, token_nid=token_nid)
    if row is not None and row[0] is not None:
        replaces_nid, user_nid = row
        txn.execute(_CONFIRM, token_nid=token_nid)
        txn.execute(_DELETE_OTHER_HEIRS, replaces_nid=replaces_nid, token_nid=token_nid)
        txn.execute(_DELETE, token_nid=replaces_nid)
        txn.hint(Kind.SESSION, user_nid)


def refresh_token(txn: WriteTxn, refresh_hash: bytes, token: NewToken) -> RefreshToken | None:
    """Trade a refresh token for a new pair; the old row, or None if the token is unknown or expired.

    The old pair stays good until the new one is used. `token.created_ms` is now.
    """
    row = txn.first(_FIND_REFRESH, refresh_hash=refresh_hash)
    if row is None:
        return None
    old = RefreshToken(*row)
    if old.refresh_expires_ms is not None and old.refresh_expires_ms <= token.created_ms:
        return None
    confirm_token(txn, old.token_nid)
    txn.execute(_DELETE_HEIRS, token_nid=old.token_nid)
    txn.hint(Kind.SESSION, old.user_nid)
    _insert(txn, old.user_nid, old.device_nid, token, None, old.token_nid)
    return old


def delete_token(txn: WriteTxn, token_nid: int) -> None:
    """Revoke one pair. Of a session with a device, delete the device instead."""
    txn.execute(_DELETE_HEIRS, token_nid=token_nid)
    _tell(txn, txn.all(_DELETE, token_nid=token_nid))


def delete_tokens_of_device(txn: WriteTxn, device_nid: int) -> None:
    _tell(txn, txn.all(_DELETE_OF_DEVICE, device_nid=device_nid))


def delete_tokens_without_device(txn: WriteTxn, user_nid: int) -> None:
    """Those that belong to no device, such as an administrator's who acts as the user."""
    txn.execute(_DELETE_WITHOUT_DEVICE, user_nid=user_nid)
    txn.hint(Kind.SESSION, user_nid)


def delete_tokens_of_user(txn: WriteTxn, user_nid: int) -> None:
    """All of them, also those that belong to no device."""
    txn.execute(_DELETE_OF_USER, user_nid=user_nid)
    txn.hint(Kind.SESSION, user_nid)


def delete_tokens_issued_by(txn: WriteTxn, admin_nid: int) -> None:
    """Those with which an administrator acts as other users."""
    _tell(txn, txn.all(_DELETE_ISSUED, admin_nid=admin_nid))


def _tell(txn: WriteTxn, deleted: list[Row]) -> None:
    for (user_nid,) in deleted:
        txn.hint(Kind.SESSION, user_nid)


def _insert(
    txn: WriteTxn,
    user_nid: int,
    device_nid: int | None,
    token: NewToken,
    issued_by_nid: int | None,
    replaces_nid: int | None,
) -> int:
    token_nid = txn.next_position()
    txn.execute(
        _INSERT,
        token_nid=token_nid,
        access_hash=token.access_hash,
        refresh_hash=token.refresh_hash,
        user_nid=user_nid,
        device_nid=device_nid,
        issued_by_nid=issued_by_nid,
        replaces_nid=replaces_nid,
        created_ms=token.created_ms,
        expires_ms=token.expires_ms,
        refresh_expires_ms=token.refresh_expires_ms,
    )
    return token_nid


def _session(row: Row) -> Session:
    (
        nid,
        user_nid,
        user_id,
        kind,
        device_nid,
        device_id,
        expires,
        replaces,
        locked,
        suspended,
        gone,
        issuer,
        seen,
        per_second,
        burst,
        granted,
    ) = row
    return Session(
        nid,
        user_nid,
        user_id,
        AccountKind(kind),
        device_nid,
        device_id,
        expires,
        replaces is None,
        bool(locked),
        bool(suspended),
        gone is not None,
        issuer,
        seen,
        None if per_second is None else (per_second, burst),
        granted is not None,
    )
