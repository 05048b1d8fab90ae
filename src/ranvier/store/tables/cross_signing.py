"""Cross-signing keys, and signatures that were uploaded apart from what they sign.

Tables: cross_signing_keys, key_signatures, cross_signing_resets. Owner: services.devices.
Growth: three rows a user; a signature for each verified device and each verified user.
Index -> query: primary keys -> keys of users, signatures on what users have; of_others -> whom a user signed since P.

Keys of remote users stand here too, as their server gave them. What is stored is the key as it was uploaded; the
signatures beside are merged into it when it is shown, as far as the one who asks may see them.

Spec: client-server API, "Cross-signing".
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID
from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.device_lists import insert_device_change

MASTER: Final = "master"
SELF_SIGNING: Final = "self_signing"
USER_SIGNING: Final = "user_signing"


class CrossSigningKey(msgspec.Struct, frozen=True):
    usage: str
    public_key: str  # unpadded base64: also the id that signatures name
    json: bytes


class Signature(msgspec.Struct, frozen=True):
    target_user_nid: int
    target_id: str  # a device id, or the public key of a cross-signing key
    signer_user_nid: int
    key_id: str  # e.g. ed25519:…
    signature: str


_LIST: Final = """
    SELECT user_nid, usage, public_key, json FROM cross_signing_keys WHERE user_nid IN (:user_nids[])
"""
_SET: Final = """
    INSERT INTO cross_signing_keys (user_nid, usage, public_key, json)
    VALUES (:user_nid, :usage, :public_key, :json)
    ON CONFLICT (user_nid, usage) DO UPDATE SET public_key = excluded.public_key, json = excluded.json
"""
_ALLOW: Final = """
    INSERT INTO cross_signing_resets (user_nid, until_ms) VALUES (:user_nid, :until_ms)
    ON CONFLICT (user_nid) DO UPDATE SET until_ms = excluded.until_ms
"""
_IS_ALLOWED: Final = """
    SELECT 1 FROM cross_signing_resets WHERE user_nid = :user_nid AND until_ms > :now_ms
"""
_END_ALLOWANCE: Final = "DELETE FROM cross_signing_resets WHERE user_nid = :user_nid"
_DELETE: Final = "DELETE FROM cross_signing_keys WHERE user_nid = :user_nid AND usage = :usage"
_UNSIGN: Final = "DELETE FROM key_signatures WHERE target_user_nid = :user_nid AND target_id = :target_id"
_UNSIGN_BY: Final = """
    DELETE FROM key_signatures
    WHERE target_user_nid = :user_nid AND signer_user_nid = :user_nid AND key_id = :key_id
"""
_SIGNATURES: Final = """
    SELECT target_user_nid, target_id, signer_user_nid, key_id, signature FROM key_signatures
    WHERE target_user_nid IN (:user_nids[]) AND (signer_user_nid = target_user_nid OR signer_user_nid = :reader)
"""
_SIGN: Final = """
    INSERT INTO key_signatures (target_user_nid, target_id, signer_user_nid, key_id, signature, position)
    VALUES (:target_user_nid, :target_id, :signer_user_nid, :key_id, :signature, :position)
    ON CONFLICT (target_user_nid, target_id, signer_user_nid, key_id)
        DO UPDATE SET signature = excluded.signature, position = excluded.position
"""
_SIGNED_OTHERS: Final = """
    SELECT DISTINCT target_user_nid FROM key_signatures
    WHERE signer_user_nid = :user_nid AND signer_user_nid <> target_user_nid
        AND position > :since AND position <= :up_to
"""

NOBODY_NID: Final = 0
"""Reads as one who sees only what everybody sees."""


def list_cross_signing_keys(
    txn: ReadTxn, user_nids: Collection[int]
) -> dict[int, dict[str, CrossSigningKey]]:
    """user_nid -> usage -> key. Every user asked for has an entry."""
    found: dict[int, dict[str, CrossSigningKey]] = {nid: {} for nid in user_nids}
    for batch in in_batches(list(found)):
        for user_nid, *key in txn.all(_LIST, user_nids=batch):
            found[user_nid][key[0]] = CrossSigningKey(*key)
    return found


def set_cross_signing_keys(txn: WriteTxn, user_nid: int, keys: Sequence[CrossSigningKey]) -> None:
    """Store keys of a local user in place of those of the same usage. Signatures on and by what is replaced go,
    and with the master key the keys that it had signed.

    Effects: the user's device list changes.
    """
    old = list_cross_signing_keys(txn, [user_nid])[user_nid]
    new = {key.usage: key for key in keys}
    if MASTER in new and MASTER in old and new[MASTER].public_key != old[MASTER].public_key:
        for usage in old.keys() - new.keys():
            _forget(txn, user_nid, old[usage])
            txn.execute(_DELETE, user_nid=user_nid, usage=usage)
    for usage, key in new.items():
        if usage in old and old[usage].public_key != key.public_key:
            _forget(txn, user_nid, old[usage])
        txn.execute(_SET, user_nid=user_nid, usage=usage, public_key=key.public_key, json=key.json)
    insert_device_change(txn, user_nid, None)


def set_remote_cross_signing_keys(txn: WriteTxn, user_nid: int, keys: Sequence[CrossSigningKey]) -> bool:
    """What a remote user has from now on; whether that is anything new. Who is told of it is up to the caller."""
    old = list_cross_signing_keys(txn, [user_nid])[user_nid]
    new = {key.usage: key for key in keys}
    if new == old:
        return False
    for usage, key in old.items():
        if usage not in new or new[usage].public_key != key.public_key:
            _forget(txn, user_nid, key)
            txn.execute(_DELETE, user_nid=user_nid, usage=usage)
    for usage, key in new.items():
        txn.execute(_SET, user_nid=user_nid, usage=usage, public_key=key.public_key, json=key.json)
    return True


def delete_signatures_on(txn: WriteTxn, user_nid: int, target_id: str) -> None:
    """Forget all signatures on a key that is replaced by another one of the same name."""
    txn.execute(_UNSIGN, user_nid=user_nid, target_id=target_id)


def list_signatures(txn: ReadTxn, user_nids: Collection[int], reader_nid: int) -> list[Signature]:
    """Signatures on the keys of users, as far as a user may see them: those of the keys' owner, and the reader's
    own.

    Spec: client-server API, "Key and signature security".
    """
    return [
        Signature(*row)
        for batch in in_batches(list(user_nids))
        for row in txn.all(_SIGNATURES, user_nids=batch, reader=reader_nid)
    ]


def insert_signatures(txn: WriteTxn, signer_nid: int, signatures: Collection[Signature]) -> None:
    """Store signatures of one local user.

    Effects: the user's device list changes by those on own keys; those on others' keys wake the user alone.
    """
    if not signatures:
        return
    own = {one.target_id for one in signatures if one.target_user_nid == signer_nid}
    position = txn.next_position()
    txn.execute_many(_SIGN, [{**msgspec.structs.asdict(one), "position": position} for one in signatures])
    masters = {key.public_key for key in list_cross_signing_keys(txn, [signer_nid])[signer_nid].values()}
    for device_id in sorted({None if one in masters else DeviceID(one) for one in own}, key=str):
        insert_device_change(txn, signer_nid, device_id)
    txn.hint(Kind.USER, signer_nid)


def list_users_signed(txn: ReadTxn, signer_nid: int, since: int, up_to: int) -> list[int]:
    """Other users whose keys the user signed in (since, up_to]."""
    return [nid for (nid,) in txn.all(_SIGNED_OTHERS, user_nid=signer_nid, since=since, up_to=up_to)]


def _forget(txn: WriteTxn, user_nid: int, key: CrossSigningKey) -> None:
    delete_signatures_on(txn, user_nid, key.public_key)
    txn.execute(_UNSIGN_BY, user_nid=user_nid, key_id=f"ed25519:{key.public_key}")


def allow_reset(txn: WriteTxn, user_nid: int, until_ms: int) -> None:
    """Let a user replace the keys once without proving who they are."""
    txn.execute(_ALLOW, user_nid=user_nid, until_ms=until_ms)


def is_reset_allowed(txn: ReadTxn, user_nid: int, now_ms: int) -> bool:
    return txn.value(_IS_ALLOWED, user_nid=user_nid, now_ms=now_ms) is not None


def end_reset(txn: WriteTxn, user_nid: int) -> None:
    """It has been used."""
    txn.execute(_END_ALLOWANCE, user_nid=user_nid)
