"""Media of other servers: fetched once for all who wait, kept as long as somebody looks at them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final, Protocol, TypeVar

from ranvier.core.errors import NotFound, RemoteMediaTooLarge
from ranvier.core.identifiers import ServerName
from ranvier.core.media.disposition import clean_type, parse_file_name
from ranvier.io.blobs import BlobTooLarge
from ranvier.io.clock import Clock
from ranvier.services.media.limits import MediaLimits
from ranvier.services.media.remote_files import RemoteFile, RemoteFiles, Take
from ranvier.services.media.storing import StoredContent, Storing
from ranvier.services.remote.flights import Flights
from ranvier.services.remote.requests import Query
from ranvier.services.turns import ASKER, Turns
from ranvier.store.database import WriteTxn
from ranvier.store.tables.interned import Interner, intern_servers
from ranvier.store.tables.media import Medium, find_medium, insert_medium
from ranvier.store.tables.media_thumbnails import Shape, Thumbnail, insert_thumbnail

T = TypeVar("T")

MAX_THUMBNAIL_BYTES: Final = 16 * 1_048_576
AT_ONCE: Final = 100
"""Files that are fetched at a time; the others wait. Servers that give them slowly must not use up the connections
by which we federate."""

FETCHED_FOR_ONE: Final = 20
WAITING_FOR_ONE: Final = 200
"""Of one client, which may be anybody where media can be downloaded without a token."""


class Elsewhere(Protocol):
    """Where media of other servers come from."""

    async def fetch(self, server: ServerName, media_id: str, timeout_ms: int) -> Medium:
        """Bring a medium here; `timeout_ms`: how long its server may wait for its upload.

        Raises: NotFound, NotYetUploaded, RemoteMediaTooLarge, LimitExceeded, BadGateway.
        """
        ...

    async def fetch_thumbnail(
        self, server: ServerName, medium: Medium, shape: Shape, timeout_ms: int
    ) -> Thumbnail:
        """Bring a thumbnail here of a medium whose kind only its own server may understand. Raises: as `fetch`."""
        ...


class RemoteMedia:
    """`Elsewhere`, by federation."""

    def __init__(
        self, files: RemoteFiles, storing: Storing, interner: Interner, clock: Clock, limits: MediaLimits
    ) -> None:
        self._files = files
        self._storing = storing
        self._interner = interner
        self._clock = clock
        self._limits = limits
        self._flights: Flights[tuple[str, str], Medium] = Flights()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._askers: Turns[str] = Turns(FETCHED_FOR_ONE, WAITING_FOR_ONE)

    async def fetch(self, server: ServerName, media_id: str, timeout_ms: int) -> Medium:
        async with self._askers.take(ASKER.get()):
            return await self._flights.fly(
                (server, media_id), lambda: self._fetch(server, media_id, timeout_ms)
            )

    async def fetch_thumbnail(
        self, server: ServerName, medium: Medium, shape: Shape, timeout_ms: int
    ) -> Thumbnail:
        file = RemoteFile(
            server=server,
            media_id=medium.media_id,
            what="thumbnail",
            query=_query(shape),
            timeout_ms=timeout_ms,
            max_bytes=MAX_THUMBNAIL_BYTES,
        )

        async def keep(headers: Mapping[str, str], chunks: AsyncIterator[bytes]) -> Thumbnail:
            content_type = clean_type(headers.get("content-type"))
            if content_type not in ("image/jpeg", "image/png", "image/apng", "image/gif", "image/webp"):
                raise NotFound("The media's server has no thumbnail of it.")

            def record(txn: WriteTxn, content: StoredContent) -> Thumbnail:
                thumbnail = Thumbnail(content_type, content.size_bytes, content.blob_hash)
                now_ms = self._clock.now_ms()
                insert_thumbnail(txn, medium.server_nid, medium.media_id, shape, thumbnail, now_ms)
                return thumbnail

            return await self._storing.store(chunks, file.max_bytes, record)

        async with self._askers.take(ASKER.get()):
            return await self._take(file, keep)

    async def _fetch(self, server: ServerName, media_id: str, timeout_ms: int) -> Medium:
        file = RemoteFile(
            server=server, media_id=media_id, timeout_ms=timeout_ms, max_bytes=self._limits.max_remote_bytes
        )

        async def keep(headers: Mapping[str, str], chunks: AsyncIterator[bytes]) -> Medium:
            def record(txn: WriteTxn, content: StoredContent) -> Medium:
                return self._record(txn, server, media_id, headers, content)

            return await self._storing.store(chunks, file.max_bytes, record)

        return await self._take(file, keep)

    async def _take(self, file: RemoteFile, keep: Take[T]) -> T:
        try:
            async with self._slots:
                return await self._files.take(file, keep)
        except BlobTooLarge as error:
            raise RemoteMediaTooLarge(f"This media has more than {file.max_bytes} bytes.") from error

    def _record(
        self,
        txn: WriteTxn,
        server: ServerName,
        media_id: str,
        headers: Mapping[str, str],
        content: StoredContent,
    ) -> Medium:
        now_ms = self._clock.now_ms()
        medium = Medium(
            server_nid=intern_servers(txn, self._interner, [server])[server],
            media_id=media_id,
            blob_hash=content.blob_hash,
            size_bytes=content.size_bytes,
            content_type=clean_type(headers.get("content-type")),
            file_name=parse_file_name(headers.get("content-disposition")),
            created_ms=now_ms,
            accessed_ms=now_ms,
            is_open=self._limits.unauthenticated_downloads,
        )
        insert_medium(txn, medium)  # unless another process was faster
        return find_medium(txn, medium.server_nid, media_id) or medium


class NothingElsewhere:
    """`Elsewhere` where there is no federation."""

    async def fetch(self, server: ServerName, media_id: str, timeout_ms: int) -> Medium:
        raise NotFound("There is no such media.")

    async def fetch_thumbnail(
        self, server: ServerName, medium: Medium, shape: Shape, timeout_ms: int
    ) -> Thumbnail:
        raise NotFound("There is no such media.")


def _query(shape: Shape) -> Query:
    return (
        ("width", str(shape.width)),
        ("height", str(shape.height)),
        ("method", shape.method),
        ("animated", "true" if shape.is_animated else "false"),
    )
