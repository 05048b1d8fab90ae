"""Where devices meet to sign one in by QR code: two proposals of the same thing.

MSC4108, version of 2024: any text, with ETags. MSC4388: JSON, with sequence tokens.
"""

from email.utils import formatdate
from typing import Final

import msgspec

from ranvier.core.errors import (
    Forbidden,
    InvalidParam,
    MatrixError,
    MissingParam,
)
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.services.rendezvous.sessions import Meeting, Rendezvous, StaleSequence

MSC4108_PATH: Final = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
MSC4388_PATH: Final = "/_matrix/client/unstable/io.element.msc4388/rendezvous"

MAX_TEXT_BODY_BYTES: Final = 8_192
MAX_JSON_BODY_BYTES: Final = 32_768
"""Escaped, a text of 4 KiB may be six times as long."""

_TEXT: Final = "text/plain"


class ConcurrentWrite(MatrixError):
    """MSC4388, PUT."""

    status = 409
    errcode = "IO_ELEMENT_MSC4388_CONCURRENT_WRITE"


class Data(msgspec.Struct, frozen=True):
    data: str


class NextData(msgspec.Struct, frozen=True):
    data: str
    sequence_token: str


class TextRendezvous:
    """MSC4108 of 2024. Anybody may begin: the device that shows the code need not be signed in, and says nothing if it
    is. How often is bounded."""

    def __init__(self, rendezvous: Rendezvous, public_base_url: str) -> None:
        self._rendezvous = rendezvous
        self._base = public_base_url.rstrip("/")

    @endpoint(
        "POST",
        MSC4108_PATH,
        operation="beginTextRendezvous",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
        max_body_bytes=MAX_TEXT_BODY_BYTES,
    )
    async def begin(self, request: Request) -> Response:
        meeting = await self._rendezvous.begin(_text_of(request))
        url = f"{self._base}{MSC4108_PATH}/{meeting.session_id}"
        return Response(status=201, headers=_headers(meeting), body={"url": url})

    @endpoint(
        "GET", f"{MSC4108_PATH}/{{sessionId}}", operation="getTextRendezvous", auth=Auth.NONE, rate=Rate.READ
    )
    async def get(self, request: Request) -> Response:
        check_is_fetched(request)
        meeting = await self._rendezvous.get(request.path["sessionId"])
        headers = _headers(meeting)
        if request.headers.get("if-none-match") in (headers["ETag"], "*"):
            return Response(status=304, headers=headers, content_type=_TEXT)
        return Response(headers=headers, content_type=_TEXT, body=meeting.content.encode())

    @endpoint(
        "PUT",
        f"{MSC4108_PATH}/{{sessionId}}",
        operation="putTextRendezvous",
        auth=Auth.NONE,
        rate=Rate.WRITE,
        max_body_bytes=MAX_TEXT_BODY_BYTES,
    )
    async def put(self, request: Request) -> Response:
        text, etag = _text_of(request), request.headers.get("if-match")
        if etag is None:
            raise MissingParam("The header If-Match is missing.")
        if not (len(etag) > 2 and etag.startswith('"') and etag.endswith('"')):
            raise InvalidParam("If-Match must be one strong ETag.")
        try:
            meeting = await self._rendezvous.replace(
                request.path["sessionId"], etag[1:-1], text, is_retry_fine=False
            )
        except StaleSequence as stale:
            # The proposal wants its new code beside one that clients know.
            body = {
                "errcode": "M_UNKNOWN",
                "error": "Somebody else wrote meanwhile.",
                "org.matrix.msc4108.errcode": "M_CONCURRENT_WRITE",
            }
            return Response(status=412, headers=_headers(stale.meeting), body=body)
        return Response(status=202, headers=_headers(meeting), content_type=_TEXT)

    @endpoint(
        "DELETE",
        f"{MSC4108_PATH}/{{sessionId}}",
        operation="endTextRendezvous",
        auth=Auth.NONE,
        rate=Rate.WRITE,
    )
    async def end(self, request: Request) -> Response:
        await self._rendezvous.end(request.path["sessionId"])
        return Response(status=204)


class JsonRendezvous:
    """MSC4388."""

    def __init__(self, rendezvous: Rendezvous, *, is_public: bool) -> None:
        """`is_public`: whether anybody may begin, or users of this server alone."""
        self._rendezvous = rendezvous
        self._is_public = is_public

    @endpoint("GET", MSC4388_PATH, operation="discoverRendezvous", auth=Auth.OPTIONAL, rate=Rate.READ)
    async def discover(self, request: Request) -> dict[str, bool]:
        return {"create_available": self._may_begin(request)}

    @endpoint(
        "POST",
        MSC4388_PATH,
        operation="beginRendezvous",
        auth=Auth.OPTIONAL,
        rate=Rate.LOGIN,
        max_body_bytes=MAX_JSON_BODY_BYTES,
    )
    async def begin(self, request: Request) -> dict[str, object]:
        if not self._may_begin(request):
            raise Forbidden("Only users of this server may begin here.")
        meeting = await self._rendezvous.begin(request.body(Data).data)
        return {
            "id": meeting.session_id,
            "sequence_token": meeting.sequence,
            "expires_in_ms": self._left_ms(meeting),
        }

    @endpoint(
        "GET", f"{MSC4388_PATH}/{{sessionId}}", operation="getRendezvous", auth=Auth.NONE, rate=Rate.READ
    )
    async def get(self, request: Request) -> Response:
        check_is_fetched(request)
        meeting = await self._rendezvous.get(request.path["sessionId"])
        body = {
            "data": meeting.content,
            "sequence_token": meeting.sequence,
            "expires_in_ms": self._left_ms(meeting),
        }
        return Response(headers={"Cache-Control": "no-store"}, body=body)

    @endpoint(
        "PUT",
        f"{MSC4388_PATH}/{{sessionId}}",
        operation="putRendezvous",
        auth=Auth.NONE,
        rate=Rate.WRITE,
        max_body_bytes=MAX_JSON_BODY_BYTES,
    )
    async def put(self, request: Request) -> dict[str, str]:
        body = request.body(NextData)
        try:
            meeting = await self._rendezvous.replace(
                request.path["sessionId"], body.sequence_token, body.data, is_retry_fine=True
            )
        except StaleSequence as error:
            raise ConcurrentWrite("Somebody else wrote meanwhile.") from error
        return {"sequence_token": meeting.sequence}

    @endpoint(
        "DELETE", f"{MSC4388_PATH}/{{sessionId}}", operation="endRendezvous", auth=Auth.NONE, rate=Rate.WRITE
    )
    async def end(self, request: Request) -> dict[str, str]:
        await self._rendezvous.end(request.path["sessionId"])
        return {}

    def _may_begin(self, request: Request) -> bool:
        return self._is_public or request.requester_or_none is not None

    def _left_ms(self, meeting: Meeting) -> int:
        return max(0, meeting.expires_ms - self._rendezvous.now_ms())


def check_is_fetched(request: Request) -> None:
    """Anybody can write here: what was written is for programs, and no browser may show it as a page of this server.

    Raises: Forbidden. Spec: MSC4388, "Unsafe content"; Fetch Metadata Request Headers.
    """
    headers = request.headers
    if (
        headers.get("sec-fetch-dest", "empty") != "empty"
        or headers.get("sec-fetch-mode") == "navigate"
        or headers.get("sec-fetch-user") == "?1"
        or headers.get("sec-fetch-site") == "none"
    ):
        raise Forbidden("This is not to be opened in a browser.")


def _text_of(request: Request) -> str:
    """Raises: MissingParam, InvalidParam."""
    content_type = request.headers.get("content-type")
    if content_type is None or "content-length" not in request.headers:
        raise MissingParam("The headers Content-Type and Content-Length are needed.")
    if content_type.partition(";")[0].strip().lower() != _TEXT:
        raise InvalidParam("The Content-Type must be text/plain.")
    try:
        return request.raw_body.decode()
    except UnicodeDecodeError as error:
        raise InvalidParam("The text is not UTF-8.") from error


def _headers(meeting: Meeting) -> dict[str, str]:
    """What comes with every answer about a session. The last header keeps browsers from making a page of the text."""
    return {
        "ETag": f'"{meeting.sequence}"',
        "Expires": formatdate(meeting.expires_ms / 1000, usegmt=True),
        "Last-Modified": formatdate(meeting.modified_ms / 1000, usegmt=True),
        "Cache-Control": "no-store, no-transform",
        "Pragma": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
