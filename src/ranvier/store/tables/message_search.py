"""Which events hold which words.

Table: message_words. Owner: services.message_search. Growth: one row for each distinct word of a message.
Index -> query: primary key -> the events of a room with a word, newest first, and whether an event has another.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import EventID
from ranvier.store.database import ReadTxn, Row, WriteTxn

REDACTION: Final = "m.room.redaction"


class SearchableEvent(msgspec.Struct, frozen=True):
    """An event of a timeline whose words count, or one that takes words away."""

    event_nid: int
    event_id: EventID
    room_nid: int
    type: str
    redacted_by: int | None
    json: bytes


class Words(msgspec.Struct, frozen=True):
    """The distinct words of an event."""

    room_nid: int
    event_nid: int
    words: Collection[str]


_COLUMNS: Final = "e.event_nid, e.event_id, e.room_nid, e.type, e.redacted_by, e.json"
_STORED: Final = f"""
    SELECT {_COLUMNS} FROM events e
    WHERE e.event_nid > :after AND e.event_nid <= :upto AND e.room_order IS NOT NULL AND e.type IN (:types[])
    ORDER BY e.event_nid LIMIT :limit
"""  # noqa: S608
_LATE: Final = f"""
    SELECT {_COLUMNS} FROM late_events l JOIN events e ON e.event_nid = l.event_nid
    WHERE l.position > :after AND l.position <= :upto AND e.event_nid <= :after AND e.type IN (:types[])
"""  # noqa: S608
_INSERT: Final = """
    INSERT INTO message_words (room_nid, word, event_nid) VALUES (:room_nid, :word, :event_nid)
    ON CONFLICT (room_nid, word, event_nid) DO NOTHING
"""
_DELETE: Final = """
    DELETE FROM message_words
    WHERE room_nid = :room_nid AND word IN (:words[]) AND event_nid = :event_nid
"""
_SEARCH: Final = """
    SELECT w.event_nid FROM message_words w
    WHERE w.room_nid IN (:room_nids[]) AND w.word = :word_0 AND w.event_nid <= :upto
"""
_FURTHER: Final = """
    AND EXISTS (SELECT 1 FROM message_words f
        WHERE f.room_nid = w.room_nid AND f.word = :word_{number} AND f.event_nid = w.event_nid)
"""
_NEWEST: Final = " ORDER BY w.event_nid DESC LIMIT :limit"


def list_searchable(
    txn: ReadTxn, after: int, upto: int, types: Collection[str], limit: int
) -> tuple[list[SearchableEvent], int]:
    """Events of these types that entered a timeline after a position, and the position up to which these are
    all: `upto`, unless there are more than `limit`. Of events found by backfill the number counts.
    """

    def searchable(rows: Sequence[Row]) -> list[SearchableEvent]:
        return [SearchableEvent(*row) for row in rows]

    wanted = list(types)
    found = searchable(txn.all(_STORED, after=after, upto=upto, types=wanted, limit=limit))
    if len(found) == limit:
        upto = found[-1].event_nid
    return found + searchable(txn.all(_LATE, after=after, upto=upto, types=wanted)), upto


def insert_words(txn: WriteTxn, found: Sequence[Words]) -> None:
    rows = [
        {"room_nid": one.room_nid, "word": word, "event_nid": one.event_nid}
        for one in found
        for word in sorted(one.words)
    ]
    if rows:
        txn.execute_many(_INSERT, rows)


def delete_words(txn: WriteTxn, gone: Words) -> None:
    """Forget the words of a redacted event."""
    txn.execute(_DELETE, room_nid=gone.room_nid, words=list(gone.words), event_nid=gone.event_nid)


def search_events(
    txn: ReadTxn, room_nids: Collection[int], words: Sequence[str], *, upto: int, limit: int
) -> list[int]:
    """The newest events of these rooms, up to a position, that hold all of these words.

    Cost: 1 query that reads the events with the first word, which had best be the rarest.
    """
    further = "".join(_FURTHER.format(number=number) for number in range(1, len(words)))
    named = {f"word_{number}": word for number, word in enumerate(words)}
    rows = txn.all(_SEARCH + further + _NEWEST, room_nids=list(room_nids), upto=upto, limit=limit, **named)
    return [row[0] for row in rows]
