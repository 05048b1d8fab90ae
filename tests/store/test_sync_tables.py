"""What sync asks of many rooms at once, on both engines."""

from ranvier.core.identifiers import UserID
from ranvier.store.tables import edges, memberships, receipts, relations
from ranvier.store.tables.client_transactions import ClientTransaction, list_transactions
from ranvier.store.tables.memberships import JOIN
from ranvier.store.tables.receipts import Receipt, ReceiptType

from .room_builder import ALICE, BOB, RoomBuilder, accepted, event_id_of, make_pdu


async def test_the_first_members_of_many_rooms(db):
    one = await RoomBuilder.create(db)
    two = await RoomBuilder.create(db, "!two:here", one)
    empty = await RoomBuilder.create(db, "!empty:here", one)
    users = [UserID(f"@u{number}:here") for number in range(5)]
    nids = [await one.set_membership(f"m{number}", user, JOIN) for number, user in enumerate(users)]
    await one.set_membership("gone", users[1], "leave")
    other = await two.set_membership("other", users[4], JOIN)
    rooms = (one.room_nid, two.room_nid, empty.room_nid)
    user_nids = [one.interner.users.number(user) for user in users]
    for limit, expected in ((1, [0]), (3, [0, 2, 3]), (9, [0, 2, 3, 4])):
        found = await db.read(memberships.list_first_members, rooms, JOIN, limit)
        assert found == {
            one.room_nid: [(user_nids[number], nids[number]) for number in expected],
            two.room_nid: [(user_nids[4], other)],
        }
    assert await db.read(memberships.list_joined_rooms_of, user_nids[:1]) == {one.room_nid}
    assert await db.read(memberships.list_joined_rooms_of, user_nids[1:2]) == set()
    assert await db.read(memberships.list_joined_rooms_of, user_nids) == {one.room_nid, two.room_nid}


async def test_the_newest_gap_in_a_stretch(db):
    room = await RoomBuilder.create(db)
    gaps = [edges.Gap(event_id_of(f"missing{order}"), order, order) for order in (10, 20, 30)]
    await db.write(edges.insert_gaps, room.room_nid, gaps)
    for after, upto, expected in ((0, 30, 30), (0, 29, 20), (20, 29, None), (30, 99, None)):
        found = await db.read(edges.list_newest_gaps, (room.room_nid, 77), after, upto)
        assert found == ({} if expected is None else {room.room_nid: expected})


async def test_private_receipts_of_one_user(db):
    room = await RoomBuilder.create(db)
    await room.set_membership("a", ALICE, JOIN)
    await room.set_membership("b", BOB, JOIN)
    alice, bob = (room.interner.users.number(user) for user in (ALICE, BOB))
    positions = {}
    for user_nid in (alice, bob):
        for kind in ReceiptType:
            receipt = Receipt(room.room_nid, user_nid, kind, "", event_id_of("a"), 1, 5, True)
            positions[user_nid, kind] = await db.write(receipts.set_receipt, receipt)
    mine = positions[alice, ReceiptType.PRIVATE]
    for since, up_to, expected in ((0, mine, 1), (mine, mine + 99, 0), (0, mine - 1, 0)):
        found = await db.read(receipts.list_private_receipts, (room.room_nid,), alice, since, up_to)
        assert [(one.receipt.user_nid, one.receipt.type) for one in found] == [
            (alice, ReceiptType.PRIVATE)
        ] * expected


async def test_the_rooms_in_which_something_relates_to_an_event(db):
    room = await RoomBuilder.create(db)
    await room.say("root")
    await room.say("plain")
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": event_id_of("root")}}
    await room.say("reply", content=relation)
    assert await db.read(relations.list_rooms_related, [event_id_of("plain")]) == set()
    both = [event_id_of("plain"), event_id_of("root")]
    assert await db.read(relations.list_rooms_related, both) == {room.room_nid}


async def test_who_sent_events_with_which_transaction_id(db):
    room = await RoomBuilder.create(db)
    transaction = ClientTransaction(
        user_nid=7, device_id="PHONE", room_nid=room.room_nid, request="send/m.room.message", txn_id="t1"
    )
    (sent,) = (await room.append(accepted(make_pdu("sent"), transaction=transaction))).event_nids
    plain = await room.say("plain")
    assert await db.read(list_transactions, [sent, plain]) == {sent: (7, "PHONE", "t1")}
