"""The picture of whoever is signed in to this server's pages."""

from collections.abc import AsyncIterator
from typing import Final

import orjson

from ranvier.core.errors import BadIdentifier, InvalidParam, NotFound
from ranvier.core.identifiers import ServerName, parse_mxc
from ranvier.services.accounts.profiles import AVATAR_URL, Profiles
from ranvier.services.media.content import Content
from ranvier.services.media.downloading import Wish
from ranvier.services.media.thumbnails import Thumbnails, Wanted
from ranvier.services.media.uploading import Upload, Uploads
from ranvier.services.oauth.browsers import Person
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.profiles import find_profile

SHOWN: Final = Wanted(96, 96, is_cropped=True, is_animated=False)

_BEGINNINGS: Final = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"ftypavif", 4, "image/avif"),
)
"""What files of each kind have, and where. What a browser says of a file is what its name ends with."""


class OwnAvatar:
    """Shows and changes it."""

    def __init__(self, db: Database, profiles: Profiles, uploads: Uploads, thumbnails: Thumbnails) -> None:
        self._db = db
        self._profiles = profiles
        self._uploads = uploads
        self._thumbnails = thumbnails

    async def find_id(self, person: Person) -> str | None:
        """What changes when the picture does; None: there is none that could be shown."""
        found = await self._db.read(_find, person.user_nid)
        return None if found is None else found[1]

    async def open(self, person: Person) -> Content:
        """A small copy. Raises: NotFound; as `Thumbnails.get`."""
        found = await self._db.read(_find, person.user_nid)
        if found is None:
            raise NotFound("You have no picture.")
        return await self._thumbnails.get(*found, SHOWN, Wish())

    async def save(self, person: Person, data: bytes) -> None:
        """Raises: InvalidParam: this is no picture; as `Uploads.upload` and `Profiles.set_field`."""
        kind = next((kind for mark, at, kind in _BEGINNINGS if data.startswith(mark, at)), None)
        if kind is None:
            raise InvalidParam("This is no picture: PNG, JPEG, GIF, WebP and AVIF are.")
        upload = Upload(content_type=kind, file_name=None, declared_length=len(data), chunks=_once(data))
        await self._set(person, await self._uploads.upload(person.requester, upload))

    async def remove(self, person: Person) -> None:
        """Raises: UserSuspended."""
        await self._set(person, "")

    async def _set(self, person: Person, url: str) -> None:
        await self._profiles.set_field(person.requester, person.user_id, AVATAR_URL, {AVATAR_URL: url})


def _find(txn: ReadTxn, user_nid: int) -> tuple[ServerName, str] | None:
    url = orjson.loads(find_profile(txn, user_nid).get(AVATAR_URL) or b"null")
    try:
        return parse_mxc(url) if isinstance(url, str) else None
    except BadIdentifier:
        return None  # clients may write anything there


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
