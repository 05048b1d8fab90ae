"""Giving this server's files to others. Spec: server-server API, "Content Repository"."""

from collections.abc import AsyncIterator
from typing import Final

from ranvier.core.identifiers import ServerName
from ranvier.core.media.disposition import encode_disposition
from ranvier.core.media.multipart import encode_two_parts
from ranvier.http.federation.origin import server_endpoint
from ranvier.http.media.downloads import timeout_of, wanted_of
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.io.randomness import Randomness
from ranvier.services.media.content import Content
from ranvier.services.media.downloading import Downloads, Wish
from ranvier.services.media.thumbnails import Thumbnails

_BOUNDARY_CHARS: Final = 40
"""Long and random: nobody can put it into a file."""


class MediaForServers:
    """Downloads and thumbnails for servers."""

    def __init__(
        self, server: ServerName, downloads: Downloads, thumbnails: Thumbnails, randomness: Randomness
    ) -> None:
        self._server = server
        self._downloads = downloads
        self._thumbnails = thumbnails
        self._randomness = randomness

    @server_endpoint("GET", "/_matrix/federation/v1/media/download/{mediaId}", operation="getContent")
    async def get_content(self, request: Request) -> Response:
        wish = Wish(timeout_ms=timeout_of(request.query()))
        content = await self._downloads.get(self._server, request.path["mediaId"], wish)
        return self._in_two_parts(content, is_thumbnail=False)

    @server_endpoint(
        "GET", "/_matrix/federation/v1/media/thumbnail/{mediaId}", operation="getContentThumbnail"
    )
    async def get_content_thumbnail(self, request: Request) -> Response:
        query = request.query()
        wish, wanted = Wish(timeout_ms=timeout_of(query)), wanted_of(query)
        content = await self._thumbnails.get(self._server, request.path["mediaId"], wanted, wish)
        return self._in_two_parts(content, is_thumbnail=True)

    def _in_two_parts(self, content: Content, *, is_thumbnail: bool) -> Response:
        boundary = self._randomness.text(_BOUNDARY_CHARS)
        disposition = encode_disposition(content.content_type, content.file_name, always_inline=is_thumbnail)
        headers = {"Content-Type": content.content_type, "Content-Disposition": disposition}
        before, behind = encode_two_parts(boundary, headers)
        return Response(
            content_type=f"multipart/mixed; boundary={boundary}",
            stream=_between(before, content, behind),
            content_length=len(before) + content.size_bytes + len(behind),
        )


async def _between(before: bytes, content: Content, behind: bytes) -> AsyncIterator[bytes]:
    yield before
    async for chunk in content.read():
        yield chunk
    yield behind
