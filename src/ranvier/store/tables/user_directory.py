"""Users as people look for them: by the beginnings of words of their names and ids.

Tables: user_directory, user_words. Owner: services.user_directory. Growth: one row a user who ever was in a
room here, and one for each word of the name and the id.
Index -> query: (word, user) -> a range of words is a prefix; (user, word) -> further words, and replacing them.
"""

from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches

MAX_CANDIDATES: Final = 2_000
"""Matches of the first word that one search looks at."""
MAX_NEAR: Final = 10_000
"""Users in rooms with the searcher whom a search looks at where there are more matches than that."""
MAX_NEAR_ROOM: Final = 1_000
"""Members of the largest of these rooms."""

_AFTER_ALL: Final = "\U0010ffff"


class DirectoryEntry(msgspec.Struct, frozen=True):
    """What is shown of a user, and the words to find the user by."""

    user_nid: int
    display_name: str | None
    avatar_url: str | None
    words: Collection[str] = ()


_UPSERT: Final = """
    INSERT INTO user_directory (user_nid, display_name, avatar_url)
    VALUES (:user_nid, :display_name, :avatar_url)
    ON CONFLICT (user_nid) DO UPDATE SET display_name = excluded.display_name,
        avatar_url = excluded.avatar_url
"""
_DELETE_WORDS: Final = "DELETE FROM user_words WHERE user_nid IN (:user_nids[])"
_INSERT_WORD: Final = """
    INSERT INTO user_words (word, user_nid) VALUES (:word, :user_nid) ON CONFLICT (word, user_nid) DO NOTHING
"""
_FIRST_WORD: Final = "w.word >= :low_0 AND w.word < :high_0"
_FURTHER_WORD: Final = """
    EXISTS (SELECT 1 FROM user_words f
        WHERE f.user_nid = w.user_nid AND f.word >= :low_{number} AND f.word < :high_{number})
"""
_MATCHES: Final = """
    SELECT w.user_nid, w.word FROM user_words w WHERE {matches} ORDER BY w.word LIMIT :candidates
"""
_MATCHES_AMONG: Final = """
    SELECT w.user_nid, w.word FROM user_words w WHERE w.user_nid IN (:user_nids[]) AND {matches}
"""
_SMALL_ROOMS: Final = """
    SELECT r.room_nid FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid
    WHERE m.user_nid = :user_nid AND m.membership = 'join' AND r.joined_count <= :largest LIMIT :rooms
"""
_MEMBERS: Final = """
    SELECT DISTINCT user_nid FROM memberships WHERE room_nid IN (:room_nids[]) AND membership = 'join'
    LIMIT :members
"""
# Not EXISTS: PostgreSQL would read all members of all these rooms first, to look each user up in them.
_VISIBLE: Final = """
    SELECT u.user_nid, u.display_name, u.avatar_url FROM user_directory u
    WHERE u.user_nid IN (:user_nids[]) AND (
        u.user_nid <> :searcher_nid AND (SELECT 1 FROM memberships m
            JOIN memberships mine ON mine.room_nid = m.room_nid AND mine.user_nid = :searcher_nid
            WHERE m.user_nid = u.user_nid AND m.membership = 'join' AND mine.membership = 'join'
            LIMIT 1) IS NOT NULL
        OR (SELECT 1 FROM memberships m JOIN room_summaries s ON s.room_nid = m.room_nid
            WHERE m.user_nid = u.user_nid AND m.membership = 'join'
                AND (s.join_rule = 'public' OR s.history_visibility = 'world_readable')
            LIMIT 1) IS NOT NULL
    )
"""


def upsert_entries(txn: WriteTxn, entries: Sequence[DirectoryEntry]) -> None:
    """Store what is shown of these users, each named once, and their words."""
    if not entries:
        return
    txn.execute_many(
        _UPSERT,
        [
            {"user_nid": one.user_nid, "display_name": one.display_name, "avatar_url": one.avatar_url}
            for one in entries
        ],
    )
    for batch in in_batches([one.user_nid for one in entries]):
        txn.execute(_DELETE_WORDS, user_nids=batch)
    words = [{"word": word, "user_nid": one.user_nid} for one in entries for word in sorted(set(one.words))]
    if words:
        txn.execute_many(_INSERT_WORD, words)


def search_users(
    txn: ReadTxn, searcher_nid: int, prefixes: Sequence[str]
) -> Mapping[int, tuple[str, DirectoryEntry]]:
    """Users that have a word for each prefix and that the searcher may know of: others in a room of the searcher, and
    whoever is in one that is public or world-readable, the searcher included.

    Returns: by user_nid the first word that matched, and the entry (without words), in the order of the words.
    Cost: 2 queries, over at most MAX_CANDIDATES matches of the first prefix, which had best be the longest. Where there
    are more, strangers must not hide those whom the searcher meets in rooms that are not large: some 5 more.
    Spec: client-server API, `POST /user_directory/search`.
    """
    matches = " AND ".join(
        [_FIRST_WORD, *(_FURTHER_WORD.format(number=number) for number in range(1, len(prefixes)))]
    )
    bounds = {f"low_{number}": prefix for number, prefix in enumerate(prefixes)}
    bounds |= {f"high_{number}": prefix + _AFTER_ALL for number, prefix in enumerate(prefixes)}
    rows = txn.all(_MATCHES.format(matches=matches), candidates=MAX_CANDIDATES, **bounds)
    if len(rows) == MAX_CANDIDATES:
        sql = _MATCHES_AMONG.format(matches=matches)
        for batch in in_batches(_list_near(txn, searcher_nid)):
            rows += txn.all(sql, user_nids=batch, **bounds)
    words: dict[int, str] = {}
    for user_nid, word in sorted(rows, key=itemgetter(1)):
        words.setdefault(user_nid, word)
    visible: dict[int, DirectoryEntry] = {}
    for batch in in_batches(list(words)):
        for nid, name, avatar_url in txn.all(_VISIBLE, user_nids=batch, searcher_nid=searcher_nid):
            visible[nid] = DirectoryEntry(nid, name, avatar_url)
    return {nid: (word, visible[nid]) for nid, word in words.items() if nid in visible}


def _list_near(txn: ReadTxn, searcher_nid: int) -> list[int]:
    """Users in rooms with the searcher that are not large, the searcher included."""
    rooms = txn.all(_SMALL_ROOMS, user_nid=searcher_nid, largest=MAX_NEAR_ROOM, rooms=MAX_NEAR)
    room_nids = [room_nid for (room_nid,) in rooms]
    return [user_nid for (user_nid,) in txn.all(_MEMBERS, room_nids=room_nids, members=MAX_NEAR)]
