"""An application service that a test plays, over real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from ranvier.app.config import AppservicesConfig

Answer = Callable[[web.Request], Awaitable[web.Response]]

AS_TOKEN = "as-secret"
HS_TOKEN = "hs-secret"


class PlayedAppservice:
    """Takes every transaction, until the test gives it another mind.

    `requests` has the paths that were asked, `transactions` (id, body) of what was taken.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, str]] = []
        self.queries: list[dict[str, str]] = []
        self.attempts: list[tuple[str, bytes]] = []
        self.transactions: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Answer] = {}  # by the beginning of the path
        self._news = asyncio.Event()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for _, body in self.transactions for event in body["events"]]

    @property
    def ephemeral(self) -> list[dict[str, Any]]:
        return [event for _, body in self.transactions for event in body.get("ephemeral", ())]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """To devices."""
        key = "de.sorunome.msc2409.to_device"
        return [one for _, body in self.transactions for one in body.get(key, ())]

    def bodies(self) -> list[str]:
        """What was said in rooms."""
        return [one["content"]["body"] for one in self.events if one["type"] == "m.room.message"]

    async def until(self, check: Callable[[], object], seconds: float = 60) -> None:
        """Wait for requests until one brings about what `check` looks for."""
        async with asyncio.timeout(seconds):
            while not check():
                self._news.clear()
                await self._news.wait()

    def refuse(self, path: str, status: int = 500, body: bytes = b"{}") -> None:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(status=status, body=body, content_type="application/json")

        self.answers[path] = answer

    def say(self, path: str, value: Any) -> None:
        """Answer with JSON."""

        async def answer(_request: web.Request) -> web.Response:
            return web.json_response(value)

        self.answers[path] = answer

    async def handle(self, request: web.Request) -> web.Response:
        path = request.raw_path.partition("?")[0]
        body = await request.read()
        self.requests.append((request.method, path))
        self.queries.append(dict(request.query))
        if "/transactions/" in path:
            self.attempts.append((path.rpartition("/")[2], body))
        try:
            if request.headers.get("Authorization") != f"Bearer {HS_TOKEN}":
                return web.json_response({"errcode": "M_FORBIDDEN"}, status=403)
            for prefix, answer in sorted(self.answers.items(), key=lambda item: -len(item[0])):
                if path.startswith(prefix):
                    return await answer(request)
            if path.startswith("/_matrix/app/v1/transactions/"):
                self.take(path.rpartition("/")[2], body)
                return web.json_response({})
            return web.json_response({"errcode": "M_UNRECOGNIZED"}, status=404)
        finally:
            self._news.set()

    def take(self, txn_id: str, body: bytes) -> None:
        self.transactions.append((txn_id, json.loads(body)))


@asynccontextmanager
async def played_appservice(port: int = 0) -> AsyncIterator[PlayedAppservice]:
    played = PlayedAppservice()
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_route("*", "/{tail:.*}", played.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    played.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield played
    finally:
        await runner.cleanup()


def registration(url: str | None, **changes: Any) -> dict[str, Any]:
    """What a registration file says: the service `bridge`, with ghosts `@ghost_…` of its own."""
    return {
        "id": "bridge",
        "url": url,
        "as_token": AS_TOKEN,
        "hs_token": HS_TOKEN,
        "sender_localpart": "bridgebot",
        "namespaces": {
            "users": [{"regex": "@ghost_.*", "exclusive": True}],
            "aliases": [{"regex": "#portal_.*", "exclusive": True}],
            "rooms": [],
        },
    } | changes


def registered(directory: Path, *registrations: dict[str, Any]) -> AppservicesConfig:
    """The configuration with these registrations, in files."""
    paths = []
    for place, one in enumerate(registrations):
        paths.append(directory / f"registration{place}.yaml")
        paths[-1].write_text(yaml.safe_dump(one))
    return AppservicesConfig(registrations=tuple(paths))
