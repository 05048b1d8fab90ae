"""Names that cannot be found, certificates that have expired, clocks that jump: others' troubles and the machine's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ranvier.app.config import FederationConfig
from ranvier.io.ports import Unreachable
from tests.federation import network as memory
from tests.federation.conftest import network  # noqa: F401 - a fixture
from tests.federation.network import Network, SkippingClock
from tests.federation.test_https import free_port, listening
from tests.federation.test_rooms import create_room, join, reads, say, texts
from tests.http.client import segment
from tests.http.homeserver import AheadClock, Homeserver, running_homeserver
from tests.unit.certificates import Authority

C = "/_matrix/client/v3"
DAY_MS = 24 * 3600 * 1000


async def test_what_is_said_while_names_are_not_found_arrives_later(
    network: Network,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room = await create_room(alice, "12", preset="public_chat")
    assert (await join(bob, room)).status == 200

    async def fail(_resolver: object, name: str) -> None:
        raise Unreachable(f"DNS does not answer for {name}")

    with monkeypatch.context() as broken:
        broken.setattr(memory.Resolver, "resolve_host", fail)
        broken.setattr(memory.Resolver, "resolve_srv", fail)
        network.clock.skip(7 * 24 * 3600)  # what was found out earlier is forgotten
        for number in range(3):
            await say(alice, room, f"m{number}")
        await asyncio.sleep(0.2)
        assert not await texts(bob, room)
    network.clock.skip(24 * 3600)
    await say(alice, room, "later")
    await reads(bob, room, "later")
    await reads(bob, room, "m0")
    assert await texts(bob, room) == ["m0", "m1", "m2", "later"]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Authority, dict[str, int], Homeserver, Homeserver]]:
    """Two servers that nobody reaches yet, and where they would be looked for."""
    authority = Authority(tmp_path)
    ports = {"one.test": free_port(), "two.test": free_port()}
    federation = FederationConfig(
        ca_file=authority.ca_file,
        allow_private_addresses=("127.0.0.0/8",),
        addresses={name: f"127.0.0.1:{port}" for name, port in ports.items()},
    )
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                running_homeserver(tmp_path / name, server_name=name, federation=federation)
            )
            for name in ports
        ]
        yield authority, ports, servers[0], servers[1]


async def test_nobody_speaks_with_an_expired_certificate_and_a_new_one_is_taken(pair) -> None:
    authority, ports, one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    created = await alice.post(f"{C}/createRoom", {"preset": "public_chat"})
    path = f"{C}/join/{segment(created.json['room_id'])}?server_name=one.test"
    async with listening(two, ports["two.test"], authority.issue("DNS:two.test")):
        async with listening(one, ports["one.test"], authority.issue_expired("DNS:one.test")):
            refused = await bob.post(path, {})
            assert refused.status in (404, 502, 504), refused.body
        async with listening(one, ports["one.test"], authority.issue("DNS:one.test")):
            # A server that speaks to us is tried again at once.
            profile = await alice.get(f"{C}/profile/{segment(bob.user_id)}/displayname")
            assert profile.errcode == "M_NOT_FOUND", "bob has no name, and his server says so"
            joined = await bob.post(path, {})
            assert joined.status == 200, joined.body


@pytest.mark.parametrize("jump_ms", [-30 * DAY_MS, -3_600_000, 3_600_000, 30 * DAY_MS])
async def test_when_the_clock_jumps_everything_keeps_its_order(tmp_path: Path, jump_ms: int) -> None:
    clock = AheadClock()
    async with running_homeserver(tmp_path, replaced={"clock": clock}) as homeserver:
        alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
        room = await create_room(alice, "12", preset="public_chat")
        assert (await bob.post(f"{C}/join/{segment(room)}", {})).status == 200
        since = (await bob.get(f"{C}/sync", timeout=0)).json["next_batch"]
        await say(alice, room, "before")
        clock.ahead_ms = jump_ms
        waiting = asyncio.create_task(bob.get(f"{C}/sync", since=since, timeout=0))
        told = (await waiting).json
        await say(alice, room, "after")
        typing = await alice.put(
            f"{C}/rooms/{segment(room)}/typing/{segment(alice.user_id)}", {"typing": True, "timeout": 30_000}
        )
        assert typing.status == 200
        later = (await bob.get(f"{C}/sync", since=told["next_batch"], timeout=5_000)).json
        heard = [
            event["content"]["body"]
            for sync in (told, later)
            for event in sync["rooms"]["join"][room]["timeline"]["events"]
        ]
        assert heard == ["before", "after"]
        assert await texts(bob, room) == ["before", "after"]
        clock.ahead_ms = 0
        assert (await alice.get(f"{C}/account/whoami")).status == 200
        await say(bob, room, "back again")
        assert await texts(alice, room) == ["before", "after", "back again"]


@pytest.mark.parametrize("jump_s", [-DAY_MS / 1000, DAY_MS / 1000])
async def test_a_clock_that_is_a_day_wrong_loses_nothing_between_servers(
    network: Network,  # noqa: F811
    jump_s: float,
) -> None:
    """Keys are not valid yet, or not any more, for the one whose clock is wrong: then it believes nobody. What was said
    meanwhile arrives when the clock is right again, in its order, and without waiting for the wrong time to come."""
    network.clocks["two.test"] = SkippingClock()
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room = await create_room(alice, "12", preset="public_chat")
    assert (await join(bob, room)).status == 200
    await say(alice, room, "before")
    await reads(bob, room, "before")
    network.clock.skip(60)  # keys are not asked for twice in a moment
    network.clocks["two.test"].jump(jump_s)
    await say(bob, room, "from another day")
    await reads(alice, room, "from another day")
    await say(alice, room, "during")
    carol = await (await network.server("three")).register("carol")
    assert (await join(carol, room)).status == 200
    network.clocks["two.test"].jump(-jump_s)
    await say(bob, room, "right again")
    await reads(alice, room, "right again")
    # Pauses that began meanwhile are as long as ever.
    for clock in (network.clock, network.clocks["two.test"]):
        clock.skip(600)
    await say(carol, room, "welcome back")
    await say(alice, room, "after")
    for text in ("welcome back", "after", "during"):
        await reads(bob, room, text)
    told = [text for text in await texts(bob, room) if text in ("before", "during", "after")]
    assert told == ["before", "during", "after"]
    await say(bob, room, "thank you")
    for user in (alice, carol):
        for text in ("right again", "welcome back", "thank you"):
            await reads(user, room, text)
