"""Memberships, counts and servers against a model, and what each kind of reader is told."""

import random
import sqlite3
from collections import Counter

import pytest

from ranvier.core.identifiers import RoomID, ServerName, UserID
from ranvier.store.database import Database, WriteTxn
from ranvier.store.sqlite import SqliteTxn
from ranvier.store.tables import interned, memberships, presence, rooms
from ranvier.store.tables.prepared import Outcome, PreparedEvent
from tests.store.room_builder import ALICE, BOB, CAROL, RoomBuilder, accepted, member

USERS = [UserID(f"@u{n}:{server}") for server in ("here", "there", "elsewhere") for n in range(3)]


@pytest.mark.parametrize("seed", range(3))
async def test_counts_and_servers_follow_any_sequence_of_changes(db: Database, seed: int) -> None:
    rng = random.Random(seed)
    room = await RoomBuilder.create(db)
    model: dict[UserID, str] = {}
    for batch in range(12):
        users = rng.sample(USERS, 3)
        events = []
        for index, user in enumerate(users):
            model[user] = rng.choice(["join", "join", "invite", "knock", "leave", "ban"])
            events.append(accepted(member(f"{batch} {index}", user, model[user])))
        await room.append(*events)
        head = await room.read()
        counts = Counter(model.values())
        assert (head.joined_count, head.invited_count) == (counts["join"], counts["invite"])
        by_server = Counter(user.partition(":")[2] for user, what in model.items() if what == "join")
        rows = await db.read(memberships.list_servers_in_room, room.room_nid)
        names = await db.read(interned.list_server_names, room.interner, [nid for nid, _ in rows])
        assert {names[nid]: count for nid, count in rows} == by_server
    everyone = await db.read(memberships.list_all_members, room.room_nid)
    nids = await db.read(interned.find_user_nids, room.interner, list(model))
    assert {m.user_nid: m.membership for m in everyone} == {nids[u]: what for u, what in model.items()}
    local = await db.read(memberships.list_local_members, room.room_nid)
    assert set(local) == {nids[u] for u, what in model.items() if what == "join" and u.endswith(":here")}
    joined = await db.read(memberships.list_members, room.room_nid)
    assert {nid for nid, _ in joined} == {nids[u] for u, what in model.items() if what == "join"}
    assert [nid for _, nid in joined] == sorted(nid for _, nid in joined)


async def test_a_local_user_learns_every_change_but_not_new_profiles(db: Database) -> None:
    room = await RoomBuilder.create(db)
    steps = ["invite", "invite", "join", "join", "leave", "ban"]
    nids = [await room.set_membership(f"{n} {what}", ALICE, what) for n, what in enumerate(steps)]
    alice = await room.user_nid(ALICE)
    changes = await db.read(memberships.list_membership_changes, alice, 0, db.position())
    assert [(c.previous, c.membership) for c in changes] == [
        ("leave", "invite"),
        ("invite", "invite"),
        ("invite", "join"),
        ("join", "leave"),
        ("leave", "ban"),
    ]
    assert [c.event_nid for c in changes] == [nids[n] for n in (0, 1, 2, 4, 5)]
    later = await db.read(memberships.list_membership_changes, alice, changes[2].position, db.position())
    assert later == changes[3:]
    assert await db.read(memberships.list_room_membership_changes, alice, room.room_nid) == changes


async def test_a_new_profile_keeps_the_time_of_the_join(db: Database) -> None:
    room = await RoomBuilder.create(db)
    joined = await room.set_membership("join", ALICE, "join")
    renamed = await room.set_membership("rename", ALICE, "join")
    found = await db.read(memberships.find_membership, room.room_nid, await room.user_nid(ALICE))
    assert found is not None
    assert (found.position, found.event_nid) == (joined, renamed)


async def test_forgetting_takes_leaving_and_ends_with_the_next_invite(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.set_membership("join", ALICE, "join")
    alice = await room.user_nid(ALICE)
    assert not await db.write(memberships.forget_room, room.room_nid, alice)
    for what, forgotten in (("leave", True), ("ban", True), ("invite", False)):
        await room.set_membership(what, ALICE, what)
        if what == "leave":
            assert await db.write(memberships.forget_room, room.room_nid, alice)
        found = await db.read(memberships.find_membership, room.room_nid, alice)
        assert found is not None
        assert found.is_forgotten is forgotten


async def test_an_invite_to_an_unknown_room_is_a_membership_without_state(db: Database) -> None:
    room = await RoomBuilder.create(db)
    invite = PreparedEvent(
        pdu=member("invite", BOB, "invite"),
        outcome=Outcome.OUTLIER,
        sets_membership=True,
        stripped_state=b"[]",
    )
    nid = (await room.append(invite)).event_nids[0]
    bob = await room.user_nid(BOB)
    (invited,) = await db.read(memberships.list_rooms_of_user, bob, ("invite",))
    assert (invited.room_nid, invited.event_nid) == (room.room_nid, nid)
    assert await db.read(memberships.list_stripped_states, [nid, nid + 1]) == {nid: b"[]"}
    assert await db.read(memberships.list_rooms_of_user, bob) == []
    assert (await room.read()).extremities == ()


async def test_who_shares_a_room_with_whom(db: Database) -> None:
    one = await RoomBuilder.create(db)
    two = await RoomBuilder.create(db, "!two:here", one)
    for room, users in ((one, (ALICE, BOB)), (two, (BOB, CAROL))):
        for user in users:
            await room.set_membership(f"{room.room_nid} {user}", user, "join")
    await two.set_membership("alice left", ALICE, "leave")
    alice, bob, carol = [await one.user_nid(user) for user in (ALICE, BOB, CAROL)]
    assert await db.read(memberships.list_shared_rooms, alice, bob) == [one.room_nid]
    assert await db.read(memberships.list_shared_rooms, alice, carol) == []
    assert await db.read(memberships.list_sharing_among, bob, [alice, carol]) == {alice, carol}
    assert await db.read(memberships.list_sharing_among, alice, [bob, carol]) == {bob}
    there = (await db.read(interned.find_server_nids, one.interner, [ServerName("there")])).popitem()[1]
    assert there in await db.read(memberships.list_servers_sharing, bob)
    assert there not in await db.read(memberships.list_servers_sharing, alice)
    assert await db.read(memberships.is_server_in_room, two.room_nid, there)
    assert not await db.read(memberships.is_server_in_room, one.room_nid, there)


async def test_who_shares_a_room_is_not_asked_pair_by_pair(db: Database, database_url: str) -> None:
    """What it costs grows with the rooms of the user, and with those of the others; not with their product."""
    if not database_url.startswith("sqlite:"):
        pytest.skip("SQLite counts its steps")
    count = 60
    await db.write(_fill, count)
    conn = sqlite3.connect(database_url.removeprefix("sqlite:"))
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    conn.set_progress_handler(step, 1)
    txn = SqliteTxn(conn.cursor())
    assert memberships.list_sharing_among(txn, 1, range(2, 2 + count)) == set()
    assert 0 < steps < 100 * count
    steps = 0
    assert presence.list_present(txn, 1, 1_000) == []
    assert 0 < steps < 100 * count
    conn.close()


def _fill(txn: WriteTxn, count: int) -> None:
    """User 1 is in as many rooms as there are others, each of whom is present, and in two rooms of their own."""
    interned.intern_users(
        txn, interned.Interner(ServerName("one")), [UserID(f"@u{n:03}:one") for n in range(count + 1)]
    )
    for number in range(3 * count):
        user = 1 if number < count else 2 + number % count
        row = rooms.insert_room(txn, RoomID(f"!{number}:one"), "11")
        txn.execute(
            "INSERT INTO memberships (room_nid, user_nid, membership, event_nid, position, is_local)"
            " VALUES (:room, :user, 'join', 1, 1, 1)",
            room=row.room_nid,
            user=user,
        )
    for user in range(1, 2 + count):
        presence.set_presence(
            txn, presence.Presence(user, presence.PresenceState.ONLINE, None, True, 5, True)
        )


async def test_present_are_those_who_share_a_room_the_last_active_first(db: Database) -> None:
    room = await RoomBuilder.create(db)
    for user in (ALICE, BOB, CAROL):
        await room.set_membership(f"{user}", user, "join")
    away = UserID("@away:here")
    await room.set_membership("came", away, "join")
    await room.set_membership("went", away, "leave")
    alice, bob, carol, gone = [await room.user_nid(user) for user in (ALICE, BOB, CAROL, away)]

    def show(txn: WriteTxn) -> None:
        for nid, state, active_ms in (
            (alice, "online", 9),
            (bob, "unavailable", 5),
            (carol, "online", 7),
            (gone, "online", 8),
        ):
            shown = presence.PresenceState(state)
            presence.set_presence(txn, presence.Presence(nid, shown, None, False, active_ms, True))

    await db.write(show)
    assert [one.user_nid for one in await db.read(presence.list_present, alice, 10)] == [carol, bob]
    assert [one.user_nid for one in await db.read(presence.list_present, alice, 1)] == [carol]
    assert await db.read(presence.list_present, gone, 10) == []
