"""Connections of clients that never get to the point: uvicorn waits for them for ever, and keeps all they send."""

import asyncio
from collections.abc import Collection
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES: Final = 65_536
"""Of a request's line and headers."""

PATIENCE_S: Final = 60.0
"""So long a client may take to send the head of a request. Whoever has been answered may be silent for longer:
that is `timeout_keep_alive`."""

GOODBYE_S: Final = 0.25


class Connection(HttpToolsProtocol):
    """A connection that is cut off when the head of a request does not end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._waiting: tuple[object, float] | None = None  # after which answer, and since when

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        last = self._last
        # A list of headers is begun with each request, and is the request's when its head is there.
        if (last.scope["headers"] if last is not None else None) is self.headers:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def shutdown(self) -> None:
        """The server stops: who is not being answered goes at once."""
        super().shutdown()
        self._part(is_leaving=False)

    def _part(self, *, is_leaving: bool) -> None:
        """See that a connection that is closed ends: under TLS, closing waits for the other side to say goodbye, and
        one that is merely kept open may never do."""
        if is_leaving and not self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            is_leaving = self.transport.is_closing()
            self.loop.call_later(GOODBYE_S, lambda: self._part(is_leaving=is_leaving))

    def check(self, now_s: float, patience_s: float) -> None:
        """Cut it off if no request has come for too long. To be called now and then."""
        last = self._last
        is_answered = last is None or last.response_complete
        if not is_answered or self.timeout_keep_alive_task is not None:
            self._waiting = None
        elif self._waiting is None or self._waiting[0] is not last:
            self._waiting = last, now_s
        elif now_s - self._waiting[1] > patience_s:
            self.transport.abort()

    @property
    def _last(self) -> RequestResponseCycle | None:
        """The last request whose head came."""
        return self.cycle


async def watch(connections: Collection[Any], patience_s: float) -> None:
    """Look after the connections of a server, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(patience_s / 6)
        for connection in tuple(connections):
            connection.check(loop.time(), patience_s)
