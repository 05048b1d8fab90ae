"""m.room.member events that local users send. Spec: client-server API, m.room.member."""

from collections.abc import Mapping

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import UserID
from ranvier.services.rooms.timeline import Draft

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


def member_draft(
    sender: UserID, user_id: UserID, content: JsonObject, origin_server_ts: int | None = None
) -> Draft:
    """What `sender` says of the membership of a user, who may be the same."""
    return Draft(
        sender=sender,
        type="m.room.member",
        state_key=user_id,
        content=content,
        origin_server_ts=origin_server_ts,
    )
