"""Which slots of a room's state authorize an event: senders choose by it and receivers hold them to it.

Spec: server-server API, "Auth events selection".
"""

from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import StateKey
from ranvier.core.room_versions import RoomVersion

CREATE: Final[StateKey] = ("m.room.create", "")
POWER_LEVELS: Final[StateKey] = ("m.room.power_levels", "")
JOIN_RULES: Final[StateKey] = ("m.room.join_rules", "")


def auth_keys_for(
    event_type: str, sender: str, state_key: str | None, content: JsonObject, version: RoomVersion
) -> list[StateKey]:
    """The (type, state_key) pairs whose events, where the room has them, belong in `auth_events`.

    Free of duplicates; in a fixed order, so that equal events cite in equal order. Empty for m.room.create.
    Malformed content selects less. Never raises.
    """
    if event_type == "m.room.create":
        return []
    sender_key = ("m.room.member", sender)
    # v12: the create event is implied by the room id.
    keys = (
        [POWER_LEVELS, sender_key]
        if version.auth.room_id_is_create_hash
        else [CREATE, POWER_LEVELS, sender_key]
    )
    if event_type == "m.room.member" and state_key is not None:
        for key in _member_keys(state_key, content, version):
            if key not in keys:
                keys.append(key)
    return keys


def _member_keys(state_key: str, content: JsonObject, version: RoomVersion) -> list[StateKey]:
    keys = [("m.room.member", state_key)]
    membership = content.get("membership")
    if membership in ("join", "invite", "knock"):
        keys.append(JOIN_RULES)
    if membership == "invite":
        token = _third_party_token(content)
        if token is not None:
            keys.append(("m.room.third_party_invite", token))
    if membership == "join" and version.auth.restricted:
        authorising_user = content.get("join_authorised_via_users_server")
        if isinstance(authorising_user, str):
            keys.append(("m.room.member", authorising_user))
    return keys


def _third_party_token(content: JsonObject) -> str | None:
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, dict) else None
    token = signed.get("token") if isinstance(signed, dict) else None
    return token if isinstance(token, str) else None
