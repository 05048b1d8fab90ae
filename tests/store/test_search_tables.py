"""What searches read and keep, on both engines."""

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from ranvier.core.identifiers import UserID
from ranvier.store.database import Conflict, Database, ReadTxn, Row
from ranvier.store.tables import followers, message_search, redactions, rooms
from ranvier.store.tables import user_directory as directory
from ranvier.store.tables.message_search import Words
from ranvier.store.tables.prepared import Outcome, PreparedEvent
from ranvier.store.tables.rooms import RoomSummary
from ranvier.store.tables.user_directory import DirectoryEntry
from tests.store.room_builder import ALICE, BOB, CAROL, RoomBuilder, accepted, event_id_of, make_pdu, member


async def test_a_follower_moves_on_once(db: Database) -> None:
    assert await db.read(followers.find_follower, "x") == followers.NOT_BEGUN
    await db.write(followers.move_follower, "x", 0, 5)
    await db.write(followers.move_follower, "x", 5, 9)
    assert await db.read(followers.find_follower, "x") == 9
    for known in (0, 5):
        with pytest.raises(Conflict):
            await db.write(followers.move_follower, "x", known, 12)
    with pytest.raises(Conflict):
        # On PostgreSQL a process may see less than another one that has moved on.
        await db.write(followers.move_follower, "x", 9, 8)
    assert await db.read(followers.find_follower, "x") == 9


async def _members(db: Database, *users: UserID, room_id: str = "!room:here") -> RoomBuilder:
    room = await RoomBuilder.create(db, room_id)
    await room.append(*(accepted(member(f"{user} {room_id}", user, "join")) for user in users))
    return room


async def test_users_are_found_by_their_words(db: Database) -> None:
    room = await _members(db, ALICE, BOB, CAROL)
    alice, bob, carol = [await room.user_nid(user) for user in (ALICE, BOB, CAROL)]
    entries = [
        DirectoryEntry(alice, "Alice", None, ("alice", "anna")),
        DirectoryEntry(bob, None, "mxc://x/y", ("bob", "an")),
        DirectoryEntry(carol, "Carol", None, ("carol", "anna")),
    ]
    await db.write(directory.upsert_entries, entries)

    async def found(searcher: int, *prefixes: str) -> list[tuple[int, str]]:
        rows = await db.read(directory.search_users, searcher, prefixes)
        return [(nid, word) for nid, (word, _) in rows.items()]

    assert await found(alice, "an") == [(bob, "an"), (carol, "anna")]
    assert await found(alice, "an", "car") == [(carol, "anna")]
    assert await found(alice, "an", "x") == []
    assert await found(bob, "ann") == [(alice, "anna"), (carol, "anna")]
    assert (await db.read(directory.search_users, alice, ["bob"]))[bob][1].avatar_url == "mxc://x/y"
    # An entry replaces what was known before.
    await db.write(directory.upsert_entries, [DirectoryEntry(bob, "New", None, ("new",))])
    assert await found(alice, "bob") == []
    assert await found(alice, "new") == [(bob, "new")]


@pytest.mark.parametrize(
    ("summary", "is_found"),
    [
        (RoomSummary(join_rule="public"), True),
        (RoomSummary(history_visibility="world_readable"), True),
        (RoomSummary(join_rule="invite", history_visibility="shared"), False),
    ],
)
async def test_strangers_are_found_in_open_rooms(db: Database, summary: RoomSummary, is_found: bool) -> None:
    room = await _members(db, BOB)
    bob = await room.user_nid(BOB)
    await db.write(directory.upsert_entries, [DirectoryEntry(bob, None, None, ("bob",))])
    await db.write(rooms.upsert_summary, room.room_nid, summary)
    assert list(await db.read(directory.search_users, 999, ["bob"])) == ([bob] if is_found else [])


async def test_strangers_do_not_hide_those_in_a_room_with_the_searcher(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "MAX_CANDIDATES", 3)
    room = await _members(db, ALICE, BOB)
    strangers = [UserID(f"@stranger{number}:here") for number in range(5)]
    other = await _members(db, *strangers, room_id="!other:here")
    alice, bob = await room.user_nid(ALICE), await room.user_nid(BOB)
    entries = [DirectoryEntry(bob, "Bob", None, ("anna", "bob"))]
    entries += [DirectoryEntry(await other.user_nid(one), None, None, ("ann", "bob")) for one in strangers]
    await db.write(directory.upsert_entries, entries)
    for prefixes in (["a"], ["an", "b"]):
        assert list(await db.read(directory.search_users, alice, prefixes)) == [bob], prefixes


async def test_events_are_found_by_their_words(db: Database) -> None:
    kept = [
        Words(1, 10, ("a", "b")),
        Words(1, 11, ("a",)),
        Words(2, 12, ("a", "b", "c")),
        Words(3, 13, ("a", "b")),
    ]
    await db.write(message_search.insert_words, kept)
    await db.write(message_search.insert_words, kept)  # once more does no harm

    async def found(*words: str, upto: int = 100, limit: int = 9) -> list[int]:
        return await db.read(message_search.search_events, (1, 2), words, upto=upto, limit=limit)

    assert await found("a") == [12, 11, 10]
    assert await found("a", "b") == [12, 10]
    assert await found("a", "b", "c") == [12]
    assert await found("a", upto=11) == [11, 10]
    assert await found("a", limit=1) == [12]
    await db.write(message_search.delete_words, kept[0])
    assert await found("b") == [12]


async def test_the_newest_are_found_however_rooms_and_words_are_mixed(db: Database) -> None:
    random = Random(5)
    kept = []
    for nid in range(1, 600):
        # Some rooms are old, some busy, some empty; some words are everywhere, some never together.
        room_nid = random.choice([1, 2, 2, 2, 3 if nid < 100 else 4, nid % 40 + 5])
        words = {"all", *random.sample(["a", "b", "c", "d"], k=random.randrange(4))}
        words |= {"early"} if nid < 300 else {"late"}
        kept.append(Words(room_nid, nid, words))
    await db.write(message_search.insert_words, kept)
    for _ in range(120):
        rooms_searched = random.sample(range(1, 60), k=random.choice([1, 3, 20, 50]))
        words = random.sample(["all", "a", "b", "c", "early", "late", "never"], k=random.choice([1, 1, 2, 3]))
        upto, limit = random.choice([50, 400, 1_000]), random.choice([1, 5, 60, 700])
        expected = [
            one.event_nid
            for one in reversed(kept)
            if one.room_nid in rooms_searched and one.event_nid <= upto and one.words.issuperset(words)
        ][:limit]
        found = await db.read(message_search.search_events, rooms_searched, words, upto=upto, limit=limit)
        assert found == expected, (rooms_searched, words, upto, limit)


async def test_a_search_reads_only_so_much(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_search, "MAX_READ", 50)
    kept = [Words(nid % 2, nid, ("a", "b" if nid == 1 or nid > 180 else "c")) for nid in range(1, 200)]
    await db.write(message_search.insert_words, kept)
    found = await db.read(message_search.search_events, (0, 1), ("a", "b"), upto=999, limit=30)
    assert found[:19] == list(range(199, 180, -1))
    assert 1 not in found or len(found) == 20
    assert await db.read(message_search.search_events, (), ("a",), upto=999, limit=5) == []


async def test_words_that_become_rare_are_not_looked_for_without_end(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest events hold both words; those before hold one of them each, for long."""
    monkeypatch.setattr(message_search, "SAMPLE_EVENTS", 50)
    kept = [Words(1, nid, ("a", "b") if nid > 1_400 else ("ab"[nid % 2],)) for nid in range(1, 1_501)]
    await db.write(message_search.insert_words, kept)

    def search(txn: ReadTxn) -> tuple[list[int], int]:
        asked: list[str] = []

        def read(sql: str, /, **params: object) -> list[Row]:
            asked.append(sql)
            return txn.all(sql, **params)

        spying: Any = SimpleNamespace(all=read, value=txn.value)
        return message_search.search_events(spying, (1,), ("a", "b"), upto=9_999, limit=105), len(asked)

    found, queries = await db.read(search)
    assert found == list(range(1_500, 1_400, -1))
    assert queries <= 15


async def test_what_is_to_be_searched(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("1")
    outlier = PreparedEvent(pdu=make_pdu("late"), outcome=Outcome.OUTLIER)
    await room.append(outlier)
    await room.say("other type", type="m.other")
    await room.say("2")
    after = (await db.read(rooms.list_rooms, (room.room_nid,)))[room.room_nid].newest_position
    types = ("m.room.message", message_search.REDACTION)

    async def found(since: int, upto: int, limit: int = 9) -> tuple[list[str], int]:
        rows, end = await db.read(message_search.list_searchable, since, upto, types, limit)
        return [row.event_id for row in rows], end

    first, second, late = (event_id_of(name) for name in ("1", "2", "late"))
    assert await found(0, after) == ([first, second], after)
    events, end = await found(0, after, 1)
    assert events == [first]
    assert (await found(end, after))[0] == [second]
    # What was an outlier before comes when it enters the timeline.
    await room.append(PreparedEvent(pdu=make_pdu("late"), outcome=Outcome.ACCEPTED))
    assert (await found(after, 2**60))[0] == [late]
    await db.write(redactions.redact_event, room.room_nid, first, after, 1)
    rows, _ = await db.read(message_search.list_searchable, 0, after, types, 9)
    assert [row.redacted_by for row in rows] == [after, None, None]
