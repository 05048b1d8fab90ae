"""Smaller pictures, made when somebody asks for them.

Spec: client-server API, "Thumbnails".
"""

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from ranvier.core.errors import BadGateway, CannotThumbnail, MediaTooLarge, NotFound, RemoteMediaTooLarge
from ranvier.core.identifiers import ServerName
from ranvier.core.media.disposition import essence
from ranvier.core.media.thumbnail_sizes import round_up
from ranvier.io.clock import Clock
from ranvier.io.pictures import MAX_RESULT_BYTES, NoPicture, Picture, Pictures, PictureTooLarge, Source
from ranvier.services.media.content import Content
from ranvier.services.media.downloading import Downloads, Wish
from ranvier.services.media.remote import Elsewhere
from ranvier.services.media.storing import StoredContent, Storing
from ranvier.services.remote.flights import Flights
from ranvier.services.turns import ASKER, Turns
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.media import Medium
from ranvier.store.tables.media_thumbnails import Shape, Thumbnail, find_thumbnail, insert_thumbnail

MAX_SOURCE_BYTES: Final = 64 * 1_048_576
"""Of a file that is decoded."""

REFUSED_S: Final = 600.0
"""So long a picture that could not be decoded is not tried again: failing may take as long as it is let."""
MAX_REFUSED: Final = 10_000

MADE_FOR_ONE: Final = 2
WAITING_FOR_ONE: Final = 200
"""Of one client, for one at a time is drawn for all."""

_MAY_MOVE: Final = frozenset({"image/gif", "image/webp", "image/png", "image/apng", "image/avif"})


class Wanted(msgspec.Struct, frozen=True):
    """What is asked for. Pixels; both sides at least 1."""

    width: int
    height: int
    is_cropped: bool
    is_animated: bool


class Thumbnails:
    """Finds thumbnails, or makes them."""

    def __init__(
        self,
        db: Database,
        downloads: Downloads,
        storing: Storing,
        pictures: Pictures,
        elsewhere: Elsewhere,
        clock: Clock,
    ) -> None:
        self._db = db
        self._downloads = downloads
        self._storing = storing
        self._pictures = pictures
        self._elsewhere = elsewhere
        self._clock = clock
        self._flights: Flights[tuple[int, str, Shape], Thumbnail] = Flights()
        self._askers: Turns[str] = Turns(MADE_FOR_ONE, WAITING_FOR_ONE)
        # (server_nid, media_id, is_animated) -> until when, from how many pixels on, and why; the oldest first.
        self._refused: OrderedDict[tuple[int, str, bool], tuple[float, int, NoPicture]] = OrderedDict()

    async def get(self, server: ServerName, media_id: str, wanted: Wanted, wish: Wish) -> Content:
        """A thumbnail at least as large as what is wanted, if the picture is.

        Raises: CannotThumbnail; MediaTooLarge or RemoteMediaTooLarge; LimitExceeded: too many are being made for
        the asker; else as `Downloads.find`.
        """
        medium = await self._downloads.find(server, media_id, wish)
        shape = _shape(medium, wanted)
        found = await self._db.read(find_thumbnail, medium.server_nid, media_id, shape)
        if found is None:
            key = (medium.server_nid, media_id, shape)
            async with self._askers.take(ASKER.get()):
                found = await self._flights.fly(key, lambda: self._make(server, medium, shape, wish))
        name = f"thumbnail.{found.content_type.partition('/')[2]}"
        return await self._downloads.open(found.blob_hash, found.size_bytes, found.content_type, name)

    async def _make(self, server: ServerName, medium: Medium, shape: Shape, wish: Wish) -> Thumbnail:
        is_own = medium.uploader_nid is not None
        try:
            picture, encoded = await self._draw(medium, shape)
        except PictureTooLarge as error:
            raise (MediaTooLarge if is_own else RemoteMediaTooLarge)("Too large to thumbnail.") from error
        except NoPicture as error:
            if is_own or not wish.allow_remote:
                raise CannotThumbnail("There is no thumbnail of this content.") from error
            return await self._ask_elsewhere(server, medium, shape, wish)
        return await self._keep(medium, shape, picture, encoded)

    async def _draw(self, medium: Medium, shape: Shape) -> tuple[Picture, bytes]:
        """Raises: NoPicture, PictureTooLarge among them."""
        if not essence(medium.content_type or "").startswith("image/"):
            raise NoPicture("it does not say that it is one")
        if medium.size_bytes > MAX_SOURCE_BYTES:
            raise PictureTooLarge(f"it has {medium.size_bytes} bytes")
        key = (medium.server_nid, medium.media_id, shape.is_animated)
        pixels = shape.width * shape.height
        until_s, least, known = self._refused.get(key, (0.0, 0, None))
        if known is not None and self._clock.monotonic() < until_s and pixels >= least:
            raise type(known)(*known.args)
        source = await self._downloads.open(medium.blob_hash or b"", medium.size_bytes, "", None)
        try:
            return await self._pictures.make_thumbnail(
                Source(source.size_bytes, source.read()),
                (shape.width, shape.height),
                crop=shape.method == "crop",
                animated=shape.is_animated,
            )
        except NoPicture as refusal:
            # A new one: this one has its traceback, and with it all that the request worked on.
            kept = type(refusal)(*refusal.args)
            self._refused[key] = (self._clock.monotonic() + REFUSED_S, pixels, kept)
            self._refused.move_to_end(key)
            if len(self._refused) > MAX_REFUSED:
                self._refused.popitem(last=False)
            raise

    async def _keep(self, medium: Medium, shape: Shape, picture: Picture, encoded: bytes) -> Thumbnail:
        def record(txn: WriteTxn, content: StoredContent) -> Thumbnail:
            thumbnail = Thumbnail(picture.content_type, content.size_bytes, content.blob_hash)
            now_ms = self._clock.now_ms()
            insert_thumbnail(txn, medium.server_nid, medium.media_id, shape, thumbnail, now_ms)
            return thumbnail

        if not encoded:  # the picture is small enough as it is
            original = StoredContent(medium.blob_hash or b"", medium.size_bytes)
            return await self._db.write(record, original)
        return await self._storing.store(_once(encoded), MAX_RESULT_BYTES, record)

    async def _ask_elsewhere(self, server: ServerName, medium: Medium, shape: Shape, wish: Wish) -> Thumbnail:
        try:
            return await self._elsewhere.fetch_thumbnail(server, medium, shape, wish.timeout_ms)
        except (NotFound, BadGateway) as error:
            raise CannotThumbnail("There is no thumbnail of this content.") from error


def _shape(medium: Medium, wanted: Wanted) -> Shape:
    width, height = round_up(wanted.width, wanted.height, crop=wanted.is_cropped)
    return Shape(
        width,
        height,
        "crop" if wanted.is_cropped else "scale",
        wanted.is_animated and essence(medium.content_type or "") in _MAY_MOVE,
    )


async def _once(encoded: bytes) -> AsyncIterator[bytes]:
    yield encoded
