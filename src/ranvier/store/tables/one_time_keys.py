"""One-time keys, each given out once and oldest first, and fallback keys for when there are none.

Tables: one_time_keys, fallback_keys. Owner: services.devices. Growth: about a hundred rows a device.
Index -> query: primary keys -> upload, fallback; by_age -> claim, counts.

Spec: client-server API, "One-time and fallback keys"; MSC2732.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.store.database import Kind, ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches


class Holder(msgspec.Struct, frozen=True):
    """A device that has keys."""

    user_nid: int
    device_nid: int


class PublicKey(msgspec.Struct, frozen=True):
    algorithm: str
    key_id: str  # without the algorithm
    json: bytes


Claim = tuple[Holder, str]
"""Whose key, and of which algorithm."""


_LIST: Final = "SELECT algorithm, key_id, json FROM one_time_keys WHERE device_nid = :device_nid"
_INSERT: Final = """
    INSERT INTO one_time_keys (device_nid, algorithm, position, key_id, json)
    VALUES (:device_nid, :algorithm, :position, :key_id, :json)
    ON CONFLICT (device_nid, algorithm, key_id) DO NOTHING
"""
_OLDEST: Final = """
    WITH wanted(device_nid, algorithm) AS (:wanted[2])
    SELECT device_nid, algorithm, (
        SELECT k.key_id FROM one_time_keys k
        WHERE k.device_nid = wanted.device_nid AND k.algorithm = wanted.algorithm
        ORDER BY k.position, k.key_id LIMIT 1 {skip_locked}
    ) FROM wanted
"""
_NAMED: Final = """
    WITH wanted(device_nid, algorithm, key_id) AS (:wanted[3])
    SELECT k.device_nid, k.algorithm, k.key_id, k.json FROM wanted JOIN one_time_keys k
        ON k.device_nid = wanted.device_nid AND k.algorithm = wanted.algorithm AND k.key_id = wanted.key_id
"""
_DELETE: Final = """
    DELETE FROM one_time_keys WHERE device_nid = :device_nid AND algorithm = :algorithm AND key_id = :key_id
"""
_CLAIM_FALLBACK: Final = """
    WITH wanted(device_nid, algorithm) AS (:wanted[2])
    UPDATE fallback_keys SET is_used = 1
    WHERE (device_nid, algorithm) IN (SELECT device_nid, algorithm FROM wanted)
    RETURNING device_nid, algorithm, key_id, json
"""
_COUNT: Final = """
    SELECT algorithm, COUNT(*) FROM one_time_keys WHERE device_nid = :device_nid GROUP BY algorithm
"""
_SET_FALLBACK: Final = """
    INSERT INTO fallback_keys (device_nid, algorithm, key_id, json, is_used)
    VALUES (:device_nid, :algorithm, :key_id, :json, 0)
    ON CONFLICT (device_nid, algorithm) DO UPDATE SET key_id = excluded.key_id, json = excluded.json, is_used
        = 0
    WHERE fallback_keys.key_id <> excluded.key_id OR fallback_keys.json <> excluded.json
"""
_UNUSED: Final = """
    SELECT algorithm FROM fallback_keys WHERE device_nid = :device_nid AND is_used = 0 ORDER BY algorithm
"""


def list_one_time_keys(txn: ReadTxn, device_nid: int) -> dict[tuple[str, str], bytes]:
    """(algorithm, key id) -> key (JSON): an upload that gives one of these another content is refused."""
    return {(algorithm, key_id): json for algorithm, key_id, json in txn.all(_LIST, device_nid=device_nid)}


def insert_one_time_keys(txn: WriteTxn, holder: Holder, keys: Mapping[tuple[str, str], bytes]) -> None:
    """Add keys behind those that are there. One whose (algorithm, key id) is there already is left alone.

    Effects: a USER hint.
    """
    position = txn.next_position()
    txn.execute_many(
        _INSERT,
        [
            {
                "device_nid": holder.device_nid,
                "algorithm": algorithm,
                "position": position,
                "key_id": key_id,
                "json": json,
            }
            for (algorithm, key_id), json in sorted(keys.items())
        ],
    )
    txn.hint(Kind.USER, holder.user_nid)


def claim_keys(txn: WriteTxn, claims: Collection[Claim]) -> dict[Claim, PublicKey]:
    """Give out for each claim the oldest one-time key, which nobody gets again; else the fallback key. A claim
    for which there is neither is left out.

    Effects: a USER hint for each user whose keys became fewer.
    Cost: 3 queries for 4,096 claims, and a statement for each key.
    """
    # In order, so that two processes never wait for each other in a circle.
    pending = {(claim[0].device_nid, claim[1]): claim for claim in claims}
    claimed: dict[Claim, PublicKey] = {}
    for take in (_take_one_time_keys, _take_fallback_keys):
        for batch in in_batches(sorted(pending)):
            for device_nid, algorithm, key_id, json in take(txn, batch):
                claim = pending.pop((device_nid, algorithm))
                claimed[claim] = PublicKey(algorithm, key_id, json)
    for user_nid in sorted({holder.user_nid for holder, _ in claimed}):
        _tell(txn, user_nid)
    return claimed


def _take_one_time_keys(txn: WriteTxn, wanted: Sequence[tuple[int, str]]) -> list[Row]:
    oldest = [row for row in txn.all(_OLDEST, wanted=wanted) if row[2] is not None]
    if not oldest:
        return []
    found = txn.all(_NAMED, wanted=oldest)
    txn.execute_many(
        _DELETE,
        [
            {"device_nid": device_nid, "algorithm": algorithm, "key_id": key_id}
            for device_nid, algorithm, key_id in oldest
        ],
    )
    return found


def _take_fallback_keys(txn: WriteTxn, wanted: Sequence[tuple[int, str]]) -> list[Row]:
    return txn.all(_CLAIM_FALLBACK, wanted=wanted)


def count_one_time_keys(txn: ReadTxn, device_nid: int) -> dict[str, int]:
    """algorithm -> keys that are left; an algorithm without any is left out."""
    return dict(txn.all(_COUNT, device_nid=device_nid))


def set_fallback_key(txn: WriteTxn, holder: Holder, key: PublicKey) -> None:
    """Replace the fallback key of an algorithm. The same one again stays used, if it was.

    Effects: a USER hint.
    """
    txn.execute(
        _SET_FALLBACK, device_nid=holder.device_nid, algorithm=key.algorithm, key_id=key.key_id, json=key.json
    )
    _tell(txn, holder.user_nid)


def list_unused_fallback_types(txn: ReadTxn, device_nid: int) -> list[str]:
    """Algorithms whose fallback key nobody got yet."""
    return [algorithm for (algorithm,) in txn.all(_UNUSED, device_nid=device_nid)]


def _tell(txn: WriteTxn, user_nid: int) -> None:
    """Wake the user's clients: counts have no position of their own, but they have changed after the last one."""
    txn.next_position()
    txn.hint(Kind.USER, user_nid)
