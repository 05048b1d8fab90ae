"""What a browser sends of a form with a file in it: multipart/form-data.

Spec: RFC 7578; the HTML standard, "Multipart form data" (names have %22 for a quotation mark).
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.core.errors import ProtocolFault

MAX_PARTS: Final = 20
MAX_TYPE_CHARS: Final = 200

_BOUNDARY: Final = re.compile(
    r"multipart/form-data\s*;\s*boundary=(?:\"([!-~ ]{1,70})\"|([!#-+\--:<-~]{1,70}))\s*", re.IGNORECASE
)
_NAME: Final = re.compile(
    r'form-data\s*;\s*name="([^"\r\n]*)"(?:\s*;\s*filename="([^"\r\n]*)")?\s*', re.IGNORECASE
)


class BadFormData(ProtocolFault):
    """Not what a browser sends."""


class FormField(msgspec.Struct, frozen=True):
    """A field. `file_name`: of a file, as its sender calls it; None: it is none."""

    data: bytes
    file_name: str | None = None


def parse_form_data(content_type: str | None, body: bytes) -> Mapping[str, FormField]:
    """The fields by name; of a repeated one the last. Raises: BadFormData."""
    found = _BOUNDARY.fullmatch((content_type or "").strip()[:MAX_TYPE_CHARS])
    if found is None:
        raise BadFormData("the form is no multipart/form-data with a boundary")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode()
    preamble, *parts = (b"\r\n" + body).split(delimiter, MAX_PARTS + 1)
    if len(parts) > MAX_PARTS + 1 or not parts or preamble.strip() or not parts[-1].startswith(b"--"):
        raise BadFormData("the form has no end, or too many fields")
    return dict(_parse_part(part) for part in parts[:-1])


def _parse_part(part: bytes) -> tuple[str, FormField]:
    head, blank, data = part.partition(b"\r\n\r\n")
    if not blank or not head.startswith(b"\r\n"):
        raise BadFormData("a field of the form has no head")
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise BadFormData("a field of the form has no readable name") from error
    for line in lines:
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition":
            found = _NAME.fullmatch(value.strip())
            if found is not None:
                return found[1], FormField(data, found[2])
    raise BadFormData("a field of the form has no name")
