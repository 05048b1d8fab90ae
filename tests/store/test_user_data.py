"""What users keep and show: each change is found by its position, none is lost, none moves backwards."""

import pytest

from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.store.database import Conflict, Database, WriteTxn
from ranvier.store.tables import (
    account_data,
    filters,
    presence,
    profiles,
    push_rules,
    pushers,
    receipts,
    registration_tokens,
    rooms,
    typing,
    uia,
)
from ranvier.store.tables.interned import Interner, intern_users

ALICE = UserID("@alice:one")
END = 2**62


def make_user(txn: WriteTxn) -> int:
    return intern_users(txn, Interner(ServerName("one")), [ALICE])[ALICE]


async def test_account_data_and_profile_changes_follow_positions(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        nid = make_user(txn)
        first = account_data.set_account_data(txn, nid, account_data.GLOBAL, "t", b"{}")
        assert account_data.delete_account_data(txn, nid, account_data.GLOBAL, "t")
        assert not account_data.delete_account_data(txn, nid, account_data.GLOBAL, "t")
        assert account_data.list_account_data(txn, nid, END) == []
        (change,) = account_data.list_account_data_changes(txn, nid, first, END)
        assert change.content is None
        assert profiles.set_profile_field(txn, nid, "displayname", b'"A"')
        assert not profiles.set_profile_field(txn, nid, "displayname", b'"A"')
        assert profiles.list_changed_profiles(txn, change.position, END) == [nid]
        assert profiles.list_profiles(txn, [nid]) == {nid: {"displayname": b'"A"'}}
        assert filters.upsert_filter(txn, nid, b"{}") == filters.upsert_filter(txn, nid, b"{}")
        assert filters.find_filter(txn, nid, 2**70) is None
        account_data.set_ignored_users(txn, nid, [nid, nid])
        assert account_data.list_ignored(txn, nid) == {nid}

    await db.write(run)


async def test_a_receipt_never_moves_backwards(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        nid = make_user(txn)
        room_nid = rooms.insert_room(txn, RoomID("!r:one"), "11").room_nid

        def read(order: int | None, type_: receipts.ReceiptType = receipts.ReceiptType.READ) -> bool:
            receipt = receipts.Receipt(
                room_nid, nid, type_, "", EventID(f"${order}"), order, 5, is_local=True
            )
            return receipts.set_receipt(txn, receipt) is not None

        assert [read(2), read(1), read(2), read(3)] == [True, False, False, True]
        assert read(9, receipts.ReceiptType.PRIVATE)
        own = receipts.list_receipt_changes(txn, [room_nid], nid, 0, END)
        assert [stored.receipt.room_order for stored in own] == [3, 9]
        other = receipts.list_receipts(txn, [room_nid], nid + 1, END)
        assert [stored.receipt.room_order for stored in other] == [3]
        assert len(receipts.list_receipts_to_send(txn, 0, END, 10)) == 1

    await db.write(run)


async def test_typing_ends_at_its_deadline(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        nid = make_user(txn)
        room_nid = rooms.insert_room(txn, RoomID("!r:one"), "11").room_nid
        assert typing.start_typing(txn, room_nid, nid, 10)
        assert not typing.start_typing(txn, room_nid, nid, 20)
        assert typing.stop_expired(txn, 19) == []
        since = txn.next_position()
        assert typing.stop_expired(txn, 20) == [(room_nid, nid)]
        assert typing.list_rooms_typing_changed(txn, [room_nid], since, END) == [room_nid]
        assert typing.list_typing(txn, [room_nid]) == {room_nid: []}

    await db.write(run)


async def test_push_rules_are_not_overwritten_unseen(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        nid = make_user(txn)
        position = push_rules.set_push_rules(txn, nid, b"{}", None)
        push_rules.set_push_rules(txn, nid, b"[]", position)
        with pytest.raises(Conflict):
            push_rules.set_push_rules(txn, nid, b"{}", position)
        keys = pushers.PusherKeys(
            kind="http", app_id="a", pushkey="k", app_display_name="", device_display_name="",
            profile_tag="", lang="en", data=b"{}",
        )  # fmt: skip
        pushers.set_pusher(txn, nid, None, keys, 1, append=False)
        (pusher,) = pushers.list_pushers(txn, nid)
        assert pusher.keys == keys

    await db.write(run)


async def test_uia_registration_tokens_and_presence(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        nid = make_user(txn)
        uia.insert_uia_session(txn, "s", nid, "POST /x", 1)
        assert uia.complete_uia_stage(txn, "s", "m.login.password", b"{}", 2)
        session = uia.find_uia_session(txn, "s")
        assert session is not None
        assert (session.used_ms, list(session.completed)) == (2, ["m.login.password"])
        assert [uia.delete_uia_session(txn, "s"), uia.delete_uia_session(txn, "s")] == [True, False]
        registration_tokens.insert_registration_token(txn, "once", 1, None)
        use = registration_tokens.use_registration_token
        assert [use(txn, "once", 1), use(txn, "once", 1)] == [True, False]
        presence.set_presence(
            txn,
            presence.Presence(nid, presence.PresenceState.ONLINE, None, True, 1, True),
        )
        assert [p.user_nid for p in presence.list_idle(txn, 1, 10)] == [nid]

    await db.write(run)
