"""Rooms as administrators look for them.

Tables read: rooms, room_summaries, current_state, state_keys, events, published_rooms, memberships, devices. Nothing
is written. Every page of a list walks all rooms, and counts in those that it shows: nobody but an administrator asks.
"""

from typing import Final, Literal

import msgspec

from ranvier.core.identifiers import EventID, RoomID
from ranvier.store.database import ReadTxn, Row
from ranvier.store.tables.patterns import like

Order = Literal[
    "name",
    "canonical_alias",
    "joined_members",
    "joined_local_members",
    "version",
    "creator",
    "encryption",
    "federatable",
    "public",
    "join_rules",
    "guest_access",
    "history_visibility",
    "state_events",
]


class RoomFilter(msgspec.Struct, frozen=True, kw_only=True):
    """None: whichever."""

    search_term: str | None = None  # in the name, in the alias, or in the room id
    is_public: bool | None = None
    is_empty: bool | None = None


class ListedRoom(msgspec.Struct, frozen=True):
    room_nid: int
    room_id: RoomID
    name: str | None
    topic: str | None
    avatar_url: str | None
    canonical_alias: str | None
    joined_count: int
    joined_local_count: int
    version: str
    create_sender: str | None
    create_json: bytes | None  # the create event
    encryption: str | None
    is_public: bool
    join_rule: str | None
    guest_can_join: bool
    history_visibility: str | None
    state_count: int
    room_type: str | None
    successor_room_id: str | None
    is_closed: bool  # it has a tombstone


_LOCAL: Final = """
    (SELECT COUNT(*) FROM memberships m WHERE m.room_nid = r.room_nid AND m.membership = 'join' AND m.is_local = 1)
"""
_STATES: Final = "(SELECT COUNT(*) FROM current_state c WHERE c.room_nid = r.room_nid)"
_PUBLIC: Final = "EXISTS (SELECT 1 FROM published_rooms p WHERE p.room_nid = r.room_nid AND p.network = '')"
_CREATE: Final = """
    (SELECT c.event_nid FROM current_state c WHERE c.room_nid = r.room_nid AND c.state_key_nid = (
        SELECT k.state_key_nid FROM state_keys k WHERE k.state_key = '' AND k.type = 'm.room.create'
    ))
"""
_CLOSED: Final = """
    EXISTS (SELECT 1 FROM current_state c WHERE c.room_nid = r.room_nid AND c.state_key_nid = (
        SELECT k.state_key_nid FROM state_keys k WHERE k.state_key = '' AND k.type = 'm.room.tombstone'
    ))
"""
_SELECT: Final = f"""
    SELECT r.room_nid, r.room_id, s.name, s.topic, s.avatar_url, s.canonical_alias, r.joined_count, {_LOCAL}, r.version,
        cu.user_id, ce.json, s.encryption, CASE WHEN {_PUBLIC} THEN 1 ELSE 0 END, s.join_rule,
        COALESCE(s.guest_can_join, 0), s.history_visibility, {_STATES}, s.room_type, s.successor_room_id,
        CASE WHEN {_CLOSED} THEN 1 ELSE 0 END
"""
# A room that was purged, or of which nothing but its name came here, is none.
_KNOWN: Final = "(r.state_root <> 0 OR r.joined_count > 0 OR r.invited_count > 0)"
_FROM: Final = f"""
    FROM rooms r LEFT JOIN room_summaries s ON s.room_nid = r.room_nid
        LEFT JOIN events ce ON ce.event_nid = {_CREATE}
        LEFT JOIN users cu ON cu.user_nid = ce.sender_nid
    WHERE {_KNOWN}
"""
_COUNT: Final = (
    f"SELECT COUNT(*) FROM rooms r LEFT JOIN room_summaries s ON s.room_nid = r.room_nid WHERE {_KNOWN}"  # noqa: S608
)
_FIND: Final = f"{_SELECT} {_FROM} AND r.room_id = :room_id"

# Numbers: the largest first, as Synapse has it.
_ORDERS: Final[dict[str, tuple[str, bool]]] = {
    "name": ("COALESCE(s.name, '')", False),
    "canonical_alias": ("COALESCE(s.canonical_alias, '')", False),
    "joined_members": ("r.joined_count", True),
    "joined_local_members": (_LOCAL, True),
    "version": ("r.version", True),
    "creator": ("COALESCE(cu.user_id, '')", False),
    "encryption": ("COALESCE(s.encryption, '')", False),
    "federatable": (
        "CASE WHEN {decoded}ce.json{end_decoded} LIKE '%\"m.federate\":false%' THEN 0 ELSE 1 END",
        False,
    ),
    "public": (f"CASE WHEN {_PUBLIC} THEN 1 ELSE 0 END", False),
    "join_rules": ("COALESCE(s.join_rule, '')", False),
    "guest_access": ("COALESCE(s.guest_can_join, 0)", False),
    "history_visibility": ("COALESCE(s.history_visibility, '')", False),
    "state_events": (_STATES, True),
}
_DEVICES: Final = """
    SELECT COUNT(*) FROM memberships m JOIN devices d ON d.user_nid = m.user_nid
    WHERE m.room_nid = :room_nid AND m.membership = 'join' AND m.is_local = 1
"""
_REMEMBERED: Final = """
    SELECT COUNT(*) FROM memberships WHERE room_nid = :room_nid AND is_local = 1 AND is_forgotten = 0
"""
_HEADS: Final = (
    "SELECT event_nid, event_id, state_root, depth, origin_server_ts FROM events WHERE event_nid IN (:nids[])"
)
_LARGEST: Final = """
    SELECT r.room_id, SUM(LENGTH(e.json)) AS size_bytes FROM events e JOIN rooms r ON r.room_nid = e.room_nid
    GROUP BY r.room_id ORDER BY size_bytes DESC LIMIT :limit
"""


class HeadEvent(msgspec.Struct, frozen=True):
    event_nid: int
    event_id: EventID
    state_root: int | None
    depth: int
    origin_server_ts: int


def list_rooms_for_admin(
    txn: ReadTxn, wanted: RoomFilter, order: Order, *, backwards: bool, limit: int, offset: int
) -> list[ListedRoom]:
    """A page. Which are equal in the order stand by room id."""
    condition, params = _condition(wanted)
    expression, largest_first = _ORDERS[order]
    direction = "DESC" if backwards != largest_first else "ASC"
    sql = f"{_SELECT} {_FROM} {condition} ORDER BY {expression} {direction}, r.room_id LIMIT :limit OFFSET :offset"
    return [_room(row) for row in txn.all(sql, limit=limit, offset=offset, **params)]


def count_rooms_for_admin(txn: ReadTxn, wanted: RoomFilter) -> int:
    """How many all pages have together."""
    condition, params = _condition(wanted)
    return int(txn.value(f"{_COUNT} {condition}", **params))


def find_room_for_admin(txn: ReadTxn, room_id: RoomID) -> ListedRoom | None:
    """None: not known here."""
    row = txn.first(_FIND, room_id=room_id)
    return None if row is None else _room(row)


def count_local_devices(txn: ReadTxn, room_nid: int) -> int:
    """The devices of users of this server who are joined."""
    return int(txn.value(_DEVICES, room_nid=room_nid))


def is_forgotten_by_all(txn: ReadTxn, room_nid: int) -> bool:
    """Whether there is no user of this server who is or was in the room and has not forgotten it."""
    return int(txn.value(_REMEMBERED, room_nid=room_nid)) == 0


def list_heads(txn: ReadTxn, event_nids: tuple[int, ...]) -> list[HeadEvent]:
    """What there is to say of forward extremities."""
    return [HeadEvent(*row) for row in txn.all(_HEADS, nids=list(event_nids))]


def list_largest_rooms(txn: ReadTxn, limit: int) -> list[tuple[RoomID, int]]:
    """(room_id, bytes of its events' JSON), the largest first. Cost: reads the table of events."""
    return [(room_id, int(size)) for room_id, size in txn.all(_LARGEST, limit=limit)]


def _condition(wanted: RoomFilter) -> tuple[str, dict[str, object]]:
    parts: list[str] = []
    params: dict[str, object] = {}
    if wanted.search_term is not None:
        parts.append(
            "(LOWER(COALESCE(s.name, '')) LIKE :term ESCAPE '!' "
            "OR LOWER(COALESCE(s.canonical_alias, '')) LIKE :alias ESCAPE '!' OR r.room_id = :exact "
            "OR r.room_id LIKE :in_id ESCAPE '!')"
        )
        lowered = like(wanted.search_term.lower())
        params["term"] = f"%{lowered}%"
        params["alias"] = f"#%{lowered}%:%"
        params["in_id"] = f"%{like(wanted.search_term)}%"
        params["exact"] = wanted.search_term.replace("\0", "")
    if wanted.is_public is not None:
        parts.append(_PUBLIC if wanted.is_public else f"NOT {_PUBLIC}")
    if wanted.is_empty is not None:
        parts.append("r.joined_count = 0" if wanted.is_empty else "r.joined_count > 0")
    return "".join(f" AND {part}" for part in parts), params


def _room(row: Row) -> ListedRoom:
    values = list(row)
    for place in (12, 14, 19):
        values[place] = values[place] == 1
    return ListedRoom(*values)
