"""Answers a request: at once if there is something to tell, else as soon as there is, or when its time is over."""

from typing import Any

from ranvier.core.canonical_json import JsonObject
from ranvier.historical.sync_v3.answering import Answer, answer
from ranvier.historical.sync_v3.port import Source, Viewer
from ranvier.historical.sync_v3.sessions import Opened, UnknownSyncSession, begin
from ranvier.historical.sync_v3.tokens import Positions, Token, encode_token, parse_token
from ranvier.historical.sync_v3.wakes import Wakes
from ranvier.io.clock import Clock
from ranvier.services.changes import has_reached
from ranvier.store.database import Database


class SyncV3:
    """The engine, over one source and the database that it reads."""

    def __init__(self, db: Database, source: Source, wakes: Wakes, clock: Clock) -> None:
        self._db = db
        self._source = source
        self._wakes = wakes
        self._clock = clock

    async def sync(
        self, viewer: Viewer, since: str | None, body: JsonObject, timeout_ms: int
    ) -> dict[str, Any]:
        """The response.

        Raises: UnknownSyncSession; InvalidParam, BadJsonValue, MissingParam, BadToken.
        """
        token = None if since is None else parse_token(since)
        if token is not None and not await has_reached(
            self._db.position, token.positions.newest, self._clock, lambda: self._wakes.is_closed
        ):
            # Of a database that is no more: what the client knows may never have been.
            raise UnknownSyncSession
        now_ms = self._clock.now_ms()
        opened = await self._db.write(begin, self._source, viewer, token, body, now_ms)
        found = await self._wait(viewer, opened, timeout_ms)
        if found is None:
            return {"next": _next(opened, opened.since)}
        return {**found.parts, "next": _next(opened, found.positions)}

    async def _wait(self, viewer: Viewer, opened: Opened, timeout_ms: int) -> Answer | None:
        """What there is to tell; None: nothing came in time."""
        is_paging = any(stream.page is not None for stream in opened.wanted.streams.values())
        if opened.is_new or is_paging or timeout_ms == 0:
            return await self._look(viewer, opened)
        deadline = self._clock.monotonic() + timeout_ms / 1000
        with self._wakes.ear() as ear:
            while True:
                ear.clear()
                found = await self._look(viewer, opened)
                if found.has_news:
                    return found
                left = deadline - self._clock.monotonic()
                if left <= 0 or self._wakes.is_closed:
                    return None
                if not ear.listen_to(found.wakers):
                    await ear.wait(self._clock, left)

    async def _look(self, viewer: Viewer, opened: Opened) -> Answer:
        return await self._db.read(answer, self._source, viewer, opened)


def _next(opened: Opened, positions: Positions) -> str:
    return encode_token(Token(opened.session_id, opened.filter_id, positions))
