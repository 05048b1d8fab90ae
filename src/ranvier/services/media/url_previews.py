"""What a link leads to, for clients that show it below a message.

One fetch serves all who ask at the same time, and whoever asks within the hour. What goes wrong is told alike, whatever
it was: the answer must not map networks for anybody.

Spec: client-server API, GET /media/preview_url.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from typing import Final

import orjson

from ranvier.core.errors import BadGateway, InvalidParam
from ranvier.core.media.disposition import essence
from ranvier.io.clock import Clock
from ranvier.io.pictures import NoPicture, Pages, Source
from ranvier.io.ports import RemoteFault
from ranvier.services.media.embeds import read_embed
from ranvier.services.media.preview_images import IMAGE, PreviewImages, Properties
from ranvier.services.media.web import BadUrl, Web, read_head
from ranvier.services.remote.flights import Flights
from ranvier.store.database import Database
from ranvier.store.tables.media_previews import find_url_preview, upsert_url_preview

log = logging.getLogger(__name__)

MAX_PAGE_BYTES: Final = 1_048_576
KEEP_MS: Final = 3_600_000
AT_ONCE: Final = 10
"""Pages that are fetched at a time; more wait."""
DEADLINE_S: Final = 45.0
"""Of a page and its picture together."""

MAX_EMBED_BYTES: Final = 262_144

_PAGES: Final = frozenset({"text/html", "application/xhtml+xml", "application/xml", "text/xml"})

_ACCEPT_PAGE: Final = "text/html,application/xhtml+xml;q=0.9,image/*;q=0.8,*/*;q=0.1"
_ACCEPT_IMAGE: Final = "image/*"
_ACCEPT_EMBED: Final = "application/json"
_DESCRIPTION: Final = "og:description"
_EMBED: Final = "oembed"
"""Where `io.open_graph` says that more is told."""


class UrlPreviews:
    """Makes previews, and remembers them."""

    def __init__(
        self,
        db: Database,
        web: Web,
        pages: Pages,
        images: PreviewImages,
        clock: Clock,
    ) -> None:
        self._db = db
        self._web = web
        self._pages = pages
        self._images = images
        self._clock = clock
        self._flights: Flights[str, bytes] = Flights()
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def get(self, url: str) -> bytes:
        """The preview of a page, JSON. Raises: InvalidParam; BadGateway when the page cannot be had."""
        try:
            url = self._web.parse(url)
        except BadUrl as error:
            raise InvalidParam(f"url: {error}.") from error
        url_hash = hashlib.sha256(url.encode()).digest()
        known = await self._db.read(find_url_preview, url_hash, self._clock.now_ms())
        if known is not None:
            return known
        return await self._flights.fly(url, lambda: self._make(url, url_hash))

    async def _make(self, url: str, url_hash: bytes) -> bytes:
        try:
            async with self._slots, self._clock.timeout(DEADLINE_S):
                properties = await self._read(url)
        except (RemoteFault, BadUrl, NoPicture, TimeoutError, OSError) as error:
            log.info("no preview of %s: %s", _shown(url), error)
            raise BadGateway("There is no preview of this page.") from error
        preview = orjson.dumps(properties)
        now_ms = self._clock.now_ms()
        await self._db.write(upsert_url_preview, url_hash, url, preview, now_ms, now_ms + KEEP_MS)
        return preview

    async def _read(self, url: str) -> Properties:
        """Raises: RemoteFault, BadUrl, NoPicture."""
        async with self._web.open(url, _ACCEPT_PAGE) as file:
            kind = essence(file.content_type)
            if kind.startswith("image/"):
                return await self._images.keep(file) or {}
            if kind not in _PAGES:
                return {}
            body = await read_head(file, MAX_PAGE_BYTES)
        properties = await self._read_page(body, file.content_type, file.url)
        embed = properties.pop(_EMBED, None)
        if embed:
            properties |= await self._read_embed(embed)
        image = properties.pop(IMAGE, None)
        # What is said about a picture must be true of the copy that is shown.
        properties = {name: value for name, value in properties.items() if not name.startswith(f"{IMAGE}:")}
        return properties | (await self._find_image(image) if image else {})

    async def _read_page(self, body: bytes, content_type: str, url: str) -> Properties:
        return dict(await self._pages.read_page(Source(len(body), _whole(body)), content_type, url))

    async def _read_embed(self, url: str) -> Properties:
        """What the page's service says of it; a preview without that is still one."""
        try:
            async with self._web.open(url, _ACCEPT_EMBED) as file:
                embed = read_embed(await read_head(file, MAX_EMBED_BYTES))
            if embed is None:
                return {}
            html = embed.html.encode("utf-8", "replace")
            fragment = await self._read_page(html, "text/html; charset=utf-8", file.url) if html else {}
        except (RemoteFault, BadUrl, NoPicture) as error:
            log.info("nothing more from %s: %s", _shown(url), error)
            return {}
        # The words of what others show in the page's place; it is nobody's page, so the rest means nothing.
        said = {name: fragment[name] for name in (_DESCRIPTION,) if name in fragment}
        return said | embed.properties

    async def _find_image(self, url: str) -> Properties:
        """A preview without its picture is still one."""
        try:
            async with self._web.open(url, _ACCEPT_IMAGE) as file:
                return await self._images.keep(file) or {}
        except (RemoteFault, BadUrl) as error:
            log.info("no picture from %s: %s", _shown(url), error)
            return {}


def _shown(url: str) -> str:
    """For a log: without the query, which may hold a secret that people sent each other."""
    return url.partition("?")[0][:200]


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body
