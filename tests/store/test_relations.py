"""Relations and threads, as they grow, are backfilled and are redacted."""

from ranvier.store.database import Database
from ranvier.store.tables import relations
from ranvier.store.tables import timeline as tl
from ranvier.store.tables.prepared import Outcome, PreparedEvent
from ranvier.store.tables.relations import Page, Thread
from tests.store.room_builder import ALICE, BOB, CAROL, RoomBuilder, accepted, event_id_of, make_pdu

ROOT = event_id_of("root")


def relating(rel_type: str, target: str = "root", key: str | None = None) -> dict[str, object]:
    relates_to = {"rel_type": rel_type, "event_id": event_id_of(target), "key": key}
    return {"m.relates_to": relates_to}


async def redact(room: RoomBuilder, name: str) -> None:
    pdu = make_pdu(f"redact {name}", type="m.room.redaction", redacts=event_id_of(name))
    await room.append(accepted(pdu, redacts_target=True))


async def test_relations_are_listed_by_target_and_way_until_redacted(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("root")
    like = await room.say("like", type="m.reaction", content=relating("m.annotation", key="\U0001f44d"))
    edit = await room.say("edit", content=relating("m.replace"))
    found = await db.read(relations.list_related, room.room_nid, [ROOT], ["m.annotation", "m.replace"])
    assert [(r.event_nid, r.aggregation_key) for r in found] == [(like, "\U0001f44d"), (edit, None)]
    assert (await db.read(relations.list_relations_of, [like]))[like].target_event_id == ROOT
    other = await RoomBuilder.create(db, "!other:here", room)
    assert await db.read(relations.list_related, other.room_nid, [ROOT], ["m.replace"]) == []
    await redact(room, "like")
    assert await db.read(relations.list_related, room.room_nid, [ROOT], ["m.annotation"]) == []


async def test_pages_of_relations_go_both_ways_and_are_narrowed(db: Database) -> None:
    room = await RoomBuilder.create(db)
    nids = [
        await room.say(str(n), type=("a", "b")[n % 2], content=relating(("x", "y")[n // 3])) for n in range(6)
    ]

    async def page(backwards: bool, limit: int = 10, **narrowed: str) -> list[int]:
        bounds = Page(above=tl.START_OF_TIMELINE, below=tl.END_OF_TIMELINE, backwards=backwards, limit=limit)
        found = await db.read(relations.list_relations_page, room.room_nid, [ROOT], bounds, **narrowed)
        return [nid for nid, _ in found]

    assert await page(backwards=True) == nids[::-1]
    assert await page(backwards=False, limit=2) == nids[:2]
    assert await page(backwards=False, rel_type="y") == nids[3:]
    assert await page(backwards=False, rel_type="y", event_type="a") == [nids[4]]


async def test_a_thread_counts_replies_and_remembers_the_newest(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("root")
    first = await room.say("first", content=relating("m.thread"))
    second = await room.say("second", sender=BOB, content=relating("m.thread"))
    old = make_pdu("old", sender=CAROL, content=relating("m.thread"))
    await room.append(
        PreparedEvent(pdu=old, outcome=Outcome.BACKFILLED, state_before=0), below_order=first << 20
    )

    async def thread() -> Thread | None:
        return (await db.read(relations.list_threads_by_root, room.room_nid, [ROOT])).get(ROOT)

    assert await thread() == Thread(ROOT, 3, second, second << 20)
    for user, replied in ((ALICE, True), (BOB, True), (CAROL, True)):
        participated = await db.read(relations.list_participated, [ROOT], await room.user_nid(user))
        assert bool(participated) is replied
    await redact(room, "second")
    assert await thread() == Thread(ROOT, 2, first, first << 20)
    assert not await db.read(relations.list_participated, [ROOT], await room.user_nid(BOB))
    await redact(room, "first")
    await redact(room, "old")
    assert await thread() is None


async def test_threads_are_listed_by_activity_and_by_who_takes_part(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("a", sender=BOB)
    await room.say("b")
    await room.say("c", sender=CAROL)
    for n, root in enumerate("acba"):
        await room.say(f"reply {n}", content=relating("m.thread", root))
    await room.say("reply of bob", sender=BOB, content=relating("m.thread", "c"))
    bob = await room.user_nid(BOB)
    everything = await db.read(relations.list_threads, room.room_nid, tl.END_OF_TIMELINE, 10)
    assert [thread.root_event_id for thread in everything] == [event_id_of(name) for name in "cab"]
    next_page = await db.read(relations.list_threads, room.room_nid, everything[0].newest_order, 1)
    assert next_page == everything[1:2]
    of_bob = await db.read(relations.list_threads, room.room_nid, tl.END_OF_TIMELINE, 10, bob)
    assert [thread.root_event_id for thread in of_bob] == [event_id_of(name) for name in "ca"]


async def test_what_is_not_in_the_timeline_relates_to_nothing(db: Database) -> None:
    room = await RoomBuilder.create(db)
    pdu = make_pdu("hidden", content=relating("m.thread"))
    await room.append(PreparedEvent(pdu=pdu, outcome=Outcome.SOFT_FAILED, state_before=0))
    assert await db.read(relations.list_related, room.room_nid, [ROOT], ["m.thread"]) == []
    waiting = make_pdu("redacted on arrival", content=relating("m.thread"))
    await room.append(accepted(waiting, redacted_by=1))
    assert await db.read(relations.list_related, room.room_nid, [ROOT], ["m.thread"]) == []
