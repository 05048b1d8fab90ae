"""Which events hold which words.

Table: message_words. Owner: services.message_search. Growth: one row for each distinct word of a message.
Index -> query: primary key -> the events of a room with a word, newest first, and whether an event has another.
"""

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import EventID, RoomID
from ranvier.store.database import ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches

REDACTION: Final = "m.room.redaction"
MAX_READ: Final = 20_000
"""Events with the rarest word that one search reads."""
FIRST_STEP: Final = 4
"""Events of a room that are read at first, at least: to find a room's newest costs more than to read on there."""
STEP_FACTOR: Final = 4
SAMPLE_ROOMS: Final = 500
SAMPLE_EVENTS: Final = 2_000
"""What is counted to tell rare words from common ones."""


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


class _Part(msgspec.Struct, frozen=True):
    """What of each room is read next: its next `step` events with `word`, down to `oldest`."""

    word: str
    others: Sequence[str]
    oldest: int
    step: int


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
_ROOMS: Final = """
    SELECT r.room_nid, r.room_id FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid
        LEFT JOIN room_summaries s ON s.room_nid = m.room_nid
    WHERE m.user_nid = :user_nid AND m.membership IN ('join', 'leave', 'ban') AND m.is_forgotten = 0
        AND s.encryption IS NULL
    LIMIT :limit
"""
# The word stands in the list, for SQLite would make a Bloom filter of the whole table where it is a constant.
_NEXT: Final = """
    WITH wanted(room_nid, word, below) AS (:wanted[3])
    SELECT w.room_nid, w.event_nid, {holds_others}
    FROM wanted JOIN message_words w ON w.room_nid = wanted.room_nid AND w.word = wanted.word
        AND w.event_nid < wanted.below AND w.event_nid >= {{greatest}}(COALESCE((
            SELECT x.event_nid FROM message_words x
            WHERE x.room_nid = wanted.room_nid AND x.word = wanted.word AND x.event_nid < wanted.below
            ORDER BY x.event_nid DESC LIMIT 1 OFFSET :offset), 0), :oldest)
"""
_HOLDS: Final = """
    EXISTS (SELECT 1 FROM message_words f
        WHERE f.room_nid = w.room_nid AND f.word = :word_{number} AND f.event_nid = w.event_nid)
"""
_COUNT: Final = """
    SELECT COUNT(*) FROM (SELECT 1 AS one FROM message_words
        WHERE room_nid IN (:room_nids[]) AND word = :word LIMIT :limit) c
"""


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


def list_searched_rooms(txn: ReadTxn, user_nid: int, limit: int) -> dict[int, RoomID]:
    """The rooms in which a user is or was, and that are not encrypted: room_nid -> room id."""
    return {nid: RoomID(room_id) for nid, room_id in txn.all(_ROOMS, user_nid=user_nid, limit=limit)}


def search_events(
    txn: ReadTxn, room_nids: Collection[int], words: Sequence[str], *, upto: int, limit: int
) -> list[int]:
    """The newest events of these rooms, up to a position, that hold all of these words.

    Each room's events with the rarest of the words are read from the newest on, in ever larger steps, and only those
    that may be newer than what was found so far. After MAX_READ of them, what is older is left out.
    Cost: up to 15 queries; with several words 1 more for each word.
    """
    first, *others = _rarest_first(txn, room_nids, words)
    ends = dict.fromkeys(room_nids, upto + 1)  # by room: where to go on
    found: list[int] = []
    oldest, read = 0, 0  # of those found, once they are as many as wanted
    step = max(limit // max(len(ends), 1) + 1, FIRST_STEP)
    while ends and read < MAX_READ:
        reached: dict[int, list[int]] = {}
        part = _Part(first, others, oldest, step)
        for room_nid, event_nid, holds_others in _read_next(txn, ends, part):
            reached.setdefault(room_nid, []).append(event_nid)
            if holds_others:
                found.append(event_nid)
        found = heapq.nlargest(limit, found)
        oldest = found[-1] if len(found) == limit else 0
        read += sum(len(some) for some in reached.values())
        # A room that gave less than it might have has no more.
        lowest = {nid: min(some) for nid, some in reached.items() if len(some) == step}
        ends = {room_nid: end for room_nid, end in lowest.items() if end > oldest}
        step = min(step * STEP_FACTOR, _further(len(found), limit, read) // max(len(ends), 1) + 1)
    return found


def _further(found: int, limit: int, read: int) -> int:
    """How many more events are to be read: what it takes if they hold the words as often as those before, and not so
    few that there is no end to it where they hold them less often."""
    left = max(MAX_READ - read, 0)
    if found in (0, limit):
        return left
    return min(left, max((limit - found) * read * 5 // (4 * found), read // 2))


def _rarest_first(txn: ReadTxn, room_nids: Collection[int], words: Sequence[str]) -> Sequence[str]:
    """Judged by some of the rooms, and as given where that tells nothing."""
    if len(words) == 1:
        return words
    sample = list(room_nids)[:SAMPLE_ROOMS]
    counts = {word: txn.value(_COUNT, room_nids=sample, word=word, limit=SAMPLE_EVENTS) for word in words}
    return sorted(words, key=counts.__getitem__)


def _read_next(txn: ReadTxn, ends: Mapping[int, int], part: _Part) -> Iterator[Row]:
    """Of each room the next events with a word: room_nid, event_nid, whether they hold the others."""
    named = {f"word_{number}": other for number, other in enumerate(part.others)}
    holds = " AND ".join(_HOLDS.format(number=number) for number in range(len(part.others))) or "1 = 1"
    sql = _NEXT.format(holds_others=holds)
    wanted = [(room_nid, part.word, end) for room_nid, end in ends.items()]
    for batch in in_batches(wanted):
        yield from txn.all(sql, wanted=batch, offset=part.step - 1, oldest=part.oldest, **named)
