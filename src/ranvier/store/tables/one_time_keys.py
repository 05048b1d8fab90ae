"""One-time keys, each given out once and oldest first, and fallback keys for when there are none.

Tables: one_time_keys, fallback_keys. Owner: services.e2ee. Growth: about a hundred rows a device.
Index -> query: primary keys -> upload, fallback; by_age -> claim, counts.

Spec: client-server API, "One-time and fallback keys"; MSC2732.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn


class ClaimedKey(msgspec.Struct, frozen=True):
    algorithm: str
    key_id: str  # without the algorithm
    json: bytes


_LIST: Final = "SELECT algorithm, key_id, json FROM one_time_keys WHERE device_nid = :device_nid"
_INSERT: Final = """
    INSERT INTO one_time_keys (device_nid, algorithm, position, key_id, json)
    VALUES (:device_nid, :algorithm, :position, :key_id, :json)
    ON CONFLICT (device_nid, algorithm, key_id) DO NOTHING
"""
_CLAIM: Final = """
    DELETE FROM one_time_keys WHERE device_nid = :device_nid AND algorithm = :algorithm AND key_id = (
        SELECT key_id FROM one_time_keys WHERE device_nid = :device_nid AND algorithm = :algorithm
        ORDER BY position, key_id LIMIT 1 {skip_locked}
    ) RETURNING key_id, json
"""
_CLAIM_FALLBACK: Final = """
    UPDATE fallback_keys SET is_used = 1 WHERE device_nid = :device_nid AND algorithm = :algorithm
    RETURNING key_id, json
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


def insert_one_time_keys(txn: WriteTxn, device_nid: int, keys: Mapping[tuple[str, str], bytes]) -> None:
    """Add keys behind those that are there. One whose (algorithm, key id) is there already is left alone."""
    position = txn.next_position()
    txn.execute_many(
        _INSERT,
        [
            {
                "device_nid": device_nid,
                "algorithm": algorithm,
                "position": position,
                "key_id": key_id,
                "json": json,
            }
            for (algorithm, key_id), json in sorted(keys.items())
        ],
    )


def claim_key(txn: WriteTxn, device_nid: int, algorithm: str) -> ClaimedKey | None:
    """Give out the oldest one-time key, which nobody gets again; else the fallback key; else None."""
    row = txn.first(_CLAIM, device_nid=device_nid, algorithm=algorithm) or txn.first(
        _CLAIM_FALLBACK, device_nid=device_nid, algorithm=algorithm
    )
    return None if row is None else ClaimedKey(algorithm, row[0], row[1])


def count_one_time_keys(txn: ReadTxn, device_nid: int) -> dict[str, int]:
    """algorithm -> keys that are left; an algorithm without any is left out."""
    return dict(txn.all(_COUNT, device_nid=device_nid))


def set_fallback_key(txn: WriteTxn, device_nid: int, key: ClaimedKey) -> None:
    """Replace the fallback key of an algorithm. The same one again stays used, if it was."""
    txn.execute(
        _SET_FALLBACK, device_nid=device_nid, algorithm=key.algorithm, key_id=key.key_id, json=key.json
    )


def list_unused_fallback_types(txn: ReadTxn, device_nid: int) -> list[str]:
    """Algorithms whose fallback key nobody got yet."""
    return [algorithm for (algorithm,) in txn.all(_UNUSED, device_nid=device_nid)]
