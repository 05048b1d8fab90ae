"""What media there are, for administrators."""

from typing import Final, get_args

import msgspec

from ranvier.core.canonical_json import parse_json
from ranvier.core.errors import InvalidParam, NotFound
from ranvier.core.identifiers import ServerName, UserID, localpart_of
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.interned import Interner, find_server_nids, find_user_nids, list_user_ids
from ranvier.store.tables.media import Medium, find_medium
from ranvier.store.tables.media_lists import Order, count_user_media, list_usage, list_user_media
from ranvier.store.tables.profiles import list_profiles

_FOREVER_MS: Final = 2**62


_ORDERS: Final[dict[str, Order]] = {order: order for order in get_args(Order)}


class MediaItem(msgspec.Struct, frozen=True, kw_only=True):
    """A user's upload."""

    media_id: str
    media_type: str | None
    media_length: int
    upload_name: str | None
    created_ts: int
    last_access_ts: int
    quarantined_by: str | None
    safe_from_quarantine: bool


class MediaInfo(MediaItem, frozen=True, kw_only=True):
    """Whatever is known of a medium."""

    media_origin: str
    user_id: UserID | None
    filesystem_id: str | None
    sha256: str | None
    authenticated: bool
    url_cache: str | None = None


class MediaPage(msgspec.Struct, frozen=True, omit_defaults=True):
    media: list[MediaItem]
    total: int
    next_token: int | None = None


class UserUsage(msgspec.Struct, frozen=True):
    user_id: UserID
    displayname: str | None
    media_count: int
    media_length: int


class UsagePage(msgspec.Struct, frozen=True, omit_defaults=True):
    users: list[UserUsage]
    total: int
    next_token: int | None = None


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """`order`: user_id, displayname, media_length or media_count."""

    order: str
    backwards: bool
    from_ms: int = 0
    until_ms: int = _FOREVER_MS
    search_term: str | None = None
    limit: int
    offset: int


def parse_order(text: str) -> Order:
    """By what a list of media is sorted. Raises: InvalidParam."""
    order = _ORDERS.get(text)
    if order is None:
        raise InvalidParam(f"The query parameter order_by must be one of: {', '.join(_ORDERS)}.")
    return order


class MediaAccounting:
    """Looks, and changes nothing."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def describe(self, server: ServerName, media_id: str) -> MediaInfo:
        """Raises: NotFound."""
        return await self._db.read(_describe, self._interner, server, media_id)

    async def list_of_user(
        self, user_id: UserID, order: Order, *, backwards: bool, limit: int, offset: int
    ) -> MediaPage:
        """A page of what a user uploaded."""

        def read(txn: ReadTxn) -> MediaPage:
            nid = find_user_nids(txn, self._interner, [user_id]).get(user_id)
            if nid is None:
                return MediaPage([], 0)
            media = list_user_media(txn, nid, order, backwards=backwards, limit=limit, offset=offset)
            total = count_user_media(txn, nid)
            reached = offset + len(media)
            return MediaPage([_item(one) for one in media], total, reached if reached < total else None)

        return await self._db.read(read)

    async def list_usage(self, query: UsageQuery) -> UsagePage:
        """A page of what each user's uploads come to."""
        return await self._db.read(_usage, self._interner, query)


def _describe(txn: ReadTxn, interner: Interner, server: ServerName, media_id: str) -> MediaInfo:
    nid = find_server_nids(txn, interner, [server]).get(server)
    medium = None if nid is None else find_medium(txn, nid, media_id)
    if medium is None:
        raise NotFound("There is no such media.")
    uploader = medium.uploader_nid
    digest = None if medium.blob_hash is None else medium.blob_hash.hex()
    return MediaInfo(
        media_origin=server,
        user_id=None if uploader is None else list_user_ids(txn, interner, [uploader]).get(uploader),
        filesystem_id=digest,
        sha256=digest,
        authenticated=not medium.is_open,
        **msgspec.structs.asdict(_item(medium)),
    )


def _item(medium: Medium) -> MediaItem:
    return MediaItem(
        media_id=medium.media_id,
        media_type=medium.content_type,
        media_length=medium.size_bytes,
        upload_name=medium.file_name,
        created_ts=medium.created_ms,
        last_access_ts=medium.accessed_ms,
        quarantined_by=medium.quarantined_by,
        safe_from_quarantine=medium.is_protected,
    )


def _usage(txn: ReadTxn, interner: Interner, query: UsageQuery) -> UsagePage:
    rows = list_usage(txn, query.from_ms, query.until_ms)
    nids = [row.user_nid for row in rows]
    names, profiles = list_user_ids(txn, interner, nids), list_profiles(txn, nids)
    found = [
        UserUsage(
            names[row.user_nid],
            _display_name(profiles.get(row.user_nid, {})),
            row.media_count,
            row.size_bytes,
        )
        for row in rows
    ]
    if query.search_term is not None:
        term = query.search_term.lower()
        found = [one for one in found if _matches(one, term)]
    found.sort(key=lambda one: one.user_id)
    if query.order != "user_id":
        found.sort(key=lambda one: _rank(one, query.order))
    if query.backwards:
        found.reverse()
    end = query.offset + query.limit
    return UsagePage(found[query.offset : end], len(found), end if end < len(found) else None)


def _rank(usage: UserUsage, order: str) -> tuple[int, str]:
    if order == "displayname":
        return 0, usage.displayname or ""
    return usage.media_length if order == "media_length" else usage.media_count, ""


def _matches(usage: UserUsage, term: str) -> bool:
    return term in localpart_of(usage.user_id).lower() or term in (usage.displayname or "").lower()


def _display_name(profile: dict[str, bytes]) -> str | None:
    name = parse_json(profile["displayname"]) if "displayname" in profile else None
    return name if isinstance(name, str) else None
