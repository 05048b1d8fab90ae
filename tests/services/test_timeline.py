"""The write path on both engines: what is built on a head follows it, whoever else builds at the same time."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from ranvier.core.errors import AuthRejected, BadJsonValue, Forbidden
from ranvier.core.identifiers import DeviceID, RoomID, ServerName, UserID
from ranvier.core.room_versions import ROOM_VERSIONS, V11
from ranvier.core.signing import SigningKey
from ranvier.io.clock import SystemClock
from ranvier.io.randomness import seeded_randomness
from ranvier.services.requester import Requester
from ranvier.services.rooms import live as live_module
from ranvier.services.rooms.live import LiveRoom, LiveRooms
from ranvier.services.rooms.merging import Merging
from ranvier.services.rooms.sending import Sending
from ranvier.services.rooms.timeline import Author, Draft, Timeline
from ranvier.services.rooms.writer import RoomWriters
from ranvier.store.connect import open_database
from ranvier.store.database import Unavailable
from ranvier.store.tables import events, rooms
from ranvier.store.tables.client_transactions import ClientTransaction
from ranvier.store.tables.interned import Interner, intern_users
from ranvier.store.tables.state_nodes import NodeCache
from ranvier.store.tables.timeline import list_page

HERE = ServerName("here")
ALICE, BOB = UserID("@alice:here"), UserID("@bob:here")


class NoEffects:
    async def load(self, room: LiveRoom) -> None: ...

    def of(self, room, pdu):
        return None

    def store(self, txn, room_nid, effects) -> None: ...


class CountingDatabase:
    """Counts the writes, and fails them when told to."""

    def __init__(self, db) -> None:
        self._db = db
        self.writes = 0
        self.is_broken = False

    async def write(self, fn, *args, **kwargs):
        self.writes += 1
        if self.is_broken:
            raise Unavailable("disk full")
        return await self._db.write(fn, *args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._db, name)


class Process:
    """The write path as one process has it."""

    def __init__(self, db, seed: int = 1) -> None:
        self.db = CountingDatabase(db)
        self.interner = Interner(HERE)
        self.live = LiveRooms(self.db, self.interner)
        clock = SystemClock()
        writers = RoomWriters(self.db, self.live, self.interner, NodeCache(), NoEffects(), clock)
        author = Author(HERE, SigningKey(b"k" * 32, "a"), clock, seeded_randomness(seed))
        merging = Merging(self.interner, NodeCache(), writers, clock)
        self.timeline = Timeline(self.db, writers, merging, author)
        self.sending = Sending(self.db, self.live, self.timeline, lambda _requester: None)

    async def create(self, version=V11, *more: Draft) -> RoomID:
        creator = {"creator": ALICE} if version.auth.creator_in_content else {}
        return await self.timeline.create(
            version,
            [
                state("m.room.create", {"room_version": version.name, **creator}),
                state("m.room.member", {"membership": "join"}, ALICE),
                state("m.room.join_rules", {"join_rule": "public"}),
                *more,
            ],
        )

    async def requester(self, user_id: UserID) -> Requester:
        nids = await self.db.write(intern_users, self.interner, [user_id])
        return Requester(user_id=user_id, user_nid=nids[user_id], device_id=DeviceID("D"))


def state(event_type: str, content, key: str = "", sender: UserID = ALICE) -> Draft:
    return Draft(sender=sender, type=event_type, state_key=key, content=content)


def join(user_id: UserID) -> Draft:
    return state("m.room.member", {"membership": "join"}, user_id, user_id)


def message(body: object, sender: UserID = ALICE, **more) -> Draft:
    return Draft(sender=sender, type="m.room.message", content={"body": body}, **more)


async def timeline_of(db, room_id: RoomID) -> Sequence[events.EventRecord]:
    """The room's events, oldest first, checked to be one chain that ends in the room's head."""

    def read(txn):
        room = rooms.find_room(txn, room_id)
        page = list_page(txn, room.room_nid, backwards=False, limit=10_000)
        return room, page

    room, found = await db.read(read)
    records = sorted(found, key=lambda record: record.room_order)
    before: list[str] = []
    for record in records:
        prevs = [
            one if isinstance(one, str) else one[0] for one in msgspec.json.decode(record.json)["prev_events"]
        ]
        assert prevs == before
        before = [record.event_id]
    assert room.extremities == (records[-1].event_nid,)
    return records


def bodies(records) -> list[object]:
    contents = [msgspec.json.decode(record.json)["content"] for record in records]
    return [content["body"] for content in contents if "body" in content]


@pytest.mark.parametrize("version", ROOM_VERSIONS.values(), ids=lambda version: version.name)
async def test_a_room_grows_by_one_chain(tmp_path, version):
    db = await open_database(f"sqlite:{tmp_path / 'one.db'}")
    process = Process(db)
    room_id = await process.create(version)
    await process.timeline.send(room_id, [join(BOB)])
    await process.timeline.send(room_id, [message(1), message(2, BOB)])
    assert bodies(await timeline_of(db, room_id)) == [1, 2]
    # Another process goes on where this one ended.
    await Process(db, 2).timeline.send(room_id, [message(3)])
    assert bodies(await timeline_of(db, room_id)) == [1, 2, 3]
    await db.close()


async def test_many_senders_share_commits(db):
    process = Process(db)
    room_id = await process.create()
    written = process.db.writes
    sent = await asyncio.gather(*(process.timeline.send(room_id, [message(n)]) for n in range(100)))
    assert len({event_id for (event_id,) in sent}) == 100
    records = await timeline_of(db, room_id)
    assert bodies(records) == list(range(100))
    assert process.db.writes - written <= 3


async def test_two_processes_build_on_one_room(db, open_another):
    one, other = Process(db), Process(await open_another(), 2)
    room_id = await one.create()
    await one.timeline.send(room_id, [join(BOB)])

    async def talk(process, sender, name):
        for n in range(15):
            await process.timeline.send(room_id, [message(f"{name}{n}", sender)])

    await asyncio.gather(talk(one, ALICE, "a"), talk(other, BOB, "b"))
    said = bodies(await timeline_of(db, room_id))
    assert sorted(said) == sorted(f"{name}{n}" for name in "ab" for n in range(15))
    for name in "ab":
        assert [body for body in said if body[0] == name] == [f"{name}{n}" for n in range(15)]


async def test_no_is_not_said_out_of_an_old_memory(db, open_another):
    one, other = Process(db), Process(await open_another(), 2)
    room_id = await one.create()
    with pytest.raises(AuthRejected):
        await other.timeline.send(room_id, [message("too early", BOB)])
    await one.timeline.send(room_id, [join(BOB)])
    await other.timeline.send(room_id, [message("in time", BOB)])

    def check(room):
        if room.membership(BOB) != "leave":
            raise Forbidden("still here")

    with pytest.raises(Forbidden):
        await other.timeline.send(room_id, [message("x")], check=check, needs=[("m.room.member", BOB)])
    await one.timeline.send(room_id, [state("m.room.member", {"membership": "leave"}, BOB, BOB)])
    await other.timeline.send(room_id, [message("alone")], check=check, needs=[("m.room.member", BOB)])
    assert bodies(await timeline_of(db, room_id)) == ["in time", "alone"]


async def test_all_or_none(db):
    process = Process(db)
    room_id = await process.create()
    with pytest.raises(AuthRejected):
        await process.timeline.send(room_id, [message(1), state("m.x", {}, "", BOB), message(2)])
    await process.timeline.send(room_id, [message(3), state("m.x", {"a": 1}), message(4)])
    assert bodies(await timeline_of(db, room_id)) == [3, 4]


async def test_a_room_has_one_create_event(db):
    process = Process(db)
    room_id = await process.create()
    with pytest.raises(BadJsonValue):
        await process.timeline.send(room_id, [state("m.room.create", {"room_version": "11", "x": 1})])
    with pytest.raises(BadJsonValue):
        await process.create(V11, state("m.room.create", {}))


async def test_what_goes_with_a_room_undoes_it(db):
    process = Process(db)

    def also(txn, room_nid):
        assert room_nid > 0
        raise Forbidden("no")

    drafts = [
        state("m.room.create", {"room_version": "11"}),
        state("m.room.member", {"membership": "join"}, ALICE),
    ]
    with pytest.raises(Forbidden):
        await process.timeline.create(V11, drafts, also)
    assert await db.read(events.list_live_events, 0, 2**60, 10) == []


async def test_a_failed_append_is_forgotten(db):
    process = Process(db)
    room_id = await process.create()
    await process.timeline.send(room_id, [message(1)])
    process.db.is_broken = True
    results = await asyncio.gather(
        *(process.timeline.send(room_id, [message(n)]) for n in (2, 3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    process.db.is_broken = False
    await process.timeline.send(room_id, [message(4)])
    assert bodies(await timeline_of(db, room_id)) == [1, 4]


async def test_unknown_rooms_are_not_told_from_others(db):
    process = Process(db)
    room_id = await process.create()
    with pytest.raises(Forbidden):
        await process.timeline.send(RoomID("!none:here"), [message(1)])
    redaction = Draft(sender=BOB, type="m.room.redaction", content={}, redacts="$none")
    with pytest.raises(AuthRejected):
        await process.timeline.send(room_id, [redaction])
    # What others may have, who may redact anything may redact for them.
    (event_id,) = await process.timeline.send(room_id, [msgspec.structs.replace(redaction, sender=ALICE)])
    assert event_id


async def test_state_that_was_redacted_says_what_is_left(db):
    process = Process(db)
    room_id = await process.create()
    (first,) = await process.timeline.send(room_id, [state("m.room.name", {"name": "x"})])
    redaction = Draft(sender=ALICE, type="m.room.redaction", content={}, redacts=first)
    await process.timeline.send(room_id, [redaction])
    for reader in (process, Process(db, 2)):
        room = await reader.live.find(room_id, [("m.room.name", "")])
        assert room.state("m.room.name", "").content == {}
    (second,) = await process.timeline.send(room_id, [state("m.room.name", {"name": "x"})])
    assert second != first


async def test_a_transaction_makes_one_event(db):
    process = Process(db)
    room_id = await process.create()
    alice = await process.requester(ALICE)

    def send(sending, txn_id, body):
        return sending.send_message(alice, room_id, "m.room.message", {"body": body}, txn_id)

    same = await asyncio.gather(*(send(process.sending, "t", 1) for _ in range(5)))
    assert len(set(same)) == 1
    assert await send(process.sending, "t", "other") == same[0]
    restarted = Process(db, 2)
    # An old transaction among new ones costs them nothing.
    results = await asyncio.gather(
        send(restarted.sending, "u", 2), send(restarted.sending, "t", 1), send(restarted.sending, "v", 3)
    )
    assert results[1] == same[0]
    assert sorted(bodies(await timeline_of(db, room_id))) == [1, 2, 3]


async def test_the_innocent_are_appended_beside_a_used_transaction(db):
    process = Process(db)
    room_id = await process.create()
    alice = await process.requester(ALICE)
    room = await process.live.find(room_id)
    used = ClientTransaction(alice.user_nid, "D", room.nid, "send/m.room.message", "t")
    await process.timeline.send(room_id, [message(0, transaction=used)])
    fresh = [msgspec.structs.replace(used, txn_id=f"f{n}") for n in range(4)]
    written = process.db.writes
    results = await asyncio.gather(
        *(
            process.timeline.send(room_id, [message(n, transaction=one)])
            for n, one in enumerate([*fresh[:2], used, *fresh[2:]], 1)
        ),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == ["list", "list", "Integrity", "list", "list"]
    assert sorted(bodies(await timeline_of(db, room_id))) == [0, 1, 2, 4, 5]
    assert process.db.writes - written <= 6


async def test_who_hangs_up_has_sent_all_the_same(db):
    process = Process(db)
    room_id = await process.create()
    alice = await process.requester(ALICE)
    sending = [
        asyncio.create_task(process.sending.send_message(alice, room_id, "m.x", {"body": n}, "t"))
        for n in range(3)
    ]
    await asyncio.sleep(0)
    sending[0].cancel()
    answers = await asyncio.gather(*sending, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1] == answers[2]
    records = await timeline_of(db, room_id)
    assert len(bodies(records)) == 1
    assert records[-1].event_id == answers[1]


@pytest.mark.parametrize(("max_rooms", "max_bytes"), [(2, 2**30), (100, 10_000)])
async def test_rooms_in_use_are_not_let_go(db, monkeypatch, max_rooms, max_bytes):
    monkeypatch.setattr(live_module, "MAX_ROOMS", max_rooms)
    process = Process(db)
    process.live._max_bytes = max_bytes
    monkeypatch.setattr(live_module, "COUNT_EVERY", 1)
    room_ids = [await process.create() for _ in range(5)]
    await asyncio.gather(
        *(process.timeline.send(room_id, [message(n)]) for n in range(10) for room_id in room_ids)
    )
    for room_id in room_ids:
        assert sorted(bodies(await timeline_of(db, room_id))) == list(range(10))


async def test_rooms_take_no_more_memory_than_they_may(db, monkeypatch):
    monkeypatch.setattr(live_module, "COUNT_EVERY", 1)
    process = Process(db)
    room_ids = [await process.create() for _ in range(6)]
    for room_id in room_ids:
        await process.timeline.send(room_id, [state("m.x", {"n": n}, f"k{n % 3}") for n in range(6)])
    rooms = [await process.live.find(room_id) for room_id in room_ids]
    for room in rooms:
        assert room.bytes == sum(map(live_module._bytes_of, room._slots.values()))
    process.live._max_bytes = 3 * rooms[0].bytes
    for room_id in [*room_ids, *room_ids]:
        assert not (await process.live.find(room_id, [("m.x", "nothing is there")])).is_stale
        assert sum(room.bytes for room in process.live._rooms.values()) <= process.live._max_bytes
    # One that is too large by itself is read and used all the same.
    process.live._max_bytes = 1
    assert not (await process.live.find(room_ids[0], [("m.x", "nor there")])).is_stale


async def test_pending_state_is_never_forgotten(db, monkeypatch):
    monkeypatch.setattr(live_module, "MAX_SLOTS", 8)
    process = Process(db)
    room_id = await process.create()
    drafts = [state("m.x", {"n": n % 3}, f"k{n % 12}") for n in range(60)]
    await asyncio.gather(*(process.timeline.send(room_id, [draft]) for draft in drafts))
    await asyncio.gather(
        *(process.timeline.send(room_id, [state("m.y", {}, f"k{n}"), join(BOB)]) for n in range(12))
    )
    await timeline_of(db, room_id)
    for n in range(12):
        room = await process.live.find(room_id, [("m.x", f"k{n}")])
        assert room.state("m.x", f"k{n}").content == {"n": (48 + n) % 3}
