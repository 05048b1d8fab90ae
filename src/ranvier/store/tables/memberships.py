"""Who is what in which room.

Tables: memberships, membership_changes, room_servers. Written by `append` alone, except for is_forgotten.
Growth: one row for each user of a room; one for each change of a local user's membership; one a server of a
room.
Index -> query: (room, user) -> one user; (user, membership) -> rooms of a user; (room, membership, event) ->
members of a room; the partial one -> its local members; membership_changes -> what changed for a user since
a position.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from ranvier.core.identifiers import RoomID, ServerName, UserID, server_of
from ranvier.core.room_versions import get_room_version
from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables import device_lists
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.interned import Interner, intern_servers, intern_users
from ranvier.store.tables.notifications import start_counting, stop_counting

JOIN: Final = "join"
INVITE: Final = "invite"
KNOCK: Final = "knock"
LEAVE: Final = "leave"
BAN: Final = "ban"
MEMBERSHIPS: Final = frozenset((JOIN, INVITE, KNOCK, LEAVE, BAN))


class Membership(msgspec.Struct, frozen=True):
    """What a user is in a room."""

    room_nid: int
    user_nid: int
    membership: str
    event_nid: int
    position: int  # when it became so here
    is_forgotten: bool


class MembershipChange(msgspec.Struct, frozen=True):
    """A local user's membership changed."""

    room_nid: int
    position: int
    event_nid: int
    membership: str
    previous: str


_Old = tuple[str, int, int, int]
"""What is stored of a user in a room: membership, event_nid, position, is_forgotten."""


class MembershipUpdate(msgspec.Struct, frozen=True):
    """What a user's membership is from a position on, and by which event."""

    membership: str
    event_nid: int | None  # None: the state does not say any more
    position: int


class Applied(msgspec.Struct, frozen=True):
    """What changed in a room's counts, and the names that were used."""

    joined_delta: int
    invited_delta: int
    users: Mapping[UserID, int]
    servers: Mapping[ServerName, int]


NOTHING_APPLIED: Final = Applied(0, 0, {}, {})


class _MemberContent(msgspec.Struct):
    membership: object = None


class _MemberEvent(msgspec.Struct):
    content: _MemberContent


_COLUMNS: Final = "room_nid, user_nid, membership, event_nid, position, is_forgotten"
_VERSION: Final = "SELECT version FROM rooms WHERE room_nid = :room_nid"
_JSON: Final = "SELECT event_nid, json FROM events WHERE event_nid IN (:nids[])"
_OLD: Final = """
    SELECT user_nid, membership, event_nid, position, is_forgotten FROM memberships
    WHERE room_nid = :room_nid AND user_nid IN (:user_nids[])
"""
_UPSERT: Final = """
    INSERT INTO memberships (room_nid, user_nid, membership, event_nid, position, is_local, is_forgotten)
    VALUES (:room_nid, :user_nid, :membership, :event_nid, :position, :is_local, :is_forgotten)
    ON CONFLICT (room_nid, user_nid) DO UPDATE SET membership = excluded.membership,
        event_nid = excluded.event_nid, position = excluded.position, is_forgotten = excluded.is_forgotten
"""
_INSERT_CHANGE: Final = """
    INSERT INTO membership_changes (user_nid, position, room_nid, event_nid, membership, previous)
    VALUES (:user_nid, :position, :room_nid, :event_nid, :membership, :previous)
    ON CONFLICT (user_nid, position, room_nid) DO NOTHING
"""
_ADD_SERVER: Final = """
    INSERT INTO room_servers (room_nid, server_nid, joined_count) VALUES (:room_nid, :server_nid, :delta)
    ON CONFLICT (room_nid, server_nid) DO UPDATE
        SET joined_count = room_servers.joined_count + excluded.joined_count
"""
_DROP_SERVERS: Final = """
    DELETE FROM room_servers WHERE room_nid = :room_nid AND server_nid IN (:nids[]) AND joined_count <= 0
"""
_ONE: Final = f"SELECT {_COLUMNS} FROM memberships WHERE room_nid = :room_nid AND user_nid = :user_nid"  # noqa: S608
_SOME: Final = f"SELECT {_COLUMNS} FROM memberships WHERE room_nid = :room_nid AND user_nid IN (:user_nids[])"  # noqa: S608
_ROOMS: Final = (
    f"SELECT {_COLUMNS} FROM memberships WHERE user_nid = :user_nid AND membership IN (:memberships[])"  # noqa: S608
)
_JOINED_AMONG: Final = """
    SELECT r.room_id FROM rooms r JOIN memberships m ON m.room_nid = r.room_nid
    WHERE r.room_id IN (:room_ids[]) AND m.user_nid = :user_nid AND m.membership = 'join'
"""
_OF_USER_AMONG: Final = f"""
    SELECT {_COLUMNS} FROM memberships WHERE user_nid = :user_nid AND room_nid IN (:room_nids[])
"""  # noqa: S608
_MEMBERS: Final = """
    SELECT user_nid, event_nid FROM memberships
    WHERE room_nid = :room_nid AND membership = :membership ORDER BY event_nid LIMIT :limit
"""
_FIRST_MEMBERS: Final = """
    SELECT m.room_nid, m.user_nid, m.event_nid FROM memberships m JOIN (
        SELECT r.room_nid, (
            SELECT f.event_nid FROM memberships f
            WHERE f.room_nid = r.room_nid AND f.membership = :membership
            ORDER BY f.event_nid LIMIT 1 OFFSET :offset
        ) AS bound FROM rooms r WHERE r.room_nid IN (:room_nids[])
    ) b ON b.room_nid = m.room_nid
    WHERE m.membership = :membership AND m.event_nid <= COALESCE(b.bound, 9223372036854775807)
    ORDER BY m.room_nid, m.event_nid
"""
_ALL_MEMBERS: Final = f"SELECT {_COLUMNS} FROM memberships WHERE room_nid = :room_nid"  # noqa: S608
_LOCAL: Final = """
    SELECT user_nid FROM memberships
    WHERE room_nid = :room_nid AND membership IN (:memberships[]) AND is_local = 1
"""
_OF_SERVER: Final = """
    SELECT u.user_id FROM memberships m JOIN users u ON u.user_nid = m.user_nid
    WHERE m.room_nid = :room_nid AND u.server_nid = :server_nid
"""
_LOCAL_GUESTS: Final = """
    SELECT m.user_nid FROM memberships m JOIN accounts a ON a.user_nid = m.user_nid
    WHERE m.room_nid = :room_nid AND m.membership = 'join' AND m.is_local = 1 AND a.kind = 'guest'
"""
_CHANGES: Final = """
    SELECT room_nid, position, event_nid, membership, previous FROM membership_changes
    WHERE user_nid = :user_nid AND position > :after AND position <= :upto ORDER BY position
"""
_ROOM_CHANGES: Final = """
    SELECT room_nid, position, event_nid, membership, previous FROM membership_changes
    WHERE user_nid = :user_nid AND room_nid = :room_nid ORDER BY position
"""
_JOINS: Final = """
    SELECT position, user_nid, room_nid FROM membership_changes
    WHERE position > :after AND position <= :upto AND membership = 'join' AND previous <> 'join'
    ORDER BY position LIMIT :limit
"""
_STRIPPED: Final = "SELECT event_nid, json FROM stripped_states WHERE event_nid IN (:nids[])"
_FORGET: Final = """
    UPDATE memberships SET is_forgotten = 1
    WHERE room_nid = :room_nid AND user_nid = :user_nid AND membership IN ('leave', 'ban')
"""
_SERVERS: Final = """
    SELECT server_nid, joined_count FROM room_servers WHERE room_nid = :room_nid
    ORDER BY joined_count DESC, server_nid
"""
_IN_ROOM: Final = (
    "SELECT 1 FROM room_servers WHERE room_nid = :room_nid AND server_nid = :server_nid AND joined_count > 0"
)
_WITH_SERVER: Final = """
    SELECT room_nid FROM room_servers WHERE room_nid IN (:room_nids[]) AND server_nid = :server_nid
        AND joined_count > 0
"""
_JOINED_ROOMS_OF: Final = """
    SELECT DISTINCT room_nid FROM memberships WHERE user_nid IN (:user_nids[]) AND membership = 'join'
"""
_SHARED_ROOMS: Final = """
    SELECT a.room_nid FROM memberships a JOIN memberships b ON b.room_nid = a.room_nid
    WHERE a.user_nid = :user_nid AND a.membership = 'join' AND b.user_nid = :other_nid AND b.membership =
    'join'
    LIMIT :limit
"""
# By the rooms of each, up to the first that is the user's as well. The other way, or by pairs (which `+` keeps
# engines from), it would cost the user's rooms times `among`.
_SHARING_AMONG: Final = """
    SELECT u.user_nid FROM users u WHERE u.user_nid IN (:among[]) AND EXISTS (
        SELECT 1 FROM memberships b
        WHERE b.user_nid = u.user_nid AND b.membership = 'join' AND +b.room_nid IN (
            SELECT a.room_nid FROM memberships a WHERE a.user_nid = :user_nid AND a.membership = 'join'
        )
    )
"""
_MOVED: Final = """
    SELECT b.user_nid, b.membership FROM memberships a
    JOIN rooms r ON r.room_nid = a.room_nid AND r.newest_position > :since
    JOIN memberships b ON b.room_nid = a.room_nid AND b.position > :since AND b.position <= :up_to
    WHERE a.user_nid = :user_nid AND a.membership = 'join'
"""
_NEW_SERVERS: Final = """
    SELECT rs.server_nid FROM room_servers rs
    JOIN memberships m ON m.room_nid = rs.room_nid AND m.user_nid = :user_nid AND m.membership = 'join'
    WHERE rs.room_nid = :room_nid AND NOT EXISTS (
        SELECT 1 FROM memberships other
        JOIN room_servers there ON there.room_nid = other.room_nid AND there.server_nid = rs.server_nid
        WHERE other.user_nid = :user_nid AND other.membership = 'join' AND other.room_nid <> :room_nid
    )
"""
_SHARING_SERVERS: Final = """
    SELECT DISTINCT rs.server_nid FROM memberships a JOIN room_servers rs ON rs.room_nid = a.room_nid
    WHERE a.user_nid = :user_nid AND a.membership = 'join'
"""


def apply_memberships(
    txn: WriteTxn, interner: Interner, room_nid: int, updates: Mapping[UserID, MembershipUpdate]
) -> Applied:
    """Write what users are in the room from now on. Called by `append` alone.

    Effects: memberships, membership_changes, counted_rooms and a USER hint for local users, room_servers.
    Effects: the devices of remote users with whom no room is shared any more are forgotten.
    Cost: 3 statements for each 4,096 users, one for servers that joined or left, 3 for each local user who did.
    """
    users = intern_users(txn, interner, updates.keys())
    moves = _Moves()
    old = _old_memberships(txn, room_nid, list(users.values()))
    for user_id, update in updates.items():
        user_nid, server = users[user_id], server_of(user_id)
        if update.event_nid is not None or user_nid in old:
            is_local = server == interner.own_server
            moves.add(room_nid, user_nid, server, update, old.get(user_nid), is_local=is_local)
    txn.execute_many(_UPSERT, moves.rows)
    _apply_changes(txn, room_nid, moves.changes)
    servers = _apply_servers(txn, interner, room_nid, moves.joined_by_server)
    device_lists.forget_unshared(txn, moves.gone)
    if moves.joined_by_server[interner.own_server] < 0 and not list_local_members(txn, room_nid):
        device_lists.forget_unshared_of_room(txn, room_nid)
    return Applied(moves.counts[JOIN], moves.counts[INVITE], users, servers)


class _Moves:
    """What several users' moves come to."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []  # of local users
        self.gone: list[int] = []  # users of other servers who left
        self.counts: Counter[str] = Counter()
        self.joined_by_server: Counter[ServerName] = Counter()

    def add(
        self,
        room_nid: int,
        user_nid: int,
        server: ServerName,
        update: MembershipUpdate,
        old: _Old | None,
        *,
        is_local: bool,
    ) -> None:
        previous, event_nid, position, is_forgotten = old or (LEAVE, 0, update.position, 0)
        new = update.membership
        # A second invite or knock is news to the client; a join after a join is only a new profile.
        is_news = new != previous or new in (INVITE, KNOCK)
        row = {
            "room_nid": room_nid,
            "user_nid": user_nid,
            "membership": new,
            "event_nid": event_nid if update.event_nid is None else update.event_nid,
            "position": update.position if is_news else position,
            "is_local": int(is_local),
            "is_forgotten": is_forgotten if new in (LEAVE, BAN) else 0,
        }
        self.rows.append(row)
        self.counts[new] += 1
        self.counts[previous] -= 1
        self.joined_by_server[server] += (new == JOIN) - (previous == JOIN)
        if previous == JOIN != new and not is_local:
            self.gone.append(user_nid)
        if is_local and (is_news or old is None):
            self.changes.append({**row, "previous": previous})


def _apply_changes(txn: WriteTxn, room_nid: int, changes: Sequence[Mapping[str, Any]]) -> None:
    """Unread messages count for who is joined, from the change on; an answered invite is not unread any more."""
    if not changes:
        return
    keys = ("user_nid", "position", "room_nid", "event_nid", "membership", "previous")
    txn.execute_many(_INSERT_CHANGE, [{key: change[key] for key in keys} for change in changes])
    for change in changes:
        txn.hint(Kind.USER, change["user_nid"])
        if change["membership"] != JOIN:
            stop_counting(txn, room_nid, change["user_nid"])
        elif change["previous"] != JOIN:
            start_counting(txn, room_nid, change["user_nid"], change["position"])


def _old_memberships(txn: ReadTxn, room_nid: int, user_nids: list[int]) -> dict[int, _Old]:
    return {
        nid: (membership, event_nid, position, is_forgotten)
        for batch in in_batches(user_nids)
        for nid, membership, event_nid, position, is_forgotten in txn.all(
            _OLD, room_nid=room_nid, user_nids=batch
        )
    }


def _apply_servers(
    txn: WriteTxn, interner: Interner, room_nid: int, joined: Mapping[ServerName, int]
) -> dict[ServerName, int]:
    deltas = {server: delta for server, delta in joined.items() if delta}
    if deltas.keys() - {interner.own_server} and not _is_federated(txn, room_nid):
        # Users of other servers may be in the room; their servers take no part in it.
        deltas = {server: delta for server, delta in deltas.items() if server == interner.own_server}
    if not deltas:
        return {}
    servers = intern_servers(txn, interner, deltas.keys())
    txn.execute_many(
        _ADD_SERVER,
        [
            {"room_nid": room_nid, "server_nid": servers[server], "delta": delta}
            for server, delta in deltas.items()
        ],
    )
    for batch in in_batches([servers[server] for server, delta in deltas.items() if delta < 0]):
        txn.execute(_DROP_SERVERS, room_nid=room_nid, nids=batch)
    return servers


def _is_federated(txn: ReadTxn, room_nid: int) -> bool:
    return get_room_version(txn.value(_VERSION, room_nid=room_nid)).is_federated


def parse_membership(value: object) -> str:
    """The membership that an event's content names; whatever is none counts as having left."""
    return value if isinstance(value, str) and value in MEMBERSHIPS else LEAVE


def list_stored_memberships(txn: ReadTxn, event_nids: Collection[int]) -> dict[int, str]:
    """What stored m.room.member events say, by number."""
    return {
        nid: parse_membership(msgspec.json.decode(json, type=_MemberEvent).content.membership)
        for batch in in_batches(list(event_nids))
        for nid, json in txn.all(_JSON, nids=batch)
    }


def find_membership(txn: ReadTxn, room_nid: int, user_nid: int) -> Membership | None:
    """What the user is in the room, or None if there never was anything."""
    row = txn.first(_ONE, room_nid=room_nid, user_nid=user_nid)
    return None if row is None else _membership_of(row)


def list_memberships(txn: ReadTxn, room_nid: int, user_nids: Collection[int]) -> dict[int, Membership]:
    """What these users are in the room, by user_nid."""
    nids = list(user_nids)
    return {
        row[1]: _membership_of(row)
        for batch in in_batches(nids)
        for row in txn.all(_SOME, room_nid=room_nid, user_nids=batch)
    }


def list_rooms_of_user(
    txn: ReadTxn, user_nid: int, memberships: Collection[str] = (JOIN,)
) -> list[Membership]:
    """The rooms in which a user is one of `memberships`, forgotten ones included, in no order."""
    return [_membership_of(row) for row in txn.all(_ROOMS, user_nid=user_nid, memberships=list(memberships))]


def list_joined_among(txn: ReadTxn, user_nid: int, room_ids: Collection[RoomID]) -> set[RoomID]:
    """Those of the rooms to which the user is joined."""
    return {
        row[0]
        for batch in in_batches(list(room_ids))
        for row in txn.all(_JOINED_AMONG, user_nid=user_nid, room_ids=batch)
    }


def list_memberships_of_user(
    txn: ReadTxn, user_nid: int, room_nids: Collection[int]
) -> dict[int, Membership]:
    """What a user is in each of these rooms, by room_nid. Cost: 1 query per 4,096."""
    return {
        row[0]: _membership_of(row)
        for batch in in_batches(list(room_nids))
        for row in txn.all(_OF_USER_AMONG, user_nid=user_nid, room_nids=batch)
    }


def list_joined_rooms_of(txn: ReadTxn, user_nids: Collection[int]) -> set[int]:
    """The rooms in which any of these users is joined."""
    return {
        room_nid
        for batch in in_batches(list(user_nids))
        for (room_nid,) in txn.all(_JOINED_ROOMS_OF, user_nids=batch)
    }


def list_members(
    txn: ReadTxn, room_nid: int, membership: str = JOIN, limit: int = 2**31
) -> list[tuple[int, int]]:
    """(user_nid, event_nid) of a room's users with one membership, the longest-standing first: heroes are the
    first few."""
    return [
        (user_nid, event_nid)
        for user_nid, event_nid in txn.all(_MEMBERS, room_nid=room_nid, membership=membership, limit=limit)
    ]


def list_first_members(
    txn: ReadTxn, room_nids: Collection[int], membership: str, limit: int
) -> dict[int, list[tuple[int, int]]]:
    """The same for many rooms: room_nid -> (user_nid, event_nid) of the first `limit` or a few more. Rooms
    without any are left out. Cost: 1 query per 4,096 rooms, whatever their size."""
    found: dict[int, list[tuple[int, int]]] = {}
    for batch in in_batches(list(room_nids)):
        rows = txn.all(_FIRST_MEMBERS, room_nids=batch, membership=membership, offset=limit - 1)
        for room_nid, user_nid, event_nid in rows:
            found.setdefault(room_nid, []).append((user_nid, event_nid))
    return found


def list_all_members(txn: ReadTxn, room_nid: int) -> list[Membership]:
    """Everyone who is or was something in the room."""
    return [_membership_of(row) for row in txn.all(_ALL_MEMBERS, room_nid=room_nid)]


def list_local_members(txn: ReadTxn, room_nid: int, memberships: Collection[str] = (JOIN,)) -> list[int]:
    """The room's users of this server with one of `memberships`. Cost follows their number, not the
    room's."""
    return [row[0] for row in txn.all(_LOCAL, room_nid=room_nid, memberships=list(memberships))]


def list_users_of_server(txn: ReadTxn, room_nid: int, server_nid: int) -> list[UserID]:
    """The users of one server who are or were something in the room. Cost follows the room's size."""
    return [row[0] for row in txn.all(_OF_SERVER, room_nid=room_nid, server_nid=server_nid)]


def list_joined_guests(txn: ReadTxn, room_nid: int) -> list[int]:
    """The guest accounts of this server that are joined. Cost follows the number of its local members."""
    return [row[0] for row in txn.all(_LOCAL_GUESTS, room_nid=room_nid)]


def list_membership_changes(txn: ReadTxn, user_nid: int, after: int, upto: int) -> list[MembershipChange]:
    """How a local user's memberships changed after one position and up to another, oldest first."""
    return [MembershipChange(*row) for row in txn.all(_CHANGES, user_nid=user_nid, after=after, upto=upto)]


def list_local_joins(txn: ReadTxn, after: int, upto: int, limit: int) -> list[tuple[int, int, int]]:
    """(position, user_nid, room_nid) of the joins of local users, oldest first."""
    return [(p, user, room) for p, user, room in txn.all(_JOINS, after=after, upto=upto, limit=limit)]


def list_room_membership_changes(txn: ReadTxn, user_nid: int, room_nid: int) -> list[MembershipChange]:
    """All that a local user ever was in one room, oldest first."""
    return [MembershipChange(*row) for row in txn.all(_ROOM_CHANGES, user_nid=user_nid, room_nid=room_nid)]


def list_stripped_states(txn: ReadTxn, event_nids: Collection[int]) -> dict[int, bytes]:
    """What came with invites to, or was answered to knocks on, rooms that this server is not in: by the
    number of the membership's event, a JSON array."""
    return {
        nid: json for batch in in_batches(list(event_nids)) for nid, json in txn.all(_STRIPPED, nids=batch)
    }


def forget_room(txn: WriteTxn, room_nid: int, user_nid: int) -> bool:
    """Hide the room from the user for good; False, and nothing done, if the user has not left it."""
    done = txn.execute(_FORGET, room_nid=room_nid, user_nid=user_nid) > 0
    if done:
        txn.hint(Kind.USER, user_nid)
    return done


def list_servers_in_room(txn: ReadTxn, room_nid: int) -> list[tuple[int, int]]:
    """(server_nid, how many of its users are joined), the largest first."""
    return [(nid, count) for nid, count in txn.all(_SERVERS, room_nid=room_nid)]


def is_server_in_room(txn: ReadTxn, room_nid: int, server_nid: int) -> bool:
    return txn.value(_IN_ROOM, room_nid=room_nid, server_nid=server_nid) is not None


def list_rooms_with_server(txn: ReadTxn, server_nid: int, room_nids: Collection[int]) -> set[int]:
    """Those of the rooms that the server is in."""
    return {
        row[0]
        for batch in in_batches(list(room_nids))
        for row in txn.all(_WITH_SERVER, server_nid=server_nid, room_nids=batch)
    }


def list_shared_rooms(txn: ReadTxn, user_nid: int, other_nid: int, limit: int = 2**31) -> list[int]:
    """Rooms in which both are joined. Cost follows the number of rooms of one of them."""
    return [row[0] for row in txn.all(_SHARED_ROOMS, user_nid=user_nid, other_nid=other_nid, limit=limit)]


def list_sharing_among(txn: ReadTxn, user_nid: int, among: Collection[int]) -> set[int]:
    """Those of `among` who share a joined room with the user (not the user, if no room is joined)."""
    nids = list(among)
    return {
        row[0]
        for batch in in_batches(nids)
        for row in txn.all(_SHARING_AMONG, user_nid=user_nid, among=batch)
    }


def list_moved(txn: ReadTxn, user_nid: int, since: int, up_to: int) -> list[tuple[int, str]]:
    """(user_nid, what they are now) of those whose membership in a room of the user's changed in (since, up_to].

    Cost: the members of those of the rooms in which anything happened since.
    """
    return [(nid, said) for nid, said in txn.all(_MOVED, user_nid=user_nid, since=since, up_to=up_to)]


def list_servers_sharing(txn: ReadTxn, user_nid: int) -> set[int]:
    """The servers in the rooms that the user is joined to: who is told of changes of the user's devices."""
    return {row[0] for row in txn.all(_SHARING_SERVERS, user_nid=user_nid)}


def list_new_servers(txn: ReadTxn, user_nid: int, room_nid: int) -> set[int]:
    """The servers that share this room with the user, who is joined, and no other one."""
    return {row[0] for row in txn.all(_NEW_SERVERS, user_nid=user_nid, room_nid=room_nid)}


def _membership_of(row: tuple[int, int, str, int, int, int]) -> Membership:
    room_nid, user_nid, membership, event_nid, position, is_forgotten = row
    return Membership(room_nid, user_nid, membership, event_nid, position, is_forgotten == 1)
