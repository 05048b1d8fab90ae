"""Administering media, as tools for Synapse do it: Ketesa, Draupnir and Mjolnir among them.

Their API is Synapse's: its documentation, "Media admin API", "User admin API" and "Statistics".
"""

from typing import Any, Final

import msgspec

from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import parse_server_name, parse_user_id
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Query, Request
from ranvier.services.media.accounting import (
    MediaAccounting,
    MediaInfo,
    MediaPage,
    UsagePage,
    UsageQuery,
    parse_order,
)
from ranvier.services.media.deleting import Deleted, MediaDeletion
from ranvier.services.media.moderating import MediaModeration, RoomMedia

_V1: Final = "/_synapse/admin/v1"
_READ: Final[dict[str, Any]] = {"auth": Auth.ADMIN, "api": Api.ADMIN}
_WRITE: Final[dict[str, Any]] = _READ | {"rate": Rate.WRITE}
_MAX_PAGE: Final = 1000
_FIRST_PLAUSIBLE_MS: Final = 30_000_000_000
"""A smaller time was meant as seconds."""


class MediaInfoAnswer(msgspec.Struct, frozen=True):
    media_info: MediaInfo


class MediaModerationEndpoints:
    """Quarantine and protection."""

    def __init__(self, moderation: MediaModeration) -> None:
        self._moderation = moderation

    @endpoint(
        "POST",
        f"{_V1}/media/quarantine/{{serverName}}/{{mediaId}}",
        operation="quarantineMedia",
        **_WRITE,
    )
    async def quarantine_media(self, request: Request) -> dict[str, str]:
        server = parse_server_name(request.path["serverName"])
        await self._moderation.quarantine(request.requester, server, request.path["mediaId"])
        return {}

    @endpoint(
        "POST",
        f"{_V1}/media/unquarantine/{{serverName}}/{{mediaId}}",
        operation="unquarantineMedia",
        **_WRITE,
    )
    async def unquarantine_media(self, request: Request) -> dict[str, str]:
        server = parse_server_name(request.path["serverName"])
        await self._moderation.release(server, request.path["mediaId"])
        return {}

    @endpoint(
        "POST",
        f"{_V1}/room/{{roomId}}/media/quarantine",
        f"{_V1}/quarantine_media/{{roomId}}",
        operation="quarantineMediaOfRoom",
        **_WRITE,
    )
    async def quarantine_media_of_room(self, request: Request) -> dict[str, int]:
        room_id = request.room_id
        return {"num_quarantined": await self._moderation.quarantine_room(request.requester, room_id)}

    @endpoint("POST", f"{_V1}/user/{{userId}}/media/quarantine", operation="quarantineMediaOfUser", **_WRITE)
    async def quarantine_media_of_user(self, request: Request) -> dict[str, int]:
        user_id = parse_user_id(request.path["userId"])
        return {"num_quarantined": await self._moderation.quarantine_user(request.requester, user_id)}

    @endpoint("POST", f"{_V1}/media/protect/{{mediaId}}", operation="protectMedia", **_WRITE)
    async def protect_media(self, request: Request) -> dict[str, str]:
        await self._moderation.protect(request.path["mediaId"], is_protected=True)
        return {}

    @endpoint("POST", f"{_V1}/media/unprotect/{{mediaId}}", operation="unprotectMedia", **_WRITE)
    async def unprotect_media(self, request: Request) -> dict[str, str]:
        await self._moderation.protect(request.path["mediaId"], is_protected=False)
        return {}

    @endpoint("GET", f"{_V1}/room/{{roomId}}/media", operation="listMediaOfRoom", **_READ)
    async def list_media_of_room(self, request: Request) -> RoomMedia:
        return await self._moderation.list_room(request.room_id)


class MediaDeletionEndpoints:
    """Deleting."""

    def __init__(self, deletion: MediaDeletion) -> None:
        self._deletion = deletion

    @endpoint("DELETE", f"{_V1}/media/{{serverName}}/{{mediaId}}", operation="deleteMedia", **_WRITE)
    async def delete_media(self, request: Request) -> Deleted:
        server = parse_server_name(request.path["serverName"])
        return await self._deletion.delete(server, request.path["mediaId"])

    @endpoint(
        "POST",
        f"{_V1}/media/delete",
        f"{_V1}/media/{{serverName}}/delete",
        operation="deleteOldMedia",
        **_WRITE,
    )
    async def delete_old_media(self, request: Request) -> Deleted:
        query = request.query()
        return await self._deletion.delete_old(
            _before(query), query.integer("size_gt", 0), keep_avatars=query.boolean("keep_profiles", True)
        )

    @endpoint("DELETE", f"{_V1}/users/{{userId}}/media", operation="deleteMediaOfUser", **_WRITE)
    async def delete_media_of_user(self, request: Request) -> Deleted:
        user_id = parse_user_id(request.path["userId"])
        return await self._deletion.delete_of_user(user_id, **_page(request.query()))

    @endpoint("POST", f"{_V1}/purge_media_cache", operation="purgeMediaCache", **_WRITE)
    async def purge_media_cache(self, request: Request) -> dict[str, int]:
        return {"deleted": await self._deletion.purge_copies(_before(request.query()))}


class MediaAccountingEndpoints:
    """Looking."""

    def __init__(self, accounting: MediaAccounting) -> None:
        self._accounting = accounting

    @endpoint("GET", f"{_V1}/media/{{serverName}}/{{mediaId}}", operation="getMediaInfo", **_READ)
    async def get_media_info(self, request: Request) -> MediaInfoAnswer:
        server = parse_server_name(request.path["serverName"])
        return MediaInfoAnswer(await self._accounting.describe(server, request.path["mediaId"]))

    @endpoint("GET", f"{_V1}/users/{{userId}}/media", operation="listMediaOfUser", **_READ)
    async def list_media_of_user(self, request: Request) -> MediaPage:
        user_id = parse_user_id(request.path["userId"])
        return await self._accounting.list_of_user(user_id, **_page(request.query()))

    @endpoint("GET", f"{_V1}/statistics/users/media", operation="getMediaUsage", **_READ)
    async def get_media_usage(self, request: Request) -> UsagePage:
        query = request.query()
        asked = UsageQuery(
            order=query.choice(
                "order_by", ("user_id", "displayname", "media_length", "media_count"), "user_id"
            ),
            backwards=query.choice("dir", ("f", "b"), "f") == "b",
            from_ms=query.integer("from_ts", 0),
            until_ms=query.integer("until_ts", 2**53),
            search_term=query.text("search_term"),
            limit=query.integer("limit", 100, least=1, most=_MAX_PAGE),
            offset=query.integer("from", 0),
        )
        return await self._accounting.list_usage(asked)


def _page(query: Query) -> dict[str, Any]:
    """Which of a user's media, in which order: the newest first, unless something else is asked for."""
    order = query.text("order_by")
    return {
        "order": parse_order(order or "created_ts"),
        "backwards": query.choice("dir", ("f", "b"), "f" if order else "b") == "b",
        "limit": query.integer("limit", 100, least=1, most=_MAX_PAGE),
        "offset": query.integer("from", 0),
    }


def _before(query: Query) -> int:
    query.required("before_ts")
    before_ms = query.integer("before_ts", 0)
    if before_ms < _FIRST_PLAUSIBLE_MS:
        raise InvalidParam("before_ts must be a time of this century in milliseconds.")
    return before_ms
