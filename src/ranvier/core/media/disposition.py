"""What headers say about a file: its type, its name, and whether a browser may show it in place.

Spec: client-server API, "Serving inline content". RFC 6266 (Content-Disposition), RFC 8187 (names beyond ASCII).
"""

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

DEFAULT_TYPE: Final = "application/octet-stream"
MAX_TYPE_CHARS: Final = 200
MAX_NAME_CHARS: Final = 1000

INLINE_TYPES: Final = frozenset(
    {
        "text/css",
        "text/plain",
        "text/csv",
        "application/json",
        "application/ld+json",
        "image/jpeg",
        "image/gif",
        "image/png",
        "image/apng",
        "image/webp",
        "image/avif",
        "video/mp4",
        "video/webm",
        "video/ogg",
        "video/quicktime",
        "audio/mp4",
        "audio/webm",
        "audio/aac",
        "audio/mpeg",
        "audio/ogg",
        "audio/wave",
        "audio/wav",
        "audio/x-wav",
        "audio/x-pn-wav",
        "audio/flac",
        "audio/x-flac",
    }
)

_TYPE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;[\x20-\x7e]*)?", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$&+.^_`|~-]+")
_PARAMETER: Final = re.compile(r';\s*(filename\*?)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s"]+)', re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def clean_type(value: str | None) -> str:
    """A Content-Type that may go into a header again: as it came, or application/octet-stream when it is none."""
    if value is None or len(value) > MAX_TYPE_CHARS or not _TYPE.fullmatch(value.strip()):
        return DEFAULT_TYPE
    return value.strip()


def essence(content_type: str) -> str:
    """The type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def clean_name(value: str | None) -> str | None:
    """A file name without characters that no header may have; None when nothing is left or it is too long."""
    name = _CONTROL.sub("", value or "")
    return name if 0 < len(name) <= MAX_NAME_CHARS else None


def encode_disposition(content_type: str, file_name: str | None, *, always_inline: bool = False) -> str:
    """The Content-Disposition of a file: inline only for types that no browser runs."""
    kind = "inline" if always_inline or essence(content_type) in INLINE_TYPES else "attachment"
    name = clean_name(file_name)
    if name is None:
        return kind
    if not name.isascii():
        return f"{kind}; filename*=utf-8''{quote(name, safe='')}"
    if not _TOKEN.fullmatch(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{kind}; filename={name}"


def parse_file_name(disposition: str | None) -> str | None:
    """The file name of a Content-Disposition header, if it gives one that can be read. Never raises."""
    if disposition is None or len(disposition) > 4 * MAX_NAME_CHARS:
        return None
    plain = None
    for found in _PARAMETER.finditer(disposition):
        value = found[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        if found[1].endswith("*"):
            extended = _parse_extended(value)
            if extended is not None:
                return extended
        elif plain is None:
            plain = clean_name(value)
    return plain


def _parse_extended(value: str) -> str | None:
    """RFC 8187: charset'language'percent-encoded."""
    charset, _, rest = value.partition("'")
    if charset.lower() not in ("utf-8", "iso-8859-1"):
        return None
    try:
        return clean_name(unquote_to_bytes(rest.partition("'")[2]).decode(charset))
    except UnicodeError:
        return None
