"""What an m.room.member event of a local user says. Spec: client-server API, m.room.member."""

from collections.abc import Mapping

import msgspec

from ranvier.core.canonical_json import JsonObject

_SHOWN = ("displayname", "avatar_url")


def member_content(
    membership: str, profile: Mapping[str, bytes] | None = None, reason: str | None = None
) -> JsonObject:
    """The content with the user's profile (field -> JSON), and the reason if there is one."""
    content: JsonObject = {"membership": membership}
    for field in _SHOWN:
        value = (profile or {}).get(field)
        if value is not None:
            content[field] = msgspec.json.decode(value)
    if reason is not None:
        content["reason"] = reason
    return content
