"""The rooms of a space: what its m.space.child events say, and in which order they are shown.

Spec: client-server API, "m.space.child", "Ordering of children within a space".
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.errors import BadIdentifier, BadJson
from ranvier.core.events.client import stripped_state
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID, ServerName, parse_room_id, parse_server_name, parse_user_id

MAX_CHILDREN: Final = 1_000
"""Children of one space, in their order."""

MAX_VIA: Final = 10
"""Servers of one child that are looked at."""

CHILD: Final = "m.space.child"
_MAX_ORDER_CHARS: Final = 50

Order = tuple[bool, str, int, str]


class SpaceChild(msgspec.Struct, frozen=True):
    """A room of a space. `shown`: the stripped event with its origin_server_ts."""

    room_id: str
    via: Sequence[ServerName]
    is_suggested: bool
    order: Order
    shown: bytes


def child_of(pdu: Pdu) -> SpaceChild:
    """What an m.space.child that holds says."""
    shown = b'%b,"origin_server_ts":%d}' % (stripped_state(pdu)[:-1], pdu.origin_server_ts)
    return _child(pdu.slot[1], pdu.content, pdu.origin_server_ts, shown)


def parse_child(entry: object) -> SpaceChild | None:
    """The same of a stripped event that another server shows; None for one that is malformed or does not hold."""
    if not isinstance(entry, dict) or entry.get("type") != CHILD:
        return None
    content, ts = entry.get("content"), entry.get("origin_server_ts")
    if not isinstance(content, dict) or type(ts) is not int or not holds(content):
        return None
    try:
        room_id, sender = parse_room_id(entry.get("state_key")), parse_user_id(entry.get("sender"))
        shown = encode(
            {
                "content": content,
                "origin_server_ts": ts,
                "sender": sender,
                "state_key": room_id,
                "type": CHILD,
            }
        )
    except (BadIdentifier, BadJson):
        return None
    return _child(room_id, content, ts, shown)


def holds(content: JsonObject) -> bool:
    """Spec: m.space.child without `via` removes the child."""
    via = content.get("via")
    return isinstance(via, list) and any(isinstance(server, str) and server for server in via)


def is_suggested(content: JsonObject) -> bool:
    """Whether the space recommends the child."""
    return content.get("suggested") is True


def order_of(content: JsonObject, origin_server_ts: int, room_id: str) -> Order:
    """What children are sorted by: those with a valid `order` first."""
    order = content.get("order")
    is_valid = (
        isinstance(order, str)
        and len(order) <= _MAX_ORDER_CHARS
        and all("\x20" <= character <= "\x7e" for character in order)
    )
    return not is_valid, str(order) if is_valid else "", origin_server_ts, room_id


def _child(room_id: str, content: JsonObject, origin_server_ts: int, shown: bytes) -> SpaceChild:
    return SpaceChild(
        RoomID(room_id),
        _servers(content["via"]),
        is_suggested(content),
        order_of(content, origin_server_ts, room_id),
        shown,
    )


def _servers(via: Sequence[Any]) -> list[ServerName]:
    found: list[ServerName] = []
    for name in via[:MAX_VIA]:
        try:
            found.append(parse_server_name(name))
        except BadIdentifier:
            continue
    return found
