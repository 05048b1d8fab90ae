"""Accounts of this server.

Tables: accounts, external_ids, ratelimit_overrides. Owner: services.accounts. Growth: one row an account.
Index -> query: primary keys -> find; external_ids_by_user -> list and delete those of a user.
"""

from collections.abc import Collection
from enum import Enum
from typing import Final

import msgspec

from ranvier.core.identifiers import UserID
from ranvier.store.database import Kind, ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches


class AccountKind(Enum):
    GUEST = "guest"
    USER = "user"
    ADMIN = "admin"
    APPSERVICE = "appservice"


class Account(msgspec.Struct, frozen=True):
    user_nid: int
    user_id: UserID
    kind: AccountKind
    password_hash: str | None  # None: no login by password
    appservice_id: str | None
    created_ms: int
    deactivated_ms: int | None  # None: not deactivated
    is_erased: bool
    is_locked: bool
    is_suspended: bool


class RatelimitOverride(msgspec.Struct, frozen=True):
    messages_per_second: float  # 0: no limit
    burst_count: int


_SELECT: Final = """
    SELECT a.user_nid, u.user_id, a.kind, a.password_hash, a.appservice_id, a.created_ms, a.deactivated_ms,
        a.is_erased, a.is_locked, a.is_suspended
    FROM accounts a JOIN users u ON u.user_nid = a.user_nid
"""
_FIND: Final = f"{_SELECT} WHERE a.user_nid = :user_nid"
_FIND_BY_ID: Final = f"{_SELECT} WHERE u.user_id = :user_id"
_LIST: Final = f"{_SELECT} WHERE a.user_nid > :after ORDER BY a.user_nid LIMIT :limit"
_INSERT: Final = """
    INSERT INTO accounts (user_nid, kind, password_hash, appservice_id, created_ms)
    VALUES (:user_nid, :kind, :password_hash, :appservice_id, :created_ms)
    ON CONFLICT (user_nid) DO NOTHING
"""
_DEACTIVATE: Final = """
    UPDATE accounts SET deactivated_ms = COALESCE(deactivated_ms, :now_ms), password_hash = NULL,
        is_erased = CASE WHEN is_erased = 1 THEN 1 ELSE :is_erased END
    WHERE user_nid = :user_nid
"""
_REACTIVATE: Final = """
    UPDATE accounts SET deactivated_ms = NULL, is_erased = 0, password_hash = :password_hash
    WHERE user_nid = :user_nid
"""
_ERASED: Final = "SELECT user_nid FROM accounts WHERE user_nid IN (:user_nids[]) AND is_erased = 1"
_SET_KIND: Final = "UPDATE accounts SET kind = :kind WHERE user_nid = :user_nid"
_SET_HASH: Final = "UPDATE accounts SET password_hash = :password_hash WHERE user_nid = :user_nid"
_SET_LOCKED: Final = "UPDATE accounts SET is_locked = :is_locked WHERE user_nid = :user_nid"
_SET_SUSPENDED: Final = "UPDATE accounts SET is_suspended = :is_suspended WHERE user_nid = :user_nid"

_FIND_EXTERNAL: Final = """
    SELECT user_nid FROM external_ids WHERE provider = :provider AND external_id = :external_id
"""
_INSERT_EXTERNAL: Final = """
    INSERT INTO external_ids (provider, external_id, user_nid) VALUES (:provider, :external_id, :user_nid)
    ON CONFLICT (provider, external_id) DO NOTHING
"""
_LIST_EXTERNAL: Final = """
    SELECT provider, external_id FROM external_ids WHERE user_nid = :user_nid ORDER BY provider, external_id
"""
_DELETE_EXTERNAL: Final = "DELETE FROM external_ids WHERE user_nid = :user_nid"

_FIND_OVERRIDE: Final = """
    SELECT messages_per_second, burst_count FROM ratelimit_overrides WHERE user_nid = :user_nid
"""
_SET_OVERRIDE: Final = """
    INSERT INTO ratelimit_overrides (user_nid, messages_per_second, burst_count)
    VALUES (:user_nid, :messages_per_second, :burst_count)
    ON CONFLICT (user_nid) DO UPDATE SET messages_per_second = excluded.messages_per_second,
        burst_count = excluded.burst_count
"""
_DELETE_OVERRIDE: Final = "DELETE FROM ratelimit_overrides WHERE user_nid = :user_nid"


def insert_account(
    txn: WriteTxn,
    user_nid: int,
    kind: AccountKind,
    password_hash: str | None,
    appservice_id: str | None,
    created_ms: int,
) -> bool:
    """Make an account for an interned user of this server; False if there is one (deactivated ones count)."""
    inserted = txn.execute(
        _INSERT,
        user_nid=user_nid,
        kind=kind.value,
        password_hash=password_hash,
        appservice_id=appservice_id,
        created_ms=created_ms,
    )
    return inserted == 1


def find_account(txn: ReadTxn, user_nid: int) -> Account | None:
    row = txn.first(_FIND, user_nid=user_nid)
    return None if row is None else _account(row)


def find_account_by_id(txn: ReadTxn, user_id: UserID) -> Account | None:
    row = txn.first(_FIND_BY_ID, user_id=user_id)
    return None if row is None else _account(row)


def list_accounts(txn: ReadTxn, after: int, limit: int) -> list[Account]:
    """A page in the order of user_nid, which is that of registration. `after`: the last user_nid seen, 0 to
    start.
    """
    return [_account(row) for row in txn.all(_LIST, after=after, limit=limit)]


def set_password_hash(txn: WriteTxn, user_nid: int, password_hash: str | None) -> bool:
    """Whether there is such an account; so do the others that set something."""
    return txn.execute(_SET_HASH, user_nid=user_nid, password_hash=password_hash) == 1


def set_kind(txn: WriteTxn, user_nid: int, kind: AccountKind) -> bool:
    txn.hint(Kind.SESSION, user_nid)
    return txn.execute(_SET_KIND, user_nid=user_nid, kind=kind.value) == 1


def set_locked(txn: WriteTxn, user_nid: int, *, is_locked: bool) -> bool:
    txn.hint(Kind.SESSION, user_nid)
    return txn.execute(_SET_LOCKED, user_nid=user_nid, is_locked=is_locked) == 1


def set_suspended(txn: WriteTxn, user_nid: int, *, is_suspended: bool) -> bool:
    txn.hint(Kind.SESSION, user_nid)
    return txn.execute(_SET_SUSPENDED, user_nid=user_nid, is_suspended=is_suspended) == 1


def deactivate_account(txn: WriteTxn, user_nid: int, now_ms: int, *, is_erased: bool) -> bool:
    """Close the account for good. Its password goes; its devices, tokens and third-party identifiers are deleted by
    the functions of their own modules. Its external ids stay: who was shut out does not come back as somebody new.

    Spec: client-server API, "Account deactivation".
    """
    txn.hint(Kind.SESSION, user_nid)
    return txn.execute(_DEACTIVATE, user_nid=user_nid, now_ms=now_ms, is_erased=is_erased) == 1


def list_erased(txn: ReadTxn, user_nids: Collection[int]) -> set[int]:
    """Those of them who wanted their content to be erased."""
    return {
        user_nid for batch in in_batches(list(user_nids)) for (user_nid,) in txn.all(_ERASED, user_nids=batch)
    }


def reactivate_account(txn: WriteTxn, user_nid: int, password_hash: str | None) -> bool:
    txn.hint(Kind.SESSION, user_nid)
    return txn.execute(_REACTIVATE, user_nid=user_nid, password_hash=password_hash) == 1


def insert_external_id(txn: WriteTxn, provider: str, external_id: str, user_nid: int) -> bool:
    """Tie an identity at a login provider to an account; False if it is tied to one already."""
    inserted = txn.execute(_INSERT_EXTERNAL, provider=provider, external_id=external_id, user_nid=user_nid)
    return inserted == 1


def find_external_id(txn: ReadTxn, provider: str, external_id: str) -> int | None:
    """The user_nid that the identity belongs to."""
    value: int | None = txn.value(_FIND_EXTERNAL, provider=provider, external_id=external_id)
    return value


def delete_external_ids(txn: WriteTxn, user_nid: int) -> None:
    txn.execute(_DELETE_EXTERNAL, user_nid=user_nid)


def list_external_ids(txn: ReadTxn, user_nid: int) -> list[tuple[str, str]]:
    """(provider, external id) of an account."""
    return [(provider, external_id) for provider, external_id in txn.all(_LIST_EXTERNAL, user_nid=user_nid)]


def find_ratelimit_override(txn: ReadTxn, user_nid: int) -> RatelimitOverride | None:
    row = txn.first(_FIND_OVERRIDE, user_nid=user_nid)
    return None if row is None else RatelimitOverride(*row)


def set_ratelimit_override(txn: WriteTxn, user_nid: int, override: RatelimitOverride | None) -> None:
    """None takes the override away."""
    txn.hint(Kind.SESSION, user_nid)
    if override is None:
        txn.execute(_DELETE_OVERRIDE, user_nid=user_nid)
    else:
        txn.execute(
            _SET_OVERRIDE,
            user_nid=user_nid,
            messages_per_second=override.messages_per_second,
            burst_count=override.burst_count,
        )


def _account(row: Row) -> Account:
    nid, user_id, kind, password, appservice, created, deactivated, erased, locked, suspended = row
    return Account(
        nid,
        user_id,
        AccountKind(kind),
        password,
        appservice,
        created,
        deactivated,
        bool(erased),
        bool(locked),
        bool(suspended),
    )
