"""Quarantine: what an administrator hides from everybody, with all its copies, those that come later included.

The media of a room are those that its events name, as far as these are not encrypted.
"""

from collections.abc import Callable, Collection
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import BadIdentifier, NotFound
from ranvier.core.identifiers import RoomID, ServerName, UserID, parse_mxc
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.interned import Interner, find_server_nids, find_user_nids
from ranvier.store.tables.media import Medium, find_medium
from ranvier.store.tables.media_blobs import set_blobs_quarantined
from ranvier.store.tables.media_lists import (
    Key,
    list_equal_media,
    list_media,
    list_user_media,
    quarantine_contents,
    release_contents,
    set_protected,
)
from ranvier.store.tables.rooms import find_room
from ranvier.store.tables.timeline import END_OF_TIMELINE, TimelineFilter, list_page

PAGE: Final = 500
_ONLY_LINKS: Final = TimelineFilter(contains_url=True)
_ALL: Final = 2**31


class RoomMedia(msgspec.Struct, frozen=True):
    """URIs, whether or not what they stand for is here."""

    local: list[str]
    remote: list[str]


class MediaModeration:
    """What administrators do with media of others."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def quarantine(self, requester: Requester, server: ServerName, media_id: str) -> int:
        """Hide one medium. How many it and its copies are. Raises: NotFound."""
        return await self._db.write(_on_one, self._interner, server, media_id, _hide(requester.user_id))

    async def release(self, server: ServerName, media_id: str) -> int:
        """Show one medium again, and its copies. Raises: NotFound."""
        return await self._db.write(_on_one, self._interner, server, media_id, _show)

    async def quarantine_user(self, requester: Requester, user_id: UserID) -> int:
        """Hide all that a user of this server uploaded."""
        return await self._db.write(_quarantine_user, self._interner, user_id, requester.user_id)

    async def quarantine_room(self, requester: Requester, room_id: RoomID) -> int:
        """Hide all that a room's events name. Raises: NotFound."""
        uris = await self._collect(room_id)
        return await self._db.write(_quarantine_uris, self._interner, uris, requester.user_id)

    async def list_room(self, room_id: RoomID) -> RoomMedia:
        """What a room's events name. Raises: NotFound."""
        uris = sorted(await self._collect(room_id))
        own = f"mxc://{self._interner.own_server}/"
        return RoomMedia(
            [uri for uri in uris if uri.startswith(own)], [uri for uri in uris if not uri.startswith(own)]
        )

    async def protect(self, media_id: str, *, is_protected: bool) -> None:
        """Keep an upload from being quarantined, or no longer. Raises: NotFound."""
        await self._db.write(_protect, self._interner, media_id, is_protected)

    async def _collect(self, room_id: RoomID) -> set[str]:
        uris: set[str] = set()
        below = END_OF_TIMELINE
        while True:
            named, next_below = await self._db.read(_read_page, room_id, below)
            uris.update(named)
            if next_below is None:
                return uris
            below = next_below


_Change = Callable[[WriteTxn, Collection[Medium]], int]


def _hide(by: UserID) -> _Change:
    def hide(txn: WriteTxn, media: Collection[Medium]) -> int:
        hashes = {medium.blob_hash for medium in media if medium.blob_hash and not medium.is_protected}
        # What one protected copy has may come in again.
        kept = {medium.blob_hash for medium in list_equal_media(txn, hashes) if medium.is_protected}
        set_blobs_quarantined(txn, hashes - kept, is_quarantined=True)
        return quarantine_contents(txn, sorted(hashes), by)

    return hide


def _show(txn: WriteTxn, media: Collection[Medium]) -> int:
    hashes = {medium.blob_hash for medium in media if medium.blob_hash}
    set_blobs_quarantined(txn, hashes, is_quarantined=False)
    return release_contents(txn, sorted(hashes))


def _on_one(txn: WriteTxn, interner: Interner, server: ServerName, media_id: str, change: _Change) -> int:
    nid = find_server_nids(txn, interner, [server]).get(server)
    medium = None if nid is None else find_medium(txn, nid, media_id)
    if medium is None or medium.blob_hash is None:
        raise NotFound("There is no such media.")
    return change(txn, [medium])


def _quarantine_user(txn: WriteTxn, interner: Interner, user_id: UserID, by: UserID) -> int:
    nid = find_user_nids(txn, interner, [user_id]).get(user_id)
    if nid is None:
        return 0
    return _hide(by)(txn, list_user_media(txn, nid, "media_id", backwards=False, limit=_ALL))


def _quarantine_uris(txn: WriteTxn, interner: Interner, uris: Collection[str], by: UserID) -> int:
    named = [parse_mxc(uri) for uri in uris]
    nids = find_server_nids(txn, interner, {server for server, _ in named})
    keys: list[Key] = [(nids[server], media_id) for server, media_id in named if server in nids]
    return _hide(by)(txn, list_media(txn, keys))


def _protect(txn: WriteTxn, interner: Interner, media_id: str, is_protected: bool) -> None:
    own = interner.own_server
    nid = find_server_nids(txn, interner, [own]).get(own)
    if nid is None or not set_protected(txn, nid, media_id, is_protected=is_protected):
        raise NotFound("There is no such media.")


def _read_page(txn: ReadTxn, room_id: RoomID, below: int) -> tuple[set[str], int | None]:
    """What some events name, and from where to go on. Raises: NotFound."""
    room = find_room(txn, room_id)
    if room is None:
        raise NotFound("This server does not know this room.")
    events = list_page(txn, room.room_nid, below=below, backwards=True, limit=PAGE, only=_ONLY_LINKS)
    uris = {uri for event in events for uri in _links(parse_object(event.json))}
    return uris, events[-1].room_order if len(events) == PAGE else None


def _links(event: JsonObject) -> list[str]:
    """The content URIs of an event: of its file, and of the thumbnail of that."""
    content = event.get("content")
    content = content if isinstance(content, dict) else {}
    info = content.get("info")
    named = [content.get("url"), info.get("thumbnail_url") if isinstance(info, dict) else None]
    links = []
    for value in named:
        try:
            server, media_id = parse_mxc(value)
        except BadIdentifier:
            continue
        links.append(f"mxc://{server}/{media_id}")
    return links
