"""Dot-separated paths to a property of an event, such as `content.m\\.relates_to.rel_type`.

Spec: appendices, "Dot-separated property paths".
"""

import re
from collections.abc import Mapping
from typing import Any, Final

PropertyPath = tuple[str, ...]
"""Property names from the outermost inwards. Never empty."""

ABSENT: Final = object()
"""What `find_property` gives for a property that is not there (None is JSON's null)."""

_PART: Final = re.compile(r"\\[.\\]|[^.\\]+|[.\\]")
"""An escaped character, a run of ordinary ones, a dot that separates, or a backslash that means itself."""


def parse_property_path(text: str) -> PropertyPath:
    r"""Split at the dots. `\.` and `\\` mean a dot and a backslash; any other backslash stands for itself."""
    if "\\" not in text:
        return tuple(text.split("."))
    names = [""]
    for part in _PART.findall(text):
        if part == ".":
            names.append("")
        else:
            names[-1] += part[1] if len(part) == 2 and part[0] == "\\" else part
    return tuple(names)


def find_property(event: Mapping[str, Any], path: PropertyPath) -> Any:
    """The value at `path`, or ABSENT. Only objects are walked into, never arrays."""
    value: Any = event
    for name in path:
        # Nearly always a dict, which is seen sooner than that it is a Mapping.
        if not isinstance(value, (dict, Mapping)) or name not in value:
            return ABSENT
        value = value[name]
    return value
