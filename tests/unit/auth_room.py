"""A room in memory for tests of authorization: state from a short description, and events to try on it."""

from collections.abc import Mapping
from typing import Any

from ranvier.core import canonical_json
from ranvier.core.auth.state import StateLookup
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID
from ranvier.core.room_versions import RoomVersion

CREATOR = "@creator:one"
Description = Mapping[str, Any]


def base_room(version: RoomVersion) -> dict[str, Any]:
    """What tests/vectors/auth/rules.yaml calls the base room, as a description that can be patched."""
    users = {CREATOR: 100, "@mod:one": 50, "@low:one": -5}
    if version.auth.privileged_creators:
        del users[CREATOR]
    joined = (CREATOR, "@mod:one", "@user:one", "@low:one", "@far:two")
    return {
        "create": {"creator": CREATOR, "room_version": version.name},
        "levels": {"users": users},
        "members": dict.fromkeys(joined, "join"),
        "join_rule": "invite",
    }


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def room_id(version: RoomVersion) -> str:
    return "!create" if version.auth.room_id_is_create_hash else "!room:one"


def make_event(version: RoomVersion, event_id: str = "$event:one", **fields: Any) -> Pdu:
    """An event with a plain default for each field not given; `json` is its wire form, where that matters."""
    wire = fields.pop("json", {})
    defaults: dict[str, Any] = {
        "room_id": room_id(version),
        "sender": "@user:one",
        "content": {},
        "origin_server_ts": 0,
        "depth": 5,
        "prev_events": ("$prev",),
        "auth_events": (),
        "signatures": {},
    }
    return Pdu(event_id=EventID(event_id), json=canonical_json.encode(wire), **(defaults | fields))


def state_events(version: RoomVersion, room: Description) -> list[Pdu]:
    """The state that a description stands for, with ids that tell the slot: $create, $levels, $@user:one…"""
    events = []

    def add(event_id: str, event_type: str, state_key: str, content: Any, sender: str = CREATOR) -> None:
        events.append(
            make_event(
                version, event_id, type=event_type, state_key=state_key, content=content, sender=sender
            )
        )

    if "create" in room:
        add("$create", "m.room.create", "", room["create"])
    if "levels" in room:
        add("$levels", "m.room.power_levels", "", room["levels"])
    if "join_rule" in room:
        add("$join_rules", "m.room.join_rules", "", {"join_rule": room["join_rule"]})
    for user_id, membership in room.get("members", {}).items():
        add(f"${user_id}", "m.room.member", user_id, {"membership": membership}, user_id)
    return events


def lookup(events: list[Pdu]) -> StateLookup:
    slots = {event.slot: event for event in events}
    return lambda event_type, state_key: slots.get((event_type, state_key))
