"""Showing files to whoever knows their URI: only those that came in while the administrator allowed that.

Spec: client-server API, "Content repository", the deprecated endpoints and their freeze.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.identifiers import ServerName, parse_server_name
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.media.downloads import MediaConfig, timeout_of, wanted_of
from ranvier.http.media.serving import serve
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.services.media.downloading import Downloads, Wish
from ranvier.services.media.thumbnails import Thumbnails

_PREFIXES: Final = ("/_matrix/media/v3", "/_matrix/media/r0", "/_matrix/media/v1")


class UnauthenticatedDownloadEndpoints:
    """The deprecated endpoints that show files, and the deprecated place of the configuration."""

    def __init__(
        self,
        downloads: Downloads,
        thumbnails: Thumbnails,
        max_upload_bytes: int,
        always_open: Collection[tuple[ServerName, str]],
    ) -> None:
        """`always_open`: pictures for people who are not signed in yet."""
        self._always_open = always_open
        self._downloads = downloads
        self._thumbnails = thumbnails
        self._config = MediaConfig(max_upload_bytes)

    @endpoint(
        "GET",
        *(f"{prefix}/config" for prefix in _PREFIXES),
        operation="getConfig",
        api=Api.MEDIA,
        guests=True,
    )
    async def get_config(self, _request: Request) -> MediaConfig:
        return self._config

    @endpoint(
        "GET",
        *(f"{prefix}/download/{{serverName}}/{{mediaId}}" for prefix in _PREFIXES),
        operation="getContent",
        auth=Auth.NONE,
        api=Api.MEDIA,
        rate=Rate.MEDIA,
    )
    async def get_content(self, request: Request) -> Response:
        server = parse_server_name(request.path["serverName"])
        content = await self._downloads.get(server, request.path["mediaId"], self._wish(request))
        return serve(request, content, is_public=True)

    @endpoint(
        "GET",
        *(f"{prefix}/download/{{serverName}}/{{mediaId}}/{{fileName}}" for prefix in _PREFIXES),
        operation="getContentOverrideName",
        auth=Auth.NONE,
        api=Api.MEDIA,
        rate=Rate.MEDIA,
    )
    async def get_content_override_name(self, request: Request) -> Response:
        server = parse_server_name(request.path["serverName"])
        content = await self._downloads.get(server, request.path["mediaId"], self._wish(request))
        named = msgspec.structs.replace(content, file_name=request.path["fileName"])
        return serve(request, named, is_public=True)

    @endpoint(
        "GET",
        *(f"{prefix}/thumbnail/{{serverName}}/{{mediaId}}" for prefix in _PREFIXES),
        operation="getContentThumbnail",
        auth=Auth.NONE,
        api=Api.MEDIA,
        rate=Rate.MEDIA,
    )
    async def get_content_thumbnail(self, request: Request) -> Response:
        server = parse_server_name(request.path["serverName"])
        wanted = wanted_of(request.query())
        content = await self._thumbnails.get(server, request.path["mediaId"], wanted, self._wish(request))
        return serve(request, content, is_public=True, is_thumbnail=True)

    def _wish(self, request: Request) -> Wish:
        query = request.query()
        query.boolean("allow_redirect")  # this server redirects nobody, whatever is allowed
        return Wish(
            timeout_ms=timeout_of(query),
            allow_remote=query.boolean("allow_remote", True),
            is_open_only=(request.path["serverName"], request.path["mediaId"]) not in self._always_open,
        )
