"""Deleting media for an administrator. Contents go with the last medium that refers to them."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import parse_json
from ranvier.core.errors import BadJson, NotFound
from ranvier.core.identifiers import ServerName, UserID
from ranvier.io.clock import Clock
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.interned import Interner, find_server_nids, find_user_nids
from ranvier.store.tables.media import Medium, delete_media, find_medium, list_unused_copies
from ranvier.store.tables.media_lists import Order, list_avatars, list_old_uploads, list_user_media

BATCH: Final = 200


class Deleted(msgspec.Struct, frozen=True):
    """Media ids."""

    deleted_media: list[str]
    total: int


class MediaDeletion:
    """What administrators delete."""

    def __init__(self, db: Database, interner: Interner, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock

    async def delete(self, server: ServerName, media_id: str) -> Deleted:
        """Delete one medium. Raises: NotFound."""

        def find(txn: ReadTxn) -> list[Medium]:
            nid = find_server_nids(txn, self._interner, [server]).get(server)
            medium = None if nid is None else find_medium(txn, nid, media_id)
            if medium is None:
                raise NotFound("There is no such media.")
            return [medium]

        return await self._delete(find)

    async def delete_of_user(
        self, user_id: UserID, order: Order, *, backwards: bool, limit: int, offset: int
    ) -> Deleted:
        """Delete a page of what a user uploaded."""

        def find(txn: ReadTxn) -> list[Medium]:
            nid = find_user_nids(txn, self._interner, [user_id]).get(user_id)
            if nid is None:
                return []
            return list_user_media(txn, nid, order, backwards=backwards, limit=limit, offset=offset)

        return await self._delete(find)

    async def delete_old(self, before_ms: int, above_bytes: int, *, keep_avatars: bool) -> Deleted:
        """Delete uploads that nobody looked at since `before_ms` and that are larger than `above_bytes`."""
        kept = await self._db.read(_read_avatars) if keep_avatars else frozenset()
        own = f"mxc://{self._interner.own_server}/"
        deleted: list[str] = []
        after = ""
        while True:
            found = await self._db.read(list_old_uploads, before_ms, above_bytes, after, BATCH)
            if not found:
                return Deleted(deleted, len(deleted))
            after = found[-1].media_id
            gone = [medium for medium in found if own + medium.media_id not in kept]
            await self._db.write(delete_media, gone, self._clock.now_ms())
            deleted += [medium.media_id for medium in gone]

    async def purge_copies(self, before_ms: int) -> int:
        """Delete copies of what is elsewhere that nobody looked at since `before_ms`. How many there were."""
        return await delete_copies(self._db, self._clock, before_ms)

    async def _delete(self, find: Callable[[ReadTxn], Sequence[Medium]]) -> Deleted:
        def delete(txn: WriteTxn) -> list[str]:
            media = find(txn)
            delete_media(txn, media, self._clock.now_ms())
            return [medium.media_id for medium in media]

        ids = await self._db.write(delete)
        return Deleted(ids, len(ids))


async def delete_copies(db: Database, clock: Clock, before_ms: int) -> int:
    """Delete copies of what is elsewhere that nobody looked at since `before_ms`. How many there were."""
    deleted = 0
    while media := await db.read(list_unused_copies, before_ms, BATCH):
        await db.write(delete_media, media, clock.now_ms())
        deleted += len(media)
    return deleted


def _read_avatars(txn: ReadTxn) -> frozenset[str]:
    """The content URIs that rooms and users of this server show."""
    rooms, users = list_avatars(txn)
    shown = set(rooms)
    for value in users:
        try:
            uri = parse_json(value)
        except BadJson:
            continue
        if isinstance(uri, str):
            shown.add(uri)
    return frozenset(shown)
