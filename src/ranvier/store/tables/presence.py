"""Presence of local and remote users: the outcome over all devices of a user, one row each.

Table: presence. Owner: services.ephemeral. Growth: one row a user.
Index -> query: by_position -> what changed since P, for sync and other servers; not_offline -> who is to
time out, who is present.

Spec: client-server API, "Presence"; server-server API, "Presence".
"""

from collections.abc import Collection
from enum import Enum
from typing import Final

import msgspec

from ranvier.store.database import Kind, ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches


class PresenceState(Enum):
    ONLINE = "online"
    UNAVAILABLE = "unavailable"
    OFFLINE = "offline"


class Presence(msgspec.Struct, frozen=True):
    user_nid: int
    state: PresenceState
    status_msg: bytes | None  # a JSON string
    currently_active: bool
    last_active_ms: int
    is_local: bool


MAX_LOOKED_AT: Final = 10_000
"""Of those who are present: whether they share a room with somebody."""

_COLUMNS: Final = "user_nid, state, status_msg, currently_active, last_active_ms, is_local"
_SET: Final = f"""
    INSERT INTO presence ({_COLUMNS}, position)
    VALUES (:user_nid, :state, :status_msg, :currently_active, :last_active_ms, :is_local, :position)
    ON CONFLICT (user_nid) DO UPDATE SET state = excluded.state, status_msg = excluded.status_msg,
        currently_active = excluded.currently_active, last_active_ms = excluded.last_active_ms,
        position = excluded.position
"""  # noqa: S608
_TOUCH: Final = """
    UPDATE presence SET last_active_ms = :last_active_ms
    WHERE user_nid = :user_nid AND last_active_ms < :last_active_ms
"""
_LIST: Final = f"SELECT {_COLUMNS} FROM presence WHERE user_nid IN (:user_nids[]) ORDER BY user_nid"  # noqa: S608
_CHANGES: Final = f"""
    SELECT {_COLUMNS} FROM presence WHERE position > :since AND position <= :up_to ORDER BY position
"""  # noqa: S608
_IDLE: Final = f"""
    SELECT {_COLUMNS} FROM presence
    WHERE state <> 'offline' AND last_active_ms <= :before_ms ORDER BY last_active_ms LIMIT :limit
"""  # noqa: S608
# By the rooms of each who is present, up to the first that is the user's as well: see `memberships`, _SHARING_AMONG.
_PRESENT: Final = f"""
    SELECT {_COLUMNS} FROM (
        SELECT {_COLUMNS} FROM presence WHERE state <> 'offline' ORDER BY last_active_ms DESC LIMIT {MAX_LOOKED_AT}
    ) p
    WHERE p.user_nid <> :user_nid AND EXISTS (
        SELECT 1 FROM memberships b
        WHERE b.user_nid = p.user_nid AND b.membership = 'join' AND +b.room_nid IN (
            SELECT a.room_nid FROM memberships a WHERE a.user_nid = :user_nid AND a.membership = 'join'
        )
    )
    ORDER BY p.last_active_ms DESC LIMIT :limit
"""  # noqa: S608


def set_presence(txn: WriteTxn, presence: Presence) -> int:
    """Store what others are to see from now on; the position. Call it for changes only, they reach many."""
    position = txn.next_position()
    txn.execute(
        _SET,
        user_nid=presence.user_nid,
        state=presence.state.value,
        status_msg=presence.status_msg,
        currently_active=presence.currently_active,
        last_active_ms=presence.last_active_ms,
        is_local=presence.is_local,
        position=position,
    )
    txn.hint(Kind.PRESENCE, presence.user_nid)
    return position


def touch_presence(txn: WriteTxn, user_nid: int, last_active_ms: int) -> None:
    """The user is as active as before: only the time moves, and nobody is told."""
    txn.execute(_TOUCH, user_nid=user_nid, last_active_ms=last_active_ms)


def list_presence(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, Presence]:
    """user_nid -> presence; a user of whom nothing is known is left out."""
    return {
        row[0]: _presence(row)
        for batch in in_batches(list(user_nids))
        for row in txn.all(_LIST, user_nids=batch)
    }


def list_presence_changes(txn: ReadTxn, since: int, up_to: int) -> list[Presence]:
    """What changed in (since, up_to], oldest first; who may see it, the rooms they share tell."""
    return [_presence(row) for row in txn.all(_CHANGES, since=since, up_to=up_to)]


def list_idle(txn: ReadTxn, before_ms: int, limit: int) -> list[Presence]:
    """Users who are not offline and were last active before a time, longest first."""
    return [_presence(row) for row in txn.all(_IDLE, before_ms=before_ms, limit=limit)]


def list_present(txn: ReadTxn, user_nid: int, limit: int) -> list[Presence]:
    """Others who are not offline and share a joined room with the user; who was active last comes first.

    Cost: the rooms of those who are present, each up to the first that they share.
    """
    return [_presence(row) for row in txn.all(_PRESENT, user_nid=user_nid, limit=limit)]


def _presence(row: Row) -> Presence:
    user_nid, state, status_msg, currently_active, last_active_ms, is_local = row
    return Presence(
        user_nid, PresenceState(state), status_msg, bool(currently_active), last_active_ms, bool(is_local)
    )
