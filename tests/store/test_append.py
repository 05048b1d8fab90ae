"""The one write path: what an append leaves behind for each outcome, and when it refuses."""

import asyncio
from typing import Any

import pytest

from ranvier.core import state_map
from ranvier.core.identifiers import RoomID, UserID
from ranvier.store.database import Conflict, Database, Hint, Kind
from ranvier.store.tables import client_transactions, edges, events, memberships, redactions, rooms, state
from ranvier.store.tables import timeline as tl
from ranvier.store.tables.append import append
from ranvier.store.tables.client_transactions import ClientTransaction
from ranvier.store.tables.events import Status
from ranvier.store.tables.placement import DuplicateEventId
from ranvier.store.tables.prepared import Batch, Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import PendingNodes, SnapshotNodes
from tests.store.room_builder import ALICE, BOB, CAROL, RoomBuilder, accepted, event_id_of, make_pdu, member


async def test_each_accepted_event_replaces_the_extremities_and_stands_at_its_position(db: Database) -> None:
    room = await RoomBuilder.create(db)
    first = await room.say("first")
    second = await room.say("second")
    head = await room.read()
    assert head.extremities == (second,)
    assert head.revision == 2
    assert head.newest_position == head.newest_local_position == second == db.position()
    page = await db.read(tl.list_page, room.room_nid, backwards=True, limit=10)
    assert [event.event_nid for event in page] == [second, first]
    assert [event.room_order for event in page] == [second << 20, first << 20]
    assert page[0].json == make_pdu("second").json


async def test_an_append_built_on_an_old_head_is_refused_and_leaves_nothing(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("first")
    with pytest.raises(Conflict):
        await room.append(accepted(make_pdu("late")), revision=0)
    assert await db.read(events.find_event, event_id_of("late")) is None
    assert (await room.read()).revision == 1


async def test_of_appends_built_on_one_head_exactly_one_wins(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.say("first")

    async def race(n: int) -> bool:
        pdu = member(f"race {n}", UserID("@same:new"), "join")
        batch = Batch(room_nid=room.room_nid, events=(accepted(pdu),), now_ms=0, revision=1)
        try:
            await db.write(append, room.interner, room.cache, batch)
        except Conflict:
            return False
        return True

    assert sorted(await asyncio.gather(*(race(n) for n in range(8)))) == [False] * 7 + [True]
    head = await room.read()
    assert (head.revision, head.joined_count, len(head.extremities)) == (2, 1, 1)


async def test_appends_to_many_rooms_at_once_intern_the_same_names(db: Database) -> None:
    first = await RoomBuilder.create(db)
    builders = [first] + [await RoomBuilder.create(db, f"!r{n}:here", first) for n in range(7)]

    async def fill(index: int, room: RoomBuilder) -> None:
        users = [UserID(f"@u{n}:s{n % 3}") for n in range(10)]
        order = users if index % 2 else users[::-1]
        await room.append(*(accepted(member(f"{index} {user}", user, "join")) for user in order))

    await asyncio.gather(*(fill(index, room) for index, room in enumerate(builders)))
    heads = [await room.read() for room in builders]
    assert [head.joined_count for head in heads] == [10] * 8
    slots = [(await db.read(state.list_current_state, room.room_nid)).keys() for room in builders]
    assert all(keys == slots[0] for keys in slots)


async def test_what_moves_the_head_must_name_a_revision(db: Database) -> None:
    room = await RoomBuilder.create(db)
    with pytest.raises(ValueError, match="revision"):
        await room.append(accepted(make_pdu("a")), revision=None)
    batch = Batch(room_nid=10**6, events=(), now_ms=0)
    with pytest.raises(LookupError):
        await db.write(append, room.interner, room.cache, batch)


async def test_a_batch_moves_the_state_event_by_event(db: Database) -> None:
    room = await RoomBuilder.create(db)
    create = make_pdu("create", type="m.room.create", state_key="")
    topic = make_pdu("topic", type="m.room.topic", state_key="")
    appended = await room.append(accepted(create), accepted(topic), accepted(make_pdu("hello")))
    create_nid, topic_nid, hello_nid = appended.event_nids
    records = await db.read(events.list_events, appended.event_nids)
    slots = {
        slot: room.interner.state_keys.number(slot) for slot in (("m.room.create", ""), ("m.room.topic", ""))
    }

    def states(txn: Any) -> list[dict[int, int]]:
        reader = SnapshotNodes(txn, room.cache)
        return [state_map.to_dict(reader, records[nid].state_root or 0) for nid in appended.event_nids]

    whole = {slots["m.room.create", ""]: create_nid, slots["m.room.topic", ""]: topic_nid}
    assert await db.read(states) == [{}, {slots["m.room.create", ""]: create_nid}, whole]
    assert await db.read(state.list_current_state, room.room_nid) == whole
    assert await db.read(state.find_root_at, room.room_nid, create_nid - 1) == state_map.EMPTY
    assert await db.read(state.find_root_at, room.room_nid, create_nid) == records[topic_nid].state_root
    assert await db.read(state.find_root_at, room.room_nid, hello_nid) == records[hello_nid].state_root
    assert appended.extremities == (hello_nid,)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.SOFT_FAILED, Status.SOFT_FAILED),
        (Outcome.REJECTED, Status.REJECTED),
        (Outcome.OUTLIER, Status.OUTLIER),
        (Outcome.REJECTED_OUTLIER, Status.REJECTED_OUTLIER),
    ],
)
async def test_what_was_not_accepted_is_kept_out_of_timeline_head_and_state(
    db: Database, outcome: Outcome, status: Status
) -> None:
    room = await RoomBuilder.create(db)
    nid = await room.say("first")
    before = await room.read()
    pdu = member("bad", BOB, "join", prev_events=(event_id_of("first"),))
    await room.append(PreparedEvent(pdu=pdu, outcome=outcome, state_before=0))
    assert await room.read() == before
    record = await db.read(events.find_event, pdu.event_id)
    assert record is not None
    assert (record.status, record.room_order) == (status, None)
    page = await db.read(tl.list_page, room.room_nid, backwards=False, limit=10)
    assert [event.event_nid for event in page] == [nid]
    assert await db.read(state.list_current_state, room.room_nid) == {}


async def test_a_fork_adds_an_extremity_and_a_merge_takes_it_away(db: Database) -> None:
    room = await RoomBuilder.create(db)
    root = await room.say("root")
    left = await room.say("left")
    fork = make_pdu("right", prev_events=(event_id_of("root"),), sender=CAROL)
    right = (await room.append(PreparedEvent(pdu=fork, outcome=Outcome.ACCEPTED, state_before=0))).event_nids[
        0
    ]
    assert (await room.read()).extremities == (left, right)
    merge = make_pdu("merge", prev_events=(event_id_of("left"), event_id_of("right")), sender=CAROL)
    merged = await room.append(PreparedEvent(pdu=merge, outcome=Outcome.ACCEPTED, state_before=0))
    assert merged.extremities == merged.event_nids
    assert root not in merged.extremities
    assert await db.read(edges.list_gaps_below, room.room_nid, 2**62, 1) == []


async def test_a_missing_event_leaves_a_gap_that_backfill_closes_in_its_place(db: Database) -> None:
    room = await RoomBuilder.create(db)
    old = await room.say("old")
    pdu = make_pdu("new", prev_events=(event_id_of("lost 2"),), sender=CAROL)
    new = (await room.append(PreparedEvent(pdu=pdu, outcome=Outcome.ACCEPTED, state_before=0))).event_nids[0]
    assert (await room.read()).extremities == (old, new)
    (gap,) = await db.read(edges.list_gaps_below, room.room_nid, tl.END_OF_TIMELINE, 10)
    assert gap == edges.Gap(event_id_of("lost 2"), new, new << 20)

    lost = [
        PreparedEvent(
            pdu=make_pdu(f"lost {n}", prev_events=(event_id_of(f"lost {n - 1}"),), sender=CAROL),
            outcome=Outcome.BACKFILLED,
            state_before=0,
        )
        for n in (1, 2)
    ]
    appended = await room.append(*lost, below_order=gap.room_order)
    page = await db.read(tl.list_page, room.room_nid, backwards=False, limit=10)
    assert [event.event_nid for event in page] == [old, *appended.event_nids, new]
    (rest,) = await db.read(edges.list_gaps_below, room.room_nid, tl.END_OF_TIMELINE, 10)
    assert rest.missing_event_id == event_id_of("lost 0")
    assert (await room.read()).extremities == (old, new)
    live = await db.read(events.list_live_events, 0, db.position(), 10)
    assert [position for position, _ in live] == [old, new], "backfill is no news"


async def test_an_event_that_comes_after_one_that_cites_it_is_no_extremity(db: Database) -> None:
    room = await RoomBuilder.create(db)
    child = make_pdu("child", prev_events=(event_id_of("parent"),))
    await room.append(PreparedEvent(pdu=child, outcome=Outcome.ACCEPTED, state_before=0))
    parent = make_pdu("parent", sender=CAROL)
    late = PreparedEvent(pdu=parent, outcome=Outcome.ACCEPTED, state_before=0, is_behind=True)
    appended = await room.append(late)
    assert (await room.read()).extremities == (appended.event_nids[0] - 1,)


async def test_what_lies_behind_an_event_that_was_not_accepted_is_no_extremity(db: Database) -> None:
    room = await RoomBuilder.create(db)
    old = make_pdu("old")
    lost = make_pdu("lost", prev_events=(old.event_id,))
    new = make_pdu("new", prev_events=(lost.event_id,))
    await room.append(PreparedEvent(pdu=old, outcome=Outcome.ACCEPTED, state_before=0))
    await room.append(PreparedEvent(pdu=lost, outcome=Outcome.SOFT_FAILED, state_before=0))
    prepared = PreparedEvent(pdu=new, outcome=Outcome.ACCEPTED, state_before=0, behind=(old.event_id,))
    appended = await room.append(prepared)
    assert (await room.read()).extremities == appended.event_nids


async def test_what_comes_late_and_is_not_accepted_puts_others_behind_it(db: Database) -> None:
    room = await RoomBuilder.create(db)
    old = make_pdu("old")
    lost = make_pdu("lost", prev_events=(old.event_id,))
    new = make_pdu("new", prev_events=(lost.event_id,))
    await room.append(PreparedEvent(pdu=old, outcome=Outcome.ACCEPTED, state_before=0))
    appended = await room.append(PreparedEvent(pdu=new, outcome=Outcome.ACCEPTED, state_before=0))
    revision = (await room.read()).revision
    late = PreparedEvent(pdu=lost, outcome=Outcome.SOFT_FAILED, state_before=0, behind=(old.event_id,))
    await room.append(late, revision=revision)
    after = await room.read()
    assert after.extremities == appended.event_nids
    assert after.revision == revision + 1, "what was built on the old head must notice"


async def test_an_outlier_that_is_passed_on_is_to_be_sent_to_others(db: Database) -> None:
    room = await RoomBuilder.create(db)
    pdu = make_pdu("topic", type="m.room.topic", state_key="", sender=CAROL)
    await room.append(PreparedEvent(pdu=pdu, outcome=Outcome.OUTLIER))
    before = db.position()
    await room.append(PreparedEvent(pdu=pdu, outcome=Outcome.ACCEPTED, state_before=0, is_relayed=True))
    ((_, record),) = await db.read(events.list_live_events, before, db.position(), 10)
    assert record.is_local


async def test_an_outlier_that_arrives_live_keeps_its_number_and_is_news(db: Database) -> None:
    room = await RoomBuilder.create(db)
    pdu = make_pdu("topic", type="m.room.topic", state_key="", sender=CAROL)
    nid = (await room.append(PreparedEvent(pdu=pdu, outcome=Outcome.OUTLIER))).event_nids[0]
    again = await room.append(PreparedEvent(pdu=pdu, outcome=Outcome.OUTLIER))
    assert again.event_nids == (nid,)
    before = db.position()
    live = await room.append(PreparedEvent(pdu=pdu, outcome=Outcome.ACCEPTED, state_before=0))
    assert live.event_nids == (nid,)
    assert live.extremities == (nid,)
    ((position, record),) = await db.read(events.list_live_events, before, db.position(), 10)
    assert position > before
    assert (record.event_nid, record.status, record.room_order) == (nid, Status.ACCEPTED, position << 20)
    assert (await room.read()).newest_position == position
    repeated = await room.append(PreparedEvent(pdu=pdu, outcome=Outcome.ACCEPTED, state_before=0))
    assert repeated.event_nids == (nid,)
    assert (await room.read()).newest_position == position


async def test_an_event_id_of_another_room_is_refused(db: Database) -> None:
    here = await RoomBuilder.create(db)
    await here.say("stolen")
    there = await RoomBuilder.create(db, "!other:here", here)
    with pytest.raises(DuplicateEventId):
        await there.append(PreparedEvent(pdu=make_pdu("stolen"), outcome=Outcome.OUTLIER))


async def test_resolved_state_changes_slots_of_other_events_too(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.set_membership("bob joins", BOB, "join")
    name = await room.set_state("name", ("m.room.name", ""), {"name": "a"})
    ban = member("bob banned", BOB, "ban", prev_events=(event_id_of("bob joins"),))
    outlier = PreparedEvent(pdu=ban, outcome=Outcome.OUTLIER)
    ban_nid = (await room.append(outlier)).event_nids[0]
    pdu = make_pdu("merge", prev_events=(event_id_of("name"),), sender=CAROL)
    changes = {("m.room.member", BOB): ban.event_id, ("m.room.name", ""): None}
    await room.append(
        PreparedEvent(pdu=pdu, outcome=Outcome.ACCEPTED, state_before=0, changes=changes)  # type: ignore[arg-type]
    )
    slot = room.interner.state_keys.number(("m.room.member", BOB))
    assert await db.read(state.list_current_state, room.room_nid) == {slot: ban_nid}
    found = await db.read(memberships.find_membership, room.room_nid, await room.user_nid(BOB))
    assert found is not None
    assert found.membership == "ban"
    assert (await room.read()).joined_count == 0
    assert name > 0


async def test_joining_by_federation_replaces_the_state(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.append(
        PreparedEvent(pdu=member("invite", ALICE, "invite"), outcome=Outcome.OUTLIER, sets_membership=True)
    )
    assert (await room.read()).invited_count == 1
    members = {("m.room.member", f"@u{n}:s{n % 3}"): f"join {n}" for n in range(200)}
    outliers = [
        PreparedEvent(pdu=member(name, UserID(slot[1]), "join"), outcome=Outcome.OUTLIER)
        for slot, name in members.items()
    ]
    await room.append(*outliers)

    def build(txn: Any) -> tuple[int, dict[int, Any]]:
        nodes = PendingNodes(txn, room.cache)
        entries = {slot: event_id_of(name) for slot, name in members.items()}
        return state.build_state(txn, room.interner, nodes, entries), nodes.touched

    root, touched = await db.write(build)
    room.cache.remember(touched)
    join = member("join", ALICE, "join", prev_events=(event_id_of("elsewhere"),))
    await room.append(
        PreparedEvent(pdu=join, outcome=Outcome.ACCEPTED, state_before=root, is_local=True),
        replace_state=root,
    )
    head = await room.read()
    assert (head.joined_count, head.invited_count) == (201, 0)
    servers = await db.read(memberships.list_servers_in_room, room.room_nid)
    assert sorted(count for _, count in servers) == [1, 66, 67, 67]
    assert len(await db.read(state.list_current_state, room.room_nid)) == 201
    assert await db.read(memberships.list_local_members, room.room_nid) == [await room.user_nid(ALICE)]


async def test_hostile_values_are_stored_or_ignored_but_never_fatal(db: Database) -> None:
    room = await RoomBuilder.create(db)
    hostile = [
        make_pdu("huge", depth=2**80, origin_server_ts=-(2**90)),
        make_pdu("odd member", type="m.room.member", state_key="no user", content={"membership": "join"}),
        make_pdu("odd member 2", type="m.room.member", state_key="@\u00e9", content={"membership": "join"}),
        member("odd membership", BOB, {"a": 1}),
        make_pdu("nul", content={"m.relates_to": {"rel_type": "a\0b", "event_id": "$x", "key": "\0"}}),
        make_pdu("long", content={"m.relates_to": {"rel_type": "r", "event_id": "$" + "x" * 9999}}),
        make_pdu("list", content={"m.relates_to": [], "url": {}}),
        make_pdu("number", content={"m.relates_to": {"rel_type": 1, "event_id": None}, "url": 3}),
        make_pdu("empty slot", type="", state_key="'; DROP TABLE events; --", content={}),
    ]
    await room.append(*(accepted(pdu) for pdu in hostile))
    assert len(await db.read(tl.list_page, room.room_nid, backwards=True, limit=100)) == len(hostile)
    assert (await room.read()).joined_count == 0


async def test_a_client_transaction_names_the_event_it_made(db: Database) -> None:
    room = await RoomBuilder.create(db)
    key = ClientTransaction(7, "DEVICE", room.room_nid, "send/m.room.message", "t1")
    nid = (await room.append(accepted(make_pdu("a"), transaction=key))).event_nids[0]
    assert await db.read(client_transactions.find_transaction, key) == nid
    other = ClientTransaction(7, "OTHER", room.room_nid, "send/m.room.message", "t1")
    assert await db.read(client_transactions.find_transaction, other) is None
    assert await db.read(client_transactions.list_txn_ids, 7, "DEVICE", [nid, nid + 1]) == {nid: "t1"}
    assert await db.read(client_transactions.list_txn_ids, 7, "OTHER", [nid]) == {}
    assert await db.write(client_transactions.delete_expired, 5_000) == 0
    assert await db.write(client_transactions.delete_expired, 5_001) == 1
    assert await db.read(client_transactions.find_transaction, key) is None


async def test_redactions_take_effect_only_when_told_and_in_their_room(db: Database) -> None:
    room = await RoomBuilder.create(db)
    target = await room.say("target")
    idle = make_pdu("idle", type="m.room.redaction", redacts=event_id_of("target"))
    first = (await room.append(accepted(idle))).event_nids[0]
    assert (await db.read(events.list_events, [target]))[target].redacted_by is None
    real = make_pdu("real", type="m.room.redaction", redacts=event_id_of("target"))
    second = (await room.append(accepted(real, redacts_target=True))).event_nids[0]
    assert (await db.read(events.list_events, [target]))[target].redacted_by == second
    found = await db.read(redactions.list_redactions, [event_id_of("target")])
    assert found == {event_id_of("target"): [first, second]}
    assert await db.read(redactions.list_originals, 5_001, 10) == [target]
    await db.write(redactions.replace_original, target, b"{}")
    await db.write(redactions.forget_originals, [target])
    assert (await db.read(events.list_events, [target]))[target].json == b"{}"
    assert await db.read(redactions.list_originals, 5_001, 10) == []

    other = await RoomBuilder.create(db, "!other:here", room)
    await room.say("safe")
    foreign = make_pdu("foreign", type="m.room.redaction", redacts=event_id_of("safe"))
    await other.append(accepted(foreign, redacts_target=True))
    safe = await db.read(events.find_event, event_id_of("safe"))
    assert safe is not None
    assert safe.redacted_by is None


async def test_hints_tell_the_room_and_local_users_whose_membership_changed(db: Database) -> None:
    told: list[Hint] = []
    db.subscribe(told.extend)
    room = await RoomBuilder.create(db)
    await room.set_membership("alice", ALICE, "join")
    await room.set_membership("carol", CAROL, "join")
    alice = await room.user_nid(ALICE)
    kinds = [(hint.kind, hint.key) for hint in told]
    assert kinds.count((Kind.ROOM, room.room_nid)) == 2
    assert kinds.count((Kind.USER, alice)) == 1
    assert {key for kind, key in kinds if kind is Kind.USER} == {alice}
    assert max(hint.position for hint in told) == db.position()


async def test_rolled_back_numbers_are_never_remembered(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.set_state("a", ("a", "a"), {})

    def fail(txn: Any) -> None:
        pdu = make_pdu("b", type="b", state_key="b", sender=UserID("@new:new"))
        batch = Batch(room_nid=room.room_nid, events=(accepted(pdu),), now_ms=0, revision=room.revision)
        append(txn, room.interner, room.cache, batch)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await db.write(fail)
    assert room.interner.users.number(UserID("@new:new")) is None
    await room.set_state("c", ("c", "c"), {})
    slots = {slot: room.interner.state_keys.number(slot) for slot in (("a", "a"), ("c", "c"))}
    root = (await room.read()).state_root

    def now(txn: Any) -> dict[int, int]:
        return state_map.to_dict(SnapshotNodes(txn, room.cache), root)

    assert set(await db.read(now)) == set(slots.values())
    assert await db.read(state.list_current_state, room.room_nid) == await db.read(now)


async def test_rooms_are_made_once_and_can_be_blocked(db: Database) -> None:
    first = await db.write(rooms.insert_room, RoomID("!r:here"), "10")
    again = await db.write(rooms.insert_room, RoomID("!r:here"), "11")
    assert first == again
    await db.write(rooms.block_room, RoomID("!x:y"), "@admin:here", 1)
    assert await db.read(rooms.is_blocked, RoomID("!x:y"))
    await db.write(rooms.unblock_room, RoomID("!x:y"))
    assert not await db.read(rooms.is_blocked, RoomID("!x:y"))
    summary = rooms.RoomSummary(name="n\0ul", encryption="m.megolm.v1.aes-sha2", guest_can_join=True)
    await db.write(rooms.upsert_summary, first.room_nid, summary)
    await db.write(rooms.upsert_summary, first.room_nid, summary)
    stored = (await db.read(rooms.list_summaries, [first.room_nid]))[first.room_nid]
    assert stored == rooms.RoomSummary(name="nul", encryption="m.megolm.v1.aes-sha2", guest_can_join=True)
    await db.write(rooms.update_partial, first.room_nid, True)
    room = await db.read(rooms.find_room, first.room_id)
    assert room is not None
    assert room.is_partial
