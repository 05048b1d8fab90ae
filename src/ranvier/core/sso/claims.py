"""From what a provider says of somebody to what an account is made of."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import ProtocolFault

MAX_TEXT_CHARS: Final = 255
"""Of what a template makes."""

_PLACE: Final = re.compile(r"\{([^{}|]+)(\|localpart)?\}")
_OUTSIDE: Final = re.compile(rb"[^a-z0-9._/+-]")


class BadTemplate(ProtocolFault):
    """A template of the configuration that cannot be one."""


def check_template(template: str) -> None:
    """Raises: BadTemplate."""
    left = _PLACE.sub("", template)
    if "{" in left or "}" in left:
        raise BadTemplate("a template is text with {claim}, {claim.part} or {claim|localpart} in it")


def fill(template: str, claims: JsonObject) -> str | None:
    """`{name}` stands for a claim, `{address.country}` for a part of one, `{email|localpart}` for what stands before
    the @ in it.

    None: a claim is missing (or empty, or no text or number), or what comes out is too long or empty.
    """
    filled = []
    end = 0
    for place in _PLACE.finditer(template):
        value = _find_text(claims, place[1])
        if place[2] and value is not None:
            value = value.partition("@")[0]
        if not value:
            return None
        filled += [template[end : place.start()], value]
        end = place.end()
    text = "".join([*filled, template[end:]]).strip()
    is_usable = 0 < len(text) <= MAX_TEXT_CHARS and not any(unicodedata.category(one) == "Cc" for one in text)
    return text if is_usable else None


def list_named(template: str) -> set[str]:
    """The claims with which a template is filled, wholly or in part."""
    return {place[1] for place in _PLACE.finditer(template)}


def localpart_of_name(name: str) -> str:
    """The local part of a user id for a name of any characters.

    Spec: appendices, "Mapping from other character sets".
    """
    return _OUTSIDE.sub(lambda found: b"=%02x" % found[0][0], name.lower().encode()).decode("ascii")


def find_unmet(claims: JsonObject, required: Mapping[str, Sequence[str]]) -> str | None:
    """The first claim that does not have one of the values that it must have; None: all have.

    Of a claim that is a list, one item must be such a value. Values are compared as text: `true`, `42`. No values:
    the claim just has to be there.
    """
    for name, values in required.items():
        claim = _find(claims, name)
        items = claim if isinstance(claim, list) else [claim]
        if not any(_is_one_of(item, values) for item in items):
            return name
    return None


def is_true(claims: JsonObject, name: str) -> bool:
    """Whether a claim is true. Some providers write it as text."""
    return _as_text(claims.get(name)) == "true"


def _is_one_of(item: object, values: Sequence[str]) -> bool:
    if not values:
        return item is not None
    return _as_text(item) in values


def _find(claims: JsonObject, path: str) -> object:
    """A claim, by its name or by the names that lead to it."""
    if path in claims:
        return claims[path]
    value: object = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _find_text(claims: JsonObject, path: str) -> str | None:
    value = _find(claims, path)
    return None if isinstance(value, bool) else _as_text(value)


def _as_text(value: object) -> str | None:
    match value:
        case bool():
            return "true" if value else "false"
        case int() if abs(value) < 2**63:
            return str(value)
        case str():
            return value
        case _:
            return None
