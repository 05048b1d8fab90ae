"""What is sent to other servers: in order, once, to all whom it concerns, and later to those that were away."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from ranvier.io.ports import HttpRequest, HttpResponse
from ranvier.services.federation.outbound import ALONE_INTERVAL_S, Outbound

from ..http.client import segment
from ..http.homeserver import Homeserver, User
from .network import Network
from .test_rooms import act, becomes, create_room, invite, join, membership, reads, say, until

C = "/_matrix/client/v3"


def sent(network: Network, sender: str, to: str) -> list[dict[str, Any]]:
    """The transactions that went from one server to another, as often as they went, each with its id."""
    found = []
    for asker, request in network.log:
        if asker == f"{sender}.test" and f"//{to}.test:8448/_matrix/federation/v1/send/" in request.url:
            found.append({"txn_id": request.url.rpartition("/")[2], **orjson.loads(request.body or b"")})
    return found


async def ephemeral(user: User, room_id: str, kind: str) -> Any:
    synced = await user.get(f"{C}/sync")
    events = synced.json["rooms"]["join"][room_id].get("ephemeral", {}).get("events", [])
    return next((event["content"] for event in events if event["type"] == kind), None)


class Three:
    """A room with a user of each of three servers."""

    def __init__(self, network: Network, servers: list[Homeserver], users: list[User], room_id: str) -> None:
        self.network, self.servers, self.users, self.room_id = network, servers, users, room_id

    async def all_read(self, *wanted: str) -> None:
        for user in self.users:
            for text in wanted:
                await reads(user, self.room_id, text)


@pytest.fixture
async def three(network: Network) -> Three:
    servers = [await network.server(name) for name in ("one", "two", "three")]
    users = [await server.register("user") for server in servers]
    room_id = await create_room(users[0], "12", preset="public_chat")
    for user in users[1:]:
        assert (await join(user, room_id)).status == 200
    return Three(network, servers, users, room_id)


async def test_everybody_hears_of_who_joins_and_what_is_said(three: Three) -> None:
    """The resident server passes on the joins that it took in; each sends its own messages to all."""
    for user in three.users:
        for other in three.users:
            await becomes(user, three.room_id, other.user_id, "join")
        await say(user, three.room_id, f"from {user.user_id}")
    await three.all_read(*(f"from {user.user_id}" for user in three.users))


async def test_messages_in_quick_succession_share_transactions(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "12", preset="public_chat")
    await join(bob, room_id)
    await asyncio.gather(*(say(alice, room_id, f"m{number}") for number in range(60)))
    for number in range(60):
        await reads(bob, room_id, f"m{number}")
    transactions = sent(network, "one", "two")
    pdus = [orjson.dumps(pdu) for one in transactions for pdu in one["pdus"]]
    assert len(set(pdus)) == len(pdus), "nothing is sent twice"
    assert len(transactions) < 20
    assert max(len(one["pdus"]) for one in transactions) <= 50


async def test_where_nobody_else_is_in_the_rooms_it_is_seldom_looked_for_them(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await network.server("one")
    alice = await one.register("alice")
    room_id = await create_room(alice, "12")
    looks, real = 0, Outbound._read

    def count(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return real(*args)

    monkeypatch.setattr(Outbound, "_read", count)
    start = time.monotonic()
    for number in range(60):
        await say(alice, room_id, f"m{number}")
    assert looks <= (time.monotonic() - start) / ALONE_INTERVAL_S + 2


async def test_a_transaction_is_repeated_under_its_id(three: Three) -> None:
    """An answer that was lost: the same bytes go out again, and the server answers as before."""
    lost = 0

    def lose(request: HttpRequest) -> HttpResponse | None:
        nonlocal lost
        if b"hard to get through" in (request.body or b"") and lost == 0:
            lost += 1
            return HttpResponse(502, {}, b"<html>")
        return None

    three.network.before["two.test"] = lose
    await say(three.users[0], three.room_id, "hard to get through")
    await reads(three.users[2], three.room_id, "hard to get through")
    # A sign of life ends the pause.
    await say(three.users[1], three.room_id, "anybody there?")

    async def is_sent_again() -> list[dict[str, Any]]:
        found = sent(three.network, "one", "two")
        with_text = [one for one in found if "hard to get through" in str(one["pdus"])]
        return with_text if len(with_text) == 2 else []

    first, second = await until(is_sent_again, "the repetition")
    assert first == second
    await reads(three.users[1], three.room_id, "hard to get through")


async def test_who_was_away_catches_up(three: Three) -> None:
    """Of many messages that were missed the newest is sent; the server asks for the rest itself."""
    network, (alice, bob, _) = three.network, three.users
    await three.all_read()
    await network.stop("two")
    for number in range(8):
        await say(alice, three.room_id, f"missed {number}")
    await reads(three.users[2], three.room_id, "missed 7")
    await network.stop("one")
    three.servers[1] = await network.server("two")
    bob = three.servers[1].user(
        {"access_token": bob.token, "user_id": bob.user_id, "device_id": bob.device_id}
    )
    network.clock.skip(3600)
    one = await network.server("one")
    alice = one.user({"access_token": alice.token, "user_id": alice.user_id, "device_id": alice.device_id})
    for number in range(8):
        await reads(bob, three.room_id, f"missed {number}")
    await say(alice, three.room_id, "as before")
    await reads(bob, three.room_id, "as before")


async def test_typing_and_receipts(three: Three) -> None:
    alice, bob, _ = three.users
    event_id = await say(alice, three.room_id, "read this")
    await reads(bob, three.room_id, "read this")
    room = f"{C}/rooms/{segment(three.room_id)}"
    await bob.put(f"{room}/typing/{segment(bob.user_id)}", {"typing": True, "timeout": 30000})

    async def is_typing() -> bool:
        return (await ephemeral(alice, three.room_id, "m.typing") or {}).get("user_ids") == [bob.user_id]

    await until(is_typing, "typing")
    await bob.put(f"{room}/typing/{segment(bob.user_id)}", {"typing": False})

    async def has_stopped() -> bool:
        return not (await ephemeral(alice, three.room_id, "m.typing") or {}).get("user_ids")

    await until(has_stopped, "the end of typing")
    await bob.post(f"{room}/receipt/m.read/{segment(event_id)}", {})

    async def has_read() -> bool:
        content = await ephemeral(alice, three.room_id, "m.receipt") or {}
        return bob.user_id in content.get(event_id, {}).get("m.read", {})

    await until(has_read, "the receipt")


async def test_who_goes_on_typing_is_told_again(three: Three) -> None:
    """Servers forget after a minute who types; a client renews it every half."""
    _, bob, _ = three.users
    path = f"{C}/rooms/{segment(three.room_id)}/typing/{segment(bob.user_id)}"

    async def is_told() -> bool:
        return any(
            edu["edu_type"] == "m.typing" and edu["content"]["typing"]
            for one in sent(three.network, "two", "one")
            for edu in one.get("edus", ())
        )

    for _ in range(3):
        await bob.put(path, {"typing": True, "timeout": 30000})
        await until(is_told, "typing")
        three.network.log.clear()
        three.network.clock.skip(25)


async def test_typing_that_is_read_before_its_hint_is_heard(three: Three) -> None:
    """Who types is looked for in the rooms that hints tell: a read that sees more than was heard must not pass it."""
    alice, bob, _ = three.users
    await say(bob, three.room_id, "here")
    await reads(alice, three.room_id, "here")
    (outbound,) = [one for one in three.servers[1].workers if isinstance(one, Outbound)]
    db, typing = outbound._db, f"{C}/rooms/{segment(three.room_id)}/typing/{segment(bob.user_id)}"

    class Typing:
        """Bob begins to type between the moment when hints are taken and the read."""

        position = db.position
        has_typed = False

        async def read(self, fn: Any, *args: Any) -> Any:
            if fn == outbound._read and not self.has_typed:
                self.has_typed = True
                assert (await bob.put(typing, {"typing": True, "timeout": 30000})).status == 200
            return await db.read(fn, *args)

    outbound._db = Typing()  # type: ignore[assignment]
    await create_room(bob, "12")

    async def is_typing() -> bool:
        return (await ephemeral(alice, three.room_id, "m.typing") or {}).get("user_ids") == [bob.user_id]

    await until(is_typing, "typing")


async def test_private_receipts_stay_here(three: Three) -> None:
    alice, bob, _ = three.users
    event_id = await say(alice, three.room_id, "read this in secret")
    await reads(bob, three.room_id, "read this in secret")
    room = f"{C}/rooms/{segment(three.room_id)}"
    await bob.post(f"{room}/receipt/m.read.private/{segment(event_id)}", {})
    await say(bob, three.room_id, "done")
    await three.all_read("done")
    edus = [edu for one in sent(three.network, "two", "one") for edu in one.get("edus", [])]
    assert not [edu for edu in edus if edu["edu_type"] == "m.receipt"]


async def test_a_kicked_server_hears_of_the_kick_and_of_nothing_later(three: Three) -> None:
    alice, bob, _ = three.users
    await act(alice, three.room_id, "kick", user_id=bob.user_id)
    await becomes(bob, three.room_id, bob.user_id, "leave")
    await say(alice, three.room_id, "now we are alone")
    await reads(three.users[2], three.room_id, "now we are alone")
    assert "now we are alone" not in str(sent(three.network, "one", "two"))


async def test_an_invite_from_afar_reaches_the_others(three: Three) -> None:
    """A guest server's user invites a third one; the room's first server hears of it from the inviter."""
    four = await three.network.server("four")
    dave = await four.register("dave")
    answer = await invite(three.users[0], three.room_id, dave.user_id)
    assert answer.status == 200, answer.body
    for user in three.users:
        await becomes(user, three.room_id, dave.user_id, "invite")
    assert (await act(dave, three.room_id, "join")).status == 200
    for user in three.users:
        await becomes(user, three.room_id, dave.user_id, "join")
    assert await membership(dave, three.room_id, three.users[2].user_id) == "join"


async def test_a_server_that_refuses_everything_does_not_stop_the_others(three: Three) -> None:
    refusal = HttpResponse(403, {}, b'{"errcode":"M_FORBIDDEN","error":"no"}')
    three.network.before["two.test"] = lambda request: refusal if "/v1/send/" in request.url else None
    for number in range(3):
        await say(three.users[0], three.room_id, f"on we go {number}")
        await reads(three.users[2], three.room_id, f"on we go {number}")
    assert len(sent(three.network, "one", "two")) < 12, "it is not asked again at once"


async def test_who_leaves_hears_all_up_to_there(three: Three) -> None:
    """What is said right before a kick goes to the kicked server, and what is said right after it does not,
    though all of it is sent in one go."""
    alice, bob, _ = three.users
    await asyncio.gather(
        say(alice, three.room_id, "before"),
        act(alice, three.room_id, "kick", user_id=bob.user_id),
    )
    await say(alice, three.room_id, "after")
    await becomes(bob, three.room_id, bob.user_id, "leave")
    await reads(three.users[2], three.room_id, "after")
    assert "after" not in str(sent(three.network, "one", "two"))


async def test_metrics_tell_what_waits(network: Network) -> None:
    """A server that cannot be reached is parked, and what is for it is seen to wait no longer than it is kept."""
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "12", preset="public_chat")
    assert (await join(bob, room_id)).status == 200
    network.cut("one", "two")
    await say(alice, room_id, "lost")
    registry = one.foundation.ports.registry

    async def is_parked() -> bool:
        return registry.get_sample_value("ranvier_federation_outbound_parked") == 1

    await until(is_parked)
    assert registry.get_sample_value("ranvier_federation_outbound_sending") == 0
    assert registry.get_sample_value("ranvier_federation_inbound_events") == 0
    assert registry.get_sample_value("ranvier_federation_inbound_rooms") == 0
    assert registry.get_sample_value("ranvier_federation_outbound_events") is not None
