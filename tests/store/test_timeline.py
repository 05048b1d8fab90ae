"""Timelines against a list in memory: pages, filters, many rooms at once, and where backfilled events go."""

import fnmatch
from typing import Any

import pytest

from ranvier.core.events.pdu import Pdu
from ranvier.store.database import Database
from ranvier.store.tables import timeline as tl
from ranvier.store.tables.prepared import Outcome, PreparedEvent
from tests.store.room_builder import ALICE, BOB, CAROL, RoomBuilder, accepted, event_id_of, make_pdu

TYPES = ("m.room.message", "m.room_message", "M.room.message", "m.reaction", "a%b", "")


async def _mixed_room(db: Database) -> tuple[RoomBuilder, list[tuple[int, Pdu]]]:
    room = await RoomBuilder.create(db)
    pdus = [
        make_pdu(
            str(n),
            type=TYPES[n % len(TYPES)],
            sender=(ALICE, BOB, CAROL)[n % 3],
            content={"url": "mxc://a/b"} if n % 4 == 0 else {"url": n},
            origin_server_ts=1_000 * n,
        )
        for n in range(40)
    ]
    appended = await room.append(*(accepted(pdu) for pdu in pdus))
    return room, list(zip(appended.event_nids, pdus, strict=True))


@pytest.mark.parametrize("backwards", [True, False])
async def test_pages_cover_the_timeline_once(db: Database, backwards: bool) -> None:
    room, model = await _mixed_room(db)
    seen: list[int] = []
    above, below = tl.START_OF_TIMELINE, tl.END_OF_TIMELINE
    while page := await db.read(
        tl.list_page, room.room_nid, above=above, below=below, backwards=backwards, limit=7
    ):
        seen += [event.event_nid for event in page]
        last = page[-1].room_order
        assert last is not None
        above, below = (above, last) if backwards else (last, below)
    nids = [nid for nid, _ in model]
    assert seen == (nids[::-1] if backwards else nids)


FILTERS: list[dict[str, Any]] = [
    {"types": ()},
    {"types": ("m.room.message",)},
    {"types": ("m.room*",)},
    {"types": ("*",), "not_types": ("m.reaction", "a%*")},
    {"not_types": ("m.room_*", "")},
    {"types": ("a%b", "M.*")},
    {"contains_url": True},
    {"contains_url": False, "types": ("m.*",)},
]


@pytest.mark.parametrize("fields", FILTERS, ids=str)
async def test_the_database_filters_as_the_specification_says(db: Database, fields: dict[str, Any]) -> None:
    room, model = await _mixed_room(db)
    page = await db.read(
        tl.list_page, room.room_nid, backwards=False, limit=100, only=tl.TimelineFilter(**fields)
    )

    def matches(pattern: str, text: str) -> bool:
        return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))

    def passes(pdu: Pdu) -> bool:
        types = fields.get("types")
        url = fields.get("contains_url")
        return (
            (types is None or any(matches(t, pdu.type) for t in types))
            and not any(matches(t, pdu.type) for t in fields.get("not_types", ()))
            and (url is None or isinstance(pdu.content["url"], str) is url)
        )

    assert [event.event_nid for event in page] == [nid for nid, pdu in model if passes(pdu)]


async def test_senders_are_filtered_by_number(db: Database) -> None:
    room, model = await _mixed_room(db)
    bob = await room.user_nid(BOB)
    for only, wanted in (
        (tl.TimelineFilter(sender_nids=(bob,)), [n for n, pdu in model if pdu.sender == BOB]),
        (tl.TimelineFilter(not_sender_nids=(bob,)), [n for n, pdu in model if pdu.sender != BOB]),
        (tl.TimelineFilter(sender_nids=()), []),
    ):
        page = await db.read(tl.list_page, room.room_nid, backwards=False, limit=100, only=only)
        assert [event.event_nid for event in page] == wanted


async def test_only_events_that_something_relates_to(db: Database) -> None:
    room = await RoomBuilder.create(db)
    target = await room.say("target")
    relates_to = {"rel_type": "m.thread", "event_id": event_id_of("target")}
    await room.say("reply", sender=BOB, content={"m.relates_to": relates_to})
    bob, alice = await room.user_nid(BOB), await room.user_nid(ALICE)
    for only, wanted in (
        (tl.TimelineFilter(rel_types=("m.thread",)), [target]),
        (tl.TimelineFilter(rel_types=("m.annotation",)), []),
        (tl.TimelineFilter(rel_sender_nids=(bob,)), [target]),
        (tl.TimelineFilter(rel_types=("m.thread",), rel_sender_nids=(alice,)), []),
    ):
        page = await db.read(tl.list_page, room.room_nid, backwards=False, limit=100, only=only)
        assert [event.event_nid for event in page] == wanted


async def test_recent_events_of_many_rooms_each_up_to_the_limit(db: Database) -> None:
    first = await RoomBuilder.create(db)
    builders = [first] + [await RoomBuilder.create(db, f"!r{n}:here", first) for n in range(4)]
    model: dict[int, list[int]] = {room.room_nid: [] for room in builders}
    for turn in range(6):
        for index, room in enumerate(builders[:turn]):
            model[room.room_nid].append(await room.say(f"{turn} {index}"))
    everything = sorted(nid for nids in model.values() for nid in nids)
    for since in (0, everything[3], everything[-1]):
        for limit in (1, 2, 100):
            recent = await db.read(
                tl.list_recent,
                list(model),
                above=tl.live_order(since),
                below=tl.END_OF_TIMELINE,
                limit=limit,
            )
            wanted = {
                room_nid: [nid for nid in nids if nid > since][-limit:] for room_nid, nids in model.items()
            }
            found = {room_nid: [place.event_nid for place in places] for room_nid, places in recent.items()}
            assert found == {room_nid: nids for room_nid, nids in wanted.items() if nids}
    newest = await db.read(tl.list_newest, list(model))
    assert newest == {room_nid: nids[-1] for room_nid, nids in model.items() if nids}


async def _backfill(room: RoomBuilder, below_order: int, *names: str) -> None:
    events = [
        PreparedEvent(pdu=make_pdu(name, sender=CAROL), outcome=Outcome.BACKFILLED, state_before=0)
        for name in names
    ]
    await room.append(*events, below_order=below_order)


async def _names(db: Database, room: RoomBuilder) -> list[str]:
    page = await db.read(tl.list_page, room.room_nid, backwards=False, limit=1000)
    orders = [event.room_order for event in page]
    assert orders == sorted(set(orders), key=lambda order: order or 0)
    return [event.json.decode().partition('"name":"')[2].removesuffix('"}') for event in page]


async def test_gaps_are_filled_where_they_are_also_within_backfilled_events(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("old")
    new = tl.live_order(await room.say("new"))
    await _backfill(room, new, "a3", "a4")
    await _backfill(room, new - 2, "a1", "a2")
    # Another branch below the same event: its place is taken, so it goes below what is there.
    await _backfill(room, new, "b1", "b2")
    assert await _names(db, room) == ["old", "b1", "b2", "a1", "a2", "a3", "a4", "new"]
    await room.say("newest")
    assert (await _names(db, room))[-1] == "newest"


async def test_history_before_the_first_event_has_no_bottom_and_skips_live_numbers(db: Database) -> None:
    room = await RoomBuilder.create(db)
    first = tl.live_order(await room.say("first"))

    def orders(txn: Any, count: int) -> list[int]:
        return tl.free_orders(txn, room.room_nid, first, count)

    many = await db.read(orders, (first >> 20) * (1 << 20) + 10)
    assert many[-1] == first - 1
    assert many[0] < 0
    assert all(order % (1 << 20) for order in many), "no number that a live event could get"


async def test_a_gap_between_neighbors_is_bounded(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("old")
    new = tl.live_order(await room.say("new"))

    def orders(txn: Any) -> list[int]:
        return tl.free_orders(txn, room.room_nid, new, 1 << 20)

    with pytest.raises(tl.OrdersExhausted):
        await db.read(orders)


async def test_the_event_nearest_to_a_time(db: Database) -> None:
    room, model = await _mixed_room(db)
    nids = [nid for nid, _ in model]

    def near(txn: Any, ts: int, *, forwards: bool) -> list[int]:
        found = tl.list_events_near(txn, room.room_nid, ts, forwards=forwards, limit=1)
        return [record.event_nid for record in found]

    assert await db.read(near, 4_500, forwards=True) == [nids[5]]
    assert await db.read(near, 4_500, forwards=False) == [nids[4]]
    assert await db.read(near, 4_000, forwards=True) == [nids[4]]
    assert await db.read(near, -1, forwards=False) == []
    assert await db.read(near, 10**9, forwards=True) == []
