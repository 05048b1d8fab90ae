"""Device lists of remote users: kept while a room is shared, brought up to date by updates, asked for at gaps; and
what other servers are told of ours.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ranvier.app.config import FederationConfig
from ranvier.core.canonical_json import parse_object
from ranvier.core.identifiers import DeviceID
from ranvier.services.devices import list_requests, remote_lists, resync
from ranvier.store.database import WriteTxn
from ranvier.store.tables.devices import delete_devices, insert_device, list_devices
from ranvier.store.tables.interned import find_user_nids

from ..http.homeserver import Homeserver, User
from ..http.olm import Key, cross_signing_key, device_keys
from .network import Network
from .peer import Peer, RoomCopy
from .test_rooms import create_room, join, until

C = "/_matrix/client/v3"
USER = "/_matrix/federation/v1/user"


def keys_of(user_id: str, device_id: str, seed: int = 1) -> dict[str, Any]:
    """Device keys of a user of the peer; the server need not check who signed them."""
    return {
        "user_id": user_id,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"curve25519:{device_id}": Key(seed).public},
        "signatures": {},
    }


class KeyPeer(Peer):
    """A peer whose user bob has devices, and who notes what EDUs it gets."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.stream_id = 10
        self.devices: dict[str, dict[str, Any]] = {}
        self.master: dict[str, Any] | None = None
        self.answer: Any = None  # instead of the list
        self.one_time_keys: dict[str, Any] = {}
        self.is_dumb = False  # it answers no questions about devices
        self.edus: list[dict[str, Any]] = []

    @property
    def bob(self) -> str:
        return self.user("bob")

    def _answer(self, path: Sequence[str], query: Mapping[str, list[str]], body: bytes) -> Any:
        match path:
            case ["v1", "send", _]:
                self.edus += parse_object(body).get("edus", [])
                return {"pdus": {}}
            case ["v1", "user", "devices", self.bob] if not self.is_dumb:
                return self.answer or {
                    "user_id": self.bob,
                    "stream_id": self.stream_id,
                    "devices": [{"device_id": name, "keys": keys} for name, keys in self.devices.items()],
                    **({} if self.master is None else {"master_key": self.master}),
                }
            case ["v1", "user", "keys", "query"]:
                masters = {} if self.master is None else {self.bob: self.master}
                return {"device_keys": {self.bob: self.devices}, "master_keys": masters}
            case ["v1", "user", "keys", "claim"]:
                return {"one_time_keys": {self.bob: self.one_time_keys}}
        return super()._answer(path, query, body)

    def count(self, what: str) -> int:
        """How often it was asked for something: devices or keys/query."""
        return sum(path.startswith(f"{USER}/{what}") for _, path in self.asked)

    def updates(self) -> list[dict[str, Any]]:
        """What it was told of devices."""
        return [edu["content"] for edu in self.edus if edu["edu_type"] == "m.device_list_update"]


class Scene:
    """Alice of one.test shares a room with bob of peer.test."""

    def __init__(self, peer: KeyPeer, server: Homeserver, alice: User, room: RoomCopy) -> None:
        self.peer, self.server, self.alice, self.room = peer, server, alice, room

    async def query(self) -> dict[str, Any]:
        """Bob's devices as alice sees them."""
        answer = await self.alice.post(f"{C}/keys/query", {"device_keys": {self.peer.bob: []}})
        assert answer.status == 200, answer.body
        self.masters = answer.json["master_keys"]
        return {
            name: keys["keys"] for name, keys in answer.json["device_keys"].get(self.peer.bob, {}).items()
        }

    def expected(self) -> dict[str, Any]:
        return {name: keys["keys"] for name, keys in self.peer.devices.items()}

    async def is_kept(self) -> bool:
        """Whether a query is answered without the peer."""
        before = self.peer.count("keys/query")
        assert await self.query() == self.expected()
        return self.peer.count("keys/query") == before

    async def follow(self) -> None:
        await until(self.is_kept, "the list is kept")

    async def update(self, device_id: str = "PHONE", **more: Any) -> None:
        """The peer tells of a change that comes right after the one before."""
        previous, self.peer.stream_id = self.peer.stream_id, self.peer.stream_id + 5
        content = {
            "user_id": self.peer.bob,
            "device_id": device_id,
            "stream_id": self.peer.stream_id,
            "prev_id": [previous],
        }
        if device_id in self.peer.devices:
            content["keys"] = self.peer.devices[device_id]
        await self.tell("m.device_list_update", content | more)

    async def tell(self, edu_type: str, content: dict[str, Any]) -> None:
        answer = await self.peer.send(self.server, edus=[{"edu_type": edu_type, "content": content}])
        assert answer.status == 200, answer.body

    async def since(self) -> str:
        return (await self.alice.get(f"{C}/sync")).json["next_batch"]

    async def hears(self, since: str) -> tuple[list[str], list[str]]:
        """Who changed and who left, by a sync."""
        lists = (await self.alice.get(f"{C}/sync", since=since)).json.get("device_lists", {})
        return lists.get("changed", []), lists.get("left", [])


@pytest.fixture
async def scene(network: Network) -> Scene:
    server = await network.server("one")
    alice = await server.register("alice")
    peer = KeyPeer(network)
    room = await peer.copy(server, await create_room(alice, "12", preset="public_chat"))
    await peer.send(server, [peer.join(room, "bob", list(room.pdus.values())[-1])])
    peer.devices["PHONE"] = keys_of(peer.bob, "PHONE")
    return Scene(peer, server, alice, room)


async def test_a_list_is_kept_from_the_first_question_on(scene: Scene) -> None:
    assert await scene.query() == scene.expected()
    await scene.follow()
    assert scene.peer.count("devices") == 1


async def test_the_first_question_is_the_only_one(scene: Scene) -> None:
    """What a client asks for and what is kept from then on are one request, however many clients ask at a time."""
    assert await asyncio.gather(*(scene.query() for _ in range(3))) == [scene.expected()] * 3
    assert await scene.query() == scene.expected()
    assert (scene.peer.count("devices"), scene.peer.count("keys/query")) == (1, 0)


async def test_after_a_gap_the_next_question_is_the_only_one(scene: Scene) -> None:
    await scene.query()
    scene.peer.devices["TABLET"] = keys_of(scene.peer.bob, "TABLET")
    await scene.update("TABLET", prev_id=[12])
    assert await asyncio.gather(*(scene.query() for _ in range(3))) == [scene.expected()] * 3
    assert (scene.peer.count("devices"), scene.peer.count("keys/query")) == (2, 0)


async def test_many_users_of_a_server_are_asked_for_by_one_request(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_requests, "MOST_NOW", 0)
    assert await scene.query() == scene.expected()
    assert scene.peer.count("keys/query") == 1
    await scene.follow()


async def test_an_update_is_applied_without_asking(scene: Scene) -> None:
    await scene.follow()
    for change in (
        lambda devices: devices.update(TABLET=keys_of(scene.peer.bob, "TABLET")),
        lambda devices: devices.update(TABLET=keys_of(scene.peer.bob, "TABLET", 2)),
    ):
        change(scene.peer.devices)
        since = await scene.since()
        await scene.update("TABLET", device_display_name="Bob's tablet")
        assert await scene.hears(since) == ([scene.peer.bob], [])
        assert await scene.is_kept()
    del scene.peer.devices["TABLET"]
    since = await scene.since()
    await scene.update("TABLET", deleted=True)
    assert await scene.hears(since) == ([scene.peer.bob], [])
    assert await scene.is_kept()
    assert scene.peer.count("devices") == 1


async def test_a_list_does_not_grow_without_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many devices a list is what one answer holds."""
    monkeypatch.setattr(remote_lists, "MAX_DEVICES", 3)
    await scene.follow()
    for number in range(2):
        scene.peer.devices[f"D{number}"] = keys_of(scene.peer.bob, f"D{number}")
        await scene.update(f"D{number}")
    assert await scene.is_kept()
    assert scene.peer.count("devices") == 1
    await scene.update("UNHEARD OF", keys=keys_of(scene.peer.bob, "UNHEARD OF"))
    await scene.follow()
    assert scene.peer.count("devices") == 2


async def test_an_update_that_comes_twice_is_no_news(scene: Scene) -> None:
    await scene.follow()
    await scene.update()
    since = await scene.since()
    scene.peer.stream_id -= 5
    await scene.update()
    assert await scene.hears(since) == ([], [])
    assert await scene.is_kept()


@pytest.mark.parametrize(
    "update",
    [
        {"prev_id": [12]},
        {"prev_id": []},
        {"prev_id": [10, 12]},
        {"stream_id": 3},
        {"keys": {"user_id": "@x:y"}},
    ],
    ids=["gap", "no predecessor", "one of two", "counts anew", "keys of another"],
)
async def test_whatever_does_not_fit_makes_the_server_ask(scene: Scene, update: dict[str, Any]) -> None:
    await scene.follow()
    scene.peer.devices["TABLET"] = keys_of(scene.peer.bob, "TABLET")
    since = await scene.since()
    await scene.update("TABLET", **update)
    assert scene.peer.bob in (await scene.hears(since))[0]
    # At once, and not only when the list is here.
    assert await scene.query() == scene.expected()
    await scene.follow()
    assert scene.peer.count("devices") == 2


async def test_many_gaps_are_one_question_and_nothing_is_missed_meanwhile(
    scene: Scene, network: Network
) -> None:
    await scene.follow()
    scene.peer.is_dumb = True
    asked = scene.peer.count("devices")
    for number in range(30):
        scene.peer.stream_id += 100
        scene.peer.devices[f"D{number}"] = keys_of(scene.peer.bob, f"D{number}")
        await scene.update(f"D{number}")
        assert await scene.query() == scene.expected()
    scene.peer.is_dumb = False

    async def is_kept() -> bool:
        network.clock.skip(resync.MAX_RETRY_MS / 1000)
        return await scene.is_kept()

    await until(is_kept)
    # Each update may be told while a request is under way: never more than one for each.
    assert scene.peer.count("devices") - asked <= 31


async def test_a_server_that_does_not_answer_is_asked_later_and_later(scene: Scene, network: Network) -> None:
    scene.peer.is_dumb = True
    assert await scene.query() == scene.expected()
    waits: list[float] = []

    async def is_asked() -> bool:
        return scene.peer.count("devices") > len(waits)

    for pause_s in (30, 60, 120):
        await until(is_asked)
        waits.append(pause_s)
        network.clock.skip(pause_s - 2)
        assert not await is_asked()
        network.clock.skip(3)
    await until(is_asked)
    since = await scene.since()
    scene.peer.is_dumb = False
    network.clock.skip(1_000)
    await scene.follow()
    # Who asked in vain before is told that it is worth asking now.
    assert await scene.hears(since) == ([scene.peer.bob], [])


@pytest.mark.parametrize(
    "answer",
    [
        {"user_id": "@eve:peer.test", "stream_id": 1, "devices": []},
        {"stream_id": 1, "devices": []},
        {"user_id": "@bob:peer.test", "stream_id": -1, "devices": []},
        {"user_id": "@bob:peer.test", "stream_id": 1, "devices": {}},
        {"user_id": "@bob:peer.test", "stream_id": 1, "devices": [{"device_id": 1}]},
    ],
)
async def test_an_answer_that_is_none_is_not_kept(scene: Scene, network: Network, answer: Any) -> None:
    scene.peer.answer = answer

    async def is_asked() -> bool:
        assert await scene.query() == scene.expected()
        return scene.peer.count("devices") > 0

    await until(is_asked)
    assert not await scene.is_kept()
    scene.peer.answer = None

    async def is_kept() -> bool:
        network.clock.skip(40)
        return await scene.is_kept()

    await until(is_kept)


async def test_what_is_malformed_in_a_list_is_left_out(scene: Scene) -> None:
    peer = scene.peer
    good = peer.devices["PHONE"]
    devices = [
        {"device_id": "PHONE", "keys": good | {"unsigned": {"device_display_name": "Eve"}}},
        {"device_id": "OTHERS", "keys": keys_of(peer.bob, "PHONE")},
        {"device_id": "NOBODYS", "keys": keys_of("@eve:one.test", "NOBODYS")},
        {"device_id": "NONE", "device_display_name": "no keys yet\0" * 100},
        {"device_id": "X" * 1_000, "keys": keys_of(peer.bob, "X" * 1_000)},
    ]
    peer.answer = {
        "user_id": peer.bob,
        "stream_id": 1,
        "devices": devices,
        "master_key": {"user_id": peer.bob},
    }
    await scene.follow()
    assert scene.masters == {}


async def test_when_no_room_is_shared_the_list_is_forgotten(scene: Scene) -> None:
    await scene.follow()
    since = await scene.since()
    peer, room = scene.peer, scene.room
    leave = peer.event(
        *(room, peer.bob, "m.room.member", {"membership": "leave"}),
        prev=[list(room.pdus.values())[-1]],
        state_key=peer.bob,
    )
    before = since
    await peer.send(scene.server, [leave])
    assert await scene.hears(since) == ([], [peer.bob])
    since = await scene.since()
    peer.devices["TABLET"] = keys_of(peer.bob, "TABLET")
    await scene.update("TABLET")
    assert await scene.hears(since) == ([], [])
    for _ in range(2):
        assert not await scene.is_kept()
    await peer.send(scene.server, [peer.join(room, "bob", leave)])
    assert await scene.hears(since) == ([peer.bob], [])
    # Also who was away all the time.
    assert await scene.hears(before) == ([peer.bob], [])
    peer.devices["LAPTOP"] = keys_of(peer.bob, "LAPTOP")
    await scene.follow()


async def test_when_our_last_user_leaves_the_list_is_forgotten(scene: Scene) -> None:
    carol = await scene.server.register("carol")
    assert (await carol.post(f"{C}/join/{scene.room.room_id}", {})).status == 200
    await scene.follow()
    assert (await scene.alice.post(f"{C}/rooms/{scene.room.room_id}/leave", {})).status == 200
    assert await scene.is_kept()  # carol is still there
    assert (await carol.post(f"{C}/rooms/{scene.room.room_id}/leave", {})).status == 200
    scene.peer.devices["TABLET"] = keys_of(scene.peer.bob, "TABLET")
    for _ in range(2):
        assert not await scene.is_kept()


async def test_that_somebody_has_come_is_told_once(scene: Scene) -> None:
    since = await scene.since()
    await scene.update(prev_id=[])
    assert await scene.hears(since) == ([], [])
    await scene.update()
    assert await scene.hears(since) == ([scene.peer.bob], [])


async def test_a_stranger_is_not_kept(scene: Scene, network: Network) -> None:
    two = await network.server("two")
    eve = await two.register("eve")
    answer = await eve.post(f"{C}/keys/query", {"device_keys": {scene.peer.bob: []}})
    assert list(answer.json["device_keys"][scene.peer.bob]) == ["PHONE"]
    scene.alice = eve
    assert not await scene.is_kept()
    assert scene.peer.count("devices") == 0


async def test_signing_keys_are_kept(scene: Scene) -> None:
    peer = scene.peer
    bob = User(None, "", peer.bob, "PHONE")
    peer.master = cross_signing_key(bob, "master", Key(50))
    await scene.follow()
    assert scene.masters == {peer.bob: peer.master}
    own = Key(50).sign(cross_signing_key(bob, "self_signing", Key(51)), peer.bob)
    since = await scene.since()
    await scene.tell("m.signing_key_update", {"user_id": peer.bob, "self_signing_key": own})
    assert await scene.hears(since) == ([peer.bob], [])
    assert await scene.is_kept()
    answer = await scene.alice.post(f"{C}/keys/query", {"device_keys": {peer.bob: []}})
    assert answer.json["self_signing_keys"] == {peer.bob: own}
    # Another master key has not signed the other one.
    peer.master = cross_signing_key(bob, "master", Key(60))
    await scene.tell("m.signing_key_update", {"user_id": peer.bob, "master_key": peer.master})
    answer = await scene.alice.post(f"{C}/keys/query", {"device_keys": {peer.bob: []}})
    assert (answer.json["master_keys"], answer.json["self_signing_keys"]) == ({peer.bob: peer.master}, {})
    since = await scene.since()
    await scene.tell("m.signing_key_update", {"user_id": peer.bob, "master_key": peer.master})
    assert await scene.hears(since) == ([], [])


async def test_what_is_kept_outlives_the_process(scene: Scene, network: Network) -> None:
    await scene.follow()
    scene.peer.is_dumb = True
    scene.peer.stream_id += 100
    await scene.update()
    await network.stop("one")
    scene.server = await network.server("one")
    scene.alice = await scene.server.login("alice")
    scene.peer.is_dumb = False
    network.clock.skip(60)
    await scene.follow()


async def test_two_servers_keep_each_others_lists(network: Network) -> None:
    one = await network.server("one", federation=FederationConfig(share_device_names=True))
    two = await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    await join(bob, await create_room(alice, "12", preset="public_chat"))
    assert (await alice.post(f"{C}/keys/upload", {"device_keys": device_keys(alice)})).status == 200

    def questions(what: str) -> int:
        return sum(f"one.test:8448{USER}/{what}" in request.url for _, request in network.log)

    async def query() -> dict[str, Any]:
        answer = await bob.post(f"{C}/keys/query", {"device_keys": {alice.user_id: []}})
        return answer.json["device_keys"][alice.user_id]

    async def is_kept() -> bool:
        before = questions("keys/query")
        return bool(await query()) and questions("keys/query") == before

    await until(is_kept)
    lists = questions("devices")
    tablet = await one.login("alice")
    assert (await tablet.post(f"{C}/keys/upload", {"device_keys": device_keys(tablet)})).status == 200
    rename = await tablet.put(f"{C}/devices/{tablet.device_id}", {"display_name": "Alice's tablet"})
    assert rename.status == 200

    async def is_there() -> bool:
        unsigned = (await query()).get(tablet.device_id, {}).get("unsigned", {})
        return unsigned == {"device_display_name": "Alice's tablet"}

    await until(is_there, "the tablet")
    assert (await tablet.post(f"{C}/logout", {})).status == 200

    async def is_gone() -> bool:
        return tablet.device_id not in await query()

    await until(is_gone, "the end of the tablet")
    assert await is_kept()
    # Everything since was told, and nothing had to be asked for.
    assert questions("devices") == lists


async def test_names_of_devices_are_not_told_unless_wanted(scene: Scene) -> None:
    alice = scene.alice
    assert (await alice.post(f"{C}/keys/upload", {"device_keys": device_keys(alice)})).status == 200
    renamed = await alice.put(f"{C}/devices/{alice.device_id}", {"display_name": "Alice's phone"})
    assert renamed.status == 200

    async def is_told() -> bool:
        return bool(scene.peer.updates())

    await until(is_told)
    body = b'{"device_keys":{"%b":[]}}' % alice.user_id.encode()
    for answer in (
        await scene.peer.request(scene.server, "GET", f"{USER}/devices/%40alice%3Aone.test"),
        await scene.peer.request(scene.server, "POST", f"{USER}/keys/query", body),
    ):
        assert answer.status == 200
        assert b"phone" not in answer.body
    assert not any("device_display_name" in update for update in scene.peer.updates())


async def test_only_what_is_deleted_is_told_as_deleted(scene: Scene) -> None:
    new = await scene.server.login("alice", device_id="NEW")

    async def last() -> dict[str, Any]:
        return next((one for one in scene.peer.updates()[::-1] if one["device_id"] == "NEW"), {})

    told = await until(last)
    assert "deleted" not in told
    assert "keys" not in told
    assert (await new.post(f"{C}/logout", {})).status == 200

    async def is_deleted() -> bool:
        return "deleted" in await last()

    await until(is_deleted)
    devices = await scene.peer.request(scene.server, "GET", f"{USER}/devices/%40alice%3Aone.test")
    assert devices.json["stream_id"] == (await last())["stream_id"]


async def test_who_comes_into_a_room_of_a_new_server_is_told_there(scene: Scene) -> None:
    """Also who has no keys yet: a server is told whenever a user comes whose list it does not get so far."""
    carol = await scene.server.register("carol")
    db = scene.server.foundation.ports.db
    position = db.position()
    passed = "SELECT 1 FROM followers WHERE name = 'device-updates' AND position >= :position"

    async def is_old() -> bool:
        return bool(await db.read(lambda txn: txn.value(passed, position=position)))

    await until(is_old, "that the new device has been looked at")
    assert (await carol.post(f"{C}/join/{scene.room.room_id}", {})).status == 200

    async def is_told() -> bool:
        return any(update["user_id"] == carol.user_id for update in scene.peer.updates())

    await until(is_told)
    (told,) = [update for update in scene.peer.updates() if update["user_id"] == carol.user_id]
    assert (told["device_id"], told["prev_id"]) == (carol.device_id, [])


def add_devices(txn: WriteTxn, scene: Scene, count: int) -> int:
    user_id = scene.alice.user_id
    nid = find_user_nids(txn, scene.server.foundation.interner, [user_id])[user_id]
    for number in range(count):
        insert_device(txn, nid, DeviceID(f"D{number}"), None, 1)
    return nid


def delete_all(txn: WriteTxn, user_nid: int) -> None:
    delete_devices(txn, list_devices(txn, user_nid))


async def test_a_thousand_changes_are_few_updates(scene: Scene) -> None:
    db = scene.server.foundation.ports.db

    async def newest() -> int:
        return max((update["stream_id"] for update in scene.peer.updates()), default=0)

    async def is_told(position: int) -> bool:
        return await newest() >= position

    nid = await db.write(add_devices, scene, 900)
    for step in (None, delete_all):
        if step is not None:
            await db.write(step, nid)
        position = db.position()
        changes = "SELECT MAX(position) FROM device_list_changes"
        last = await db.read(lambda txn: txn.value(changes))  # noqa: B023
        assert last <= position
        await until(lambda: is_told(last), "the last change")  # noqa: B023
    assert len(scene.peer.updates()) <= 6
    rows = await db.read(lambda txn: txn.value("SELECT COUNT(*) FROM device_list_changes"))
    assert rows == 1, "what was told is dropped, but for the newest"


async def test_for_a_server_that_is_away_one_update_of_a_device_waits(scene: Scene, network: Network) -> None:
    db = scene.server.foundation.ports.db
    network.cut("one", "peer")
    alice = scene.alice
    for number in range(10):
        renamed = await alice.put(f"{C}/devices/{alice.device_id}", {"display_name": f"name {number}"})
        assert renamed.status == 200
        position = db.position()

        async def is_queued(position: int = position) -> bool:
            return bool(
                await db.read(
                    lambda txn: txn.value(
                        "SELECT 1 FROM followers WHERE name = 'device-updates' AND position >= :p", p=position
                    )
                )
            )

        await until(is_queued)
    # The first one was sent in vain, and the others came when that was known.
    waiting = await db.read(lambda txn: txn.value("SELECT COUNT(*) FROM outbox"))
    assert waiting <= 3


@pytest.mark.parametrize("number", [2**64, 1.5], ids=["an integer of more than 64 bits", "a float"])
async def test_numbers_that_no_key_has_stop_nobody(scene: Scene, number: Any) -> None:
    """What one server says of its users' devices keeps nobody from the keys of all others."""
    peer = scene.peer
    peer.devices["TABLET"] = keys_of(peer.bob, "TABLET") | {"number": number}
    peer.master = {"user_id": peer.bob, "usage": ["master"], "keys": {}, "number": number}
    asked: dict[str, list[str]] = {peer.bob: [], scene.alice.user_id: []}
    answer = await scene.alice.post(f"{C}/keys/query", {"device_keys": asked})
    assert answer.status == 200
    assert set(answer.json["device_keys"][peer.bob]) >= {"PHONE"}

    async def is_kept() -> bool:
        before = peer.count("keys/query")
        answer = await scene.alice.post(f"{C}/keys/query", {"device_keys": asked})
        assert answer.status == 200
        return peer.count("keys/query") == before

    await until(is_kept)
    assert peer.count("devices") == 1
    claim = {"one_time_keys": {peer.bob: {"PHONE": "signed_curve25519"}}}
    peer.one_time_keys = {"PHONE": {"signed_curve25519:A": {"key": number}}}
    assert (await scene.alice.post(f"{C}/keys/claim", claim)).status == 200
