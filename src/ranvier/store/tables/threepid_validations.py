"""Proofs of owning an address, under way and done.

Table: threepid_validations. Owner: services.accounts. Growth: one row for each client secret and address, until it
expires. Index -> query: primary key -> find; UNIQUE -> the same request again; by_expiry -> expiry.
"""

from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn


class Validation(msgspec.Struct, frozen=True):
    sid: str
    client_secret: str
    medium: str
    address: str
    purpose: str
    token_hash: bytes
    send_attempt: int
    next_link: str | None
    tries: int  # wrong tokens so far
    validated_ms: int | None
    expires_ms: int


_SELECT: Final = """
    SELECT sid, client_secret, medium, address, purpose, token_hash, send_attempt, next_link, tries, validated_ms,
        expires_ms
    FROM threepid_validations
"""
_FIND: Final = f"{_SELECT} WHERE sid = :sid AND client_secret = :client_secret AND expires_ms > :now_ms"
_FIND_SAME: Final = f"""
    {_SELECT} WHERE client_secret = :client_secret AND medium = :medium AND address = :address
        AND expires_ms > :now_ms
"""
_DELETE_SAME: Final = """
    DELETE FROM threepid_validations
    WHERE client_secret = :client_secret AND medium = :medium AND address = :address
"""
_INSERT: Final = """
    INSERT INTO threepid_validations (sid, client_secret, medium, address, purpose, token_hash, send_attempt,
        next_link, tries, validated_ms, expires_ms)
    VALUES (:sid, :client_secret, :medium, :address, :purpose, :token_hash, :send_attempt, :next_link, :tries,
        :validated_ms, :expires_ms)
"""
_TRIED: Final = "UPDATE threepid_validations SET tries = tries + 1 WHERE sid = :sid"
_VALIDATED: Final = """
    UPDATE threepid_validations SET validated_ms = COALESCE(validated_ms, :now_ms) WHERE sid = :sid
"""
_DELETE: Final = "DELETE FROM threepid_validations WHERE sid = :sid"
_DELETE_EXPIRED: Final = "DELETE FROM threepid_validations WHERE expires_ms <= :now_ms"


def find_validation(txn: ReadTxn, sid: str, client_secret: str, now_ms: int) -> Validation | None:
    """One that has not expired, for whoever knows both names."""
    row = txn.first(_FIND, sid=sid, client_secret=client_secret, now_ms=now_ms)
    return None if row is None else Validation(*row)


def find_same_validation(
    txn: ReadTxn, client_secret: str, medium: str, address: str, now_ms: int
) -> Validation | None:
    """The one that the same client began for the same address."""
    row = txn.first(_FIND_SAME, client_secret=client_secret, medium=medium, address=address, now_ms=now_ms)
    return None if row is None else Validation(*row)


def begin_validation(txn: WriteTxn, validation: Validation, now_ms: int) -> None:
    """Begin, or begin anew with another token. Those that have expired go."""
    txn.execute(_DELETE_EXPIRED, now_ms=now_ms)
    txn.execute(
        _DELETE_SAME,
        client_secret=validation.client_secret,
        medium=validation.medium,
        address=validation.address,
    )
    txn.execute(_INSERT, **msgspec.structs.asdict(validation))


def note_wrong_token(txn: WriteTxn, sid: str) -> None:
    txn.execute(_TRIED, sid=sid)


def note_validated(txn: WriteTxn, sid: str, now_ms: int) -> None:
    txn.execute(_VALIDATED, sid=sid, now_ms=now_ms)


def delete_validation(txn: WriteTxn, sid: str) -> None:
    """It has been used."""
    txn.execute(_DELETE, sid=sid)
