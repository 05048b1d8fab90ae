"""How far application services have got, and who was where when something happened."""

import pytest

from ranvier.core.identifiers import ServerName, UserID
from ranvier.store.database import Conflict, Database
from ranvier.store.tables import accounts, appservices, devices, interned, to_device
from ranvier.store.tables.accounts import AccountKind
from ranvier.store.tables.appservices import Lease

from .room_builder import RoomBuilder

BRIDGE = "bridge"


def lease(holder: str = "one", now_ms: int = 1_000) -> Lease:
    return Lease(BRIDGE, holder, now_ms, now_ms + 100)


async def prepare(db: Database, known: int, position: int, by: Lease, body: bytes = b"{}"):
    return await db.write(appservices.prepare_transaction, by, known, position, body, has_messages=False)


async def test_a_new_service_begins_where_it_is_told_and_a_known_one_stays(db: Database) -> None:
    assert await db.read(appservices.find_progress, BRIDGE) is None
    await db.write(appservices.begin_progress, BRIDGE, 5)
    await db.write(appservices.begin_progress, BRIDGE, 9)
    progress = await db.read(appservices.find_progress, BRIDGE)
    assert progress is not None
    assert (progress.position, progress.pending, progress.failing_since_ms) == (5, None, None)


async def test_a_transaction_is_pending_until_it_is_acknowledged(db: Database) -> None:
    await db.write(appservices.begin_progress, BRIDGE, 5)
    first = await prepare(db, 5, 8, lease(), b"[1]")
    progress = await db.read(appservices.find_progress, BRIDGE)
    assert progress is not None
    assert (progress.position, progress.pending, progress.lease) == (8, first, "one")
    await db.write(appservices.note_failure, lease(now_ms=2_000), 9_000)
    await db.write(appservices.note_failure, lease("other", now_ms=3_000), 7_000)
    failing = await db.read(appservices.find_progress, BRIDGE)
    assert failing is not None
    assert (failing.failing_since_ms, failing.retry_ms, failing.lease) == (2_000, 9_000, None)
    assert await db.write(appservices.claim_delivery, lease(now_ms=9_000), first.txn_id)
    await db.write(appservices.note_failure, lease(now_ms=9_050), 20_000)
    assert (await db.read(appservices.find_progress, BRIDGE)).failing_since_ms == 2_000
    await db.write(appservices.acknowledge, BRIDGE, first, 8)
    done = await db.read(appservices.find_progress, BRIDGE)
    assert done is not None
    assert (done.pending, done.failing_since_ms, done.lease, done.position) == (None, None, None, 8)
    second = await prepare(db, 8, 12, lease())
    assert second.txn_id != first.txn_id


async def test_one_process_delivers(db: Database) -> None:
    await db.write(appservices.begin_progress, BRIDGE, 5)
    first = await prepare(db, 5, 8, lease())
    with pytest.raises(Conflict):
        await prepare(db, 5, 9, lease("two"))
    with pytest.raises(Conflict):
        await prepare(db, 8, 9, lease("two"))
    with pytest.raises(Conflict):
        await db.write(appservices.advance, lease("two"), 8, 9)
    assert not await db.write(appservices.claim_delivery, lease("two", 1_099), first.txn_id)
    # The lease has run out.
    assert await db.write(appservices.claim_delivery, lease("two", 1_100), first.txn_id)
    assert not await db.write(appservices.claim_delivery, lease("one", 1_150), first.txn_id)
    await db.write(appservices.release_delivery, BRIDGE, "one")
    assert not await db.write(appservices.claim_delivery, lease("one", 1_150), first.txn_id)
    await db.write(appservices.release_delivery, BRIDGE, "two")
    assert await db.write(appservices.claim_delivery, lease("one", 1_150), first.txn_id)
    await db.write(appservices.acknowledge, BRIDGE, first, 8)
    # Who wakes up late does not send again what another one has delivered.
    assert not await db.write(appservices.claim_delivery, lease("two", 5_000), first.txn_id)
    await db.write(appservices.acknowledge, BRIDGE, first, 8)
    await prepare(db, 8, 9, lease("three", 5_000))
    await db.write(appservices.free_leases)
    assert (await db.read(appservices.find_progress, BRIDGE)).lease is None


async def test_who_was_joined_when(db: Database) -> None:
    interner = interned.Interner(ServerName("here"))
    room = await RoomBuilder.create(db)
    alice, ghost, far = UserID("@alice:here"), UserID("@ghost:here"), UserID("@far:there")
    for user in (alice, ghost, far):
        await room.set_membership(f"{user} joins", user, "join")
    between = db.position()
    await room.set_membership("leaves", ghost, "leave")
    await room.set_membership("far leaves", far, "leave")
    back = await room.set_membership("is back", ghost, "join")
    nids = await db.read(interned.find_user_nids, interner, [alice, ghost])
    room_nid = (await room.read()).room_nid
    changes = await db.read(appservices.list_later_changes, [room_nid], between)
    assert [(one.user_nid, one.previous, one.membership) for one in changes] == [
        (nids[ghost], "join", "leave"),
        (nids[ghost], "leave", "join"),
    ]
    assert changes[-1].position == back
    assert await db.read(appservices.list_later_changes, [room_nid], back) == []
    joined = await db.read(appservices.list_local_joined, [room_nid])
    assert set(joined) == {(room_nid, nids[alice]), (room_nid, nids[ghost])}
    assert await db.read(appservices.list_joined_rooms, list(nids.values())) == [
        (nid, room_nid) for nid in sorted(nids.values())
    ]
    assert await db.read(appservices.list_events_elsewhere, 0, db.position(), 10) == []


async def test_messages_of_one_position_stay_together(db: Database) -> None:
    interner = interned.Interner(ServerName("here"))
    users = [UserID(f"@ghost{number}:here") for number in range(3)]
    nids = await db.write(interned.intern_users, interner, users)
    addressees = {}
    for user in users:
        await db.write(accounts.insert_account, nids[user], AccountKind.APPSERVICE, None, BRIDGE, 1)
        device_nid = await db.write(devices.insert_device, nids[user], "D", None, 1)
        addressees[to_device.Addressee(nids[user], device_nid)] = b"{}"
    first = await db.write(to_device.insert_messages, UserID("@a:b"), "t", addressees)
    last = await db.write(to_device.insert_messages, UserID("@a:b"), "t", addressees)

    async def positions(limit: int, since: int = 0) -> list[int]:
        found = await db.read(to_device.list_messages_of_users, nids.values(), since, db.position(), limit)
        return [one.message.position for one in found]

    assert await positions(100) == [first] * 3 + [last] * 3
    assert await positions(2) == [first] * 3
    assert await positions(4) == [first] * 3 + [last] * 3
    assert await positions(1, first) == [last] * 3
    assert set(await db.read(to_device.list_users_with_messages, 0, last)) == set(nids.values())
    await db.write(to_device.delete_taken, "another", last)
    await db.write(to_device.delete_taken, BRIDGE, first)
    assert await positions(100) == [last] * 3
