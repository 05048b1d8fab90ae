"""Bringing files in. Spec: client-server API, "Content repository"."""

from collections.abc import AsyncIterator

import msgspec

from ranvier.core.identifiers import parse_server_name
from ranvier.http.endpoint import Api, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.media.uploading import Reservation, Upload, Uploads


class ContentUri(msgspec.Struct, frozen=True):
    content_uri: str


class UploadEndpoints:
    """The endpoints below /upload, and /create."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    @endpoint(
        "POST",
        "/_matrix/media/v3/upload",
        "/_matrix/media/r0/upload",
        "/_matrix/media/v1/upload",
        operation="uploadContent",
        api=Api.MEDIA,
        rate=Rate.UPLOAD,
        streams_body=True,
    )
    async def upload_content(self, request: Request) -> ContentUri:
        return ContentUri(await self._uploads.upload(request.requester, _upload(request)))

    @endpoint(
        "PUT",
        "/_matrix/media/v3/upload/{serverName}/{mediaId}",
        operation="uploadContentToMXC",
        api=Api.MEDIA,
        rate=Rate.UPLOAD,
        streams_body=True,
    )
    async def upload_content_to_mxc(self, request: Request) -> dict[str, str]:
        server = parse_server_name(request.path["serverName"])
        await self._uploads.upload_to(request.requester, server, request.path["mediaId"], _upload(request))
        return {}

    @endpoint("POST", "/_matrix/media/v1/create", operation="createContent", api=Api.MEDIA, rate=Rate.UPLOAD)
    async def create_content(self, request: Request) -> Reservation:
        return await self._uploads.reserve(request.requester)


def _upload(request: Request) -> Upload:
    length = request.headers.get("content-length", "")
    return Upload(
        content_type=request.headers.get("content-type"),
        file_name=request.query().text("filename"),
        declared_length=int(length) if length.isascii() and length.isdigit() else None,
        chunks=_chunks(request),
    )


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    if request.body_stream is not None:
        async for chunk in request.body_stream:
            yield chunk
