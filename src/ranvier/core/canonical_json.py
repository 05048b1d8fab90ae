"""Canonical JSON, and the one strict reader for JSON that comes from outside.

Spec: appendices, "Canonical JSON".
"""

from typing import Any

import orjson

JsonObject = dict[str, Any]
"""An object of decoded JSON, opaque to us but for the keys that a rule names."""


def encode(value: object) -> bytes:
    """The canonical form: keys sorted, no white space, UTF-8.

    Raises: BadJson.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
