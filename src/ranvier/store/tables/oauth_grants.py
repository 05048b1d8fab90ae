"""Which devices are OAuth sessions, and of which client.

Table: oauth_grants. Owner: services.oauth. Growth: one row a session; it dies with its device.
Index -> query: primary key -> find, replace, delete; UNIQUE family_hash -> refresh tokens that are spent.

Spec: client-server API, "OAuth 2.0 API".
"""

from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID, UserID
from ranvier.store.database import ReadTxn, WriteTxn


class Grant(msgspec.Struct, frozen=True):
    device_nid: int
    client_id: str
    scope: str
    family_hash: bytes
    created_ms: int


class Holder(msgspec.Struct, frozen=True):
    """Whose session a token belongs to."""

    token_nid: int
    user_nid: int
    user_id: UserID
    device_id: DeviceID | None  # None: an administrator acts as the user


_SELECT: Final = "SELECT device_nid, client_id, scope, family_hash, created_ms FROM oauth_grants"
_FIND: Final = f"{_SELECT} WHERE device_nid = :device_nid"
_FIND_FAMILY: Final = f"{_SELECT} WHERE family_hash = :family_hash"
_SET: Final = """
    INSERT INTO oauth_grants (device_nid, client_id, scope, family_hash, created_ms)
    VALUES (:device_nid, :client_id, :scope, :family_hash, :created_ms)
    ON CONFLICT (device_nid) DO UPDATE SET client_id = excluded.client_id, scope = excluded.scope,
        family_hash = excluded.family_hash, created_ms = excluded.created_ms
"""
_DELETE: Final = "DELETE FROM oauth_grants WHERE device_nid = :device_nid"
_OWNER: Final = "SELECT d.user_nid, d.device_id FROM devices d WHERE d.device_nid = :device_nid"
_HOLDER: Final = """
    SELECT t.token_nid, t.user_nid, u.user_id, d.device_id
    FROM tokens t JOIN users u ON u.user_nid = t.user_nid LEFT JOIN devices d ON d.device_nid = t.device_nid
"""
_HOLDER_OF_ACCESS: Final = f"{_HOLDER} WHERE t.access_hash = :token_hash"
_HOLDER_OF_REFRESH: Final = f"{_HOLDER} WHERE t.refresh_hash = :token_hash"
_DEVICE_OF_REFRESH: Final = "SELECT device_nid FROM tokens WHERE refresh_hash = :refresh_hash"


def set_grant(txn: WriteTxn, grant: Grant) -> None:
    """Make a device an OAuth session, or that of another client."""
    txn.execute(
        _SET,
        device_nid=grant.device_nid,
        client_id=grant.client_id,
        scope=grant.scope,
        family_hash=grant.family_hash,
        created_ms=grant.created_ms,
    )


def find_grant(txn: ReadTxn, device_nid: int) -> Grant | None:
    """None: the device is no OAuth session."""
    row = txn.first(_FIND, device_nid=device_nid)
    return None if row is None else Grant(*row)


def find_grant_of_refresh_token(txn: ReadTxn, refresh_hash: bytes) -> Grant | None:
    """The grant behind a refresh token that is good; None: it is not, or belongs to no OAuth session."""
    device_nid = txn.value(_DEVICE_OF_REFRESH, refresh_hash=refresh_hash)
    return None if device_nid is None else find_grant(txn, device_nid)


def find_grant_of_family(txn: ReadTxn, family_hash: bytes) -> Grant | None:
    """The session that a refresh token was once made for, whether it is still good or not."""
    row = txn.first(_FIND_FAMILY, family_hash=family_hash)
    return None if row is None else Grant(*row)


def delete_grant(txn: WriteTxn, device_nid: int) -> None:
    """The device goes on as an ordinary one."""
    txn.execute(_DELETE, device_nid=device_nid)


def find_owner(txn: ReadTxn, device_nid: int) -> tuple[int, DeviceID] | None:
    """The user_nid and device_id of a device."""
    row = txn.first(_OWNER, device_nid=device_nid)
    return None if row is None else (row[0], row[1])


def find_holder(txn: ReadTxn, token_hash: bytes) -> Holder | None:
    """Whose an access or refresh token is, of whatever kind of session."""
    row = txn.first(_HOLDER_OF_ACCESS, token_hash=token_hash) or txn.first(
        _HOLDER_OF_REFRESH, token_hash=token_hash
    )
    return None if row is None else Holder(*row)
