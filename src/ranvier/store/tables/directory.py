"""The published room directory.

Table: published_rooms, with room_summaries and rooms. Owner: services.rooms. Growth: one row a published
room.
Index -> query: primary key -> publish and hide. A page reads and sorts the published rooms of the directory:
they are few beside the rooms that there are.
"""

from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.patterns import like
from ranvier.store.tables.rooms import RoomSummary, summary_of

OWN_NETWORK: Final = ""
"""The list of this server; other networks are those of application services."""


class PublishedRoom(msgspec.Struct, frozen=True):
    room_nid: int
    room_id: RoomID
    joined_count: int
    summary: RoomSummary


class DirectoryPlace(msgspec.Struct, frozen=True):
    """Where a page of the directory ended: rooms come by falling member count, then by number."""

    joined_count: int
    room_nid: int


class DirectoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What rooms to show. Spec: client-server API, `POST /publicRooms`."""

    networks: tuple[str, ...] | None = (OWN_NETWORK,)  # None: all
    versions: tuple[str, ...] | None = None  # of rooms; None: any
    text: str | None = None  # in name, topic or alias, whatever the case
    room_types: tuple[str | None, ...] | None = None  # None among them: rooms without a type
    after: DirectoryPlace | None = None  # go on from here …
    backwards: bool = False  # … towards larger rooms
    limit: int


_PUBLISH: Final = """
    INSERT INTO published_rooms (room_nid, network) VALUES (:room_nid, :network)
    ON CONFLICT (room_nid, network) DO NOTHING
"""
_HIDE: Final = "DELETE FROM published_rooms WHERE room_nid = :room_nid AND network = :network"
_IS_PUBLISHED: Final = "SELECT 1 FROM published_rooms WHERE room_nid = :room_nid AND network = :network"
_SUMMARY_COLUMNS: Final = ", ".join(f"s.{field}" for field in RoomSummary.__struct_fields__)
_FROM: Final = """
    FROM rooms r JOIN room_summaries s ON s.room_nid = r.room_nid
    WHERE r.room_nid IN (SELECT p.room_nid FROM published_rooms p
        WHERE (p.network IN (:networks[]) OR :all_networks = 1))
"""
_TEXT: Final = """
    AND (LOWER(COALESCE(s.name, '')) LIKE :pattern ESCAPE '!'
        OR LOWER(COALESCE(s.topic, '')) LIKE :pattern ESCAPE '!'
        OR LOWER(COALESCE(s.canonical_alias, '')) LIKE :pattern ESCAPE '!')
"""
_TYPES: Final = """
    AND (s.room_type IN (:room_types[]) OR (s.room_type IS NULL AND :with_untyped = 1))
"""
_VERSIONS: Final = " AND r.version IN (:versions[])"
_AFTER: Final = """
    AND (r.joined_count < :joined_count OR (r.joined_count = :joined_count AND r.room_nid > :room_nid))
"""
_BEFORE: Final = """
    AND (r.joined_count > :joined_count OR (r.joined_count = :joined_count AND r.room_nid < :room_nid))
"""


def publish_room(txn: WriteTxn, room_nid: int, network: str = OWN_NETWORK) -> None:
    """Show the room in the directory."""
    txn.execute(_PUBLISH, room_nid=room_nid, network=network)


def hide_room(txn: WriteTxn, room_nid: int, network: str = OWN_NETWORK) -> None:
    """Show the room in the directory no longer."""
    txn.execute(_HIDE, room_nid=room_nid, network=network)


def is_published(txn: ReadTxn, room_nid: int, network: str = OWN_NETWORK) -> bool:
    return txn.value(_IS_PUBLISHED, room_nid=room_nid, network=network) is not None


def list_published(txn: ReadTxn, query: DirectoryQuery) -> list[PublishedRoom]:
    """A page of the directory, largest room first. To learn whether there is more, ask for one more.

    With `backwards`, the page that ends right before `after`.
    """
    conditions, params = _conditions(query)
    order = "r.joined_count, r.room_nid DESC" if query.backwards else "r.joined_count DESC, r.room_nid"
    sql = (
        f"SELECT r.room_nid, r.room_id, r.joined_count, {_SUMMARY_COLUMNS} {_FROM} {conditions} "
        f"ORDER BY {order} LIMIT :limit"
    )
    rows = txn.all(sql, limit=query.limit, **params)
    rooms = [PublishedRoom(row[0], row[1], row[2], summary_of(row[3:])) for row in rows]
    return rooms[::-1] if query.backwards else rooms


def count_published(txn: ReadTxn, query: DirectoryQuery) -> int:
    """How many rooms all pages of the query have together."""
    conditions, params = _conditions(msgspec.structs.replace(query, after=None))
    sql = f"SELECT COUNT(*) {_FROM} {conditions}"
    return int(txn.value(sql, **params))


def _conditions(query: DirectoryQuery) -> tuple[str, dict[str, object]]:
    parts: list[str] = []
    params: dict[str, object] = {
        "networks": query.networks or (),
        "all_networks": int(query.networks is None),
    }
    if query.text:
        parts.append(_TEXT)
        params["pattern"] = f"%{like(query.text.lower())}%"
    if query.room_types is not None:
        parts.append(_TYPES)
        params["room_types"] = [type_ for type_ in query.room_types if type_ is not None]
        params["with_untyped"] = int(None in query.room_types)
    if query.versions is not None:
        parts.append(_VERSIONS)
        params["versions"] = query.versions
    if query.after is not None:
        parts.append(_BEFORE if query.backwards else _AFTER)
        params["joined_count"] = query.after.joined_count
        params["room_nid"] = query.after.room_nid
    return "".join(parts), params
