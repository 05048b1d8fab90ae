"""Rooms that span two homeservers: coming, going and talking, in each kind of room version."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from ranvier.app.config import FederationConfig
from ranvier.core.identifiers import EventID, RoomID, ServerName
from ranvier.services.federation import room_queues
from ranvier.services.federation.room_queues import RoomQueues
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.receiving import Receiving
from ranvier.store.tables import events, rooms

from ..http.client import segment
from ..http.homeserver import Homeserver, User
from .network import Network

VERSIONS = ("1", "3", "6", "10", "11", "12")


async def until(check: Callable[[], Awaitable[Any]], what: str = "it") -> Any:
    """Wait for something that another server is to hear of."""
    for _ in range(400):
        found = await check()
        if found:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"{what} did not happen")


async def create_room(user: User, version: str, **more: Any) -> str:
    answer = await user.post("/_matrix/client/v3/createRoom", {"room_version": version} | more)
    assert answer.status == 200, answer.body
    return answer.json["room_id"]


async def membership(user: User, room_id: str, user_id: str) -> str | None:
    """What one user's server says another is."""
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/state/m.room.member/{segment(user_id)}"
    answer = await user.get(path)
    return answer.json["membership"] if answer.status == 200 else None


async def say(user: User, room_id: str, text: str) -> str:
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/send/m.room.message/{segment(text)}"
    answer = await user.put(path, {"msgtype": "m.text", "body": text})
    assert answer.status == 200, answer.body
    return answer.json["event_id"]


async def texts(user: User, room_id: str) -> list[str]:
    """What the user reads in the room, oldest first."""
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/messages"
    answer = await user.get(path, dir="b", limit=100)
    if answer.status != 200:
        return []
    return [e["content"]["body"] for e in answer.json["chunk"][::-1] if e["type"] == "m.room.message"]


async def reads(user: User, room_id: str, text: str) -> None:
    async def has() -> bool:
        return text in await texts(user, room_id)

    await until(has, f"{user.user_id} reads {text!r}")


@pytest.fixture
async def pair(network: Network) -> tuple[Homeserver, Homeserver]:
    return await network.server("one"), await network.server("two")


@pytest.fixture
async def users(pair: tuple[Homeserver, Homeserver]) -> tuple[User, User]:
    one, two = pair
    return await one.register("alice"), await two.register("bob")


async def left_rooms(user: User, since: str | None) -> dict[str, Any]:
    """What /sync tells of rooms that were left."""
    answer = await user.get("/_matrix/client/v3/sync", since=since, filter='{"room":{"include_leave":true}}')
    assert answer.status == 200, answer.body
    return answer.json["rooms"].get("leave", {}) if "rooms" in answer.json else {}


async def join(user: User, room_id: str, via: str = "one.test") -> Any:
    return await user.post(f"/_matrix/client/v3/join/{segment(room_id)}?via={via}", {})


@pytest.mark.parametrize("version", VERSIONS)
async def test_join_public_room(users: tuple[User, User], version: str) -> None:
    alice, bob = users
    room_id = await create_room(alice, version, preset="public_chat", name="Town hall")
    answer = await join(bob, room_id)
    assert answer.status == 200, answer.body
    assert await membership(alice, room_id, bob.user_id) == "join"
    assert await membership(bob, room_id, alice.user_id) == "join"
    name = await bob.get(f"/_matrix/client/v3/rooms/{segment(room_id)}/state/m.room.name/")
    assert name.json == {"name": "Town hall"}


async def invite(user: User, room_id: str, invitee: str) -> Any:
    return await user.post(f"/_matrix/client/v3/rooms/{segment(room_id)}/invite", {"user_id": invitee})


async def act(user: User, room_id: str, action: str, **body: Any) -> Any:
    return await user.post(f"/_matrix/client/v3/rooms/{segment(room_id)}/{action}", body)


async def becomes(user: User, room_id: str, user_id: str, wanted: str | None) -> None:
    async def is_so() -> bool:
        return await membership(user, room_id, user_id) == wanted

    await until(is_so, f"for {user.user_id}, {user_id} becomes {wanted}")


async def invites(user: User) -> dict[str, Any]:
    answer = await user.get("/_matrix/client/v3/sync")
    assert answer.status == 200, answer.body
    return answer.json.get("rooms", {}).get("invite", {})


@pytest.mark.parametrize("version", VERSIONS)
async def test_invite_chat_kick_ban(users: tuple[User, User], version: str) -> None:
    alice, bob = users
    room_id = await create_room(alice, version, preset="private_chat", name="Den")
    assert (await join(bob, room_id)).errcode == "M_FORBIDDEN"
    answer = await invite(alice, room_id, bob.user_id)
    assert answer.status == 200, answer.body
    shown = (await invites(bob))[room_id]["invite_state"]["events"]
    assert {"Den", "invite"} <= {e["content"].get("name") or e["content"].get("membership") for e in shown}
    answer = await act(bob, room_id, "join")
    assert answer.status == 200, answer.body
    await say(bob, room_id, "hello from two")
    await reads(alice, room_id, "hello from two")
    await say(alice, room_id, "hello from one")
    await reads(bob, room_id, "hello from one")
    answer = await act(alice, room_id, "kick", user_id=bob.user_id)
    assert answer.status == 200, answer.body
    await becomes(bob, room_id, bob.user_id, "leave")
    assert (await invite(alice, room_id, bob.user_id)).status == 200
    answer = await act(bob, room_id, "join")
    assert answer.status == 200, answer.body
    await say(bob, room_id, "back again")
    await reads(alice, room_id, "back again")
    await say(alice, room_id, "welcome back")
    await reads(bob, room_id, "welcome back")
    assert (await act(alice, room_id, "ban", user_id=bob.user_id)).status == 200
    await becomes(bob, room_id, bob.user_id, "ban")
    assert (await act(bob, room_id, "join")).errcode == "M_FORBIDDEN"


async def test_reject_invite(users: tuple[User, User]) -> None:
    alice, bob = users
    room_id = await create_room(alice, "12", preset="private_chat")
    await invite(alice, room_id, bob.user_id)
    answer = await act(bob, room_id, "leave")
    assert answer.status == 200, answer.body
    assert room_id not in await invites(bob)
    assert await membership(alice, room_id, bob.user_id) == "leave"
    assert (await act(bob, room_id, "leave")).status == 200, "leaving twice is nothing to complain about"


async def test_reject_invite_of_unreachable_server(network: Network, users: tuple[User, User]) -> None:
    """A user gets rid of an invite even if nobody of the room can be told."""
    alice, bob = users
    room_id = await create_room(alice, "12", preset="private_chat")
    await invite(alice, room_id, bob.user_id)
    network.cut("one", "two")
    assert (await act(bob, room_id, "leave")).status == 200
    assert room_id not in await invites(bob)


async def test_leave(users: tuple[User, User]) -> None:
    alice, bob = users
    room_id = await create_room(alice, "12", preset="public_chat")
    await join(bob, room_id)
    assert (await act(bob, room_id, "leave")).status == 200
    await becomes(alice, room_id, bob.user_id, "leave")
    answer = await join(bob, room_id)
    assert answer.status == 200, answer.body
    assert await membership(alice, room_id, bob.user_id) == "join"
    await say(alice, room_id, "second time")
    await reads(bob, room_id, "second time")


@pytest.mark.parametrize("version", ["7", "10", "12"])
async def test_knock(users: tuple[User, User], version: str) -> None:
    alice, bob = users
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room_id = await create_room(alice, version, name="Door", initial_state=[rules])
    answer = await bob.post(f"/_matrix/client/v3/knock/{segment(room_id)}?via=one.test", {"reason": "please"})
    assert answer.status == 200, answer.body
    assert await membership(alice, room_id, bob.user_id) == "knock"
    knocks = (await bob.get("/_matrix/client/v3/sync")).json["rooms"]["knock"]
    names = [e["content"].get("name") for e in knocks[room_id]["knock_state"]["events"]]
    assert "Door" in names
    assert (await invite(alice, room_id, bob.user_id)).status == 200
    assert room_id in await invites(bob)
    answer = await act(bob, room_id, "join")
    assert answer.status == 200, answer.body
    assert await membership(alice, room_id, bob.user_id) == "join"


async def test_take_knock_back(users: tuple[User, User]) -> None:
    alice, bob = users
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room_id = await create_room(alice, "11", initial_state=[rules])
    await bob.post(f"/_matrix/client/v3/knock/{segment(room_id)}?via=one.test", {})
    assert (await act(bob, room_id, "leave")).status == 200
    assert await membership(alice, room_id, bob.user_id) == "leave"


@pytest.mark.parametrize("version", ["8", "10", "12"])
async def test_restricted_join(users: tuple[User, User], version: str) -> None:
    """The resident server vouches for a member of the other room, and for nobody else."""
    alice, bob = users
    space = await create_room(alice, version, preset="private_chat")
    allow = [{"type": "m.room_membership", "room_id": space}]
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}
    room_id = await create_room(alice, version, preset="private_chat", initial_state=[rules])
    refused = await join(bob, room_id)
    assert refused.errcode == "M_FORBIDDEN"
    await invite(alice, space, bob.user_id)
    assert (await act(bob, space, "join")).status == 200
    answer = await join(bob, room_id)
    assert answer.status == 200, answer.body
    assert await membership(alice, room_id, bob.user_id) == "join"
    await say(bob, room_id, "let in")
    await reads(alice, room_id, "let in")


@pytest.mark.parametrize("is_quick", [True, False], ids=["taken at once", "taken late"])
async def test_a_join_waits_for_what_has_come(
    network: Network, monkeypatch: pytest.MonkeyPatch, is_quick: bool
) -> None:
    """That a local user may vouch has come, if it is not taken yet: the join waits for that, but not for long."""
    has_come, may_be_taken = asyncio.Event(), asyncio.Event()
    receive, settle = Receiving.receive, RoomQueues.settle

    async def receive_late(self: Receiving, origin: ServerName, room: RoomRef, sent: Any) -> Any:
        if any(event["type"] == "m.room.power_levels" for event in sent):
            has_come.set()
            await may_be_taken.wait()
        return await receive(self, origin, room, sent)

    async def let_go(self: RoomQueues, room: RoomID) -> bool:
        if is_quick:
            may_be_taken.set()
        return await settle(self, room)

    monkeypatch.setattr(Receiving, "receive", receive_late)
    monkeypatch.setattr(RoomQueues, "settle", let_go)
    monkeypatch.setattr(room_queues, "MAX_SETTLE_S", 60.0 if is_quick else 0.01)
    one = await network.server("one")
    two = await network.server("two", federation=FederationConfig(partial_joins=False))
    alice, bob, carol = await one.register("alice"), await two.register("bob"), await two.register("carol")
    space = await create_room(alice, "11", preset="public_chat")
    allow = [{"type": "m.room_membership", "room_id": space}]
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}
    room_id = await create_room(alice, "11", preset="private_chat", initial_state=[rules])
    powers = {"invite": 50, "users": {alice.user_id: 100}}
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/state"
    assert (await alice.put(f"{path}/m.room.power_levels", powers)).status == 200
    for user in (bob, carol):
        assert (await join(user, space)).status == 200
    assert (await join(bob, room_id)).status == 200
    powers = {"invite": 50, "users": {alice.user_id: 100, bob.user_id: 50}}
    assert (await alice.put(f"{path}/m.room.power_levels", powers)).status == 200
    await has_come.wait()
    assert (await join(carol, room_id)).status == 200
    may_be_taken.set()

    async def is_in() -> Any:
        member = await carol.get(f"{path}/m.room.member/{segment(carol.user_id)}")
        return member.json if member.status == 200 else None

    content = await until(is_in, "the join")
    assert content["join_authorised_via_users_server"] == (bob if is_quick else alice).user_id


async def test_join_by_alias(users: tuple[User, User]) -> None:
    alice, bob = users
    room_id = await create_room(alice, "12", preset="public_chat", room_alias_name="hall")
    alias = "#hall:one.test"
    found = await bob.get(f"/_matrix/client/v3/directory/room/{segment(alias)}")
    assert found.json == {"room_id": room_id, "servers": ["one.test"]}
    answer = await bob.post(f"/_matrix/client/v3/join/{segment(alias)}", {})
    assert answer.status == 200, answer.body
    missing = await bob.get(f"/_matrix/client/v3/directory/room/{segment('#no:one.test')}")
    assert missing.errcode == "M_NOT_FOUND"


async def test_public_rooms_of_another_server(users: tuple[User, User]) -> None:
    alice, bob = users
    room_id = await create_room(alice, "12", preset="public_chat", name="Market", visibility="public")
    page = await bob.get("/_matrix/client/v3/publicRooms", server="one.test")
    assert [room["room_id"] for room in page.json["chunk"]] == [room_id]
    found = await bob.post(
        "/_matrix/client/v3/publicRooms?server=one.test", {"filter": {"generic_search_term": "nothing"}}
    )
    assert found.json["chunk"] == []


async def test_profile_of_another_server(users: tuple[User, User]) -> None:
    alice, bob = users
    path = f"/_matrix/client/v3/profile/{segment(alice.user_id)}"
    await alice.put(f"{path}/displayname", {"displayname": "Alice"})
    assert (await bob.get(path)).json["displayname"] == "Alice"
    assert (await bob.get("/_matrix/client/v3/profile/%40nobody%3Aone.test")).errcode == "M_NOT_FOUND"


async def test_two_of_one_server_join_at_once(
    pair: tuple[Homeserver, Homeserver], users: tuple[User, User]
) -> None:
    """One handshake at a time: who comes second finds the room here."""
    alice, bob = users
    carol = await pair[1].register("carol")
    room_id = await create_room(alice, "12", preset="public_chat")
    answers = await asyncio.gather(join(bob, room_id), join(carol, room_id), join(bob, room_id))
    assert [answer.status for answer in answers] == [200, 200, 200]
    await becomes(alice, room_id, bob.user_id, "join")
    await becomes(alice, room_id, carol.user_id, "join")
    await say(alice, room_id, "both here")
    await reads(bob, room_id, "both here")
    await reads(carol, room_id, "both here")


async def test_join_unreachable(network: Network, users: tuple[User, User]) -> None:
    alice, bob = users
    room_id = await create_room(alice, "12", preset="public_chat")
    network.cut("one", "two")
    assert (await join(bob, room_id)).status == 502
    network.heal()
    assert (await join(bob, room_id)).status == 200


async def test_history_from_before_the_join(users: tuple[User, User]) -> None:
    """The join stands over a gap, which whoever pages back has filled from the other server."""
    alice, bob = users
    room_id = await create_room(alice, "12", preset="public_chat")
    for number in range(3):
        await say(alice, room_id, f"old {number}")
    await join(bob, room_id)
    await reads(bob, room_id, "old 0")
    assert await texts(bob, room_id) == ["old 0", "old 1", "old 2"]


async def test_entering_anew_leaves_the_old_heads_behind(
    pair: tuple[Homeserver, Homeserver], users: tuple[User, User]
) -> None:
    """What was the end of the room when its last user left is not cited by what comes after the return."""
    alice, bob = users
    room_id = await create_room(alice, "12", preset="public_chat")
    await join(bob, room_id)
    await act(bob, room_id, "leave")
    await becomes(alice, room_id, bob.user_id, "leave")
    await say(alice, room_id, "meanwhile")
    assert (await join(bob, room_id)).status == 200
    room = await pair[1].foundation.ports.db.read(rooms.find_room, RoomID(room_id))
    assert room is not None
    assert len(room.extremities) == 1
    await reads(bob, room_id, "meanwhile")
    event_id = await say(bob, room_id, "here again")
    await reads(alice, room_id, "here again")
    event = await pair[1].foundation.ports.db.read(events.find_event, EventID(event_id))
    assert event is not None
    assert len(orjson.loads(event.json)["prev_events"]) == 1


@pytest.mark.parametrize("way", ["rejected", "abandoned", "withdrawn"])
async def test_the_end_of_an_invite_is_told(users: tuple[User, User], way: str) -> None:
    """Whoever ends it, and also where nobody is left in the room who could hear of it."""
    alice, bob = users
    room_id = await create_room(alice, "11", preset="private_chat", invite=[bob.user_id])
    since = (await bob.get("/_matrix/client/v3/sync")).json["next_batch"]
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}"
    if way == "withdrawn":
        assert (await alice.post(f"{path}/kick", {"user_id": bob.user_id})).status == 200
    else:
        if way == "abandoned":
            assert (await alice.post(f"{path}/leave", {})).status == 200
        assert (await bob.post(f"{path}/leave", {})).status == 200

    async def is_told() -> bool:
        return room_id in await left_rooms(bob, since)

    await until(is_told)
    for room in ((await left_rooms(bob, since))[room_id], (await left_rooms(bob, None))[room_id]):
        (own,) = [*room["state"]["events"], *room["timeline"]["events"]]
        assert (own["state_key"], own["content"]["membership"]) == (bob.user_id, "leave")


async def test_who_invited_is_told_with_the_join(users: tuple[User, User]) -> None:
    alice, bob = users
    room_id = await create_room(alice, "11", preset="private_chat", invite=[bob.user_id], is_direct=True)
    assert (await join(bob, room_id)).status == 200
    synced = (await bob.get("/_matrix/client/v3/sync")).json["rooms"]["join"][room_id]
    *_, own = [
        event
        for event in (*synced["state"]["events"], *synced["timeline"]["events"])
        if event.get("state_key") == bob.user_id
    ]
    assert own["unsigned"]["prev_sender"] == alice.user_id
    assert own["unsigned"]["prev_content"]["is_direct"] is True


async def test_only_the_named_servers_are_asked(network: Network, users: tuple[User, User]) -> None:
    """A client that says through whom to join is taken at its word."""
    alice, bob = users
    room_id = await create_room(alice, "11", preset="public_chat")
    assert (await join(bob, room_id, via="nobody.test")).status == 502
    path = f"/_matrix/client/v3/join/{segment(room_id)}"
    assert (await bob.post(path, {})).status == 200
