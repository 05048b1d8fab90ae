"""People who keep sending, whatever happens to the server, and remember what it promised them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import aiohttp

from tests.clients.process import ServerProcess

C = "/_matrix/client/v3"
ATTEMPT_SECONDS = 20
PAUSE_SECONDS = 0.02


class Load:
    """Senders who each repeat a message, under the same transaction id, until it is acknowledged."""

    def __init__(self, http: aiohttp.ClientSession, token: str, room: str, senders: int) -> None:
        self.http = http
        self.token = token
        self.room = room
        self.acknowledged: dict[str, str] = {}  # transaction id -> event id
        self.failures: Counter[str] = Counter()  # a status, or the name of what was raised
        self._senders = senders
        self._goes_on = True
        self._answered = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._senders):
                tasks.create_task(self._send_all(number))

    def stop(self) -> None:
        """Each sender ends when its message is acknowledged."""
        self._goes_on = False

    async def until_acknowledged(self, more: int, seconds: float = 20) -> None:
        """Wait until so many more messages are acknowledged."""
        wanted = len(self.acknowledged) + more
        await self._until(lambda: len(self.acknowledged) >= wanted, seconds)

    async def until_failed(self, more: int, seconds: float = 20) -> None:
        """Wait until so many more attempts failed."""
        wanted = self.failures.total() + more
        await self._until(lambda: self.failures.total() >= wanted, seconds)

    async def _until(self, is_reached: Callable[[], bool], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not is_reached():
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.acknowledged)} acknowledged, {dict(self.failures)}") from None

    async def _send_all(self, number: int) -> None:
        sent = 0
        while True:
            txn_id = f"s{number}-{sent}"
            event_id = await self._attempt(txn_id)
            self._answered.set()
            if event_id is None:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self.acknowledged[txn_id] = event_id
            if not self._goes_on:
                return
            sent += 1

    async def _attempt(self, txn_id: str) -> str | None:
        try:
            async with self.http.put(
                f"{C}/rooms/{quote(self.room, safe='')}/send/m.room.message/{txn_id}",
                json={"msgtype": "m.text", "body": txn_id},
                headers={"Authorization": f"Bearer {self.token}"},
                timeout=aiohttp.ClientTimeout(ATTEMPT_SECONDS),
            ) as answer:
                body = await answer.json(content_type=None)
                if answer.status == 200:
                    return str(body["event_id"])
                assert body["errcode"], "a fault has an errcode, too"
                self.failures[str(answer.status)] += 1
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            self.failures[type(error).__name__] += 1
        return None


@asynccontextmanager
async def load_on(server: ServerProcess, senders: int = 4) -> AsyncIterator[Load]:
    """A user with a room, and senders who begin. In the end every promise is looked at."""
    async with aiohttp.ClientSession(server.url) as http:
        token = await register(http, "alice")
        room = (await call(http, "POST", f"{C}/createRoom", token, {}))["room_id"]
        load = Load(http, token, room, senders)
        running = asyncio.create_task(load.run())
        try:
            yield load
            load.stop()
            await asyncio.wait_for(running, 60)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        await check_promises(load)


async def check_promises(load: Load) -> None:
    """Every acknowledged message is in the room, once, as the event it was said to be."""
    found = await texts_of(load.http, load.room, load.token)
    assert len(found) == len(set(found)), "a message was doubled"
    missing = set(load.acknowledged.items()) - set(found)
    assert not missing, f"acknowledged, and lost: {sorted(missing)[:5]}"


async def register(http: aiohttp.ClientSession, name: str) -> str:
    """An access token of a new user."""
    body = {"username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"}}
    return str((await call(http, "POST", f"{C}/register", None, body))["access_token"])


async def call(
    http: aiohttp.ClientSession, method: str, path: str, token: str | None = None, body: Any = None
) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with http.request(method, path, json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def texts_of(http: aiohttp.ClientSession, room: str, token: str) -> list[tuple[str, str]]:
    """(text, event id) of every message in the room."""
    found: list[tuple[str, str]] = []
    position = ""
    while True:
        path = f"{C}/rooms/{quote(room, safe='')}/messages?dir=b&limit=500{position}"
        page = await call(http, "GET", path, token)
        found += [
            (event["content"]["body"], event["event_id"])
            for event in page["chunk"]
            if event["type"] == "m.room.message"
        ]
        if "end" not in page:
            return found
        position = f"&from={quote(page['end'])}"
