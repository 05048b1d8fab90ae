"""mautrix, the framework of most bridges, against a real server process."""

import asyncio
from typing import Self

import pytest
import yaml
from mautrix.appservice import AppService
from mautrix.appservice.state_store import ASStateStore
from mautrix.client.state_store import MemoryStateStore
from mautrix.errors import MForbidden
from mautrix.types import EventType, MessageType, TextMessageEventContent, UserID

from .process import ServerProcess, free_port
from .test_nio import bodies, say, sign_up, sync_until

# mautrix 0.21 with today's aiohttp.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

LIMIT_S = 30
MESSAGES = 100


class StateStore(ASStateStore, MemoryStateStore):
    """What the bridge knows, in memory."""

    def __init__(self) -> None:
        ASStateStore.__init__(self)
        MemoryStateStore.__init__(self)


class Bridge:
    """A bridge that notes what it is told."""

    def __init__(self, server_url: str, port: int) -> None:
        self.told: list[tuple[str, str]] = []
        self.service = AppService(
            server=server_url,
            domain="localhost",
            as_token="as-secret",
            hs_token="hs-secret",
            bot_localpart="bridgebot",
            id="bridge",
            state_store=StateStore(),
            ephemeral_events=True,
            encryption_events=True,
        )
        self.service.synchronous_handlers = True
        self.port = port
        self._news = asyncio.Event()

        @self.service.matrix_event_handler
        async def note(event) -> None:
            if event.type == EventType.ROOM_MESSAGE:
                self.told.append((event.sender, event.content.body))
            elif event.type == EventType.ROOM_MEMBER:
                self.told.append((event.state_key, event.content.membership.value))
            elif event.type == EventType.TYPING:
                self.told.append(("typing", ",".join(event.content.user_ids)))
            self._news.set()

    async def __aenter__(self) -> Self:
        await self.service.start("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_exception) -> None:
        await self.service.stop()

    def ghost(self, name: str):
        return self.service.intent.user(UserID(f"@ghost_{name}:localhost"))

    async def until(self, told: tuple[str, str]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while told not in self.told:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def server(tmp_path, port):
    registration = tmp_path / "registration.yaml"
    registration.write_text(
        yaml.safe_dump(
            {
                "id": "bridge",
                "url": f"http://127.0.0.1:{port}",
                "as_token": "as-secret",
                "hs_token": "hs-secret",
                "sender_localpart": "bridgebot",
                "rate_limited": False,
                "namespaces": {"users": [{"regex": "^@ghost_.+:localhost$", "exclusive": True}]},
                "de.sorunome.msc2409.push_ephemeral": True,
                "receive_ephemeral": True,
                "org.matrix.msc3202": True,
            }
        )
    )
    process = ServerProcess(tmp_path, RANVIER__APPSERVICES__REGISTRATIONS=f'["{registration}"]')
    process.start()
    try:
        yield process
        process.stop()
        assert "Traceback" not in process.log(), process.log()[-5000:]
    finally:
        process.kill()


async def test_a_bridge_and_its_ghosts_across_kills_of_the_server(server, port):
    alice = await sign_up(server, "alice")
    async with Bridge(server.url, port) as bridge:
        assert await bridge.service.ping_self("meow") >= 0
        ghost = bridge.ghost("carol")
        await ghost.ensure_registered()
        await ghost.set_displayname("Carol")
        with pytest.raises(MForbidden):
            await bridge.service.intent.user(UserID("@alice:localhost")).whoami()
        portal = await bridge.service.intent.create_room(
            name="Portal", invitees=["@alice:localhost", "@ghost_carol:localhost"]
        )
        await ghost.ensure_joined(portal)
        await alice.join(portal)
        await ghost.send_message(
            portal, TextMessageEventContent(msgtype=MessageType.TEXT, body="from far away"), timestamp=1234
        )
        response = await sync_until(alice, lambda found: "from far away" in bodies(found, portal))
        (event,) = [
            one
            for one in response.rooms.join[portal].timeline.events
            if getattr(one, "body", "") == "from far away"
        ]
        assert (event.sender, event.server_timestamp) == ("@ghost_carol:localhost", 1234)
        await alice.room_typing(portal)
        await bridge.until(("typing", "@alice:localhost"))
        texts = [str(number) for number in range(MESSAGES)]
        for number, text in enumerate(texts):
            await say(alice, portal, text)
            if number in (MESSAGES // 3, 2 * MESSAGES // 3):
                server.kill()
                server.start()
        await bridge.until(("@alice:localhost", texts[-1]))
        said = [text for sender, text in bridge.told if sender == "@alice:localhost" and text.isdigit()]
        assert said == texts
    await alice.close()


async def test_a_bridge_that_was_away_is_told_what_it_missed(server, port):
    alice = await sign_up(server, "alice")
    async with Bridge(server.url, port) as bridge:
        portal = await bridge.service.intent.create_room(invitees=["@alice:localhost"])
        await alice.join(portal)
        await bridge.until(("@alice:localhost", "join"))
    texts = [str(number) for number in range(MESSAGES)]
    for text in texts:
        await say(alice, portal, text)
    server.stop()
    server.start()
    async with Bridge(server.url, port) as bridge:
        assert await bridge.service.ping_self() >= 0
        await bridge.until(("@alice:localhost", texts[-1]))
        assert [text for _, text in bridge.told if text.isdigit()] == texts
    await alice.close()
