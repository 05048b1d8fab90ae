"""A lean HTTP/1.1 client for load: one keep-alive connection, one request at a time, no parsing beyond need."""

import asyncio
from typing import Any

import orjson


class Connection:
    """One connection to one server, as one user."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._port = port
        self.token = token
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, target: str, json: Any = None) -> tuple[int, bytes]:
        """(status, body). `target` is the path and query as they stand on the wire."""
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        body = b"" if json is None else orjson.dumps(json)
        authorization = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{authorization}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        return await self._answer(self._reader)

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in head:
            return status, await self._chunks(reader)
        start = head.find(b"content-length:")
        length = int(head[start + 15 : head.index(b"\r", start)]) if start >= 0 else 0
        return status, await reader.readexactly(length)

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readline()
        return b"".join(parts)

    async def call(self, method: str, target: str, json: Any = None) -> Any:
        """The decoded body of a request that must succeed. Raises: RuntimeError."""
        status, body = await self.request(method, target, json)
        if status != 200:
            raise RuntimeError(f"{method} {target}: {status} {body[:300].decode(errors='replace')}")
        return orjson.loads(body)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
