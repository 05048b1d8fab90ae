"""Rooms that are entered with a state that lacks its members: usable at once, and in the end as if it had not."""

import asyncio
from typing import Any

import orjson
import pytest

from ranvier.app.config import FederationConfig
from ranvier.core.identifiers import EventID
from ranvier.core.room_versions import V11
from ranvier.io.ports import HttpRequest, HttpResponse
from ranvier.services.federation.device_updates import DeviceUpdates
from ranvier.services.flows import remote_joining
from ranvier.store.database import ReadTxn
from ranvier.store.tables import followers, memberships

from ..http.client import Answer, segment
from ..http.homeserver import Homeserver, User
from ..http.olm import device_keys
from .agreement import differences, is_server_in_room, lacks_members, view_of
from .network import Network
from .peer import Peer
from .test_handshakes import hand_in, make, sign

C = "/_matrix/client/v3"
AUTHORIZING = ("m.room.create", "m.room.power_levels")
LAZY = orjson.dumps({"room": {"state": {"lazy_load_members": True}}}).decode()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A join does not wait for the state to be whole, as in a large room."""
    monkeypatch.setattr(remote_joining, "FEW_SERVERS", 0)


class Rooms:
    """A room on `one`, with users of `one` and `two`; `three` is to enter it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.holding = False
        self.room_id = ""

    async def start(self, **body: Any) -> None:
        network = self.network
        config = FederationConfig(partial_joins=True)
        self.one, self.two, self.three = [
            await network.server(name, federation=config) for name in ("one", "two", "three")
        ]
        self.ann = await self.one.register("ann")
        self.amy = await self.one.register("amy")
        self.bob = await self.two.register("bob")
        self.cid = await self.three.register("cid")
        answer = await self.ann.post(
            f"{C}/createRoom", {"preset": "public_chat", "room_version": "11", "name": "Hall"} | body
        )
        assert answer.status == 200, answer.body
        self.room_id = answer.json["room_id"]
        for user in (self.amy, self.bob):
            await self.join(user)
        await self.until(lambda: self.knows(self.one, self.bob))
        await self.until_whole(self.two)

    def hold(self, *names: str) -> None:
        """Let the servers tell no state until `release`."""
        self.holding = True
        for name in names or ("one", "two"):
            self.network.before[f"{name}.test"] = self.refuse

    def release(self, seconds: float = 10.0) -> None:
        """Let them tell it, and time pass."""
        self.network.before.clear()
        self.network.clock.skip(seconds)

    def refuse(self, request: HttpRequest) -> HttpResponse | None:
        if "/state_ids/" in request.url or "/state/" in request.url:
            return HttpResponse(404, {}, b'{"errcode":"M_NOT_FOUND","error":"not now"}')
        return None

    @property
    def path(self) -> str:
        return f"{C}/rooms/{segment(self.room_id)}"

    async def join(self, user: User, via: str = "one.test") -> Answer:
        answer = await user.post(f"{C}/join/{segment(self.room_id)}?server_name={via}", {})
        assert answer.status == 200, answer.body
        if user.user_id.endswith(":three.test"):
            # What is said there before it has heard of the join is not sent to the newcomer.
            await self.until(lambda: is_server_in_room(self.two, self.room_id, "three.test"))
        return answer

    async def send(self, user: User, text: str) -> str:
        answer = await user.put(
            f"{self.path}/send/m.room.message/{text}", {"body": text, "msgtype": "m.text"}
        )
        assert answer.status == 200, answer.body
        return str(answer.json["event_id"])

    async def is_partial(self, server: Homeserver | None = None) -> bool:
        return await lacks_members(server or self.three, self.room_id)

    async def has(self, user: User, event_id: str) -> bool:
        return (await user.get(f"{self.path}/event/{segment(event_id)}")).status == 200

    async def knows(self, server: Homeserver, user: User) -> bool:
        view = await view_of(server, self.room_id)
        return ("m.room.member", user.user_id) in view.state

    async def until(self, check: Any) -> None:
        for _ in range(4_000):
            if await check():
                return
            await asyncio.sleep(0.01)
        raise TimeoutError

    async def until_whole(self, server: Homeserver | None = None) -> None:
        async def is_whole() -> bool:
            return not await self.is_partial(server)

        await self.until(is_whole)

    async def until_agreed(self) -> None:
        async def agree() -> bool:
            views = {
                server.server_name: await view_of(server, self.room_id)
                for server in (self.one, self.two, self.three)
            }
            return not differences(views)

        try:
            await self.until(agree)
        except TimeoutError:
            raise AssertionError(
                differences(
                    {s.server_name: await view_of(s, self.room_id) for s in (self.one, self.two, self.three)}
                )
            ) from None


@pytest.fixture
async def rooms(network: Network) -> Rooms:
    rooms = Rooms(network)
    await rooms.start()
    return rooms


def joined(answer: Answer) -> dict[str, Any]:
    return dict(answer.json.get("rooms", {}).get("join", {}))


async def test_room_is_usable_before_its_state_is_whole(rooms: Rooms) -> None:
    rooms.hold()
    since = (await rooms.cid.get(f"{C}/sync")).json["next_batch"]
    await rooms.join(rooms.cid)
    assert await rooms.is_partial()
    assert not await rooms.knows(rooms.three, rooms.bob)
    sent = await rooms.send(rooms.cid, "hello")
    for user in (rooms.ann, rooms.bob):
        await rooms.until(lambda user=user: rooms.has(user, sent))
    said = await rooms.send(rooms.bob, "welcome")
    await rooms.until(lambda: rooms.has(rooms.cid, said))
    lazy = joined(await rooms.cid.get(f"{C}/sync?filter={segment(LAZY)}&since={since}"))[rooms.room_id]
    members = {event["state_key"] for event in lazy["state"]["events"] if event["type"] == "m.room.member"}
    assert rooms.bob.user_id in members, "who speaks is shown"
    assert said in {event["event_id"] for event in lazy["timeline"]["events"]}
    assert rooms.room_id not in joined(await rooms.cid.get(f"{C}/sync"))
    eager = await rooms.cid.get(f"{C}/sync?since={since}")
    assert rooms.room_id not in joined(eager)
    peer = Peer(rooms.network)
    offer = await make(peer, rooms.three, rooms.room_id, peer.user("eve"), ver="?ver=11")
    assert (offer.status, offer.errcode) == (404, "M_NOT_FOUND"), "others are to be asked"
    waiting = asyncio.create_task(rooms.cid.get(f"{rooms.path}/members"))
    polling = asyncio.create_task(rooms.cid.get(f"{C}/sync?timeout=20000&since={eager.json['next_batch']}"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    rooms.release()
    await rooms.until_whole()
    answer = await waiting
    assert {event["state_key"] for event in answer.json["chunk"]} == {
        user.user_id for user in (rooms.ann, rooms.amy, rooms.bob, rooms.cid)
    }
    woken = joined(await polling)[rooms.room_id]
    shown = {event["state_key"] for event in woken["state"]["events"] if event["type"] == "m.room.member"}
    shown |= {event.get("state_key") for event in woken["timeline"]["events"]}
    assert rooms.amy.user_id in shown
    assert woken["summary"]["m.joined_member_count"] == 4
    await rooms.until_agreed()


async def test_members_that_do_not_come_in_time_are_to_be_asked_for_again(rooms: Rooms) -> None:
    rooms.hold()
    await rooms.join(rooms.cid)
    for path in ("members", "joined_members"):
        waiting = asyncio.create_task(rooms.cid.get(f"{rooms.path}/{path}"))
        await asyncio.sleep(0.1)
        rooms.network.clock.skip(61)
        answer = await waiting
        assert (answer.status, answer.errcode) == (429, "M_LIMIT_EXCEEDED")
    stranger = await rooms.three.register("stranger")
    assert (await stranger.get(f"{rooms.path}/members")).status == 403, "who is not in the room does not wait"


async def test_state_comes_after_a_restart_from_whoever_is_left(rooms: Rooms) -> None:
    rooms.hold()
    await rooms.join(rooms.cid)
    said = await rooms.send(rooms.bob, "meanwhile")
    await rooms.until(lambda: rooms.has(rooms.cid, said))
    token = rooms.cid
    await rooms.network.stop("three")
    await rooms.network.stop("one")
    rooms.three = await rooms.network.server("three")
    assert await rooms.is_partial()
    rooms.release()
    await rooms.until_whole()
    assert await rooms.knows(rooms.three, rooms.amy)
    rooms.one = await rooms.network.server("one")
    rooms.network.clock.skip(86_400)
    await rooms.send(rooms.bob, "after")
    await rooms.until_agreed()
    assert token is rooms.cid


async def test_leaving_ends_the_job_and_entering_again_begins_another(rooms: Rooms) -> None:
    rooms.hold()
    await rooms.join(rooms.cid)
    said = await rooms.send(rooms.cid, "first stay")
    left = await rooms.cid.post(f"{rooms.path}/leave", {})
    assert left.status == 200, left.body
    gone = lambda server: lambda: has_left(rooms, server, rooms.cid)  # noqa: E731
    await rooms.until(gone(rooms.one))
    rooms.network.clock.skip(10)

    async def is_idle() -> bool:
        return not await list_jobs(rooms.three)

    await rooms.until(is_idle)
    await rooms.join(rooms.cid, via="two.test")
    assert await rooms.is_partial()
    heard = await rooms.send(rooms.bob, "second stay")
    await rooms.until(lambda: rooms.has(rooms.cid, heard))
    rooms.release()
    await rooms.until_whole()
    await rooms.until_agreed()
    history = await rooms.cid.get(f"{rooms.path}/messages?dir=b&limit=50")
    assert said in {event["event_id"] for event in history.json["chunk"]}, "it is fetched as other history is"
    await rooms.until_agreed()


async def test_another_user_enters_meanwhile(rooms: Rooms) -> None:
    rooms.hold()
    dan, eve = await rooms.three.register("dan"), await rooms.three.register("eve")
    banned = await rooms.ann.post(f"{rooms.path}/ban", {"user_id": eve.user_id})
    assert banned.status == 200
    await rooms.join(rooms.cid)
    await rooms.join(dan)
    assert await rooms.is_partial()
    said = await rooms.send(dan, "me too")
    await rooms.until(lambda: rooms.has(rooms.bob, said))
    answer = await eve.post(f"{C}/join/{segment(rooms.room_id)}", {})
    assert answer.status == 403, "that she is banned is not known here, but to others"
    rooms.release()
    await rooms.until_whole()
    await rooms.until_agreed()


async def test_a_join_that_cites_a_ban_is_not_made(rooms: Rooms) -> None:
    """A server that lets everybody in does not bring us to sign what no server will take."""
    await rooms.join(rooms.cid)
    await rooms.until_whole()
    banned = await rooms.ann.post(f"{rooms.path}/ban", {"user_id": rooms.cid.user_id})
    assert banned.status == 200, banned.body
    member = ("m.room.member", rooms.cid.user_id)
    ban = (await view_of(rooms.one, rooms.room_id)).state[member]

    async def knows_ban() -> bool:
        return (await view_of(rooms.three, rooms.room_id)).state.get(member) == ban

    await rooms.until(knows_ban)
    state = (await view_of(rooms.one, rooms.room_id)).state
    slots = [(type_, "") for type_ in (*AUTHORIZING, "m.room.join_rules")]
    offered = {
        "type": "m.room.member",
        "room_id": rooms.room_id,
        "sender": rooms.cid.user_id,
        "state_key": rooms.cid.user_id,
        "content": {"membership": "join"},
        "depth": 50,
        "prev_events": [ban],
        "auth_events": [*(state[slot] for slot in slots), ban],
    }
    asked: list[str] = []

    def offer(request: HttpRequest) -> HttpResponse | None:
        asked.append(request.url)
        answer = {"room_version": "11", "event": offered}
        return HttpResponse(200, {}, orjson.dumps(answer)) if "/make_join/" in request.url else None

    rooms.network.before["one.test"] = offer
    answer = await rooms.cid.post(f"{C}/join/{segment(rooms.room_id)}?server_name=one.test", {})
    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    assert not [url for url in asked if "/send_join/" in url]
    # That the ban is the last that is known here does not keep anybody out.
    unbanned = await rooms.ann.post(f"{rooms.path}/unban", {"user_id": rooms.cid.user_id})
    assert unbanned.status == 200, unbanned.body
    rooms.network.before.clear()
    await rooms.join(rooms.cid)
    await rooms.until_agreed()


async def test_who_is_not_in_the_room_is_heard_only_until_the_state_is_whole(rooms: Rooms) -> None:
    """Events that cite what let their senders in once are taken at first; others that follow from them are not."""
    peer = Peer(rooms.network)
    room_id, eve = rooms.room_id, peer.user("eve")
    joined_once = sign(peer, await make(peer, rooms.one, room_id, eve, ver="?ver=11"), V11)
    assert (await hand_in(peer, rooms.one, joined_once)).status == 200
    assert (await rooms.ann.post(f"{rooms.path}/ban", {"user_id": eve})).status == 200
    rooms.hold("one", "two", "peer")
    await rooms.join(rooms.cid)
    copy = await peer.copy(rooms.one, room_id)
    (entered,) = [pdu for pdu in copy.pdus.values() if pdu.state_key == rooms.cid.user_id]
    auth = [pdu for slot, pdu in copy.after[entered.event_id].items() if slot[0] in AUTHORIZING]
    bad = peer.message(copy, eve, "I am still here", entered, auth=[*auth, joined_once])
    topic = {"topic": "mine"}
    worse = peer.event(copy, eve, "m.room.topic", topic, prev=[bad], state_key="", auth=[*auth, joined_once])
    await peer.send(rooms.three, [bad, worse])
    await rooms.until(lambda: rooms.has(rooms.cid, bad.event_id))
    answered = await rooms.send(rooms.cid, "who are you?")
    rooms.release()
    await rooms.until_whole()
    assert not await rooms.has(rooms.cid, bad.event_id)
    assert await rooms.has(rooms.cid, answered)
    view = await view_of(rooms.three, room_id)
    assert {bad.event_id, worse.event_id} <= view.rejected
    assert ("m.room.topic", "") not in view.state


@pytest.mark.parametrize("has_keys", [False, True])
async def test_servers_that_are_said_to_be_there_hear_of_devices_with_keys(
    rooms: Rooms, has_keys: bool
) -> None:
    told: list[str] = []

    def listen(request: HttpRequest) -> HttpResponse | None:
        if "/send/" in request.url and request.body is not None:
            told.extend(
                edu["edu_type"]
                for edu in orjson.loads(request.body).get("edus", [])
                if edu["content"].get("user_id") == rooms.cid.user_id  # the others' servers tell of them, too
            )
        return rooms.refuse(request)

    if has_keys:
        keys = {"device_keys": device_keys(rooms.cid)}
        assert (await rooms.cid.post(f"{C}/keys/upload", keys)).status == 200
    rooms.hold()
    rooms.network.before["one.test"] = listen
    await rooms.join(rooms.cid)

    async def heard() -> bool:
        return "m.device_list_update" in told

    if has_keys:
        await rooms.until(heard)
    await rooms.until(lambda: has_dealt_with_joins(rooms.three))
    sent = await rooms.send(rooms.cid, "hello")
    await rooms.until(lambda: rooms.has(rooms.ann, sent))
    assert await heard() is has_keys
    # A device that comes or gets a name is told of in any case.
    name = {"display_name": "telephone"}
    assert (await rooms.cid.put(f"{C}/devices/{rooms.cid.device_id}", name)).status == 200
    await rooms.until(heard)


@pytest.mark.parametrize("cites_target", [False, True])
async def test_a_kick_by_who_is_gone(rooms: Rooms, cites_target: bool) -> None:
    """That a moderator has left is not known while members are missing, so what they do then is taken at first. Against
    the membership that the kicked one's events cite it counts as in state resolution: only if it knew of that."""
    peer = Peer(rooms.network)
    room_id, eve, bob = rooms.room_id, peer.user("eve"), rooms.bob
    joined_once = sign(peer, await make(peer, rooms.one, room_id, eve, ver="?ver=11"), V11)
    assert (await hand_in(peer, rooms.one, joined_once)).status == 200
    levels = {"users": {rooms.ann.user_id: 100, eve: 50}}
    assert (await rooms.ann.put(f"{rooms.path}/state/m.room.power_levels", levels)).status == 200
    assert (await rooms.ann.post(f"{rooms.path}/kick", {"user_id": eve})).status == 200
    rooms.hold("one", "two", "peer")
    await rooms.join(rooms.cid)
    copy = await peer.copy(rooms.one, room_id)
    (entered,) = [pdu for pdu in copy.pdus.values() if pdu.state_key == rooms.cid.user_id]
    before = copy.after[entered.event_id]
    there = before["m.room.member", bob.user_id]
    auth = [pdu for slot, pdu in before.items() if slot[0] in AUTHORIZING]
    kick = peer.event(
        copy,
        eve,
        "m.room.member",
        {"membership": "leave"},
        prev=[entered],
        state_key=bob.user_id,
        auth=[*auth, joined_once, *([there] if cites_target else [])],
    )
    await peer.send(rooms.three, [kick])
    await rooms.until(lambda: rooms.has(rooms.cid, kick.event_id))
    said = await rooms.send(bob, "nobody kicked me")

    async def is_stored() -> bool:
        return EventID(said) in (await view_of(rooms.three, room_id)).messages

    await rooms.until(is_stored)
    assert await rooms.is_partial()
    assert await rooms.has(rooms.cid, said) is not cites_target
    rooms.release()
    await rooms.until_whole()
    assert not await rooms.has(rooms.cid, kick.event_id)
    assert await rooms.has(rooms.cid, said)
    assert await rooms.knows(rooms.three, bob)


async def test_a_state_that_is_less_than_what_was_told_is_not_taken_while_others_tell_more(
    rooms: Rooms,
) -> None:
    create = (await view_of(rooms.one, rooms.room_id)).state["m.room.create", ""]

    def lie(request: HttpRequest) -> HttpResponse | None:
        if "/state_ids/" in request.url:
            return HttpResponse(200, {}, orjson.dumps({"pdu_ids": [create], "auth_chain_ids": []}))
        return None

    rooms.network.before["one.test"] = lie
    await rooms.join(rooms.cid)
    await rooms.until_whole()
    assert await rooms.knows(rooms.three, rooms.amy)
    rooms.network.before.clear()
    await rooms.until_agreed()


async def test_forged_members_are_none(rooms: Rooms) -> None:
    state = (await view_of(rooms.one, rooms.room_id)).state
    del state["m.room.name", ""]
    rooms.hold()
    await rooms.join(rooms.cid)
    ids = [*state.values(), "$forged0000000000000000000000000000000000000"]

    def lie(request: HttpRequest) -> HttpResponse | None:
        if "/state_ids/" in request.url:
            return HttpResponse(200, {}, orjson.dumps({"pdu_ids": ids, "auth_chain_ids": ids}))
        if "forged" in request.url:
            forged = {"type": "m.room.member", "state_key": "@x:one.test", "sender": "@x:one.test"}
            return HttpResponse(200, {}, orjson.dumps({"pdus": [forged | {"room_id": rooms.room_id}]}))
        return None

    rooms.release()
    rooms.network.before["one.test"] = lie
    rooms.network.clock.skip(10)
    await rooms.until_whole()
    view = await view_of(rooms.three, rooms.room_id)
    assert ("m.room.member", "@x:one.test") not in view.state
    assert ("m.room.name", "") in view.state, "what we were given counts as much as what is claimed later"
    assert await rooms.knows(rooms.three, rooms.amy)


async def test_servers_that_are_not_in_the_room_hold_their_places_for_a_while_only(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_joining, "_list_servers", lambda answer, server: [server, "phantom.test"])
    peer = Peer(rooms.network, "phantom")
    rooms.hold("one", "two", "phantom")
    await rooms.join(rooms.cid)
    await rooms.send(rooms.cid, "to all")

    async def was_sent() -> bool:
        return any("/send/" in path for _, path in peer.asked)

    await rooms.until(was_sent)
    rooms.release()
    rooms.hold("phantom")
    for _ in range(12):
        rooms.network.clock.skip(3_600)
        await asyncio.sleep(0.1)
    await rooms.until_whole()
    peer.asked.clear()
    await rooms.send(rooms.cid, "to those who are there")
    await rooms.until_agreed()
    assert not await was_sent()


async def has_left(rooms: Rooms, server: Homeserver, user: User) -> bool:
    def read(txn: Any) -> Any:
        return txn.value(
            "SELECT m.membership FROM memberships m JOIN users u ON u.user_nid = m.user_nid WHERE u.user_id = :user_id",
            user_id=user.user_id,
        )

    return bool(await server.foundation.ports.db.read(read) == "leave")


async def list_jobs(server: Homeserver) -> list[Any]:
    def read(txn: Any) -> list[Any]:
        return list(txn.all("SELECT dedupe_key FROM jobs WHERE kind = 'complete-room'"))

    return await server.foundation.ports.db.read(read)


async def has_dealt_with_joins(server: Homeserver) -> bool:
    """Whether the worker that tells of devices has seen every join."""

    def read(txn: ReadTxn) -> bool:
        after = followers.find_follower(txn, DeviceUpdates.name)
        return not memberships.list_local_joins(txn, after, txn.position, 1)

    return await server.foundation.ports.db.read(read)
