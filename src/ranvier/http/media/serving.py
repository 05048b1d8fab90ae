"""A file as a response: headers that keep browsers from running it, ranges, and what need not be sent again.

Spec: client-server API, "Content repository", "Serving inline content". RFC 9110, sections 13 and 14.
"""

import re
from typing import Final

from ranvier.core.media.disposition import encode_disposition
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.services.media.content import Content

# The policy that the specification recommends.
_SAFE: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
    "style-src 'unsafe-inline'; object-src 'self';",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow, noarchive, noimageindex",
    "Accept-Ranges": "bytes",
}
# A file never changes, but it may be deleted or quarantined.
_CACHE: Final = "max-age=86400, immutable"

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def serve(
    request: Request, content: Content, *, is_public: bool = False, is_thumbnail: bool = False
) -> Response:
    """The file, or the part of it that is asked for. `is_public`: caches may give it to others."""
    tag = f'"{content.blob_id}"'
    headers = _SAFE | {
        "Content-Disposition": encode_disposition(
            content.content_type, content.file_name, always_inline=is_thumbnail
        ),
        "Cache-Control": f"{'public' if is_public else 'private'}, {_CACHE}",
        "ETag": tag,
    }
    if tag in _tags(request.headers.get("if-none-match", "")):
        return Response(status=304, headers=headers, content_type=content.content_type)
    part = _part(request, tag, content.size_bytes)
    if part is None:
        return _stream(content, headers, 200, 0, content.size_bytes)
    start, end = part
    if start >= min(end, content.size_bytes):
        headers = {"Content-Range": f"bytes */{content.size_bytes}"}
        return Response(
            status=416, headers=headers, body={"errcode": "M_UNKNOWN", "error": "There are no such bytes."}
        )
    end = min(end, content.size_bytes)
    ranged = headers | {"Content-Range": f"bytes {start}-{end - 1}/{content.size_bytes}"}
    return _stream(content, ranged, 206, start, end)


def _stream(content: Content, headers: dict[str, str], status: int, start: int, end: int) -> Response:
    return Response(
        status=status,
        headers=headers,
        content_type=content.content_type,
        stream=content.read(start, end - start),
        content_length=end - start,
    )


def _tags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in header.split(",")]


def _part(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """(first byte, byte behind the last) of a request for one range; None when the whole is to be sent, as for
    several ranges or ranges of something else.
    """
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", tag) != tag:
        return None
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), int(last) + 1 if last else size
