"""What other servers answer: read so that one event which cannot be read does not take the others along.

Such events exist: there are servers that take text with half a surrogate pair in it, and hand it on.
"""

import json
import math
from typing import Any, Final

from ranvier.core.canonical_json import JsonObject, parse_json, parse_object
from ranvier.core.errors import BadJson

_MAX_DIGITS: Final = 4_000
"""Of an integer that is read at all; Python itself draws the line at 4,300."""


def parse_answer(raw: bytes, max_bytes: int) -> JsonObject:
    """The object that a server answers with. An object in one of its arrays that `parse_json` would not read (it
    has a lone surrogate, say, or is nested too deeply) is read as an empty one: so it is nothing, and the others
    stay where they are.

    Raises: BadJson where that does not help.
    """
    try:
        return parse_object(raw, max_bytes)
    except BadJson:
        if len(raw) > max_bytes:
            raise
        return _parse_loosely(raw)


def _parse_loosely(raw: bytes) -> JsonObject:
    try:
        # What is no UTF-8 becomes a lone surrogate, which the decoder of the standard library lets pass; so does
        # it numbers that no double holds. Each is found out below.
        answer: Any = json.loads(raw.decode(errors="surrogateescape"), parse_int=_read_integer)
    except (ValueError, RecursionError) as error:
        raise BadJson(f"not JSON: {error}") from error
    if not isinstance(answer, dict):
        raise BadJson("the JSON is not an object")
    arrays = {name: value for name, value in answer.items() if isinstance(value, list)}
    rest = {name: value for name, value in answer.items() if name not in arrays}
    return parse_object(json.dumps(rest)) | {
        name: [_reread(element) for element in array] for name, array in arrays.items()
    }


def _read_integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.nan


def _reread(element: object) -> Any:
    """Raises: BadJson for what is no object."""
    try:
        return parse_json(json.dumps(element))
    except BadJson:
        if isinstance(element, dict):
            return {}
        raise
