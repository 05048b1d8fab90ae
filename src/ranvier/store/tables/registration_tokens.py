"""Tokens that allow registration.

Table: registration_tokens. Owner: services.accounts. Growth: what administrators make.

Spec: client-server API, "Token-authenticated registration".
"""

from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn


class RegistrationToken(msgspec.Struct, frozen=True):
    token: str
    uses_allowed: int | None  # None: any number
    pending: int
    completed: int
    expires_ms: int | None  # None: never


_SELECT: Final = "SELECT token, uses_allowed, pending, completed, expires_ms FROM registration_tokens"
_FIND: Final = f"{_SELECT} WHERE token = :token"
_LIST: Final = f"{_SELECT} ORDER BY token"
_USABLE: Final = """(expires_ms IS NULL OR expires_ms > :now_ms)
    AND (uses_allowed IS NULL OR pending + completed < uses_allowed)"""
_IS_VALID: Final = f"SELECT 1 FROM registration_tokens WHERE token = :token AND {_USABLE}"  # noqa: S608
_USE: Final = f"UPDATE registration_tokens SET completed = completed + 1 WHERE token = :token AND {_USABLE}"  # noqa: S608
_INSERT: Final = """
    INSERT INTO registration_tokens (token, uses_allowed, expires_ms) VALUES (:token, :uses_allowed,
        :expires_ms)
    ON CONFLICT (token) DO NOTHING
"""
_UPDATE: Final = """
    UPDATE registration_tokens SET uses_allowed = :uses_allowed, expires_ms = :expires_ms WHERE token = :token
"""
_DELETE: Final = "DELETE FROM registration_tokens WHERE token = :token"


def insert_registration_token(
    txn: WriteTxn, token: str, uses_allowed: int | None, expires_ms: int | None
) -> bool:
    """False if the token exists."""
    return txn.execute(_INSERT, token=token, uses_allowed=uses_allowed, expires_ms=expires_ms) == 1


def update_registration_token(
    txn: WriteTxn, token: str, uses_allowed: int | None, expires_ms: int | None
) -> bool:
    """False if there is no such token."""
    return txn.execute(_UPDATE, token=token, uses_allowed=uses_allowed, expires_ms=expires_ms) == 1


def delete_registration_token(txn: WriteTxn, token: str) -> bool:
    return txn.execute(_DELETE, token=token) == 1


def find_registration_token(txn: ReadTxn, token: str) -> RegistrationToken | None:
    row = txn.first(_FIND, token=token)
    return None if row is None else RegistrationToken(*row)


def list_registration_tokens(txn: ReadTxn) -> list[RegistrationToken]:
    return [RegistrationToken(*row) for row in txn.all(_LIST)]


def is_registration_token_valid(txn: ReadTxn, token: str, now_ms: int) -> bool:
    """Whether somebody could register with it now."""
    return txn.value(_IS_VALID, token=token, now_ms=now_ms) is not None


def use_registration_token(txn: WriteTxn, token: str, now_ms: int) -> bool:
    """Count a registration with it; False: unknown, expired or used up."""
    return txn.execute(_USE, token=token, now_ms=now_ms) == 1
