"""What links lead to. Spec: client-server API, GET /media/preview_url."""

from ranvier.http.endpoint import Api, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.media.url_previews import UrlPreviews


class UrlPreviewEndpoint:
    """Now and as it was before v1.11."""

    def __init__(self, previews: UrlPreviews) -> None:
        self._previews = previews

    @endpoint(
        "GET",
        "/_matrix/client/v1/media/preview_url",
        "/_matrix/client/unstable/org.matrix.msc3916/media/preview_url",
        operation="getUrlPreviewAuthed",
        api=Api.MEDIA,
        rate=Rate.PREVIEW,
    )
    async def get_url_preview_authed(self, request: Request) -> bytes:
        query = request.query()
        query.integer("ts", 0)  # previews of the past are not kept
        return await self._previews.get(query.required("url"))

    @endpoint(
        "GET",
        "/_matrix/media/v3/preview_url",
        "/_matrix/media/r0/preview_url",
        "/_matrix/media/v1/preview_url",
        operation="getUrlPreview",
        api=Api.MEDIA,
        rate=Rate.PREVIEW,
    )
    async def get_url_preview(self, request: Request) -> bytes:
        return await self.get_url_preview_authed(request)
