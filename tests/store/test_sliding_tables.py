"""What sliding sync reads and keeps, on both engines."""

import msgspec

from ranvier.core.identifiers import DeviceID
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import sliding
from ranvier.store.tables.account_data import set_account_data
from ranvier.store.tables.devices import delete_devices, find_device
from ranvier.store.tables.receipts import Receipt, ReceiptType, set_receipt
from ranvier.store.tables.rooms import RoomSummary, upsert_summary
from ranvier.store.tables.sliding_connections import (
    MAX_OF_DEVICE,
    ConnectionChange,
    StoredConnection,
    StoredRoom,
    delete_unused,
    find_connection,
    find_shown,
    store_connection,
)
from tests.store.room_builder import ALICE, BOB, RoomBuilder, make_pdu
from tests.store.test_encryption_tables import make_holder

FAR = 2**62
ROOM = StoredRoom(7, None, 3, 0, 1, "join", False, None, None)


def connection(device_nid: int, **fields: object) -> StoredConnection:
    values: dict = {
        "life": 10,
        "device_nid": device_nid,
        "conn_id": "main",
        "answer": 1,
        "position": 5,
        "account_data_upto": 4,
        "device_lists_upto": None,
        "subscriptions_upto": None,
        "required_states": b"[]",
        "used_ms": 1000,
    }
    return StoredConnection(**(values | fields))


async def test_a_connection_is_kept_with_its_rooms_and_only_its_latest_life(db: Database) -> None:
    device = await db.write(lambda txn: make_holder(txn).device_nid)

    def run(txn: WriteTxn) -> None:
        first = connection(device)
        rooms = [ROOM, msgspec.structs.replace(ROOM, room_nid=8, upto=2, is_direct=True, notifications=3)]
        assert store_connection(txn, ConnectionChange(first, None, rooms, (), True))
        assert find_connection(txn, device, "main", 10) == (first, rooms)
        assert find_connection(txn, device, "other", 10) is None
        assert find_connection(txn, device, "main", 11) is None
        later = msgspec.structs.replace(first, answer=2, position=9, device_lists_upto=9)
        moved = msgspec.structs.replace(ROOM, upto=5, notifications=1, highlights=0)
        assert store_connection(txn, ConnectionChange(later, 1, [moved], [8], True))
        assert find_connection(txn, device, "main", 10) == (later, [moved])
        assert find_shown(txn, device, "main", 10) == 2
        assert find_shown(txn, device, "main", 11) is None
        anew = connection(device, life=11, position=12)
        assert store_connection(txn, ConnectionChange(anew, None, (), (), True))
        assert find_connection(txn, device, "main", 11) == (anew, [])
        # An earlier life, told late, brings nothing back.
        assert not store_connection(txn, ConnectionChange(later, 2, [ROOM], (), True))
        assert not store_connection(txn, ConnectionChange(first, None, [ROOM], (), True))
        assert find_connection(txn, device, "main", 11) == (anew, [])
        assert store_connection(txn, ConnectionChange(anew, 1, (), (), False))
        assert find_connection(txn, device, "main", 11) is None

    await db.write(run)


async def test_what_another_process_stored_is_not_mixed_with_what_was_believed(db: Database) -> None:
    device = await db.write(lambda txn: make_holder(txn).device_nid)

    def run(txn: WriteTxn) -> None:
        assert store_connection(txn, ConnectionChange(connection(device), None, [ROOM], (), True))
        theirs, mine = connection(device, answer=2), connection(device, answer=3)
        other = msgspec.structs.replace(ROOM, room_nid=8)
        assert store_connection(txn, ConnectionChange(theirs, 1, [other], (), True))
        assert not store_connection(txn, ConnectionChange(mine, 1, [], [7], True)), "it is answer 2 by now"
        assert find_connection(txn, device, "main", 10) == (theirs, [ROOM, other])
        assert store_connection(txn, ConnectionChange(mine, None, [ROOM], (), True))
        assert find_connection(txn, device, "main", 10) == (mine, [ROOM])

    await db.write(run)


async def test_a_device_has_few_connections_and_takes_them_with_it(db: Database) -> None:
    holder = await db.write(make_holder)
    device = holder.device_nid

    def run(txn: WriteTxn) -> None:
        for number in range(MAX_OF_DEVICE + 2):
            one = connection(device, life=100 + number, conn_id=str(number), used_ms=number)
            store_connection(txn, ConnectionChange(one, None, [ROOM], (), True))
        assert find_connection(txn, device, "1", 101) is None
        assert find_connection(txn, device, "2", 102) is not None
        assert delete_unused(txn, 3) == 1
        assert find_connection(txn, device, "2", 102) is None
        found = find_device(txn, holder.user_nid, DeviceID("PHONE"))
        assert found is not None
        delete_devices(txn, [found])
        assert find_connection(txn, device, "5", 105) is None
        store_connection(txn, ConnectionChange(connection(device), None, [ROOM], (), True))
        assert find_connection(txn, device, "main", 10) is None, "the device is gone"

    await db.write(run)


async def test_what_lists_sort_and_filter_by(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.set_state("create", ("m.room.create", ""), {})
    await room.set_membership("alice", ALICE, "join")
    await room.set_membership("bob", BOB, "invite")
    message = await room.say("hello")
    topic = await room.set_state("topic", ("m.room.topic", ""), {})
    await db.write(upsert_summary, room.room_nid, RoomSummary(room_type="m.space", encryption="x"))
    alice, bob = [await room.user_nid(user) for user in (ALICE, BOB)]

    def write(txn: WriteTxn) -> None:
        set_account_data(txn, alice, room.room_nid, "m.tag", b'{"tags":{}}')
        set_receipt(
            txn,
            Receipt(room.room_nid, alice, ReceiptType.READ, "", make_pdu("hello").event_id, None, 5, True),
        )

    before = db.position()
    await db.write(write)

    def read(txn: ReadTxn) -> None:
        assert sliding.list_facts(txn, [room.room_nid, 999]) == {
            room.room_nid: sliding.RoomFacts(topic, message, "m.space", True)
        }
        (absence,) = sliding.list_absences(txn, bob)
        assert (absence.membership, absence.sender_nid, absence.is_forgotten) == ("invite", bob, False)
        assert sliding.list_absences(txn, alice) == []
        assert sliding.list_once_joined(txn, alice, [room.room_nid]) == set()
        assert sliding.find_room_nids(txn, ["!room:here", "!other:here"]) == {"!room:here": room.room_nid}
        assert sliding.list_room_account_data_of_type(txn, alice, "m.tag") == {room.room_nid: b'{"tags":{}}'}
        assert sliding.list_changed_since(txn, [room.room_nid], before) == {room.room_nid}
        assert sliding.list_changed_since(txn, [room.room_nid], FAR) == set()
        assert sliding.list_rooms_read(txn, alice, before, FAR) == {room.room_nid}
        assert sliding.list_rooms_read(txn, bob, before, FAR) == set()
        assert [one.receipt.user_nid for one in sliding.list_receipts_on(txn, [message], FAR)] == [alice]
        assert sliding.list_receipts_on(txn, [topic], FAR) == []
        assert len(sliding.list_receipts_of(txn, [room.room_nid], alice, FAR)) == 1

    await db.read(read)
