"""What relates to what, as bundles, threads and recursion ask for it, on both engines."""

from typing import Any

from ranvier.core.identifiers import EventID, UserID
from ranvier.store.database import Database
from ranvier.store.tables import relations
from ranvier.store.tables import timeline as tl
from tests.store.room_builder import ALICE, BOB, RoomBuilder, accepted, event_id_of, make_pdu, member


async def _relate(
    room: RoomBuilder, name: str, target: str, rel_type: str, sender: UserID = ALICE, **fields: Any
) -> int:
    relation = {"rel_type": rel_type, "event_id": event_id_of(target)}
    return await room.say(name, content={"m.relates_to": relation}, sender=sender, **fields)


async def test_what_is_bundled(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("a")
    await room.say("b")
    early = await _relate(room, "edit 1", "a", "m.replace", origin_server_ts=5_000)
    late = await _relate(room, "edit 2", "a", "m.replace", origin_server_ts=9_000)
    await _relate(room, "edit 3", "a", "m.replace", origin_server_ts=7_000)
    await _relate(room, "edit of an edit", "edit 1", "m.replace")
    await _relate(room, "of another", "a", "m.replace", sender=BOB)
    await _relate(room, "of another type", "a", "m.replace", type="m.other")
    first = await _relate(room, "reference 1", "b", "m.reference", sender=BOB)
    await _relate(room, "reaction", "b", "m.annotation")
    ids = [event_id_of(name) for name in ("a", "b", "edit 1", "missing")]

    async def found(**bounds: int) -> list[tuple[EventID, str, int]]:
        return await db.read(relations.list_to_bundle, room.room_nid, ids, **bounds)

    a, b = event_id_of("a"), event_id_of("b")
    assert sorted(await found(edits=1, references=9)) == sorted(
        [(a, "m.replace", late), (b, "m.reference", first)]
    )
    edits = [nid for _, rel_type, nid in await found(edits=9, references=9) if rel_type == "m.replace"]
    assert len(edits) == 3
    assert (edits[0], edits[-1]) == (late, early)
    assert await found(edits=0, references=0) == []
    assert await db.read(relations.list_to_bundle, room.room_nid, [], edits=1, references=1) == []


async def test_threads_as_somebody_sees_them(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.append(accepted(member("alice", ALICE, "join")), accepted(member("bob", BOB, "join")))
    await room.say("root")
    first = await _relate(room, "1", "root", "m.thread")
    second = await _relate(room, "2", "root", "m.thread", sender=BOB)
    third = await _relate(room, "3", "root", "m.thread")
    root, bob_nid = event_id_of("root"), await room.user_nid(BOB)

    async def seen(**limits: Any) -> relations.Thread:
        found = await db.read(relations.list_threads_seen, room.room_nid, [root, event_id_of("1")], **limits)
        assert set(found) == {root}
        return found[root]

    everything = await db.read(relations.list_threads_by_root, room.room_nid, [root])
    assert await seen(below=tl.END_OF_TIMELINE, ignored=()) == everything[root]
    thread = await seen(below=tl.live_order(third), ignored=())
    assert (thread.reply_count, thread.newest_nid) == (2, second)
    thread = await seen(below=tl.live_order(third), ignored=(bob_nid,))
    assert (thread.reply_count, thread.newest_nid) == (1, first)


async def test_where_recursion_goes_on(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("root")
    await _relate(room, "leaf", "root", "m.reference")
    await _relate(room, "branch", "root", "m.thread", type="m.other")
    await _relate(room, "below", "branch", "m.reference")
    below = relations.list_parents_below
    for rel_type, type_, found in (
        (None, None, ["branch"]),
        ("m.thread", "m.other", ["branch"]),
        ("m.reference", None, []),
        (None, "m.room.message", []),
    ):
        ids = await db.read(below, room.room_nid, [event_id_of("root")], rel_type, type_, 5)
        assert ids == [event_id_of(name) for name in found]


async def test_a_page_of_relations(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("root")
    first = await _relate(room, "1", "root", "m.reference")
    second = await _relate(room, "2", "root", "m.thread", type="m.other")
    for backwards, rel_type, type_, found in (
        (True, None, None, [second, first]),
        (False, None, None, [first, second]),
        (True, "m.thread", None, [second]),
        (True, "m.thread", "m.room.message", []),
        (True, None, "m.other", [second]),
    ):
        page = relations.Page(above=0, below=tl.END_OF_TIMELINE, backwards=backwards, limit=5)
        rows = await db.read(
            relations.list_relations_page, room.room_nid, [event_id_of("root")], page, rel_type, type_
        )
        assert rows == [(nid, tl.live_order(nid)) for nid in found]


async def test_the_edge_of_what_a_filter_reads(db: Database) -> None:
    room = await RoomBuilder.create(db)
    appended = await room.append(*(accepted(make_pdu(str(number))) for number in range(5)))
    orders = [tl.live_order(nid) for nid in appended.event_nids]
    for backwards, count, edge in (
        (True, 2, orders[3]),
        (False, 2, orders[1]),
        (True, 5, orders[0]),
        (True, 6, None),
    ):
        found = await db.read(
            tl.find_edge,
            room.room_nid,
            above=tl.START_OF_TIMELINE,
            below=tl.END_OF_TIMELINE,
            backwards=backwards,
            count=count,
        )
        assert found == edge
