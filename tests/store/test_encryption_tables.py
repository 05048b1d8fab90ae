"""Keys and messages of devices, on both engines: no key twice, no message lost or twice, the best key kept."""

import asyncio
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranvier.core.identifiers import DeviceID, ServerName, UserID
from ranvier.store.connect import open_database
from ranvier.store.database import Database, Hint, Kind, WriteTxn
from ranvier.store.tables import (
    cross_signing,
    dehydrated_devices,
    device_lists,
    key_backup,
    memberships,
    one_time_keys,
    to_device,
)
from ranvier.store.tables.accounts import AccountKind, insert_account
from ranvier.store.tables.devices import delete_devices, find_device, insert_device
from ranvier.store.tables.interned import Interner, intern_users
from ranvier.store.tables.key_backup import BackedUpSession
from ranvier.store.tables.one_time_keys import Holder, PublicKey
from tests.store.test_query_plans import Explaining

ALICE = UserID("@alice:one")
BOB = UserID("@bob:one")
FAR = 2**62


def make_user(txn: WriteTxn, user_id: UserID) -> int:
    nid = intern_users(txn, Interner(ServerName("one")), [user_id])[user_id]
    insert_account(txn, nid, AccountKind.USER, "hash", None, 1)
    return nid


def make_holder(txn: WriteTxn, user_id: UserID = ALICE, device_id: str = "PHONE") -> Holder:
    user_nid = make_user(txn, user_id)
    return Holder(user_nid, insert_device(txn, user_nid, DeviceID(device_id), None, 1))


async def test_keys_go_out_in_the_order_of_their_uploads_then_the_fallback(db: Database) -> None:
    def run(txn: WriteTxn) -> list[str]:
        holder = make_holder(txn)
        one_time_keys.insert_one_time_keys(txn, holder, {("x", "z"): b"1", ("y", "other"): b"0"})
        one_time_keys.insert_one_time_keys(txn, holder, {("x", "a"): b"2"})
        one_time_keys.insert_one_time_keys(txn, holder, {("x", "z"): b"again"})
        one_time_keys.set_fallback_key(txn, holder, PublicKey("x", "f", b"3"))
        assert one_time_keys.count_one_time_keys(txn, holder.device_nid) == {"x": 2, "y": 1}
        assert one_time_keys.list_unused_fallback_types(txn, holder.device_nid) == ["x"]
        claims = [(holder, "x"), (holder, "nothing")]
        given_out = [one_time_keys.claim_keys(txn, claims) for _ in range(4)]
        assert all(found.keys() == {(holder, "x")} for found in given_out)
        assert one_time_keys.list_unused_fallback_types(txn, holder.device_nid) == []
        assert one_time_keys.count_one_time_keys(txn, holder.device_nid) == {"y": 1}
        # The same fallback key again is not unused again; another one is.
        one_time_keys.set_fallback_key(txn, holder, PublicKey("x", "f", b"3"))
        assert one_time_keys.list_unused_fallback_types(txn, holder.device_nid) == []
        one_time_keys.set_fallback_key(txn, holder, PublicKey("x", "g", b"4"))
        assert one_time_keys.list_unused_fallback_types(txn, holder.device_nid) == ["x"]
        return [found[(holder, "x")].key_id for found in given_out]

    assert await db.write(run) == ["z", "a", "f", "f"]


async def test_no_key_goes_to_two_who_claim_at_the_same_time(db: Database, open_another) -> None:
    """Two hundred devices, asking two processes."""

    def fill(txn: WriteTxn) -> list[Holder]:
        holders = [make_holder(txn, device_id="PHONE")]
        holders.append(
            Holder(holders[0].user_nid, insert_device(txn, holders[0].user_nid, DeviceID("B"), None, 1))
        )
        for holder in holders:
            keys = {("x", f"{number:03}"): b"%d" % number for number in range(150)}
            one_time_keys.insert_one_time_keys(txn, holder, keys)
        return holders

    holders = await db.write(fill)
    other = await open_another()
    claims = [(holder, "x") for holder in holders]
    found = await asyncio.gather(
        *((db, other)[number % 2].write(one_time_keys.claim_keys, claims) for number in range(200))
    )
    for holder in holders:
        got = [one[(holder, "x")].key_id for one in found if (holder, "x") in one]
        assert sorted(got) == [f"{number:03}" for number in range(150)]


async def test_who_holds_keys_is_told_that_they_became_fewer(db: Database) -> None:
    heard: list[Hint] = []
    holder = await db.write(make_holder)
    await db.write(one_time_keys.insert_one_time_keys, holder, {("x", "1"): b"1"})
    position = db.position()
    db.subscribe(heard.extend)
    await db.write(one_time_keys.claim_keys, [(holder, "x")])
    assert [(hint.kind, hint.key) for hint in heard] == [(Kind.USER, holder.user_nid)]
    assert heard[0].position > position, "a client that has seen `position` has not seen this"
    await db.write(one_time_keys.claim_keys, [(holder, "x")])
    assert len(heard) == 1


DEVICES = 3
actions = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sets(st.integers(0, DEVICES - 1))),
        st.tuples(st.just("sync"), st.integers(0, DEVICES - 1)),
        st.tuples(st.just("lose the answer"), st.integers(0, DEVICES - 1)),
    ),
    max_size=30,
)


class Inboxes:
    """Clients that sync in steps of two messages, and what they should have got."""

    def __init__(self, txn: WriteTxn, devices: list[to_device.Addressee]) -> None:
        self.txn = txn
        self.devices = devices
        # A transaction may not see the positions that it makes itself, so the newest is kept here.
        self.now = txn.next_position()
        self.tokens = [self.now] * len(devices)
        self.sent: list[list[bytes]] = [[] for _ in devices]
        self.arrived: list[list[bytes]] = [[] for _ in devices]

    def send(self, numbers: set[int], content: bytes) -> None:
        contents = {self.devices[number]: content for number in numbers}
        self.now = to_device.insert_messages(self.txn, BOB, "t", contents) or self.now
        for number in numbers:
            self.sent[number].append(content)

    def sync(self, number: int, *, is_lost: bool) -> None:
        device_nid, token = self.devices[number].device_nid, self.tokens[number]
        to_device.delete_acknowledged(self.txn, device_nid, token, limit=1)
        messages = to_device.list_messages(self.txn, device_nid, token, self.now, 2)
        if not is_lost:
            self.arrived[number] += [message.content for message in messages]
            self.tokens[number] = messages[-1].position if len(messages) == 2 else self.now

    def play(self, steps) -> None:
        for count, (action, argument) in enumerate(steps):
            if action == "send":
                self.send(argument, b"%d" % count)
            else:
                self.sync(argument, is_lost=action != "sync")
        for number in range(len(self.devices)):
            for _ in range(len(steps) + 1):
                self.sync(number, is_lost=False)


async def test_each_message_arrives_once_and_in_order_whatever_is_lost(db: Database) -> None:
    def setup(txn: WriteTxn) -> list[to_device.Addressee]:
        user_nid = make_user(txn, ALICE)
        return [
            to_device.Addressee(user_nid, insert_device(txn, user_nid, DeviceID(f"D{number}"), None, 1))
            for number in range(DEVICES)
        ]

    devices = await db.write(setup)

    def run(txn: WriteTxn) -> None:
        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(actions)
        def check(steps) -> None:
            inboxes = Inboxes(txn, devices)
            inboxes.play(steps)
            assert inboxes.arrived == inboxes.sent
            for device in devices:
                while to_device.delete_acknowledged(txn, device.device_nid, inboxes.now):
                    pass
                assert to_device.list_messages(txn, device.device_nid, 0, FAR, 100) == []

        check()

    await db.write(run)


async def test_a_repeated_request_is_known_until_it_is_forgotten(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        device_nid = make_holder(txn).device_nid
        assert to_device.begin_request(txn, device_nid, "t", "1", 10)
        assert not to_device.begin_request(txn, device_nid, "t", "1", 11)
        assert to_device.begin_request(txn, device_nid, "other", "1", 12)
        assert to_device.begin_received(txn, UserID("@x:two"), "1", 10)
        assert not to_device.begin_received(txn, UserID("@x:two"), "1", 11)
        assert to_device.delete_expired_requests(txn, 12) == 2
        assert to_device.begin_request(txn, device_nid, "t", "1", 13)
        assert not to_device.begin_request(txn, device_nid, "other", "1", 13)

    await db.write(run)


sessions = st.builds(
    BackedUpSession,
    first_message_index=st.integers(0, 2),
    forwarded_count=st.integers(0, 2),
    is_verified=st.booleans(),
    session_data=st.sampled_from([b'{"a":1}', b'{"b":2}']),
)
names = st.tuples(st.sampled_from(["!a:x", "!b:x"]), st.sampled_from(["s", "t", "u"]))
backup_steps = st.lists(
    st.one_of(
        st.dictionaries(names, sessions),
        st.tuples(st.just("delete"), st.none() | st.just("!a:x"), st.none() | st.just("s")),
    ),
    max_size=12,
)


def is_better(new: BackedUpSession, old: BackedUpSession) -> bool:
    """As the specification words it."""
    if new.is_verified != old.is_verified:
        return new.is_verified
    if new.first_message_index != old.first_message_index:
        return new.first_message_index < old.first_message_index
    return new.forwarded_count < old.forwarded_count


async def test_a_backup_keeps_the_best_key_of_each_session(db: Database) -> None:
    def play(txn: WriteTxn, user_nid: int, steps) -> None:
        version = key_backup.insert_version(txn, user_nid, "algorithm", b"{}")
        model: dict[tuple[str, str], BackedUpSession] = {}
        for step in steps:
            before = key_backup.find_version(txn, user_nid, version)
            old = dict(model)
            if isinstance(step, dict):
                key_backup.merge_sessions(txn, user_nid, version, step)
                model |= {
                    name: new
                    for name, new in step.items()
                    if name not in model or is_better(new, model[name])
                }
            else:
                _, room_id, session_id = step
                key_backup.delete_sessions(txn, user_nid, version, room_id, room_id and session_id)
                for name in list(model):
                    if room_id in (None, name[0]) and (room_id is None or session_id in (None, name[1])):
                        del model[name]
            after = key_backup.find_version(txn, user_nid, version)
            assert before is not None
            assert after is not None
            assert after.key_count == len(model)
            assert (after.etag != before.etag) == (model != old)
        found, last = {}, ("", "")
        while page := key_backup.list_sessions(txn, user_nid, version, last, 2):
            found |= {(one.room_id, one.session_id): one.session for one in page}
            last = (page[-1].room_id, page[-1].session_id)
        assert found == model
        of_room = key_backup.list_sessions_of_room(txn, user_nid, version, ("!a:x", ""), 100)
        assert {("!a:x", one.session_id): one.session for one in of_room} == {
            name: session for name, session in model.items() if name[0] == "!a:x"
        }

    def run(txn: WriteTxn) -> None:
        user_nid = make_user(txn, ALICE)

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(backup_steps)
        def check(steps) -> None:
            play(txn, user_nid, steps)

        check()

    await db.write(run)


async def test_the_number_of_a_deleted_backup_never_comes_again(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid = make_user(txn, ALICE)
        assert key_backup.find_current_version(txn, user_nid) is None
        first = key_backup.insert_version(txn, user_nid, "x", b"{}")
        second = key_backup.insert_version(txn, user_nid, "x", b"{}")
        session = BackedUpSession(0, 0, False, b"{}")
        key_backup.merge_sessions(txn, user_nid, second, {("!r:x", "s"): session})
        key_backup.delete_version(txn, user_nid, second)
        current = key_backup.find_current_version(txn, user_nid)
        assert current is not None
        assert current.version == first
        assert key_backup.list_sessions(txn, user_nid, second, ("", ""), 10) == []
        assert key_backup.insert_version(txn, user_nid, "x", b"{}") > second

    await db.write(run)


async def test_with_a_cross_signing_key_go_the_signatures_by_it_and_on_it(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        alice, bob = make_user(txn, ALICE), make_user(txn, BOB)

        def key(usage: str, public_key: str) -> cross_signing.CrossSigningKey:
            return cross_signing.CrossSigningKey(usage, public_key, b"{}")

        def signed(target: int, target_id: str, signer: int, by: str) -> None:
            signature = cross_signing.Signature(target, target_id, signer, f"ed25519:{by}", "s")
            cross_signing.insert_signatures(txn, signer, [signature])

        def seen(reader: int) -> set[tuple[str, str]]:
            found = cross_signing.list_signatures(txn, [alice, bob], reader)
            return {(one.target_id, one.key_id) for one in found}

        cross_signing.set_cross_signing_keys(
            txn, alice, [key("master", "m"), key("self_signing", "s"), key("user_signing", "u")]
        )
        cross_signing.set_cross_signing_keys(txn, bob, [key("master", "bm")])
        since = txn.position
        signed(alice, "PHONE", alice, "s")
        signed(alice, "m", alice, "PHONE")
        signed(bob, "bm", alice, "u")
        everybody = {("PHONE", "ed25519:s"), ("m", "ed25519:PHONE")}
        assert seen(alice) == everybody | {("bm", "ed25519:u")}
        assert seen(bob) == everybody, "whom alice has verified is her own affair"
        assert cross_signing.list_users_signed(txn, alice, since, FAR) == [bob]
        assert cross_signing.list_users_signed(txn, bob, since, FAR) == []
        # Another self-signing key: what the old one signed is signed no more.
        cross_signing.set_cross_signing_keys(txn, alice, [key("self_signing", "s2")])
        assert seen(bob) == {("m", "ed25519:PHONE")}
        # Another master key alone: the others, which it has not signed, go.
        cross_signing.set_cross_signing_keys(txn, alice, [key("master", "m2")])
        assert cross_signing.list_cross_signing_keys(txn, [alice])[alice].keys() == {"master"}
        assert seen(bob) == set()

    await db.write(run)


async def test_no_query_reads_a_whole_table(tmp_path: Path) -> None:
    db = await open_database(f"sqlite:{tmp_path / 'ranvier.db'}")

    def run(txn: WriteTxn) -> list[str]:
        explaining = Explaining(txn)
        to_device.list_messages(explaining, 1, 0, 5, 100)
        one_time_keys.count_one_time_keys(explaining, 1)
        cross_signing.list_cross_signing_keys(explaining, [1, 2])
        cross_signing.list_signatures(explaining, [1, 2], 3)
        cross_signing.list_users_signed(explaining, 1, 0, 5)
        key_backup.list_sessions(explaining, 1, 1, ("", ""), 10)
        key_backup.list_sessions_of_room(explaining, 1, 1, ("!r:x", ""), 10)
        dehydrated_devices.find_dehydrated_device(explaining, 1)
        device_lists.list_changed_users(explaining, 0, 5)
        memberships.list_moved(explaining, 1, 0, 5)
        return explaining.plans

    plans = await db.write(run)
    await db.close()
    assert len(plans) > 10
    assert not [step for step in plans if step.startswith("SCAN")], plans
    assert not [step for step in plans if "ORDER BY" in step], plans


async def test_whatever_belongs_to_a_device_goes_with_it(tmp_path: Path) -> None:
    """The registry that tables/devices.py promises: every table that names devices is emptied, by the schema or by
    hand."""
    # Tables that know devices by their name: (table, column with the user).
    by_name = {"key_signatures": "target_user_nid", "client_transactions": "user_nid"}
    # Those whose rows do not belong to one of our devices, or are the device, or are swept later.
    # A delayed event outlives the session that scheduled it: it may be the one that says that the user has gone.
    others = {
        "devices",
        "delayed_events",
        "deleted_devices",
        "remote_devices",
        "device_list_changes",
        "to_device_messages",
    }

    def tables(txn: WriteTxn) -> dict[str, set[str]]:
        found = {}
        for (name,) in txn.all("SELECT name FROM sqlite_master WHERE type = 'table'"):
            columns = {row[1] for row in txn.all(f"SELECT * FROM pragma_table_info('{name}')")}
            if columns & {"device_nid", "device_id"}:
                found[name] = columns
        return found

    def cascading(txn: WriteTxn, table: str) -> bool:
        keys = txn.all(f"SELECT \"table\", on_delete FROM pragma_foreign_key_list('{table}')")
        return ("devices", "CASCADE") in keys

    def run(txn: WriteTxn) -> None:
        holder = make_holder(txn)
        named = tables(txn)
        assert len(named) > 5
        for table in named.keys() - others - by_name.keys():
            assert cascading(txn, table), f"{table} keeps what belongs to a deleted device"
        signature = cross_signing.Signature(holder.user_nid, "PHONE", holder.user_nid, "ed25519:s", "s")
        cross_signing.insert_signatures(txn, holder.user_nid, [signature])
        dehydrated_devices.insert_dehydrated_device(txn, holder.user_nid, holder.device_nid, b"{}")
        device = find_device(txn, holder.user_nid, DeviceID("PHONE"))
        assert device is not None
        delete_devices(txn, [device])
        assert cross_signing.list_signatures(txn, [holder.user_nid], holder.user_nid) == []
        assert dehydrated_devices.find_dehydrated_device(txn, holder.user_nid) is None

    db = await open_database(f"sqlite:{tmp_path / 'ranvier.db'}")
    await db.write(run)
    await db.close()
