"""Whose devices or cross-signing keys changed, and the devices of remote users.

Tables: device_list_versions, device_list_changes, remote_device_lists, remote_devices. Owner:
services.devices.
Growth: one row a user, one a local user's change that is not told yet, one a device of remote users whose keys
somebody here asked for.
Index -> query: versions_by_position -> users changed since P; changes primary key -> what to tell other
servers; changes_by_user -> the change before one; stale -> what to ask other servers anew.

A remote user's list is followed from the first time that a client asks for it, for as long as a room is shared:
`memberships.apply_memberships` ends that in the transaction in which it ends. So what is kept here and marked as
fresh can always be answered with: every change of it was told to this server.

A change is one row whatever the number of those who share a room with the user: a reader asks who changed
since P, then which of them share a room with it (`memberships.list_sharing_among`). So it costs what
changed, never what there is.

Spec: server-server API, "Device Management"; client-server API, "Tracking the device list for a user".
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID
from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class DeviceChange(msgspec.Struct, frozen=True):
    """A change of a local user's device (or, with None, cross-signing keys). `position` is its stream_id."""

    position: int
    user_nid: int
    device_id: DeviceID | None


class RemoteList(msgspec.Struct, frozen=True):
    """How far a remote user's list is known."""

    stream_id: int | None  # of the newest update that was applied; None: never synchronized
    needs_resync: bool


class Resync(msgspec.Struct, frozen=True):
    """A list that is to be asked for. `heard` comes back with the answer."""

    user_nid: int
    server_nid: int
    heard: int
    failures: int


class RemoteDevice(msgspec.Struct, frozen=True):
    device_id: DeviceID
    display_name: str | None
    keys: bytes | None  # JSON


_SET_VERSION: Final = """
    INSERT INTO device_list_versions (user_nid, position) VALUES (:user_nid, :position)
    ON CONFLICT (user_nid) DO UPDATE SET position = excluded.position
"""
_INSERT_CHANGE: Final = """
    INSERT INTO device_list_changes (position, user_nid, device_id) VALUES (:position, :user_nid, :device_id)
"""
_CHANGED_USERS: Final = """
    SELECT user_nid FROM device_list_versions WHERE position > :since AND position <= :up_to ORDER BY position
"""
_CHANGES: Final = """
    SELECT position, user_nid, device_id FROM device_list_changes
    WHERE position > :since AND position <= :up_to ORDER BY position LIMIT :limit
"""
_PREVIOUS: Final = """
    SELECT MAX(position) FROM device_list_changes
    WHERE user_nid = :user_nid AND position < :before AND device_id IS NOT NULL
"""
_NEWEST: Final = """
    SELECT position, user_nid, device_id FROM device_list_changes
    WHERE user_nid = :user_nid AND device_id IS NOT NULL ORDER BY position DESC LIMIT 1
"""
_HAS_CHANGES: Final = (
    "SELECT 1 FROM device_list_changes WHERE position > :since AND position <= :upto LIMIT 1"
)
_PRUNE: Final = """
    DELETE FROM device_list_changes
    WHERE user_nid IN (:user_nids[]) AND position <= :told AND (device_id IS NULL OR position < (
        SELECT MAX(newer.position) FROM device_list_changes newer
        WHERE newer.user_nid = device_list_changes.user_nid AND newer.position <= :told
            AND newer.device_id IS NOT NULL
    ))
"""

_IS_SHARING: Final = """EXISTS (
    SELECT 1 FROM memberships a
    JOIN memberships b ON b.room_nid = a.room_nid AND b.membership = 'join' AND b.is_local = 1
    WHERE a.user_nid = {user_nid} AND a.membership = 'join'
)"""
_SHARES: Final = f"SELECT 1 WHERE {_IS_SHARING.format(user_nid=':user_nid')}"
_FIND_REMOTE: Final = "SELECT stream_id, needs_resync FROM remote_device_lists WHERE user_nid = :user_nid"
_LIST_FRESH: Final = """
    SELECT user_nid FROM remote_device_lists WHERE user_nid IN (:user_nids[]) AND needs_resync = 0
"""
_STRANGERS: Final = f"""
    SELECT u.user_nid FROM users u WHERE u.user_nid IN (:user_nids[])
        AND NOT EXISTS (SELECT 1 FROM remote_device_lists r WHERE r.user_nid = u.user_nid)
        AND {_IS_SHARING.format(user_nid="u.user_nid")}
"""  # noqa: S608
_FOLLOW: Final = """
    INSERT INTO remote_device_lists (user_nid, heard, needs_resync) VALUES (:user_nid, :heard, 1)
    ON CONFLICT (user_nid) DO NOTHING
"""
_SET_STREAM_ID: Final = "UPDATE remote_device_lists SET stream_id = :stream_id WHERE user_nid = :user_nid"
_SYNCHRONIZED: Final = """
    UPDATE remote_device_lists SET stream_id = :stream_id, failures = 0, retry_ms = 0,
        needs_resync = CASE WHEN heard = :heard THEN 0 ELSE 1 END
    WHERE user_nid = :user_nid
"""
_MARK_STALE: Final = """
    UPDATE remote_device_lists SET needs_resync = 1, heard = :heard, retry_ms = 0 WHERE user_nid = :user_nid
"""
_POSTPONE: Final = """
    UPDATE remote_device_lists SET retry_ms = :retry_ms, failures = :failures
    WHERE user_nid = :user_nid AND heard = :heard
"""
_HASTEN: Final = """
    UPDATE remote_device_lists SET retry_ms = 0 WHERE needs_resync = 1 AND retry_ms > 0
        AND user_nid IN (SELECT user_nid FROM users WHERE server_nid = :server_nid)
"""
_LIST_STALE: Final = """
    SELECT r.user_nid, u.server_nid, r.heard, r.failures
    FROM remote_device_lists r JOIN users u ON u.user_nid = r.user_nid
    WHERE r.needs_resync = 1 AND r.retry_ms > :after_ms AND r.retry_ms <= :upto_ms
        AND u.server_nid NOT IN (:busy[])
    ORDER BY r.retry_ms LIMIT :limit
"""
_LIST_DUE: Final = """
    SELECT r.user_nid, u.server_nid, r.heard, r.failures
    FROM remote_device_lists r JOIN users u ON u.user_nid = r.user_nid
    WHERE r.user_nid IN (:user_nids[]) AND r.needs_resync = 1
        AND (r.retry_ms <= :now_ms OR r.retry_ms > :latest_ms)
"""
_FOREVER_MS: Final = 2**62
_NEXT_RETRY: Final = (
    "SELECT MIN(retry_ms) FROM remote_device_lists WHERE needs_resync = 1 AND retry_ms > :now_ms"
)
_UNSHARED: Final = f"""
    SELECT user_nid FROM remote_device_lists
    WHERE user_nid IN (:user_nids[]) AND NOT {_IS_SHARING.format(user_nid="remote_device_lists.user_nid")}
"""  # noqa: S608
_UNSHARED_OF_ROOM: Final = f"""
    SELECT r.user_nid FROM memberships m JOIN remote_device_lists r ON r.user_nid = m.user_nid
    WHERE m.room_nid = :room_nid AND m.membership = 'join'
        AND NOT {_IS_SHARING.format(user_nid="r.user_nid")}
"""  # noqa: S608
_FORGET: Final = (
    "DELETE FROM cross_signing_keys WHERE user_nid IN (:user_nids[])",
    "DELETE FROM remote_device_lists WHERE user_nid IN (:user_nids[])",
)
_MEASURE: Final = """
    SELECT COUNT(*), CAST(COALESCE(SUM(LENGTH(keys)), 0) AS BIGINT) FROM remote_devices WHERE user_nid = :user_nid
"""
_MEASURE_KEYS: Final = """
    SELECT user_nid, CAST(SUM(size) AS BIGINT) FROM (
        SELECT user_nid, LENGTH(keys) AS size FROM remote_devices WHERE user_nid IN (:user_nids[])
        UNION ALL
        SELECT user_nid, LENGTH(json) FROM cross_signing_keys WHERE user_nid IN (:user_nids[])
    ) kept WHERE size > 0 GROUP BY user_nid
"""
_REMOTE_DEVICES: Final = """
    SELECT user_nid, device_id, display_name, keys FROM remote_devices
    WHERE user_nid IN (:user_nids[]) ORDER BY user_nid, device_id
"""
_UPSERT_REMOTE_DEVICE: Final = """
    INSERT INTO remote_devices (user_nid, device_id, display_name, keys)
    VALUES (:user_nid, :device_id, :display_name, :keys)
    ON CONFLICT (user_nid, device_id) DO UPDATE SET display_name = excluded.display_name, keys = excluded.keys
"""
_DELETE_REMOTE_DEVICE: Final = """
    DELETE FROM remote_devices WHERE user_nid = :user_nid AND device_id = :device_id
"""
_DELETE_REMOTE_DEVICES: Final = "DELETE FROM remote_devices WHERE user_nid = :user_nid"


def insert_device_change(txn: WriteTxn, user_nid: int, device_id: DeviceID | None) -> int:
    """Note that a local user's device changed (None: cross-signing keys or signatures); the position."""
    position = _set_version(txn, user_nid)
    txn.execute(_INSERT_CHANGE, position=position, user_nid=user_nid, device_id=device_id)
    return position


def list_changed_users(txn: ReadTxn, since: int, up_to: int) -> list[int]:
    """Users (local and remote) whose newest change lies in (since, up_to], oldest first."""
    return [user_nid for (user_nid,) in txn.all(_CHANGED_USERS, since=since, up_to=up_to)]


def list_device_changes(txn: ReadTxn, since: int, up_to: int, limit: int) -> list[DeviceChange]:
    """What is to be told to other servers, oldest first; which of them, the rooms of the user tell."""
    return [DeviceChange(*row) for row in txn.all(_CHANGES, since=since, up_to=up_to, limit=limit)]


def has_device_changes(txn: ReadTxn, since: int, upto: int) -> bool:
    """Whether there is any after one position and up to another."""
    return txn.value(_HAS_CHANGES, since=since, upto=upto) is not None


def find_previous_change(txn: ReadTxn, user_nid: int, before: int) -> int | None:
    """The user's change of a device before this one: the `prev_id` of the update. A server that missed it asks
    for the list.
    """
    value: int | None = txn.value(_PREVIOUS, user_nid=user_nid, before=before)
    return value


def find_newest_change(txn: ReadTxn, user_nid: int) -> DeviceChange | None:
    """The newest change of a device: its position is the `stream_id` of the user's list."""
    row = txn.first(_NEWEST, user_nid=user_nid)
    return None if row is None else DeviceChange(*row)


def prune_device_changes(txn: WriteTxn, user_nids: Collection[int], told: int) -> None:
    """Forget changes of users that were told (those up to a position), but for the newest of a device."""
    for batch in in_batches(list(user_nids)):
        txn.execute(_PRUNE, user_nids=batch, told=told)


def shares_a_room(txn: ReadTxn, user_nid: int) -> bool:
    """Whether a user of this server is in a room with the user."""
    return txn.value(_SHARES, user_nid=user_nid) is not None


def find_remote_list(txn: ReadTxn, user_nid: int) -> RemoteList | None:
    """None: this user's devices are not followed."""
    row = txn.first(_FIND_REMOTE, user_nid=user_nid)
    return None if row is None else RemoteList(row[0], bool(row[1]))


def list_fresh(txn: ReadTxn, user_nids: Collection[int]) -> set[int]:
    """Of these remote users, those whose devices can be answered for without asking their server."""
    nids = list(user_nids)
    return {nid for batch in in_batches(nids) for (nid,) in txn.all(_LIST_FRESH, user_nids=batch)}


def list_strangers(txn: ReadTxn, user_nids: Collection[int]) -> list[int]:
    """Of these remote users, those who share a room with this server and are not followed."""
    nids = list(user_nids)
    return [nid for batch in in_batches(nids) for (nid,) in txn.all(_STRANGERS, user_nids=batch)]


def follow(txn: WriteTxn, user_nids: Collection[int]) -> None:
    """Begin to follow those remote users that still share a room: their lists are to be asked for."""
    strangers = sorted(list_strangers(txn, user_nids))
    if strangers:
        heard = txn.next_position()
        txn.execute_many(_FOLLOW, [{"user_nid": nid, "heard": heard} for nid in strangers])
        txn.hint(Kind.JOB, 0)


def forget_unshared(txn: WriteTxn, user_nids: Collection[int]) -> None:
    """Forget the devices and keys of those remote users with whom no room is shared any more."""
    for batch in in_batches(list(user_nids)):
        _forget(txn, [nid for (nid,) in txn.all(_UNSHARED, user_nids=batch)])


def forget_unshared_of_room(txn: WriteTxn, room_nid: int) -> None:
    """The same for all members of a room that this server has left. Cost follows the room's size."""
    _forget(txn, [nid for (nid,) in txn.all(_UNSHARED_OF_ROOM, room_nid=room_nid)])


def replace_remote_devices(
    txn: WriteTxn, asked: Resync, stream_id: int, devices: Sequence[RemoteDevice]
) -> bool:
    """Store a whole list as the user's server gave it; False, and nothing done, if nobody follows it any more.

    It is fresh from now on, unless the server told of another change since it was asked.
    """
    if not txn.execute(_SYNCHRONIZED, user_nid=asked.user_nid, heard=asked.heard, stream_id=stream_id):
        return False
    txn.execute(_DELETE_REMOTE_DEVICES, user_nid=asked.user_nid)
    txn.execute_many(_UPSERT_REMOTE_DEVICE, [_remote(asked.user_nid, device) for device in devices])
    return True


def upsert_remote_device(txn: WriteTxn, user_nid: int, stream_id: int, device: RemoteDevice) -> None:
    """Apply an update whose predecessors were all applied."""
    txn.execute(_SET_STREAM_ID, user_nid=user_nid, stream_id=stream_id)
    txn.execute(_UPSERT_REMOTE_DEVICE, **_remote(user_nid, device))
    _set_version(txn, user_nid)


def delete_remote_device(txn: WriteTxn, user_nid: int, stream_id: int, device_id: DeviceID) -> None:
    """Apply an update with `deleted`."""
    txn.execute(_SET_STREAM_ID, user_nid=user_nid, stream_id=stream_id)
    txn.execute(_DELETE_REMOTE_DEVICE, user_nid=user_nid, device_id=device_id)
    _set_version(txn, user_nid)


def mark_changed(txn: WriteTxn, user_nid: int) -> None:
    """Tell clients that a remote user's keys changed, when nothing of it is stored here."""
    _set_version(txn, user_nid)


def mark_stale(txn: WriteTxn, user_nid: int) -> None:
    """The list of a followed user has to be asked for again: an update was missed.

    Clients are told at once, so that they ask for the keys before they send to devices that are out of date.
    """
    txn.execute(_MARK_STALE, user_nid=user_nid, heard=_set_version(txn, user_nid))
    txn.hint(Kind.JOB, 0)


def postpone_resync(txn: WriteTxn, asked: Resync, failures: int, retry_ms: int) -> None:
    """The user's server did not answer: do not ask before `retry_ms`, unless it tells of a change."""
    txn.execute(_POSTPONE, user_nid=asked.user_nid, heard=asked.heard, failures=failures, retry_ms=retry_ms)


def hasten_resyncs(txn: WriteTxn, server_nid: int) -> None:
    """The server is in order again: ask it now for what was postponed."""
    if txn.execute(_HASTEN, server_nid=server_nid):
        txn.hint(Kind.JOB, 0)


def list_stale(txn: ReadTxn, now_ms: int, latest_ms: int, busy: Collection[int], limit: int) -> list[Resync]:
    """What is to be asked for now, longest due first, but for users of the servers that are `busy`. Due is, too, what
    was put off beyond `latest_ms`: the clock was set back since."""
    due = txn.all(_LIST_STALE, after_ms=-1, upto_ms=now_ms, busy=[0, *busy], limit=limit)
    lost = txn.all(_LIST_STALE, after_ms=latest_ms, upto_ms=_FOREVER_MS, busy=[0, *busy], limit=limit)
    return [Resync(*row) for row in (*due, *lost)][:limit]


def list_due(txn: ReadTxn, user_nids: Collection[int], now_ms: int, latest_ms: int) -> list[Resync]:
    """Of the lists of these users what is to be asked for now: see `list_stale`."""
    nids = list(user_nids)
    return [
        Resync(*row)
        for batch in in_batches(nids)
        for row in txn.all(_LIST_DUE, user_nids=batch, now_ms=now_ms, latest_ms=latest_ms)
    ]


def find_next_retry_ms(txn: ReadTxn, now_ms: int) -> int | None:
    """When the next list that was postponed is due; None: there is none."""
    value: int | None = txn.value(_NEXT_RETRY, now_ms=now_ms)
    return value


def list_remote_devices(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, list[RemoteDevice]]:
    """user_nid -> devices as last heard of. Every user asked for has an entry."""
    found: dict[int, list[RemoteDevice]] = {nid: [] for nid in user_nids}
    for batch in in_batches(list(found)):
        for user_nid, *rest in txn.all(_REMOTE_DEVICES, user_nids=batch):
            found[user_nid].append(RemoteDevice(*rest))
    return found


def measure_remote_devices(txn: ReadTxn, user_nid: int) -> tuple[int, int]:
    """How many devices a remote user has, as far as heard, and how many bytes their keys."""
    row = txn.first(_MEASURE, user_nid=user_nid)
    return (0, 0) if row is None else (row[0], row[1])


def measure_keys(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, int]:
    """How many bytes of keys are kept of remote users, cross-signing keys included. Who has none is left out."""
    nids = list(user_nids)
    return {
        user_nid: size
        for batch in in_batches(nids)
        for user_nid, size in txn.all(_MEASURE_KEYS, user_nids=batch)
    }


def _set_version(txn: WriteTxn, user_nid: int) -> int:
    position = txn.next_position()
    txn.execute(_SET_VERSION, user_nid=user_nid, position=position)
    txn.hint(Kind.DEVICE_LIST, user_nid)
    return position


def _forget(txn: WriteTxn, user_nids: Sequence[int]) -> None:
    for batch in in_batches(user_nids):
        for sql in _FORGET:
            txn.execute(sql, user_nids=batch)
    # For clients that hear of nothing until the user is back: what changed meanwhile, nobody told us.
    for user_nid in sorted(user_nids):
        _set_version(txn, user_nid)


def _remote(user_nid: int, device: RemoteDevice) -> dict[str, object]:
    return {"user_nid": user_nid, **msgspec.structs.asdict(device)}
