"""Where users want to be notified: push gateways and mail addresses.

Table: pushers. Owner: services.push. Growth: one row a client.
Index -> query: UNIQUE (app_id, pushkey, user) -> set and delete; by_user -> list; pushers go with their
device.

Spec: client-server API, "Push Notifications": POST /pushers/set; push gateway API, "rejected".
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.store.database import Kind, ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches


class PusherKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sets."""

    kind: str
    app_id: str
    pushkey: str
    app_display_name: str
    device_display_name: str
    profile_tag: str
    lang: str
    data: bytes  # JSON
    is_enabled: bool = True


class Pusher(msgspec.Struct, frozen=True):
    pusher_nid: int
    user_nid: int
    device_nid: int | None
    created_ms: int
    pushed_nid: int  # events up to this one are dealt with
    failing_since_ms: int | None  # None: the last delivery went well
    retry_ms: int
    due_ms: int | None  # when to tell what is new, where that waits; None: nothing does
    told_ms: int | None  # when the user was told last
    gap_ms: int  # for how long not to tell again, as long as nothing is read
    keys: PusherKeys


_COLUMNS: Final = """pusher_nid, user_nid, device_nid, created_ms, pushed_nid, failing_since_ms, retry_ms,
    due_ms, told_ms, gap_ms, kind, app_id, pushkey, app_display_name, device_display_name, profile_tag, lang, data,
    is_enabled"""
_SET: Final = f"""
    INSERT INTO pushers ({_COLUMNS})
    VALUES (:pusher_nid, :user_nid, :device_nid, :created_ms, :pusher_nid, NULL, 0, NULL, NULL, 0, :kind, :app_id,
        :pushkey, :app_display_name, :device_display_name, :profile_tag, :lang, :data, :is_enabled)
    ON CONFLICT (app_id, pushkey, user_nid) DO UPDATE SET device_nid = excluded.device_nid, kind =
        excluded.kind,
        app_display_name = excluded.app_display_name, device_display_name = excluded.device_display_name,
        profile_tag = excluded.profile_tag, lang = excluded.lang, data = excluded.data,
        is_enabled = excluded.is_enabled, failing_since_ms = NULL, retry_ms = 0
"""  # noqa: S608
_TAKE_OVER: Final = """
    DELETE FROM pushers WHERE app_id = :app_id AND pushkey = :pushkey AND user_nid <> :user_nid RETURNING
        user_nid
"""
_DELETE: Final = "DELETE FROM pushers WHERE app_id = :app_id AND pushkey = :pushkey AND user_nid = :user_nid"
_DELETE_OTHERS: Final = """
    DELETE FROM pushers WHERE user_nid = :user_nid AND (device_nid IS NULL OR device_nid <> :device_nid)
"""
_DELETE_OF_USER: Final = "DELETE FROM pushers WHERE user_nid = :user_nid"
_LIST: Final = f"SELECT {_COLUMNS} FROM pushers WHERE user_nid = :user_nid ORDER BY pusher_nid"  # noqa: S608
_FIND: Final = f"SELECT {_COLUMNS} FROM pushers WHERE pusher_nid = :pusher_nid"  # noqa: S608
_IN_ROOMS: Final = """
    SELECT DISTINCT p.pusher_nid FROM memberships m JOIN pushers p ON p.user_nid = m.user_nid
    WHERE m.room_nid IN (:room_nids[]) AND m.membership IN ('join', 'invite') AND m.is_local = 1
"""
_LIST_OF_USERS: Final = f"SELECT {_COLUMNS} FROM pushers WHERE user_nid IN (:user_nids[]) ORDER BY pusher_nid"  # noqa: S608
_LIST_ALL: Final = (
    f"SELECT {_COLUMNS} FROM pushers WHERE pusher_nid > :after ORDER BY pusher_nid LIMIT :limit"  # noqa: S608
)
_SUCCEED: Final = """
    UPDATE pushers SET pushed_nid = :pushed_nid, failing_since_ms = NULL, retry_ms = 0, due_ms = NULL
    WHERE pusher_nid = :pusher_nid AND pushed_nid <= :pushed_nid
"""
_CLAIM: Final = """
    UPDATE pushers SET retry_ms = :until_ms
    WHERE pusher_nid = :pusher_nid AND pushed_nid = :pushed_nid AND retry_ms <= :now_ms AND is_enabled = 1
    RETURNING pusher_nid
"""
_TELL: Final = "UPDATE pushers SET told_ms = :now_ms, gap_ms = :gap_ms WHERE pusher_nid = :pusher_nid"
_SCHEDULE: Final = "UPDATE pushers SET due_ms = COALESCE(due_ms, :due_ms) WHERE pusher_nid = :pusher_nid"
_FAIL: Final = """
    UPDATE pushers SET failing_since_ms = COALESCE(failing_since_ms, :now_ms), retry_ms = :retry_ms
    WHERE pusher_nid = :pusher_nid
"""


def set_pusher(
    txn: WriteTxn, user_nid: int, device_nid: int | None, keys: PusherKeys, now_ms: int, *, append: bool
) -> None:
    """Add or replace the user's pusher of this app_id and pushkey. A new one starts with events after now.

    Unless `append`, other users' pushers with the same app_id and pushkey go: the device is this user's now.
    """
    if not append:
        for (other_nid,) in txn.all(_TAKE_OVER, app_id=keys.app_id, pushkey=keys.pushkey, user_nid=user_nid):
            txn.hint(Kind.PUSH, other_nid)
    txn.execute(
        _SET,
        pusher_nid=txn.next_position(),
        user_nid=user_nid,
        device_nid=device_nid,
        created_ms=now_ms,
        **msgspec.structs.asdict(keys),
    )
    txn.hint(Kind.PUSH, user_nid)


def delete_pusher(txn: WriteTxn, user_nid: int, app_id: str, pushkey: str) -> bool:
    """The user took it back, or its gateway rejected it; False if there is none."""
    txn.hint(Kind.PUSH, user_nid)
    return txn.execute(_DELETE, user_nid=user_nid, app_id=app_id, pushkey=pushkey) == 1


def delete_other_pushers(txn: WriteTxn, user_nid: int, device_nid: int) -> None:
    """Those that other devices made: what a changed password does, unless the client asks otherwise."""
    txn.execute(_DELETE_OTHERS, user_nid=user_nid, device_nid=device_nid)


def delete_pushers_of_user(txn: WriteTxn, user_nid: int) -> None:
    txn.execute(_DELETE_OF_USER, user_nid=user_nid)


def list_pushers(txn: ReadTxn, user_nid: int) -> list[Pusher]:
    return [_pusher(row) for row in txn.all(_LIST, user_nid=user_nid)]


def find_pusher(txn: ReadTxn, pusher_nid: int) -> Pusher | None:
    row = txn.first(_FIND, pusher_nid=pusher_nid)
    return None if row is None else _pusher(row)


def list_pushers_in_rooms(txn: ReadTxn, room_nids: Collection[int]) -> set[int]:
    """pusher_nid of everybody who is in one of these rooms, or invited. Cost: their local members."""
    return {nid for batch in in_batches(list(room_nids)) for (nid,) in txn.all(_IN_ROOMS, room_nids=batch)}


def list_pushers_of_users(txn: ReadTxn, user_nids: Collection[int]) -> list[Pusher]:
    return [
        _pusher(row)
        for batch in in_batches(list(user_nids))
        for row in txn.all(_LIST_OF_USERS, user_nids=batch)
    ]


def list_all_pushers(txn: ReadTxn, after: int, limit: int) -> list[Pusher]:
    """A page of all there are, to begin with at the start. `after`: the last pusher_nid seen, 0 to start."""
    return [_pusher(row) for row in txn.all(_LIST_ALL, after=after, limit=limit)]


def note_pushed(txn: WriteTxn, pusher_nid: int, pushed_nid: int) -> None:
    """Events up to `pushed_nid` are delivered, or were not worth it."""
    txn.execute(_SUCCEED, pusher_nid=pusher_nid, pushed_nid=pushed_nid)


def note_told(txn: WriteTxn, pusher_nid: int, pushed_nid: int, now_ms: int, gap_ms: int) -> None:
    """The user was told of all up to `pushed_nid`, and is not to be told again for `gap_ms`."""
    note_pushed(txn, pusher_nid, pushed_nid)
    txn.execute(_TELL, pusher_nid=pusher_nid, now_ms=now_ms, gap_ms=gap_ms)


def schedule_push(txn: WriteTxn, pusher_nid: int, due_ms: int) -> None:
    """There is something new, of which to tell later; at an earlier set time if there is one."""
    txn.execute(_SCHEDULE, pusher_nid=pusher_nid, due_ms=due_ms)


def claim_pusher(txn: WriteTxn, pusher: Pusher, now_ms: int, until_ms: int) -> bool:
    """Take a pusher that is due and as far as it was read: until then no process but the caller's delivers to
    it. False: another process has it or was quicker, or its gateway failed and is not to be tried yet."""
    nid, pushed_nid = pusher.pusher_nid, pusher.pushed_nid
    row = txn.first(_CLAIM, pusher_nid=nid, pushed_nid=pushed_nid, now_ms=now_ms, until_ms=until_ms)
    return row is not None


def note_push_failed(txn: WriteTxn, pusher_nid: int, now_ms: int, retry_ms: int) -> None:
    txn.execute(_FAIL, pusher_nid=pusher_nid, now_ms=now_ms, retry_ms=retry_ms)


def _pusher(row: Row) -> Pusher:
    kind, app_id, pushkey, app_name, device_name, profile_tag, lang, data, is_enabled = row[10:]
    keys = PusherKeys(
        kind=kind,
        app_id=app_id,
        pushkey=pushkey,
        app_display_name=app_name,
        device_display_name=device_name,
        profile_tag=profile_tag,
        lang=lang,
        data=data,
        is_enabled=bool(is_enabled),
    )
    nid, user_nid, device_nid, created_ms, pushed_nid, failing_since_ms, retry_ms, due_ms, told_ms, gap_ms = (
        row[:10]
    )
    return Pusher(
        nid,
        user_nid,
        device_nid,
        created_ms,
        pushed_nid,
        failing_since_ms,
        retry_ms,
        due_ms,
        told_ms,
        gap_ms,
        keys,
    )
