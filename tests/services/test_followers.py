"""Those who follow all changes and keep what searches read, on both engines: nothing is missed, whoever works."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ranvier.core.identifiers import UserID
from ranvier.io.clock import VirtualClock
from ranvier.services.message_search.indexing import SearchIndexer
from ranvier.services.user_directory.indexing import DirectoryIndexer
from ranvier.store.database import Conflict, Database
from ranvier.store.tables import message_search, profiles
from ranvier.store.tables import user_directory as directory

from ..store.room_builder import ALICE, BOB, CAROL, RoomBuilder, accepted, event_id_of, make_pdu, member


async def until(clock: VirtualClock, condition: Callable[[], Awaitable[bool]]) -> None:
    """Let the workers' time pass until something has happened; the database takes real time."""
    async with asyncio.timeout(20):
        while not await condition():
            await clock.advance(1)


async def join(room: RoomBuilder, user_id: UserID, name: str, serial: str = "") -> None:
    content = {"membership": "join", "displayname": name}
    pdu = make_pdu(
        f"{user_id} {name}{serial}", type="m.room.member", state_key=user_id, sender=user_id, content=content
    )
    await room.append(accepted(pdu))


@pytest.fixture
async def room(db: Database) -> RoomBuilder:
    room = await RoomBuilder.create(db)
    await room.append(accepted(member("alice", ALICE, "join")))
    return room


async def names(db: Database, room: RoomBuilder, prefix: str) -> dict[str, str | None]:
    """Whom Alice finds: the word that matched -> the name that is shown."""
    found = await db.read(directory.search_users, await room.user_nid(ALICE), [prefix])
    return {word: entry.display_name for word, entry in found.values()}


async def test_the_directory_of_users_keeps_up(db: Database, room: RoomBuilder) -> None:
    clock = VirtualClock()
    indexer = DirectoryIndexer(db, room.interner, room.cache, clock)
    await join(room, CAROL, "Carol Before")  # before anybody follows
    worker = asyncio.create_task(indexer.run())
    try:

        async def knows(prefix: str, expected: dict[str, str | None]) -> None:
            async def holds() -> bool:
                return await names(db, room, prefix) == expected

            await until(clock, holds)

        await knows("bef", {"before": "Carol Before"})
        await join(room, CAROL, "Carol After")
        await knows("aft", {"after": "Carol After"})
        await knows("bef", {})
        # What another server's users are called, their events say; what our own are called, their profiles.
        await join(room, BOB, "Not this")
        await knows("bob", {"bob": None})
        await db.write(profiles.set_profile_field, await room.user_nid(BOB), "displayname", b'"Robert"')
        await knows("rob", {"robert": "Robert"})
        await knows("not", {})
    finally:
        worker.cancel()


async def test_words_keep_up(db: Database, room: RoomBuilder) -> None:
    clock = VirtualClock()
    early = await room.say("early", content={"body": "one two"})
    worker = asyncio.create_task(SearchIndexer(db, clock).run())
    try:

        async def knows(word: str, expected: list[int]) -> None:
            async def holds() -> bool:
                found = await db.read(
                    message_search.search_events, (room.room_nid,), [word], upto=2**60, limit=9
                )
                return found == expected

            await until(clock, holds)

        await knows("one", [early])
        late = await room.say("late", content={"body": "two three"})
        await knows("two", [late, early])
        redaction = make_pdu(
            "redaction", type="m.room.redaction", redacts=event_id_of("early"),
            content={"redacts": event_id_of("early")},
        )  # fmt: skip
        await room.append(accepted(redaction, redacts_target=True))
        await knows("one", [])
        await knows("two", [late])
    finally:
        worker.cancel()


async def test_those_who_search_at_once_take_turns(db: Database, room: RoomBuilder) -> None:
    """Else all of them read the same words, and all but one for nothing."""
    searching = SearchIndexer(db, VirtualClock())
    for batch in range(3):
        await room.append(accepted(make_pdu(f"{batch}", content={"body": "word"})))
        await asyncio.gather(*(searching.index_some() for _ in range(4)))  # none raises Conflict
    found = await db.read(message_search.search_events, (room.room_nid,), ["word"], upto=2**60, limit=5_000)
    assert len(found) == 3


async def test_several_processes_do_the_same_work_once(db: Database, room: RoomBuilder) -> None:
    for batch in range(6):
        said = (make_pdu(f"{batch} {number}", content={"body": "word"}) for number in range(200))
        await room.append(*(accepted(pdu) for pdu in said))
    await join(room, CAROL, "Carol")

    async def work() -> None:
        clock = VirtualClock()
        searching = SearchIndexer(db, clock)
        while True:
            try:
                await DirectoryIndexer(db, room.interner, room.cache, clock).catch_up()
                if not await searching.index_some():
                    return
            except Conflict:
                continue

    await asyncio.gather(work(), work(), work())
    assert await names(db, room, "car") == {"carol": "Carol"}
    found = await db.read(message_search.search_events, (room.room_nid,), ["word"], upto=2**60, limit=5_000)
    assert len(found) == 1_200
