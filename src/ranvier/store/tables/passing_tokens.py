"""Short-lived tokens that prove who somebody is to another party: OpenID tokens and login tokens.

Tables: openid_tokens, login_tokens. Owner: services.accounts. Growth: one row a token, until it expires.
Index -> query: primary keys -> find and take; by_expiry -> clean up; by_user -> deactivation.
Tokens are stored as `tokens.hash_token` gives them.

Spec: client-server API, "OpenID" and "Token-based" login (m.login.token).
"""

from typing import Final

from ranvier.store.database import ReadTxn, WriteTxn

_INSERT_OPENID: Final = """
    INSERT INTO openid_tokens (token_hash, user_nid, expires_ms) VALUES (:token_hash, :user_nid, :expires_ms)
"""
_FIND_OPENID: Final = """
    SELECT user_nid FROM openid_tokens WHERE token_hash = :token_hash AND expires_ms > :now_ms
"""
_INSERT_LOGIN: Final = """
    INSERT INTO login_tokens (token_hash, user_nid, expires_ms) VALUES (:token_hash, :user_nid, :expires_ms)
"""
_TAKE_LOGIN: Final = "DELETE FROM login_tokens WHERE token_hash = :token_hash RETURNING user_nid, expires_ms"
_EXPIRE: Final = (
    "DELETE FROM openid_tokens WHERE expires_ms <= :now_ms",
    "DELETE FROM login_tokens WHERE expires_ms <= :now_ms",
)
_DELETE_OF_USER: Final = (
    "DELETE FROM openid_tokens WHERE user_nid = :user_nid",
    "DELETE FROM login_tokens WHERE user_nid = :user_nid",
    "DELETE FROM oauth_codes WHERE user_nid = :user_nid",
    "DELETE FROM oauth_device_codes WHERE user_nid = :user_nid",
    "DELETE FROM browser_sessions WHERE user_nid = :user_nid",
)


def insert_openid_token(txn: WriteTxn, token_hash: bytes, user_nid: int, expires_ms: int) -> None:
    txn.execute(_INSERT_OPENID, token_hash=token_hash, user_nid=user_nid, expires_ms=expires_ms)


def find_openid_token(txn: ReadTxn, token_hash: bytes, now_ms: int) -> int | None:
    """The user_nid that the token proves, or None. It may be shown any number of times until it expires."""
    value: int | None = txn.value(_FIND_OPENID, token_hash=token_hash, now_ms=now_ms)
    return value


def insert_login_token(txn: WriteTxn, token_hash: bytes, user_nid: int, expires_ms: int) -> None:
    txn.execute(_INSERT_LOGIN, token_hash=token_hash, user_nid=user_nid, expires_ms=expires_ms)


def take_login_token(txn: WriteTxn, token_hash: bytes, now_ms: int) -> int | None:
    """Use up a login token: the user_nid that may log in, or None if it is unknown, used or expired."""
    row = txn.first(_TAKE_LOGIN, token_hash=token_hash)
    return row[0] if row is not None and row[1] > now_ms else None


def delete_expired(txn: WriteTxn, now_ms: int) -> int:
    """Drop what has expired; how many tokens that were."""
    return sum(txn.execute(sql, now_ms=now_ms) for sql in _EXPIRE)


def delete_passing_tokens_of_user(txn: WriteTxn, user_nid: int) -> None:
    """Whatever the user, or somebody who knew the password, has begun and not finished; codes of OAuth and browsers
    that are signed in as well.
    """
    for sql in _DELETE_OF_USER:
        txn.execute(sql, user_nid=user_nid)
