"""What both forms of a response have in common.

Spec: MSC4186, "Response Body".
"""

from collections.abc import Mapping
from typing import Any

import orjson

from ranvier.core.identifiers import RoomID
from ranvier.http.client.sliding_sync.bodies import ExtensionKeys
from ranvier.http.client.thread_subscriptions import describe_page
from ranvier.http.responses import json_array, json_value
from ranvier.services.sliding.results import ExtensionsAnswer, Hero, RoomResult


def room_members(room: RoomResult) -> dict[str, Any]:
    """The members of a room's object that both forms call the same."""
    told: dict[str, Any] = {}
    if room.bump_stamp is not None:
        told["bump_stamp"] = room.bump_stamp
    if room.is_initial:
        told["initial"] = True
    if room.stripped is not None:
        return told
    told["required_state"] = json_array([*room.required_state, *map(_stub, room.removed)])
    told["timeline"] = json_array(room.timeline)
    told["num_live"] = room.live_count
    told["limited"] = room.is_limited
    if room.prev_batch is not None:
        told["prev_batch"] = room.prev_batch
    if room.heroes:
        told["heroes"] = [_hero(hero) for hero in room.heroes]
    if room.joined_count is not None:
        told["joined_count"] = room.joined_count
    if room.invited_count is not None:
        told["invited_count"] = room.invited_count
    return told


def _stub(slot: tuple[str, str]) -> bytes:
    """A slot of the state that is empty now."""
    return orjson.dumps({"type": slot[0], "state_key": slot[1]})


def _hero(hero: Hero) -> dict[str, str]:
    told = {"user_id": str(hero.user_id)}
    if hero.displayname is not None:
        told["displayname"] = hero.displayname
    if hero.avatar_url is not None:
        told["avatar_url"] = hero.avatar_url
    return told


def encode_extensions(answer: ExtensionsAnswer, keys: ExtensionKeys) -> dict[str, Any]:
    """Enabled extensions have a member each, those without news as well."""
    told: dict[str, Any] = {}
    if answer.to_device is not None:
        told[keys.to_device] = {
            "next_batch": str(answer.to_device.next_batch),
            "events": json_array(answer.to_device.events),
        }
    if answer.encryption is not None:
        lists = answer.encryption.device_lists
        more = b"" if lists is None else b',"device_lists":' + lists
        told[keys.encryption] = json_value(b"{%b%b}" % (answer.encryption.keys, more))
    if answer.account_data is not None:
        told[keys.account_data] = {
            "global": json_array(answer.account_data.of_user),
            "rooms": {nid: json_array(events) for nid, events in answer.account_data.of_rooms.items()},
        }
    if answer.receipts is not None:
        told[keys.receipts] = {"rooms": _events(answer.receipts)}
    if answer.typing is not None:
        told[keys.typing] = {"rooms": _events(answer.typing)}
    if answer.sticky is not None:
        rooms = {
            room_id: {"events": json_array(events)} for room_id, events in answer.sticky.of_rooms.items()
        }
        told[keys.sticky] = {"next_batch": str(answer.sticky.next_batch), "rooms": rooms}
    if answer.thread_subscriptions is not None:
        page = answer.thread_subscriptions
        earlier = {} if page.earlier is None else {"prev_batch": str(page.earlier)}
        told[keys.thread_subscriptions] = describe_page(page) | earlier
    return told


def _events(by_room: Mapping[RoomID, bytes]) -> dict[str, Any]:
    return {room_id: json_value(event) for room_id, event in by_room.items()}
