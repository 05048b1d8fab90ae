"""What other servers send becomes part of rooms, or does not."""

import asyncio
import json
import logging
import random
from typing import Any

import orjson
import pytest

from ranvier.core.errors import BadJson
from ranvier.core.events.parse import pdu_of_object
from ranvier.core.hashes import content_hash, signed_form
from ranvier.core.identifiers import RoomID
from ranvier.core.room_versions import V10
from ranvier.core.signing import SigningKey
from ranvier.core.unpadded_base64 import encode_base64
from ranvier.store.tables.rooms import find_room
from ranvier.store.tables.timeline import list_page

from .agreement import view_of
from .network import Network
from .peer import Peer, RoomCopy

C = "/_matrix/client/v3"


class Scene:
    """A room of alice's on one.test, which bob of peer.test has joined."""

    def __init__(self, network: Network, peer: Peer, server: Any, alice: Any, room: RoomCopy, bob: str):
        self.network, self.peer, self.server, self.alice = network, peer, server, alice
        self.room, self.bob = room, bob

    @property
    def last(self) -> Any:
        return list(self.room.pdus.values())[-1]

    async def say(self, text: str) -> str:
        """Alice sends a message, which the peer does not hear of."""
        path = f"{C}/rooms/{self.room.room_id}/send/m.room.message/{text}"
        answer = await self.alice.put(path, {"msgtype": "m.text", "body": text})
        assert answer.status == 200, answer.body
        return answer.json["event_id"]

    async def bodies(self) -> list[str]:
        """The texts of the timeline, oldest first."""
        answer = await self.alice.get(f"{C}/rooms/{self.room.room_id}/messages", dir="b", limit=100)
        assert answer.status == 200, answer.body
        return [e["content"].get("body", "") for e in answer.json["chunk"] if e["type"] == "m.room.message"][
            ::-1
        ]

    async def state(self, type_: str, key: str = "") -> Any:
        answer = await self.alice.get(f"{C}/rooms/{self.room.room_id}/state/{type_}/{key}")
        return answer.json if answer.status == 200 else None

    async def send(self, *pdus: Any) -> dict[str, Any]:
        answer = await self.peer.send(self.server, pdus)
        assert answer.status == 200, answer.body
        return answer.json["pdus"]


async def set_scene(network: Network, version: str = "12", name: str = "one") -> Scene:
    server = await network.server(name)
    alice = await server.register("alice")
    answer = await alice.post(f"{C}/createRoom", {"preset": "public_chat", "room_version": version})
    assert answer.status == 200, answer.body
    peer = Peer(network)
    room = await peer.copy(server, answer.json["room_id"])
    bob = peer.user("bob")
    scene = Scene(network, peer, server, alice, room, bob)
    joined = peer.join(room, "bob", scene.last)
    assert await scene.send(joined) == {joined.event_id: {}}
    return scene


@pytest.fixture
async def scene(network: Network) -> Scene:
    return await set_scene(network)


@pytest.mark.parametrize("version", ["1", "2", "3", "5", "6", "8", "10", "11", "12"])
async def test_a_remote_user_joins_and_talks(network: Network, version: str) -> None:
    scene = await set_scene(network, version)
    hello = scene.peer.message(scene.room, scene.bob, "hello", scene.last)
    more = scene.peer.message(scene.room, scene.bob, "more", hello)
    assert await scene.send(more, hello) == {hello.event_id: {}, more.event_id: {}}
    assert await scene.bodies() == ["hello", "more"]
    members = await scene.alice.get(f"{C}/rooms/{scene.room.room_id}/joined_members")
    assert set(members.json["joined"]) == {"@alice:one.test", "@bob:peer.test"}


async def test_a_transaction_is_taken_once(scene: Scene, network: Network) -> None:
    hello = scene.peer.message(scene.room, scene.bob, "hello", scene.last)
    other = scene.peer.message(scene.room, scene.bob, "other", hello)
    first = await scene.peer.send(scene.server, [hello], txn_id="same id")
    again = await scene.peer.send(scene.server, [other], txn_id="same id")
    assert first.body == again.body
    await network.stop("one")
    scene.server = await network.server("one")
    assert (await scene.peer.send(scene.server, [other], txn_id="same id")).body == first.body
    scene.alice = await scene.server.login("alice")
    assert await scene.bodies() == ["hello"]
    # The same id of another server is another transaction.
    carol = Peer(network, "carol")
    assert (await carol.send(scene.server, [other], txn_id="same id")).json == {"pdus": {other.event_id: {}}}
    assert await scene.bodies() == ["hello", "other"]


async def test_what_lies_between_is_fetched(scene: Scene) -> None:
    pdus = [scene.last]
    for number in range(30):
        pdus.append(scene.peer.message(scene.room, scene.bob, str(number), pdus[-1]))
    assert await scene.send(pdus[-1]) == {pdus[-1].event_id: {}}
    assert await scene.bodies() == [str(number) for number in range(30)]
    assert not [path for _, path in scene.peer.asked if "state_ids" in path]


async def test_a_gap_that_nobody_fills_is_bridged_by_the_state_behind_it(scene: Scene) -> None:
    topic = scene.peer.event(
        scene.room, "@alice:one.test", "m.room.topic", {"topic": "lost"}, prev=[scene.last], state_key=""
    )
    lost = scene.peer.message(scene.room, scene.bob, "lost", scene.last)
    nick = scene.peer.event(
        scene.room,
        scene.bob,
        "m.room.member",
        {"membership": "join", "displayname": "Bob"},
        prev=[lost],
        state_key=scene.bob,
    )
    found = scene.peer.message(scene.room, scene.bob, "found", nick)
    scene.peer.hidden = {lost.event_id, topic.event_id}
    assert await scene.send(found) == {found.event_id: {}}
    assert await scene.bodies() == ["found"]
    assert (await scene.state("m.room.member", scene.bob))["displayname"] == "Bob"


async def test_an_event_whose_past_cannot_be_had_is_dropped(scene: Scene) -> None:
    lost = scene.peer.message(scene.room, scene.bob, "lost", scene.last)
    found = scene.peer.message(scene.room, scene.bob, "found", lost)
    scene.peer.hidden = {lost.event_id}
    del scene.room.before[found.event_id]
    assert "error" in (await scene.send(found))[found.event_id]
    assert await scene.bodies() == []


async def test_a_server_that_tells_nothing_is_not_asked_for_a_state(scene: Scene) -> None:
    """It could make up a past otherwise that nobody can look into."""
    lost = scene.peer.message(scene.room, scene.bob, "lost", scene.last)
    found = scene.peer.message(scene.room, scene.bob, "found", lost)
    scene.peer.hidden = {lost.event_id}
    assert "error" in (await scene.send(found))[found.event_id]
    assert not [path for _, path in scene.peer.asked if "state_ids" in path]
    # The next event brings what it comes after with it.
    more = scene.peer.message(scene.room, scene.bob, "more", found)
    assert await scene.send(more) == {more.event_id: {}}
    assert await scene.bodies() == ["found", "more"]


async def test_what_authorizes_in_a_broken_chain_is_not_taken(scene: Scene) -> None:
    """Of a chain of member events one cannot be had: none above it counts, in the state neither."""
    chain = [scene.last]
    for name in "abcd":
        content = {"membership": "join", "displayname": name}
        chain.append(
            scene.peer.event(
                scene.room, scene.bob, "m.room.member", content, prev=[chain[-1]], state_key=scene.bob
            )
        )
    scene.peer.hidden = {chain[2].event_id}
    said = [scene.peer.message(scene.room, scene.bob, "0", chain[-1])]
    for number in range(1, 3):
        said.append(scene.peer.message(scene.room, scene.bob, str(number), said[-1]))
    scene.peer._missing = lambda room, asked: scene.peer._shown([said[1]])  # type: ignore[method-assign]
    await scene.send(said[2])
    assert await scene.bodies() == []
    assert [path for _, path in scene.peer.asked if "state_ids" in path]
    after = scene.peer.message(scene.room, scene.bob, "after", chain[0])
    assert await scene.send(after) == {after.event_id: {}}
    assert await scene.bodies() == ["after"]
    assert "displayname" not in (await scene.state("m.room.member", scene.bob))


async def test_branches_are_both_kept_and_the_next_event_merges_them(scene: Scene) -> None:
    base = scene.last
    mine = await scene.say("mine")
    theirs = scene.peer.message(scene.room, scene.bob, "theirs", base)
    assert await scene.send(theirs) == {theirs.event_id: {}}
    assert await scene.bodies() == ["mine", "theirs"]
    merge = await scene.say("merge")
    stored = (await scene.peer.copy(scene.server, scene.room.room_id)).pdus[merge]
    assert set(stored.prev_events) == {mine, theirs.event_id}


async def test_what_the_room_does_not_allow_is_not_shown_and_what_follows_is(scene: Scene) -> None:
    topic = scene.peer.event(
        scene.room,
        scene.bob,
        "m.room.topic",
        {"topic": "not mine to set"},
        prev=[scene.last],
        state_key="",
        is_kept=False,
    )
    assert await scene.send(topic) == {topic.event_id: {}}
    assert await scene.state("m.room.topic") is None
    after = scene.peer.message(
        scene.room, scene.bob, "after", topic, state=scene.room.after[scene.last.event_id]
    )
    assert await scene.send(after) == {after.event_id: {}}
    assert await scene.bodies() == ["after"]
    assert await scene.state("m.room.topic") is None


async def test_who_was_banned_cannot_go_on_beside_the_ban(scene: Scene) -> None:
    base = scene.last
    ban = await scene.alice.post(f"{C}/rooms/{scene.room.room_id}/ban", {"user_id": scene.bob})
    assert ban.status == 200, ban.body
    evading = scene.peer.message(scene.room, scene.bob, "evading", base)
    assert await scene.send(evading) == {evading.event_id: {}}
    assert await scene.bodies() == []
    # It is no extremity: what comes next does not cite it.
    next_id = await scene.say("next")
    stored = (await scene.peer.copy(scene.server, scene.room.room_id)).pdus[next_id]
    assert evading.event_id not in stored.prev_events


async def test_what_lies_behind_a_soft_failed_event_is_no_extremity(scene: Scene) -> None:
    base = scene.last
    carol = scene.peer.join(scene.room, "carol", base)
    ban = await scene.alice.post(f"{C}/rooms/{scene.room.room_id}/ban", {"user_id": scene.bob})
    assert ban.status == 200, ban.body
    (ban_id,) = (await view_of(scene.server, scene.room.room_id)).extremities
    # Beside the ban stands what carol says, and behind that bob goes on.
    evading = scene.peer.message(scene.room, scene.bob, "evading", carol)
    assert await scene.send(carol, evading) == {carol.event_id: {}, evading.event_id: {}}
    view = await view_of(scene.server, scene.room.room_id)
    assert carol.event_id in view.extremities
    assert evading.event_id not in view.extremities
    said = scene.peer.message(scene.room, carol.sender, "said", evading)
    assert await scene.send(said) == {said.event_id: {}}
    assert await scene.bodies() == ["said"]
    view = await view_of(scene.server, scene.room.room_id)
    assert view.extremities == {said.event_id, ban_id}


async def test_of_many_branches_an_event_merges_some_and_drops_none(scene: Scene) -> None:
    base, room = scene.last, scene.room
    branches = [scene.peer.message(room, scene.bob, f"{number}", base) for number in range(50)]
    # The deepest are made up: it is not depth that decides which ones are merged first.
    forged = [
        scene.peer.message(room, scene.bob, f"deep{number}", base, depth=2**40 + number)
        for number in range(25)
    ]
    await scene.send(*branches[:40])
    path = f"{C}/rooms/{room.room_id}/state"
    # State and messages, each beside what it does not cite.
    assert (await scene.alice.put(f"{path}/m.room.name/", {"name": "wide"})).status == 200
    view = await view_of(scene.server, room.room_id)
    assert len(view.extremities) == 40 - 20 + 1
    assert await scene.state("m.room.name") == {"name": "wide"}
    await scene.send(*branches[40:], *forged)
    for number in range(5):
        await scene.say(f"merge{number}")
        view = await view_of(scene.server, room.room_id)
        assert await scene.state("m.room.name") == {"name": "wide"}
    assert len(view.extremities) == 1
    assert {pdu.event_id for pdu in (*branches, *forged)} <= view.messages
    row = await scene.server.foundation.ports.db.read(find_room, room.room_id)
    page = await scene.server.foundation.ports.db.read(list_page, row.room_nid, backwards=True, limit=200)
    ours = [one for one in page if one.is_local and one.event_id not in room.pdus]
    assert [one.type for one in ours] == ["m.room.message"] * 5 + ["m.room.name"], (
        "others are sent what is local"
    )
    again = await scene.alice.put(f"{path}/m.room.name/", {"name": "narrow"})
    assert (again.status, await scene.state("m.room.name")) == (200, {"name": "narrow"})


async def test_a_repeated_request_in_a_room_of_many_branches_finds_its_event(scene: Scene) -> None:
    base = scene.last
    await scene.send(*(scene.peer.message(scene.room, scene.bob, f"{n}", base) for n in range(45)))
    assert await scene.say("once") == await scene.say("once")
    assert (await scene.bodies()).count("once") == 1


async def test_what_is_not_here_can_be_redacted_by_who_may_redact_anything(scene: Scene) -> None:
    secret = scene.peer.message(scene.room, scene.bob, "secret", scene.last)
    path = f"{C}/rooms/{scene.room.room_id}/redact/{secret.event_id}/1"
    assert (await scene.alice.put(path, {})).status == 200
    await scene.send(secret)
    assert "secret" not in await scene.bodies()


async def test_long_fields_do_nothing_in_old_rooms(network: Network) -> None:
    """A state key of 280 bytes, but 70 code points: what follows is taken."""
    scene = await set_scene(network, "10")
    plain = scene.peer.event(
        scene.room, scene.bob, "m.odd", {}, prev=[scene.last], state_key="@", is_kept=False
    )
    event = _resigned(scene, orjson.loads(plain.json) | {"state_key": "\U0001f4a5" * 70})
    odd = pdu_of_object(event, scene.room.version)
    after = scene.peer.message(
        scene.room, scene.bob, "after", odd, state=scene.room.after[scene.last.event_id]
    )
    assert await scene.send(odd, after) == {odd.event_id: {}, after.event_id: {}}
    assert await scene.bodies() == ["after"]
    view = await view_of(scene.server, scene.room.room_id)
    assert view.rejected == {odd.event_id}


@pytest.mark.parametrize(
    "bad",
    [
        b'{"type":"m.room.message","content":{"body":"\\ud800"},"sender":"@bob:peer.test","room_id":"%b"}',
        b'{"type":"m.room.message","content":{"\\udfff":1e999},"room_id":"%b"}',
        b'{"type":"m.room.message","content":{"n":%b}}',
        b'{"room_id":"%b","room_id":"!other:peer.test","content":{"a":1.5}}',
        b'{"room_id":"\\ud800%b"}',
        b"[]",
        b"1",
        b'"%b"',
        b"null",
    ],
)
async def test_bad_json_in_one_event_fails_that_event_alone(scene: Scene, bad: bytes) -> None:
    good = scene.peer.message(scene.room, scene.bob, "good", scene.last)
    room_id = b"9" * 400 if b'"n"' in bad else scene.room.room_id.encode()
    answer = await scene.peer.send(scene.server, [bad.replace(b"%b", room_id), good])
    assert (answer.status, answer.json["pdus"].get(good.event_id)) == (200, {})
    assert await scene.bodies() == ["good"]


class Late:
    """Bob renames himself twice, and one.test hears of the second time first. By their timestamps alone, the
    first one would win."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.base = scene, scene.last
        self.first = self._rename("first", self.base, 2000)
        self.second = self._rename("second", self.first, 1000)
        self.said = scene.peer.message(scene.room, scene.bob, "said", self.second)

    def _rename(self, name: str, prev: Any, ts: int) -> Any:
        content = {"membership": "join", "displayname": name}
        bob = self.scene.bob
        return self.scene.peer.event(
            self.scene.room, bob, "m.room.member", content, prev=[prev], state_key=bob, ts=ts
        )

    async def arrive(self) -> None:
        room, peer = self.scene.room, self.scene.peer
        peer._missing = lambda room, asked: peer._shown([self.second])  # type: ignore[method-assign]
        assert await self.scene.send(self.said) == {self.said.event_id: {}}
        before = await view_of(self.scene.server, room.room_id)
        assert before.extremities == {self.base.event_id, self.said.event_id}
        assert await self.scene.send(self.first) == {self.first.event_id: {}}


async def test_what_comes_late_is_behind_what_cites_it(scene: Scene) -> None:
    late = Late(scene)
    await late.arrive()
    view = await view_of(scene.server, scene.room.room_id)
    assert view.extremities == {late.said.event_id}
    assert (await scene.state("m.room.member", scene.bob))["displayname"] == "second"


async def test_what_comes_late_behind_a_soft_failed_event_is_behind_what_cites_that(scene: Scene) -> None:
    base, room, peer = scene.last, scene.room, scene.peer
    carol = peer.join(room, "carol", base)
    assert await scene.send(carol) == {carol.event_id: {}}
    ban = await scene.alice.post(f"{C}/rooms/{room.room_id}/ban", {"user_id": scene.bob})
    assert ban.status == 200, ban.body
    (ban_id,) = (await view_of(scene.server, room.room_id)).extremities
    first = peer.message(room, carol.sender, "first", carol)
    evading = peer.message(room, scene.bob, "evading", first)
    said = peer.message(room, carol.sender, "said", evading)
    peer._missing = lambda room, asked: peer._shown([evading])  # type: ignore[method-assign]
    assert await scene.send(said) == {said.event_id: {}}
    assert (await view_of(scene.server, room.room_id)).extremities == {said.event_id, ban_id}
    assert await scene.send(first) == {first.event_id: {}}
    view = await view_of(scene.server, room.room_id)
    assert view.extremities == {said.event_id, ban_id}
    assert not view.dangling


async def test_one_of_two_that_come_late_is_behind_what_cites_both(scene: Scene) -> None:
    """What it led to is what was claimed of it; the other one never comes."""
    base, room, peer = scene.last, scene.room, scene.peer
    content = {"membership": "join", "displayname": "first"}
    one = peer.event(room, scene.bob, "m.room.member", content, prev=[base], state_key=scene.bob)
    other = peer.message(room, scene.bob, "other", base)
    both = peer.message(room, scene.bob, "both", one, other)
    said = peer.message(room, scene.bob, "said", both)
    peer._missing = lambda room, asked: peer._shown([both])  # type: ignore[method-assign]
    assert await scene.send(said) == {said.event_id: {}}
    assert (await view_of(scene.server, room.room_id)).extremities == {base.event_id, said.event_id}
    assert await scene.send(one) == {one.event_id: {}}
    assert (await view_of(scene.server, room.room_id)).extremities == {said.event_id}


async def test_who_withholds_an_event_does_not_decide_about_the_room_by_that(scene: Scene) -> None:
    """The peer claims a state in which what alice did last never happened, and tells the truth later."""
    before = dict(scene.room.before[scene.last.event_id])
    path = f"{C}/rooms/{scene.room.room_id}/state/m.room.name/"
    assert (await scene.alice.put(path, {"name": "mine"})).status == 200
    scene.room = await scene.peer.copy(scene.server, scene.room.room_id)
    late = Late(scene)
    scene.room.before[late.first.event_id] = {
        **before,
        ("m.room.member", scene.bob): scene.room.before[late.first.event_id]["m.room.member", scene.bob],
    }
    await late.arrive()
    view = await view_of(scene.server, scene.room.room_id)
    assert view.extremities == {late.first.event_id, late.said.event_id}
    assert await scene.state("m.room.name") == {"name": "mine"}
    merge = await scene.say("merge")
    assert (await view_of(scene.server, scene.room.room_id)).extremities == {merge}
    assert await scene.state("m.room.name") == {"name": "mine"}


async def test_a_redaction_waits_for_what_it_redacts(scene: Scene) -> None:
    secret = scene.peer.message(scene.room, scene.bob, "secret", scene.last)
    redaction = scene.peer.event(
        scene.room,
        scene.bob,
        "m.room.redaction",
        {"redacts": secret.event_id},
        prev=[scene.last],
        redacts=secret.event_id,
    )
    assert await scene.send(redaction) == {redaction.event_id: {}}
    assert await scene.send(secret) == {secret.event_id: {}}
    assert "secret" not in await scene.bodies()
    answer = await scene.alice.get(f"{C}/rooms/{scene.room.room_id}/event/{secret.event_id}")
    assert answer.json["content"] == {}


async def test_a_redaction_takes_effect_at_once(scene: Scene) -> None:
    secret = scene.peer.message(scene.room, scene.bob, "secret", scene.last)
    redaction = scene.peer.event(
        scene.room, scene.bob, "m.room.redaction", {"redacts": secret.event_id}, prev=[secret]
    )
    await scene.send(secret, redaction)
    assert "secret" not in await scene.bodies()
    # Not by who may neither redact nor is of the same server.
    said = await scene.say("stays")
    copy = await scene.peer.copy(scene.server, scene.room.room_id)
    foreign = scene.peer.event(copy, scene.bob, "m.room.redaction", {"redacts": said}, prev=[copy.pdus[said]])
    assert await scene.send(foreign) == {foreign.event_id: {}}
    assert "stays" in await scene.bodies()


async def test_forged_and_broken_events_are_dropped_alone(scene: Scene) -> None:
    good = scene.peer.message(scene.room, scene.bob, "good", scene.last)
    unsigned = orjson.loads(scene.peer.message(scene.room, scene.bob, "unsigned", good, is_kept=False).json)
    unsigned["signatures"] = {scene.peer.name: {"ed25519:k1": "A" * 86}}
    foreign = scene.peer.message(scene.room, "@alice:one.test", "foreign", good, is_kept=False)
    sent = [b"{}", b"7", orjson.dumps(unsigned), foreign, good]
    assert await scene.send(*sent) == {good.event_id: {}}
    assert await scene.bodies() == ["good"]


async def test_an_event_that_was_tampered_with_is_taken_redacted(scene: Scene) -> None:
    said = scene.peer.message(scene.room, scene.bob, "said", scene.last, is_kept=False)
    tampered = orjson.loads(said.json)
    tampered["content"]["body"] = "never said"
    assert await scene.send(orjson.dumps(tampered)) == {said.event_id: {}}
    answer = await scene.alice.get(f"{C}/rooms/{scene.room.room_id}/event/{said.event_id}")
    assert answer.json["content"] == {}


async def test_servers_that_the_room_shuts_out_are_not_heard(scene: Scene) -> None:
    base = scene.last
    acl = {"allow": ["*"], "deny": ["peer.*"], "allow_ip_literals": True}
    answer = await scene.alice.put(f"{C}/rooms/{scene.room.room_id}/state/m.room.server_acl/", acl)
    assert answer.status == 200, answer.body
    late = scene.peer.message(scene.room, scene.bob, "late", base)
    assert "error" in (await scene.send(late))[late.event_id]
    typing = {"room_id": scene.room.room_id, "user_id": scene.bob, "typing": True}
    await scene.peer.send(scene.server, edus=[{"edu_type": "m.typing", "content": typing}])
    sync = await scene.alice.get(f"{C}/sync")
    joined = sync.json["rooms"]["join"][scene.room.room_id]
    assert [e["content"] for e in joined["ephemeral"]["events"] if e["type"] == "m.typing"] in (
        [],
        [{"user_ids": []}],
    )


async def test_events_of_rooms_that_this_server_is_not_in(scene: Scene) -> None:
    elsewhere = RoomCopy(RoomID("!elsewhere:peer.test"), V10)
    create = scene.peer.event(
        elsewhere, scene.bob, "m.room.create", {"room_version": "10"}, prev=[], state={}, state_key=""
    )
    assert await scene.send(create) == {}
    assert await scene.bodies() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"origin":"other.test","origin_server_ts":1,"pdus":[]}',
        b'{"origin":"peer.test","pdus":[]}',
        b'{"origin":"peer.test","origin_server_ts":1,"pdus":[%b]}' % b",".join([b"{}"] * 51),
        b'{"origin":"peer.test","origin_server_ts":1,"pdus":[],"edus":[%b]}' % b",".join([b"{}"] * 101),
    ],
)
async def test_what_is_no_transaction_is_refused(network: Network, body: bytes) -> None:
    server, peer = await network.server("one"), Peer(network)
    answer = await peer.request(server, "PUT", "/_matrix/federation/v1/send/1", body or None)
    assert answer.status == 400, answer.body


async def test_what_authorizes_an_event_is_fetched(scene: Scene) -> None:
    """Carol joins on a branch that one.test gets only the end of, so that her join comes as authorization."""
    carol = scene.peer.user("carol")
    joined = scene.peer.join(scene.room, "carol", scene.last)
    nick = scene.peer.event(
        scene.room,
        carol,
        "m.room.member",
        {"membership": "join", "displayname": "Carol"},
        prev=[joined],
        state_key=carol,
        ts=joined.origin_server_ts + 1,  # of two of her events in conflict, the later one counts
    )
    said = scene.peer.message(scene.room, carol, "said", nick)
    more = scene.peer.message(scene.room, carol, "more", said)
    # The peer tells little of what came between, but all of what authorizes it.
    scene.peer._missing = lambda room, asked: scene.peer._shown([said])  # type: ignore[method-assign]
    assert await scene.send(more) == {more.event_id: {}}
    assert await scene.bodies() == ["said", "more"]
    assert (await scene.state("m.room.member", carol))["displayname"] == "Carol"


async def test_typing_receipts_and_messages_to_devices_arrive(scene: Scene) -> None:
    said = await scene.say("read me")
    room_id = scene.room.room_id
    receipt = {scene.bob: {"event_ids": [said], "data": {"ts": 5}}}
    stranger = {scene.peer.user("stranger"): {"event_ids": [said], "data": {"ts": 5}}}
    edus = [
        {"edu_type": "m.typing", "content": {"room_id": room_id, "user_id": scene.bob, "typing": True}},
        {"edu_type": "m.receipt", "content": {room_id: {"m.read": {**receipt, **stranger}}}},
        {"edu_type": "m.unheard.of", "content": {}},
        {"edu_type": 7},
        {
            "edu_type": "m.typing",
            "content": {"room_id": room_id, "user_id": "@alice:one.test", "typing": True},
        },
        {
            "edu_type": "m.direct_to_device",
            "content": {
                "sender": scene.bob,
                "type": "m.note",
                "message_id": "1",
                "messages": {"@alice:one.test": {"*": {"text": "psst"}}},
            },
        },
    ]
    answer = await scene.peer.send(scene.server, edus=edus)
    assert (answer.status, answer.json) == (200, {"pdus": {}})
    sync = (await scene.alice.get(f"{C}/sync")).json
    events = {e["type"]: e["content"] for e in sync["rooms"]["join"][room_id]["ephemeral"]["events"]}
    assert events["m.typing"] == {"user_ids": [scene.bob]}
    assert set(events["m.receipt"][said]["m.read"]) == {scene.bob}
    assert [e["content"] for e in sync["to_device"]["events"]] == [{"text": "psst"}]


async def test_a_room_gets_no_second_beginning(network: Network) -> None:
    scene = await set_scene(network, "10")
    content = {"creator": scene.bob, "room_version": "10"}
    other = RoomCopy(scene.room.room_id, scene.room.version)
    create = scene.peer.event(other, scene.bob, "m.room.create", content, prev=[], state={}, state_key="")
    child = scene.peer.join(other, "bob", create)
    answers = await scene.send(create, child)
    assert {"error"} == {key for answer in answers.values() for key in answer}
    assert (await scene.state("m.room.create")).get("creator") == "@alice:one.test"


async def test_what_the_policy_server_does_not_recommend_is_not_shown(scene: Scene) -> None:
    content = {
        "via": scene.peer.name,
        "public_keys": {"ed25519": scene.peer.policy_key.verify_key.encode()},
    }
    path = f"{C}/rooms/{scene.room.room_id}/state"
    assert (await scene.alice.put(f"{path}/m.room.policy/", content)).status == 200
    room = await scene.peer.copy(scene.server, scene.room.room_id)
    last = list(room.pdus.values())[-1]
    refused = scene.peer.message(room, scene.bob, "refused", last)
    assert await scene.send(refused) == {refused.event_id: {}}
    scene.peer.recommends = True
    signed = scene.peer.message(room, scene.bob, "signed", refused)
    assert await scene.send(signed) == {signed.event_id: {}}
    assert await scene.bodies() == ["signed"]
    # A key that is not the room's own counts for nothing.
    scene.peer.policy_key = SigningKey(b"x" * 32, "policy_server")
    forged = scene.peer.message(room, scene.bob, "forged", signed)
    assert await scene.send(forged) == {forged.event_id: {}}
    assert await scene.bodies() == ["signed"]


_ODD: list[Any] = [
    None,
    True,
    -1,
    2**70,
    1.5,
    "",
    "x" * 300,
    "@bob:peer.test",
    [],
    [[]],
    {},
    {"a": {}},
]


async def test_whatever_a_server_sends_only_events_come_in(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """Signed events with fields that are missing, of other types, too long, or of other events."""
    rng = random.Random(7)
    for version in ("1", "6", "12"):
        name = f"v{version}"
        scene = await set_scene(network, version, name)
        good = orjson.loads(scene.peer.message(scene.room, scene.bob, "odd", scene.last).json)
        sent = []
        for _ in range(150):
            event = {key: value for key, value in good.items() if rng.random() > 0.03}
            for key in rng.sample(
                [*good, "state_key", "redacts", "unsigned", "room_id"], rng.randrange(1, 4)
            ):
                event[key] = rng.choice(_ODD)
            event["content"] = rng.choice([event.get("content"), {"membership": rng.choice(_ODD)}])
            event["type"] = rng.choice([event.get("type"), "m.room.member", "m.room.power_levels"])
            sent.append(_encode_loosely(_resigned(scene, event) if rng.random() < 0.7 else event))
        for start in range(0, len(sent), 50):
            await scene.send(*sent[start : start + 50])
        fine = scene.peer.message(scene.room, scene.bob, "fine", scene.last)
        assert await scene.send(fine) == {fine.event_id: {}}
        assert (await scene.bodies())[-1] == "fine"
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


def _resigned(scene: Scene, event: dict[str, Any]) -> dict[str, Any]:
    """With hashes and signature of the peer, where there can be any."""
    try:
        event = {**event, "hashes": {"sha256": content_hash(event)}, "signatures": {}}
        signature = encode_base64(scene.peer.key.sign(signed_form(event, scene.room.version)))
    except (BadJson, AttributeError, TypeError, KeyError):
        return event
    return {**event, "signatures": {scene.peer.name: {scene.peer.key.key_id: signature}}}


def _encode_loosely(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()


async def test_local_and_remote_users_do_not_keep_each_other_from_talking(scene: Scene) -> None:
    """Every remote event stands beside the head that local users are moving on."""
    base = scene.last
    theirs = [scene.peer.message(scene.room, scene.bob, f"theirs {n}", base) for n in range(30)]
    sending = [asyncio.create_task(_talk(scene, sender)) for sender in range(6)]
    for pdu in theirs:
        assert await scene.send(pdu) == {pdu.event_id: {}}
    await asyncio.gather(*sending)
    answer = await scene.alice.get(f"{C}/rooms/{scene.room.room_id}/messages", dir="b", limit=500)
    bodies = {event["content"].get("body") for event in answer.json["chunk"]}
    assert bodies >= {f"theirs {n}" for n in range(30)} | {f"{s}-{n}" for s in range(6) for n in range(20)}


async def _talk(scene: Scene, sender: int) -> None:
    for number in range(20):
        await scene.say(f"{sender}-{number}")


async def test_an_invite_that_is_taken_back_is_gone(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = (await alice.post(f"{C}/createRoom", {"preset": "private_chat"})).json["room_id"]
    invited = await alice.post(f"{C}/rooms/{room_id}/invite", {"user_id": "@bob:two.test"})
    assert invited.status == 200, invited.body
    sync = (await bob.get(f"{C}/sync")).json
    assert room_id in sync["rooms"]["invite"]
    # Another server in the room, which may be lying, does not take it back.
    peer = Peer(network)
    room = await peer.copy(one, room_id)
    invite = next(pdu for pdu in room.pdus.values() if pdu.state_key == "@bob:two.test")
    lie = peer.event(
        room,
        peer.user("mallory"),
        "m.room.member",
        {"membership": "leave"},
        prev=[invite],
        state_key="@bob:two.test",
        auth=[invite],
    )
    assert "error" in (await peer.send(two, [lie])).json["pdus"].get(lie.event_id, {"error": ""})
    assert room_id in (await bob.get(f"{C}/sync")).json["rooms"]["invite"]
    kicked = await alice.post(f"{C}/rooms/{room_id}/kick", {"user_id": "@bob:two.test"})
    assert kicked.status == 200, kicked.body
    since = sync["next_batch"]
    for _ in range(20):
        sync = (await bob.get(f"{C}/sync", since=since, timeout=1000)).json
        since = sync["next_batch"]
        if room_id in sync.get("rooms", {}).get("leave", {}):
            return
    raise AssertionError("nobody told bob")
