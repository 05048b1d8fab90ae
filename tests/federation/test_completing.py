"""How a room's state becomes whole: in pieces, while the room goes on, and through whatever happens meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from ranvier.app.config import FederationConfig
from ranvier.core import state_map
from ranvier.core.identifiers import EventID, RoomID
from ranvier.core.room_versions import V11
from ranvier.io.ports import HttpRequest, HttpResponse
from ranvier.services.flows import remote_joining
from ranvier.services.rooms import completing, filling, redeciding, unfinished
from ranvier.services.rooms.filling import Filling
from ranvier.store.database import ReadTxn
from ranvier.store.tables import rooms as room_table
from ranvier.store.tables import state
from ranvier.store.tables.prepared import Batch
from ranvier.store.tables.state_nodes import SnapshotNodes

from ..http.client import segment
from ..http.homeserver import Homeserver
from .agreement import view_of
from .network import Network
from .peer import Peer
from .test_handshakes import hand_in, make, sign
from .test_partial_joins import LAZY, C, Rooms, joined, list_jobs

MEMBERS = 30
EVENTS = 40


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A join does not wait for the state to be whole, as in a large room."""
    monkeypatch.setattr(remote_joining, "FEW_SERVERS", 0)


@pytest.fixture
async def rooms(network: Network) -> Rooms:
    rooms = Rooms(network)
    await rooms.start()
    return rooms


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Small pieces; what was written into the room by each."""
    batches: list[Batch] = []
    monkeypatch.setattr(filling, "AT_ONCE", 5)
    for module in (completing, redeciding, unfinished):
        monkeypatch.setattr(module, "AT_ONCE", 7)
    for module in (filling, redeciding):
        monkeypatch.setattr(module, "append", _noting(module.append, batches))
    return batches


def _noting(append: Callable[..., Any], batches: list[Batch]) -> Callable[..., Any]:
    def noting(txn: Any, interner: Any, nodes: Any, batch: Batch) -> Any:
        batches.append(batch)
        return append(txn, interner, nodes, batch)

    return noting


async def fill(rooms: Rooms) -> list[str]:
    """Let many users enter. Returns their ids."""
    users = [await rooms.one.register(f"member{number}") for number in range(MEMBERS)]
    for user in users:
        await rooms.join(user)
    last = users[-1]
    await rooms.until(lambda: rooms.knows(rooms.two, last))
    return [user.user_id for user in users]


async def hear(rooms: Rooms, count: int) -> str:
    """Let bob say much; the last is heard by the newcomer when this returns."""
    for number in range(count):
        said = await rooms.send(rooms.bob, f"said {number}")
    await rooms.until(lambda: rooms.has(rooms.cid, said))
    return said


async def rows_ahead(server: Homeserver, room_id: str) -> set[int]:
    """The slots in which the rows of the state now are not what the state is."""

    def read(txn: ReadTxn) -> set[int]:
        room = room_table.find_room(txn, RoomID(room_id))
        assert room is not None
        held = state.list_current_state(txn, room.room_nid)
        entries = state_map.to_dict(SnapshotNodes(txn, server.foundation.nodes), room.state_root)
        return {slot for slot in held.keys() | entries.keys() if held.get(slot) != entries.get(slot)}

    return await server.foundation.ports.db.read(read)


def before_effect(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any], times: int = 1) -> None:
    """Do something when all has been decided, and before it takes effect."""
    real = Filling.bring_near
    left = [times]

    async def bring_near(self: Filling, check: Any, root: int) -> Any:
        rows = await real(self, check, root)
        if left[0]:
            left[0] -= 1
            await act()
        return rows

    monkeypatch.setattr(Filling, "bring_near", bring_near)


async def test_no_transaction_is_large_and_the_last_one_is_small(rooms: Rooms, pieces: list[Batch]) -> None:
    await fill(rooms)
    rooms.hold()
    await rooms.join(rooms.cid)
    await hear(rooms, EVENTS)
    pieces.clear()
    rooms.release()
    await rooms.until_whole()
    *before, last = pieces
    assert len(before) >= MEMBERS // filling.AT_ONCE
    assert all(len(batch.replace_rows or ()) <= filling.AT_ONCE for batch in before)
    assert len(last.replace_rows or ()) <= 3, "the members are there already"
    assert not await rows_ahead(rooms.three, rooms.room_id)
    await rooms.until_agreed()


async def test_what_fails_midway_goes_on_later_and_others_see_the_room_as_it_was(
    rooms: Rooms, pieces: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    members = await fill(rooms)
    rooms.hold()
    await rooms.join(rooms.cid)
    said = await hear(rooms, 10)
    real = Filling._write
    count = 0

    def write(self: Filling, txn: Any, check: Any, root: int, slots: Sequence[int]) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("the process dies here")
        return real(self, txn, check, root, slots)

    monkeypatch.setattr(Filling, "_write", write)
    rooms.release()

    async def has_failed() -> bool:
        return count >= 3

    await rooms.until(has_failed)
    rooms.hold()
    assert await rooms.is_partial()
    ahead = await rows_ahead(rooms.three, rooms.room_id)
    assert 0 < len(ahead) <= 2 * filling.AT_ONCE
    assert await rooms.has(rooms.cid, said)
    assert await rooms.send(rooms.cid, "it goes on")
    await rooms.network.stop("three")
    rooms.three = await rooms.network.server("three")
    rooms.release(7_200)
    await rooms.until_whole()
    assert not await rows_ahead(rooms.three, rooms.room_id)
    state_now = (await view_of(rooms.three, rooms.room_id)).state
    assert {("m.room.member", member) for member in members} <= state_now.keys()
    await rooms.until_agreed()


@pytest.mark.parametrize("few", [0, 20])
async def test_what_comes_before_all_takes_effect_is_decided_too(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """In the transaction in which all takes effect; or, of more than a few events, before that."""
    monkeypatch.setattr(redeciding, "FEW", few)
    rooms.hold()
    await rooms.join(rooms.cid)
    await hear(rooms, 3)
    said: list[str] = []

    async def act() -> None:
        said.append(await hear(rooms, 2))
        said.append(await rooms.send(rooms.cid, "from here"))
        topic = await rooms.ann.put(f"{rooms.path}/state/m.room.topic/", {"topic": "new"})
        await rooms.until(lambda: rooms.has(rooms.cid, topic.json["event_id"]))

    before_effect(monkeypatch, act, times=2)
    rooms.release()
    await rooms.until_whole()
    for event_id in said:
        assert await rooms.has(rooms.cid, event_id)
    view = await view_of(rooms.three, rooms.room_id)
    assert ("m.room.topic", "") in view.state
    await rooms.until_agreed()


async def test_a_parent_that_comes_late_is_decided_before_its_child(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Peer(rooms.network)
    room_id, eve = rooms.room_id, peer.user("eve")
    entered = sign(peer, await make(peer, rooms.one, room_id, eve, ver="?ver=11"), V11)
    assert (await hand_in(peer, rooms.one, entered)).status == 200
    rooms.hold("one", "two", "peer")
    await rooms.join(rooms.cid)
    copy = await peer.copy(rooms.one, room_id)
    (last,) = [pdu for pdu in copy.pdus.values() if pdu.state_key == rooms.cid.user_id]
    parent = peer.event(copy, eve, "m.room.message", {"body": "first"}, prev=[last])
    child = peer.event(copy, eve, "m.room.message", {"body": "second"}, prev=[parent])
    peer.hidden.add(parent.event_id)
    await peer.send(rooms.three, [child])
    await hear(rooms, 1)  # so that there is something to decide again, whenever the child is taken

    async def come() -> None:
        await peer.send(rooms.three, [parent])
        for server in (rooms.one, rooms.two, rooms.three):
            await peer.send(server, [parent, child])

    before_effect(monkeypatch, come)
    rooms.release()
    for _ in range(20):
        rooms.network.clock.skip(4_000)
        await asyncio.sleep(0.05)
    await rooms.until_whole()
    await rooms.until(lambda: rooms.has(rooms.cid, parent.event_id))
    await rooms.send(rooms.bob, "to bring them together")
    await rooms.until_agreed()


async def test_a_whole_entry_after_an_unfinished_stay_leaves_nothing_of_it(
    rooms: Rooms, pieces: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    members = await fill(rooms)
    rooms.hold()
    await rooms.join(rooms.cid)
    await hear(rooms, 20)

    filled = asyncio.Event()
    real = rooms.three.foundation.writers.rewrite

    async def rewrite(room_nid: int, room_id: RoomID, write: Any) -> Any:
        if isinstance(write, partial) and write.func.__name__ == "take_effect":
            filled.set()
            await asyncio.Event().wait()
        return await real(room_nid, room_id, write)

    monkeypatch.setattr(rooms.three.foundation.writers, "rewrite", rewrite)
    rooms.release()

    async def has_filled() -> bool:
        return filled.is_set()

    await rooms.until(has_filled)
    assert len(await rows_ahead(rooms.three, rooms.room_id)) >= MEMBERS // 2
    assert (await rooms.cid.post(f"{rooms.path}/leave", {})).status == 200
    # One of those whose rows are here leaves while nobody here hears of it.
    amy = rooms.amy
    assert (await amy.post(f"{rooms.path}/leave", {})).status == 200
    await rooms.network.stop("three")
    rooms.three = await rooms.network.server("three", federation=FederationConfig(partial_joins=False))
    rooms.cid = await rooms.three.login("cid")
    await rooms.join(rooms.cid)
    assert not await rooms.is_partial()
    assert not await rows_ahead(rooms.three, rooms.room_id)
    answer = await rooms.cid.get(f"{rooms.path}/joined_members")
    assert answer.json["joined"].keys() == {*members, *(u.user_id for u in (rooms.ann, rooms.bob, rooms.cid))}
    await rooms.send(rooms.bob, "hello again")
    await rooms.until_agreed()


async def test_other_servers_wait_for_the_state_too(rooms: Rooms) -> None:
    rooms.hold()
    await rooms.join(rooms.cid)
    said = await rooms.send(rooms.cid, "hello")
    await rooms.until(lambda: rooms.has(rooms.bob, said))
    peer = Peer(rooms.network)
    room_id = rooms.room_id
    entered = sign(peer, await make(peer, rooms.one, room_id, peer.user("eve"), ver="?ver=11"), V11)
    assert (await hand_in(peer, rooms.one, entered)).status == 200
    await rooms.until(lambda: rooms.has(rooms.cid, entered.event_id))
    path = f"/_matrix/federation/v1/state_ids/{segment(room_id)}?event_id={segment(said)}"
    asking = asyncio.create_task(peer.request(rooms.three, "GET", path))
    await asyncio.sleep(0.1)
    assert not asking.done()
    rooms.network.clock.skip(21)
    assert ((await asking).status, (await asking).errcode) == (404, "M_NOT_FOUND"), "others are to be asked"
    asking = asyncio.create_task(peer.request(rooms.three, "GET", path))
    await asyncio.sleep(0.1)
    rooms.release()
    answer = await asking
    assert answer.status == 200
    before = (await view_of(rooms.one, room_id)).before[EventID(said)]
    assert set(answer.json["pdu_ids"]) == set(before.values())


async def test_members_at_a_token_of_before_are_those_of_the_whole_state(rooms: Rooms) -> None:
    rooms.hold()
    await rooms.join(rooms.cid)
    answer = await rooms.cid.get(f"{C}/sync?filter={segment(LAZY)}")
    assert rooms.room_id in joined(answer)
    rooms.release()
    await rooms.until_whole()
    members = await rooms.cid.get(f"{rooms.path}/members?at={answer.json['next_batch']}")
    assert {event["state_key"] for event in members.json["chunk"]} == {
        user.user_id for user in (rooms.ann, rooms.amy, rooms.bob, rooms.cid)
    }


async def test_a_state_of_which_our_own_event_is_not_known_is_told_by_what_came_before_it(
    rooms: Rooms,
) -> None:
    """A server that has not heard of the join yet, or has not kept it, knows what was before."""
    rooms.hold()
    await rooms.join(rooms.cid)
    entered = (await view_of(rooms.three, rooms.room_id)).state["m.room.member", rooms.cid.user_id]
    rooms.release(0)

    def refuse(request: HttpRequest) -> HttpResponse | None:
        if "/state_ids/" in request.url and segment(entered) in request.url:
            return HttpResponse(404, {}, b'{"errcode":"M_NOT_FOUND","error":"no"}')
        return None

    rooms.network.before |= dict.fromkeys(("one.test", "two.test"), refuse)
    rooms.network.clock.skip(10)
    await rooms.until_whole()
    await rooms.until_agreed()


async def test_servers_that_were_not_known_of_hear_what_they_missed_of_devices(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_joining, "_list_servers", lambda answer, server: [server])

    def told(name: str) -> bool:
        return any(
            asker == "three.test"
            and f"//{name}.test" in request.url
            and b"m.device_list_update" in (request.body or b"")
            for asker, request in rooms.network.log
        )

    rooms.hold()
    await rooms.join(rooms.cid)
    assert not await rooms.knows(rooms.three, rooms.bob)
    path = f"{C}/devices/{rooms.cid.device_id}"
    assert (await rooms.cid.put(path, {"display_name": "Pocket"})).status == 200

    async def one_was_told() -> bool:
        return told("one")

    async def two_was_told() -> bool:
        return told("two")

    await rooms.until(one_was_told)
    assert not told("two")
    rooms.release()
    await rooms.until_whole()
    await rooms.until(two_was_told)


async def test_who_comes_again_finds_a_name_that_was_redacted_gone(rooms: Rooms) -> None:
    await rooms.join(rooms.cid)
    await rooms.until_whole()
    named = await rooms.ann.put(f"{rooms.path}/state/m.room.name/", {"name": "Den"})
    event_id = segment(named.json["event_id"])
    redaction = await rooms.ann.put(f"{rooms.path}/redact/{event_id}/1", {})
    await rooms.until(lambda: rooms.has(rooms.cid, redaction.json["event_id"]))
    assert (await rooms.cid.post(f"{rooms.path}/leave", {})).status == 200
    await rooms.until(lambda: is_done(rooms.three))
    await rooms.join(rooms.cid)
    section = joined(await rooms.cid.get(f"{C}/sync?filter={segment(LAZY)}"))[rooms.room_id]
    assert section["summary"]["m.heroes"], "it is called after its members again"


async def is_done(server: Homeserver) -> bool:
    return not await list_jobs(server)


async def test_members_of_a_server_that_cannot_be_asked_for_its_keys_come_later(rooms: Rooms) -> None:
    peer = Peer(rooms.network)
    room_id, eve = rooms.room_id, peer.user("eve")
    entered = sign(peer, await make(peer, rooms.one, room_id, eve, ver="?ver=11"), V11)
    assert (await hand_in(peer, rooms.one, entered)).status == 200
    rooms.network.cut("three", "peer")

    def refuse(request: HttpRequest) -> HttpResponse | None:
        if "/key/v2/query" in request.url:
            return HttpResponse(404, {}, b'{"errcode":"M_NOT_FOUND","error":"no"}')
        return None

    rooms.network.before |= dict.fromkeys(("one.test", "two.test"), refuse)
    await rooms.join(rooms.cid)
    await rooms.until_whole()
    assert await rooms.knows(rooms.three, rooms.amy)
    assert ("m.room.member", eve) not in (await view_of(rooms.three, room_id)).state
    said = await hear(rooms, 3)
    rooms.network.heal()
    rooms.network.before.clear()

    async def is_known() -> bool:
        rooms.network.clock.skip(600)
        return ("m.room.member", eve) in (await view_of(rooms.three, room_id)).state

    await rooms.until(is_known)
    assert await rooms.has(rooms.cid, said)
    await rooms.until_agreed()
