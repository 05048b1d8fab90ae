"""What a client asks for when it creates a room, and the events that this makes, in the specified order.

Rules for this file: no I/O; and whether the room's rules allow the events is for whoever appends them.
Spec: client-server API, POST /createRoom.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec

from ranvier.core.auth.power import DEFAULT_LEVELS
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier, BadJsonValue, InvalidRoomState
from ranvier.core.identifiers import RoomAlias, StateKey, UserID, parse_user_id
from ranvier.core.room_versions import RoomVersion
from ranvier.services.rooms.timeline import Draft

MAX_INVITES: Final = 500
MAX_INITIAL_STATE: Final = 500

Preset = Literal["private_chat", "public_chat", "trusted_private_chat"]
Visibility = Literal["public", "private"]

_TOMBSTONE_LEVEL: Final = 150
_CREATOR_LEVEL: Final = 100


class StateWish(msgspec.Struct, frozen=True):
    """An event of `initial_state`."""

    type: str
    content: JsonObject
    state_key: str = ""


class NewRoom(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the request."""

    visibility: Visibility | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: Annotated[list[str], msgspec.Meta(max_length=MAX_INVITES)] = []
    invite_3pid: list[JsonObject] = []
    room_version: str | None = None
    creation_content: JsonObject = {}
    initial_state: Annotated[list[StateWish], msgspec.Meta(max_length=MAX_INITIAL_STATE)] = []
    preset: Preset | None = None
    is_direct: bool = False
    power_level_content_override: JsonObject = {}


class Founder(msgspec.Struct, frozen=True):
    """Who creates the room, and what the others get to see of them."""

    user_id: UserID
    member_content: JsonObject


def build_drafts(
    wish: NewRoom,
    founder: Founder,
    version: RoomVersion,
    invitees: Sequence[UserID],
    alias: RoomAlias | None,
) -> list[Draft]:
    """All events but the invites, the create event first.

    Raises: BadJsonValue, InvalidRoomState.
    """
    preset = _preset_of(wish)
    trusted = invitees if preset == "trusted_private_chat" else ()
    sender = founder.user_id
    states: list[tuple[StateKey, JsonObject]] = [
        # 1. to 3.
        (("m.room.create", ""), _create_content(wish, sender, version, trusted)),
        (("m.room.member", sender), founder.member_content),
        (("m.room.power_levels", ""), _power_levels(wish, sender, version, trusted)),
    ]
    # 4.
    if alias is not None:
        states.append((("m.room.canonical_alias", ""), {"alias": alias}))
    named = _named(wish)
    wished = [((one.type, one.state_key), one.content) for one in wish.initial_state]
    _check_wished(wished)
    # 5. What `initial_state` says wins over the preset, and what `name` and `topic` say over that.
    overridden = {slot for slot, _ in wished}
    states += [(slot, content) for slot, content in _preset_states(preset).items() if slot not in overridden]
    # 6.
    states += [(slot, content) for slot, content in wished if slot not in named]
    # 7.
    states += named.items()
    return state_drafts(sender, states)


def state_drafts(sender: UserID, states: Sequence[tuple[StateKey, JsonObject]]) -> list[Draft]:
    """State events of one sender, in their order."""
    return [
        Draft(sender=sender, type=event_type, state_key=state_key, content=content)
        for (event_type, state_key), content in states
    ]


def create_content(
    content: JsonObject, creator: UserID, version: RoomVersion, additional_creators: Sequence[str]
) -> JsonObject:
    """What the create event says: `content`, and the keys that the server alone decides.

    Raises: BadJsonValue when additional creators are no user ids, in versions that know them.
    """
    content = {key: value for key, value in content.items() if key not in ("creator", "room_version")}
    content["room_version"] = version.name
    if version.auth.creator_in_content:
        content["creator"] = creator
    if version.auth.privileged_creators:
        named = content.pop("additional_creators", [])
        if not isinstance(named, list):
            raise BadJsonValue("additional_creators must be an array of user ids.")
        try:
            creators = {parse_user_id(user): None for user in (*named, *additional_creators)}
        except BadIdentifier as error:
            raise BadJsonValue(f"additional_creators: {error}.") from error
        creators.pop(creator, None)
        if creators:
            content["additional_creators"] = list(creators)
    return content


def raise_tombstone_level(content: JsonObject, version: RoomVersion) -> None:
    """Since v12: who may change state may not therefore also upgrade the room. `content` is changed."""
    if not version.auth.privileged_creators:
        return
    events = content.get("events", {})
    state_default = content.get("state_default", DEFAULT_LEVELS["state_default"])
    if not isinstance(events, dict) or type(state_default) is not int:
        return  # no power levels: whoever appends them says so
    level = events.get("m.room.tombstone")
    if type(level) is not int or level <= state_default:
        content["events"] = {**events, "m.room.tombstone": max(_TOMBSTONE_LEVEL, state_default + 1)}


def topic_content(topic: str) -> JsonObject:
    """Spec: m.room.topic, `m.topic` (v1.15)."""
    return {"topic": topic, "m.topic": {"m.text": [{"body": topic}]}}


def _create_content(
    wish: NewRoom, creator: UserID, version: RoomVersion, trusted: Sequence[UserID]
) -> JsonObject:
    return create_content(
        wish.creation_content, creator, version, trusted if version.auth.privileged_creators else ()
    )


def _power_levels(
    wish: NewRoom, creator: UserID, version: RoomVersion, trusted: Sequence[UserID]
) -> JsonObject:
    content: JsonObject = {
        "users": {},
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": _CREATOR_LEVEL,
            "m.room.history_visibility": _CREATOR_LEVEL,
            "m.room.server_acl": _CREATOR_LEVEL,
            "m.room.encryption": _CREATOR_LEVEL,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        # A room that anybody may enter needs nobody's invites; other servers' defaults are the same.
        "invite": 50 if _preset_of(wish) == "public_chat" else 0,
    }
    if not version.auth.privileged_creators:
        content["users"] = dict.fromkeys((creator, *trusted), _CREATOR_LEVEL)
        content["events"]["m.room.tombstone"] = _CREATOR_LEVEL
    content |= wish.power_level_content_override
    raise_tombstone_level(content, version)
    return content


def _preset_of(wish: NewRoom) -> Preset:
    return wish.preset or ("public_chat" if wish.visibility == "public" else "private_chat")


def _preset_states(preset: Preset) -> Mapping[StateKey, JsonObject]:
    states: dict[StateKey, JsonObject] = {
        ("m.room.join_rules", ""): {"join_rule": "public" if preset == "public_chat" else "invite"},
        ("m.room.history_visibility", ""): {"history_visibility": "shared"},
    }
    if preset != "public_chat":
        states["m.room.guest_access", ""] = {"guest_access": "can_join"}
    # Without an event, guest access is forbidden: spec, m.room.guest_access.
    return states


def _named(wish: NewRoom) -> dict[StateKey, JsonObject]:
    named: dict[StateKey, JsonObject] = {}
    if wish.name is not None:
        named["m.room.name", ""] = {"name": wish.name}
    if wish.topic is not None:
        named["m.room.topic", ""] = topic_content(wish.topic)
    return named


def _check_wished(states: Sequence[tuple[StateKey, JsonObject]]) -> None:
    for (event_type, _), _ in states:
        if event_type in ("m.room.create", "m.room.member"):
            raise InvalidRoomState(f"initial_state cannot hold {event_type}.")
