"""Showing files to users. Spec: client-server API, "Content repository"."""

import msgspec

from ranvier.core.identifiers import parse_server_name
from ranvier.http.endpoint import Api, Rate, endpoint
from ranvier.http.media.serving import serve
from ranvier.http.request import Query, Request
from ranvier.http.responses import Response
from ranvier.services.media.downloading import DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS, Downloads, Wish
from ranvier.services.media.thumbnails import Thumbnails, Wanted

MAX_SIDE = 65_536

_PREFIX = "/_matrix/client/v1/media"
# Clients from before v1.11 ask here.
_OLD_PREFIX = "/_matrix/client/unstable/org.matrix.msc3916/media"


class MediaConfig(msgspec.Struct, frozen=True):
    upload_size: int = msgspec.field(name="m.upload.size")


class DownloadEndpoints:
    """The endpoints below /_matrix/client/v1/media that show files."""

    def __init__(self, downloads: Downloads, thumbnails: Thumbnails, max_upload_bytes: int) -> None:
        self._downloads = downloads
        self._thumbnails = thumbnails
        self._config = MediaConfig(max_upload_bytes)

    @endpoint(
        "GET",
        f"{_PREFIX}/config",
        f"{_OLD_PREFIX}/config",
        operation="getConfigAuthed",
        api=Api.MEDIA,
        guests=True,
    )
    async def get_config_authed(self, _request: Request) -> MediaConfig:
        return self._config

    @endpoint(
        "GET",
        f"{_PREFIX}/download/{{serverName}}/{{mediaId}}",
        f"{_OLD_PREFIX}/download/{{serverName}}/{{mediaId}}",
        operation="getContentAuthed",
        api=Api.MEDIA,
        rate=Rate.MEDIA,
        guests=True,
    )
    async def get_content_authed(self, request: Request) -> Response:
        server = parse_server_name(request.path["serverName"])
        return serve(request, await self._downloads.get(server, request.path["mediaId"], _wish(request)))

    @endpoint(
        "GET",
        f"{_PREFIX}/download/{{serverName}}/{{mediaId}}/{{fileName}}",
        f"{_OLD_PREFIX}/download/{{serverName}}/{{mediaId}}/{{fileName}}",
        operation="getContentOverrideNameAuthed",
        api=Api.MEDIA,
        rate=Rate.MEDIA,
        guests=True,
    )
    async def get_content_override_name_authed(self, request: Request) -> Response:
        server = parse_server_name(request.path["serverName"])
        content = await self._downloads.get(server, request.path["mediaId"], _wish(request))
        return serve(request, msgspec.structs.replace(content, file_name=request.path["fileName"]))

    @endpoint(
        "GET",
        f"{_PREFIX}/thumbnail/{{serverName}}/{{mediaId}}",
        f"{_OLD_PREFIX}/thumbnail/{{serverName}}/{{mediaId}}",
        operation="getContentThumbnailAuthed",
        api=Api.MEDIA,
        rate=Rate.MEDIA,
        guests=True,
    )
    async def get_content_thumbnail_authed(self, request: Request) -> Response:
        server = parse_server_name(request.path["serverName"])
        wanted = wanted_of(request.query())
        content = await self._thumbnails.get(server, request.path["mediaId"], wanted, _wish(request))
        return serve(request, content, is_thumbnail=True)


def timeout_of(query: Query) -> int:
    """Milliseconds to wait for an upload."""
    return query.integer("timeout_ms", DEFAULT_TIMEOUT_MS, most=MAX_TIMEOUT_MS)


def wanted_of(query: Query) -> Wanted:
    """The size and kind of a thumbnail. Raises: MissingParam, InvalidParam."""
    query.required("width")
    query.required("height")
    return Wanted(
        query.integer("width", 0, least=1, most=MAX_SIDE),
        query.integer("height", 0, least=1, most=MAX_SIDE),
        query.choice("method", ("crop", "scale"), "scale") == "crop",
        query.boolean("animated"),
    )


def _wish(request: Request) -> Wish:
    query = request.query()
    return Wish(
        timeout_ms=timeout_of(query),
        # As Synapse has it: an administrator may look at what is quarantined.
        despite_quarantine=request.requester.is_admin
        and query.text("admin_unsafely_bypass_quarantine") == "true",
    )
