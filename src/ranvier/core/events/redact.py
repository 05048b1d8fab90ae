"""What a redaction leaves of an event. Signatures and event ids cover only that.

Spec: rooms/v*.md, "Redactions".
"""

from functools import cache
from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.room_versions import RedactionRules, RoomVersion

_ALWAYS_KEPT: Final = frozenset(
    {
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    }
)


class _Kept(msgspec.Struct, frozen=True):
    """One version's rules as tables."""

    top_level: frozenset[str]
    content: dict[str, frozenset[str] | None]  # type -> keys that stay (None: all); other types keep none
    third_party_signed: bool


@cache
def _kept(rules: RedactionRules) -> _Kept:
    def keys(always: tuple[str, ...], **sometimes: bool) -> frozenset[str]:
        return frozenset(always) | {key for key, kept in sometimes.items() if kept}

    content: dict[str, frozenset[str] | None] = {
        "m.room.member": keys(("membership",), join_authorised_via_users_server=rules.keep_join_authorised),
        "m.room.create": None if rules.keep_whole_create else keys(("creator",)),
        "m.room.join_rules": keys(("join_rule",), allow=rules.keep_allow),
        "m.room.power_levels": keys(
            (
                "ban",
                "events",
                "events_default",
                "kick",
                "redact",
                "state_default",
                "users",
                "users_default",
            ),
            invite=rules.keep_invite_level,
        ),
        "m.room.aliases": keys((), aliases=rules.keep_aliases),
        "m.room.history_visibility": keys(("history_visibility",)),
        "m.room.redaction": keys((), redacts=rules.keep_redacts),
    }
    legacy = {"origin", "membership", "prev_state"} if rules.keep_origin_membership_prev_state else set()
    return _Kept(
        top_level=_ALWAYS_KEPT | legacy,
        content={event_type: kept for event_type, kept in content.items() if kept is None or kept},
        third_party_signed=rules.keep_third_party_signed,
    )


def redact(event: JsonObject, version: RoomVersion) -> JsonObject:
    """A copy of `event` with only what the room version protects; values are shared, not copied.

    Never raises: whatever JSON object comes in, one with a `content` object goes out. `unsigned` is not kept.
    """
    kept = _kept(version.redaction)
    redacted = {key: value for key, value in event.items() if key in kept.top_level}
    redacted["content"] = redact_content(event.get("type"), event.get("content"), version)
    return redacted


def redact_content(event_type: object, content: object, version: RoomVersion) -> JsonObject:
    """What `redact` leaves of the `content` of an event of this type. Never raises."""
    kept = _kept(version.redaction)
    if not isinstance(content, dict) or not isinstance(event_type, str) or event_type not in kept.content:
        return {}
    keys = kept.content[event_type]
    if keys is None:
        return content
    redacted: dict[str, Any] = {key: value for key, value in content.items() if key in keys}
    # Since v11: content.third_party_invite.signed of m.room.member. An object without `signed` becomes {}, as
    # with every other implementation.
    if kept.third_party_signed and event_type == "m.room.member":
        invite = content.get("third_party_invite")
        if isinstance(invite, dict):
            redacted["third_party_invite"] = {"signed": invite["signed"]} if "signed" in invite else {}
    return redacted


def keeps_content(event_type: str, version: RoomVersion) -> bool:
    """Whether any content of events of this type can survive a redaction."""
    return event_type in _kept(version.redaction).content
