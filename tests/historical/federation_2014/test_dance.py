"""Both roles of the dance, with a server of August 2014 on the other side: no create event, no levels."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from ...http.homeserver import Homeserver, User, eventually
from .network import OLD, Peers, Played, pdu, state, transaction
from .test_bridge import C, create, history, join, members, reads, say, state_of, texts

CONTEXT = "#example.green"
GIL = "@gil:green.test"


def member(pdu_id: str, target: str, membership: str = "join", **more: Any) -> dict[str, Any]:
    return state(
        pdu_id,
        **{
            "pdu_type": "m.room.member",
            "state_key": target,
            "content": {"membership": membership},
            "user_id": target,
        }
        | more,
    )


async def push(server: Homeserver, txn_id: str, *pdus: dict[str, Any], **more: Any) -> Any:
    answer = await server.client.put(f"{OLD}/send/{txn_id}/", transaction(*pdus, **more))
    assert answer.status == 200, answer.body
    return answer.json["pdus"]


class Room:
    """The context on the side of green, with gil in it, who says two things before anybody comes."""

    def __init__(self, green: Played) -> None:
        self.green = green
        self.pdus = [
            member("gil", GIL),
            pdu("t1", user_id=GIL, prev=[["gil", "green.test"]], depth=1, **message("one")),
            state("top", user_id=GIL, prev=[["t1", "green.test"]], depth=2),
        ]
        green.hold(*self.pdus)
        green.states[CONTEXT] = [self.pdus[0], self.pdus[2]]
        green.queries["directory"] = {"room_id": CONTEXT, "servers": ["green.test"]}

    def list_asked(self) -> list[dict[str, Any]]:
        sent = [one for body in self.green.received for one in body["pdus"]]
        return [one for one in sent if one["pdu_type"] == "m.room.invite_join"]

    async def let_in(self, server: Homeserver) -> dict[str, Any]:
        """Answer the next request to be let in."""

        async def is_asked() -> bool:
            return bool(self.list_asked())

        await eventually(is_asked)
        asked = self.list_asked()[-1]
        link = [["top", "green.test"], [asked["pdu_id"], asked["origin"]]]
        answer = member("in", asked["user_id"], prev=link, depth=3)
        self.green.states[CONTEXT].append(answer)
        self.green.hold(answer)
        assert await push(server, "in", answer) == {"in@green.test": {}}
        return asked


def message(text: str) -> dict[str, Any]:
    return {"pdu_type": "m.room.message", "content": {"msgtype": "m.text", "body": text}}


async def enter(blue: Homeserver, green: Played) -> tuple[User, str, Room]:
    """Bob of blue is let into the context."""
    bob, room = await blue.register("bob"), Room(green)
    joining = asyncio.create_task(join(bob, "#room:green.test"))
    await room.let_in(blue)
    return bob, await joining, room


async def test_a_user_is_let_in_and_reads_all_there_is(blue: Homeserver, green: Played) -> None:
    bob, room_id, room = await enter(blue, green)
    (asked,) = room.list_asked()
    assert asked["user_id"] == asked["content"].get("user_id", "@bob:blue.test") == "@bob:blue.test"
    assert (asked["target_host"], asked["is_state"]) == ("green.test", False)
    assert asked["content"]["membership"] == "join"
    assert await members(bob, room_id) == {GIL, "@bob:blue.test"}
    assert await state_of(bob, room_id, "m.room.topic") == {"topic": "top"}
    link = [["in", "green.test"]]
    await push(blue, "later", pdu("t2", user_id=GIL, prev=link, depth=4, **message("two")))
    assert await texts(bob, room_id) == ["one", "two"]
    shown = [event["event_id"] for event in await history(bob, room_id)]
    assert shown == [f"${name}:green.test" for name in ("t2", "in", "top", "t1", "gil")]
    assert {event["sender"] for event in await history(bob, room_id)} == {GIL, "@bob:blue.test"}


async def test_what_the_user_writes_is_sent_as_pdus(blue: Homeserver, green: Played) -> None:
    bob, room_id, _ = await enter(blue, green)
    await say(bob, room_id, "hello")

    async def is_sent() -> bool:
        return any(one["content"].get("body") == "hello" for body in green.received for one in body["pdus"])

    await eventually(is_sent)
    body = green.received[-1]
    assert body["origin"] == "blue.test"
    assert body["destination"] == "green.test"
    assert body["prev_ids"] == [green.received[-2]["transaction_id"]]
    (sent,) = body["pdus"]
    assert sent["context"] == CONTEXT
    assert sent["prev_pdus"] == [["green.test", "in"]]
    assert (sent["depth"], sent["user_id"], sent["is_state"]) == (4, "@bob:blue.test", False)
    answer = await bob.put(f"{C}/rooms/{quote(room_id)}/state/m.room.topic/", {"topic": "blue"})
    assert answer.status == 200

    async def is_set() -> bool:
        return green.received[-1]["pdus"][-1:] != [sent] and green.received[-1]["pdus"] != []

    await eventually(is_set)
    topic = green.received[-1]["pdus"][0]
    assert (topic["is_state"], topic["state_key"], topic["power_level"]) == (True, "", 0)
    assert (topic["prev_state_id"], topic["prev_state_origin"]) == ("top", "green.test")
    pulled = await blue.client.get(f"{OLD}/pull/", origin="green.test", v=body["transaction_id"])
    assert pulled.json["pdus"] == [topic]


async def test_typing_of_peers_is_seen_and_kept_nowhere(blue: Homeserver, green: Played) -> None:
    bob, room_id, _ = await enter(blue, green)

    async def typing() -> list[str]:
        room = (await bob.get(f"{C}/sync")).json["rooms"]["join"][room_id]
        seen = [e["content"]["user_ids"] for e in room["ephemeral"]["events"] if e["type"] == "m.typing"]
        return seen[0] if seen else []

    def edu(user_id: str) -> dict[str, Any]:
        content = {"room_id": CONTEXT, "user_id": user_id, "typing": True}
        return {
            "edu_type": "m.typing",
            "origin": "green.test",
            "destination": "blue.test",
            "content": content,
        }

    await push(blue, "e1", edus=[edu("@stranger:green.test"), edu("@bob:blue.test"), edu("nobody")])
    assert await typing() == []
    await push(blue, "e2", edus=[edu(GIL)])
    assert await typing() == [GIL]


async def test_without_an_answer_the_user_learns_that_it_failed(
    peers: Peers, blue: Homeserver, green: Played
) -> None:
    bob, room = await blue.register("bob"), Room(green)
    joining = asyncio.create_task(bob.post(f"{C}/join/{quote('#room:green.test')}", {}))

    async def is_asked() -> bool:
        return bool(room.list_asked())

    await eventually(is_asked)
    await asyncio.sleep(0.05)
    peers.clock.skip(11)
    assert (await joining).status == 502
    late = await push(blue, "late", member("in", "@bob:blue.test", depth=3))
    assert "error" in late["in@green.test"]


async def test_nobody_is_made_to_join(blue: Homeserver, green: Played) -> None:
    bob = await blue.register("bob")
    Room(green)
    results = await push(blue, "t", member("in", bob.user_id), member("as", bob.user_id, user_id=GIL))
    assert "error" in results["in@green.test"]
    assert "error" in results["as@green.test"]
    assert (await bob.get(f"{C}/joined_rooms")).json["joined_rooms"] == []


async def test_a_peer_that_is_down_when_asked(peers: Peers, blue: Homeserver, green: Played) -> None:
    bob = await blue.register("bob")
    Room(green)
    peers.cut("blue", "green")
    assert (await bob.post(f"{C}/join/{quote('#room:green.test')}", {})).status in (404, 502)


async def test_joining_goes_on_after_a_restart_in_the_middle(
    peers: Peers, blue: Homeserver, green: Played
) -> None:
    bob, room = await blue.register("bob"), Room(green)
    joining = asyncio.create_task(bob.post(f"{C}/join/{quote('#room:green.test')}", {}))

    async def is_asked() -> bool:
        return bool(room.list_asked())

    await eventually(is_asked)
    joining.cancel()
    await asyncio.gather(joining, return_exceptions=True)
    await peers.stop("blue")
    blue = await peers.server("blue")
    bob = await blue.login("bob")
    answer = member("in", bob.user_id, prev=[["top", "green.test"]], depth=3)
    green.hold(answer)
    green.states[CONTEXT].append(answer)
    assert "error" in (await push(blue, "in", answer))["in@green.test"]
    room_id = await join(bob, "#room:green.test")
    assert await members(bob, room_id) == {GIL, bob.user_id}
    assert await texts(bob, room_id) == ["one"]


async def test_an_invite_is_shown_and_can_be_taken_back(blue: Homeserver, green: Played) -> None:
    bob = await blue.register("bob")
    Room(green)

    async def invited() -> dict[str, Any]:
        return (await bob.get(f"{C}/sync")).json.get("rooms", {}).get("invite", {})

    invite = member("inv", bob.user_id, "invite", user_id=GIL)
    assert await push(blue, "t1", invite) == {"inv@green.test": {}}
    (room_id,) = await invited()
    events = (await invited())[room_id]["invite_state"]["events"]
    assert {"topic": "top"} in [event["content"] for event in events]
    assert GIL in [event["sender"] for event in events]
    kick = member("kick", bob.user_id, "leave", user_id=GIL, depth=1)
    assert await push(blue, "t2", kick) == {"kick@green.test": {}}
    assert await invited() == {}


async def test_an_invite_of_nobody_is_refused(blue: Homeserver, green: Played) -> None:
    results = await push(blue, "t1", member("inv", "@nobody:blue.test", "invite", user_id=GIL))
    assert "error" in results["inv@green.test"]


async def test_a_user_of_2014_is_let_into_a_room_of_ours(blue: Homeserver, green: Played) -> None:
    ann = await blue.register("ann")
    room_id = await create(ann)
    content = {"membership": "join", "displayname": "Gil"}
    asks = pdu("ask", context=room_id, pdu_type="m.room.invite_join", user_id=GIL, content=content)
    for target in ({}, {"target_host": "red.test"}):
        results = await push(blue, f"no{target}", asks | target)
        assert "target_host" in results["ask@green.test"]["error"]
    assert await push(blue, "yes", asks | {"target_host": "blue.test"}) == {"ask@green.test": {}}
    assert await members(ann, room_id) == {ann.user_id, GIL}
    assert (await state_of(ann, room_id, "m.room.member", GIL))["displayname"] == "Gil"

    async def is_told() -> bool:
        return bool(green.received)

    await eventually(is_told)
    (answer,) = green.received[-1]["pdus"]
    assert (answer["pdu_type"], answer["state_key"], answer["origin"]) == ("m.room.member", GIL, "blue.test")
    assert ["green.test", "ask"] in answer["prev_pdus"]
    said = pdu("m", context=room_id, user_id=GIL, **message("hi"))
    link = [["blue.test", answer["pdu_id"]]]
    await push(blue, "m", said | {"prev_pdus": link, "depth": answer["depth"] + 1})
    await reads(ann, room_id, "hi")


@pytest.mark.parametrize("change", [{"user_id": "@bob:blue.test"}, {"user_id": None}, {"content": {}}])
async def test_a_bad_request_to_be_let_in(blue: Homeserver, green: Played, change: dict[str, Any]) -> None:
    ann = await blue.register("ann")
    room_id = await create(ann)
    asks = pdu("ask", context=room_id, pdu_type="m.room.invite_join", user_id=GIL, target_host="blue.test")
    results = await push(blue, "t", asks | {"content": {"membership": "join"}} | change)
    assert "error" in results["ask@green.test"]
    assert await members(ann, room_id) == {ann.user_id}


async def test_who_is_not_invited_is_not_let_in(blue: Homeserver, green: Played) -> None:
    ann = await blue.register("ann")
    room_id = await create(ann, preset="private_chat")
    asks = pdu("ask", context=room_id, pdu_type="m.room.invite_join", user_id=GIL, target_host="blue.test")
    asks["content"] = {"membership": "join"}
    results = await push(blue, "t1", asks)
    assert "error" in results["ask@green.test"]
    assert (await ann.post(f"{C}/rooms/{room_id}/invite", {"user_id": GIL})).status == 200
    assert await push(blue, "t2", asks) == {"ask@green.test": {}}
    assert await members(ann, room_id) == {ann.user_id, GIL}


async def test_a_room_of_today_cannot_be_reached(peers: Peers, blue: Homeserver, green: Played) -> None:
    ann = await blue.register("ann")
    answer = await ann.post(f"{C}/createRoom", {"preset": "public_chat", "room_version": "11"})
    room_id = answer.json["room_id"]
    topic = state("s", context=room_id, user_id=GIL)
    asks = pdu("ask", context=room_id, pdu_type="m.room.invite_join", user_id=GIL, target_host="blue.test")
    asks["content"] = {"membership": "join"}
    results = await push(blue, "t", topic, asks)
    assert "error" in results["ask@green.test"]
    assert await state_of(ann, room_id, "m.room.topic") is None
    assert await members(ann, room_id) == {ann.user_id}
    stored = await blue.client.get(f"{OLD}/state/{quote(room_id, safe='')}/")
    assert [one["pdu_id"] for one in stored.json["pdus"]] == ["s"]


async def test_levels_in_the_form_of_september_2014(blue: Homeserver, green: Played) -> None:
    bob, room_id, _ = await enter(blue, green)
    content = {GIL: 100, "@bob:blue.test": 50, "default": 0}
    levels = state("lev", pdu_type="m.room.power_levels", content=content, user_id=GIL)
    await push(blue, "t", levels | {"prev_pdus": [["green.test", "in"]], "depth": 4})
    shown = await state_of(bob, room_id, "m.room.power_levels")
    assert shown == {"users": {GIL: 100, "@bob:blue.test": 50}, "users_default": 0}


async def test_what_a_peer_makes_up_of_us_is_believed_nowhere(blue: Homeserver, green: Played) -> None:
    """Neither in a state nor in a history."""
    bob, room = await blue.register("bob"), Room(green)
    forged = state("forged", origin="blue.test", user_id="@bob:blue.test", pdu_type="m.room.name")
    said = pdu("t1", user_id="@bob:blue.test", origin="blue.test", depth=1, **message("never said"))
    green.states[CONTEXT].append(forged)
    room.pdus[2]["prev_pdus"].append(["t1", "blue.test"])
    green.hold(said)
    joining = asyncio.create_task(join(bob, "#room:green.test"))
    await room.let_in(blue)
    room_id = await joining
    assert await state_of(bob, room_id, "m.room.name") is None
    assert await texts(bob, room_id) == ["one"]
    assert (await blue.client.get(f"{OLD}/pdu/blue.test/t1/")).status == 404


async def test_a_room_of_today_is_not_replaced_by_a_context_of_its_name(
    blue: Homeserver, green: Played
) -> None:
    ann, bob = await blue.register("ann"), await blue.register("bob")
    answer = await ann.post(f"{C}/createRoom", {"preset": "public_chat", "room_version": "11"})
    room_id = answer.json["room_id"]
    await ann.post(f"{C}/rooms/{room_id}/leave", {})
    green.states[room_id] = [member("gil", GIL, context=room_id)]
    green.queries["directory"] = {"room_id": room_id, "servers": ["green.test"]}
    invite = member("inv", bob.user_id, "invite", user_id=GIL, context=room_id)
    assert "error" in (await push(blue, "t", invite))["inv@green.test"]
    # Ours is alive: it is entered, whatever the peer says about a context of that name.
    assert await join(bob, "#room:green.test") == room_id
    assert await members(bob, room_id) == {bob.user_id}
    assert (await state_of(bob, room_id, "m.room.create"))["room_version"] == "11"
