"""Accounts as administrators look for them.

Tables read: accounts with users, profile_fields, devices, membership_changes, events. `user_type` of accounts is
written here. Every page of a list walks all accounts: nobody but an administrator asks.
"""

from typing import Final, Literal

import msgspec

from ranvier.core.identifiers import EventID, UserID
from ranvier.store.database import ReadTxn, Row, WriteTxn
from ranvier.store.tables.patterns import like

Order = Literal[
    "name",
    "is_guest",
    "admin",
    "user_type",
    "deactivated",
    "shadow_banned",
    "displayname",
    "avatar_url",
    "creation_ts",
    "last_seen_ts",
    "locked",
    "suspended",
    "erased",
]


class UserFilter(msgspec.Struct, frozen=True, kw_only=True):
    """None: whichever."""

    name: str | None = None  # part of the local part or of the display name
    user_id: str | None = None  # part of the user id
    is_guest: bool | None = None
    is_admin: bool | None = None
    is_deactivated: bool | None = None
    is_locked: bool | None = None
    is_suspended: bool | None = None
    not_user_types: tuple[str, ...] = ()  # '': without a type


class ListedUser(msgspec.Struct, frozen=True):
    user_nid: int
    user_id: UserID
    kind: str
    appservice_id: str | None
    created_ms: int
    deactivated_ms: int | None
    is_erased: bool
    is_locked: bool
    is_suspended: bool
    user_type: str | None
    last_seen_ms: int | None
    displayname: bytes | None  # JSON
    avatar_url: bytes | None  # JSON


_SELECT: Final = """
    SELECT a.user_nid, u.user_id, a.kind, a.appservice_id, a.created_ms, a.deactivated_ms, a.is_erased, a.is_locked,
        a.is_suspended, a.user_type,
        (SELECT MAX(d.last_seen_ms) FROM devices d WHERE d.user_nid = a.user_nid) AS last_seen_ms,
        n.value AS displayname, p.value AS avatar_url
"""
_FROM: Final = """
    FROM accounts a JOIN users u ON u.user_nid = a.user_nid
        LEFT JOIN profile_fields n ON n.user_nid = a.user_nid AND n.field = 'displayname'
        LEFT JOIN profile_fields p ON p.user_nid = a.user_nid AND p.field = 'avatar_url'
    WHERE 1 = 1
"""
_FIND: Final = f"{_SELECT} {_FROM} AND u.user_id = :user_id"
_ORDERS: Final[dict[str, str]] = {
    "name": "u.user_id",
    "is_guest": "CASE WHEN a.kind = 'guest' THEN 1 ELSE 0 END",
    "admin": "CASE WHEN a.kind = 'admin' THEN 1 ELSE 0 END",
    "user_type": "COALESCE(a.user_type, '')",
    "deactivated": "CASE WHEN a.deactivated_ms IS NULL THEN 0 ELSE 1 END",
    "shadow_banned": "u.user_id",
    "displayname": "COALESCE({decoded}n.value{end_decoded}, '')",
    "avatar_url": "COALESCE({decoded}p.value{end_decoded}, '')",
    "creation_ts": "a.created_ms",
    "last_seen_ts": "COALESCE((SELECT MAX(d.last_seen_ms) FROM devices d WHERE d.user_nid = a.user_nid), 0)",
    "locked": "a.is_locked",
    "suspended": "a.is_suspended",
    "erased": "a.is_erased",
}
_SET_TYPE: Final = "UPDATE accounts SET user_type = :user_type WHERE user_nid = :user_nid"
_JOINS: Final = """
    SELECT COUNT(DISTINCT c.room_nid) FROM membership_changes c JOIN events e ON e.event_nid = c.event_nid
    WHERE c.user_nid = :user_nid AND c.membership = 'join' AND c.previous <> 'join'
        AND e.origin_server_ts >= :from_ms
"""
# Without an index by sender: the rooms that the user ever was in, each from that time on.
_MEMBER_EVENTS: Final = """
    SELECT e.event_nid FROM events e
    WHERE e.room_nid IN (SELECT c.room_nid FROM membership_changes c WHERE c.user_nid = :user_nid)
        AND e.room_order IS NOT NULL AND e.origin_server_ts >= :from_ms
        AND e.sender_nid = :user_nid AND e.type = 'm.room.member'
"""
_KEPT: Final = (
    "m.room.create",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.tombstone",
    "m.room.redaction",
)
"""Types of events that keep a room in order: what they say is not of the user alone."""

_SENT: Final = """
    SELECT e.event_nid, e.event_id FROM events e
    WHERE e.room_nid = :room_nid AND e.room_order IS NOT NULL AND e.sender_nid = :sender_nid
        AND e.redacted_by IS NULL AND e.type NOT IN (:kept[])
        AND e.origin_server_ts >= :after_ms AND e.origin_server_ts <= :before_ms
    ORDER BY e.room_order DESC LIMIT :limit
"""


def find_user(txn: ReadTxn, user_id: UserID) -> ListedUser | None:
    """An account of this server, of whatever kind."""
    row = txn.first(_FIND, user_id=user_id)
    return None if row is None else _user(row)


def list_users(
    txn: ReadTxn, wanted: UserFilter, order: Order, *, backwards: bool, limit: int, offset: int
) -> list[ListedUser]:
    """A page. Who is equal in the order stands by user id."""
    condition, params = _condition(wanted)
    direction = "DESC" if backwards else "ASC"
    tie = "" if order == "name" else ", u.user_id"
    sql = f"{_SELECT} {_FROM} {condition} ORDER BY {_ORDERS[order]} {direction}{tie} LIMIT :limit OFFSET :offset"
    return [_user(row) for row in txn.all(sql, limit=limit, offset=offset, **params)]


def count_users(txn: ReadTxn, wanted: UserFilter) -> int:
    """How many all pages have together."""
    condition, params = _condition(wanted)
    return int(txn.value(f"SELECT COUNT(*) {_FROM} {condition}", **params))


def set_user_type(txn: WriteTxn, user_nid: int, user_type: str | None) -> None:
    txn.execute(_SET_TYPE, user_nid=user_nid, user_type=user_type)


def count_joined_rooms_since(txn: ReadTxn, user_nid: int, from_ms: int) -> int:
    """The rooms that a local user joined since a time, those that were left again included."""
    return int(txn.value(_JOINS, user_nid=user_nid, from_ms=from_ms))


def list_member_events_since(txn: ReadTxn, user_nid: int, from_ms: int) -> list[int]:
    """The member events that a local user sent since a time. Cost: walks that time in all rooms of the user."""
    return [row[0] for row in txn.all(_MEMBER_EVENTS, user_nid=user_nid, from_ms=from_ms)]


def list_redactable(
    txn: ReadTxn, room_nid: int, sender_nid: int, *, after_ms: int, before_ms: int, limit: int
) -> list[tuple[int, EventID]]:
    """(event_nid, event_id) of what a user sent and nobody redacted, the newest first, but for events that keep
    the room in order. Cost: walks the room's timeline."""
    return [
        (nid, event_id)
        for nid, event_id in txn.all(
            _SENT,
            room_nid=room_nid,
            sender_nid=sender_nid,
            after_ms=after_ms,
            before_ms=before_ms,
            limit=limit,
            kept=list(_KEPT),
        )
    ]


def _condition(wanted: UserFilter) -> tuple[str, dict[str, object]]:
    parts: list[str] = []
    params: dict[str, object] = {}
    if wanted.name is not None:
        # The local part ends before the server's name, in which nobody looks for people.
        parts.append(
            "(LOWER(u.user_id) LIKE :name_in_id ESCAPE '!' "
            "OR LOWER({decoded}n.value{end_decoded}) LIKE :name ESCAPE '!')"
        )
        pattern = like(wanted.name.lower())
        params |= {"name": f"%{pattern}%", "name_in_id": f"@%{pattern}%:%"}
    elif wanted.user_id is not None:
        parts.append("LOWER(u.user_id) LIKE :user_id ESCAPE '!'")
        params["user_id"] = f"%{like(wanted.user_id.lower())}%"
    for value, yes, no in (
        (wanted.is_guest, "a.kind = 'guest'", "a.kind <> 'guest'"),
        (wanted.is_admin, "a.kind = 'admin'", "a.kind <> 'admin'"),
        (wanted.is_deactivated, "a.deactivated_ms IS NOT NULL", "a.deactivated_ms IS NULL"),
        (wanted.is_locked, "a.is_locked = 1", "a.is_locked = 0"),
        (wanted.is_suspended, "a.is_suspended = 1", "a.is_suspended = 0"),
    ):
        if value is not None:
            parts.append(yes if value else no)
    if wanted.not_user_types:
        parts.append("COALESCE(a.user_type, '') NOT IN (:not_user_types[])")
        params["not_user_types"] = list(wanted.not_user_types)
    return "".join(f" AND {part}" for part in parts), params


def _user(row: Row) -> ListedUser:
    nid, user_id, kind, appservice, created, deactivated, erased, locked, suspended, *rest = row
    return ListedUser(
        nid,
        user_id,
        kind,
        appservice,
        created,
        deactivated,
        bool(erased),
        bool(locked),
        bool(suspended),
        *rest,
    )
