"""Ephemeral data units: what servers tell each other besides events. One frozen type for each kind.

A server speaks for its own users only: a unit that names another server's user is refused as a whole.

Spec: server-server API, "EDUs" and the sections on each kind.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from ranvier.core import canonical_json
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier, BadJson
from ranvier.core.identifiers import (
    DeviceID,
    EventID,
    RoomID,
    ServerName,
    UserID,
    parse_device_id,
    parse_event_id,
    parse_room_id,
    parse_user_id,
    server_of,
)

MAX_EDU_BYTES: Final = 1_048_576
"""To-device messages for many devices are the largest."""
MAX_PRESENCE_ITEMS: Final = 500
MAX_RECEIPTS: Final = 5_000

# A server's own number, or a duration: what JSON integers can carry exactly.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Timestamp = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_ShortText = Annotated[str, msgspec.Meta(max_length=255)]


class Typing(msgspec.Struct, frozen=True):
    """m.typing: one user started or stopped."""

    room_id: RoomID
    user_id: UserID
    typing: bool


class PresenceItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one user is doing. COMPAT(Synapse): `last_active_ago` (ms) is left out when it is not known."""

    user_id: UserID
    presence: Literal["online", "offline", "unavailable", "busy", "org.matrix.msc3026.busy"]
    last_active_ago: _Count | None = None
    status_msg: str | None = None
    currently_active: bool = False


class Presence(msgspec.Struct, frozen=True):
    """m.presence."""

    push: tuple[PresenceItem, ...]


class Receipt(msgspec.Struct, frozen=True):
    """That a user has read up to an event. `thread_id` None: unthreaded; else `main` or a thread's root."""

    room_id: RoomID
    user_id: UserID
    event_id: EventID
    ts: int
    thread_id: str | None = None


class Receipts(msgspec.Struct, frozen=True):
    """m.receipt: public read receipts; other kinds do not cross federation and are left out."""

    receipts: tuple[Receipt, ...]


class DirectToDevice(msgspec.Struct, frozen=True):
    """m.direct_to_device. Contents are opaque; the device `*` means all of a user's devices.

    COMPAT(Conduit and its forks): `message_id` may be longer than the 32 characters of the specification:
    they pass on what a client chose. Refusing it would lose keys, so only our own bound of 255 applies.
    """

    sender: UserID
    type: _ShortText
    message_id: _ShortText
    messages: Mapping[UserID, Mapping[DeviceID, JsonObject]]


class DeviceListUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """m.device_list_update: a device is new, has changed, or is gone."""

    user_id: UserID
    device_id: DeviceID
    stream_id: _Count
    prev_id: tuple[_Count, ...] = ()
    deleted: bool = False
    device_display_name: str | None = None
    keys: JsonObject | None = None


class SigningKeyUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """m.signing_key_update: a user's cross-signing keys have changed."""

    user_id: UserID
    master_key: JsonObject | None = None
    self_signing_key: JsonObject | None = None


Edu = Typing | Presence | Receipts | DirectToDevice | DeviceListUpdate | SigningKeyUpdate


class _ReceiptData(msgspec.Struct, omit_defaults=True):
    ts: _Timestamp
    thread_id: _ShortText | None = None


class _UserReceipt(msgspec.Struct):
    event_ids: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=100)]
    data: _ReceiptData


class _RoomReceipts(msgspec.Struct):
    read: dict[str, _UserReceipt] = msgspec.field(name="m.read", default_factory=dict)


def parse_edu(raw: bytes | msgspec.Raw, origin: ServerName) -> Edu | None:
    """One unit of a transaction of `origin`; None if its type is unknown to us.

    Raises: BadJson when it is malformed; BadIdentifier when an id is, or when a user is not of `origin`.
    """
    unit = canonical_json.parse_object(bytes(raw), MAX_EDU_BYTES)
    edu_type, content = unit.get("edu_type"), unit.get("content")
    if not isinstance(edu_type, str) or not isinstance(content, dict):
        raise BadJson("an EDU has a string edu_type and an object content")
    parse = _PARSERS.get(edu_type)
    try:
        return None if parse is None else parse(content, origin)
    except msgspec.ValidationError as error:
        raise BadJson(f"a malformed EDU {edu_type[:100]}: {error}") from error


def encode_edu(edu: Edu) -> bytes:
    """The canonical JSON of a unit, with its envelope. Reverse of `parse_edu`.

    Raises: BadJson.
    """
    content = _receipts_content(edu) if isinstance(edu, Receipts) else msgspec.to_builtins(edu)
    return canonical_json.encode({"content": content, "edu_type": _NAMES[type(edu)]})


def _parse_typing(content: JsonObject, origin: ServerName) -> Typing:
    typing = msgspec.convert(content, Typing)
    parse_room_id(typing.room_id)
    _check_own_user(typing.user_id, origin)
    return typing


def _parse_presence(content: JsonObject, origin: ServerName) -> Presence:
    presence = msgspec.convert(content, Presence)
    if len(presence.push) > MAX_PRESENCE_ITEMS:
        raise BadJson(f"a presence EDU is about at most {MAX_PRESENCE_ITEMS} users")
    for item in presence.push:
        _check_own_user(item.user_id, origin)
    return presence


def _parse_receipts(content: JsonObject, origin: ServerName) -> Receipts:
    receipts = []
    for room_id, in_room in msgspec.convert(content, dict[str, _RoomReceipts]).items():
        parse_room_id(room_id)
        for user_id, receipt in in_room.read.items():
            _check_own_user(user_id, origin)
            data = receipt.data
            # The specification allows one id; if there are several, each replaces the one before.
            event_id = parse_event_id(receipt.event_ids[-1])
            receipts.append(Receipt(RoomID(room_id), UserID(user_id), event_id, data.ts, data.thread_id))
    if len(receipts) > MAX_RECEIPTS:
        raise BadJson(f"a receipt EDU has at most {MAX_RECEIPTS} receipts")
    return Receipts(tuple(receipts))


def _parse_direct_to_device(content: JsonObject, origin: ServerName) -> DirectToDevice:
    message = msgspec.convert(content, DirectToDevice)
    _check_own_user(message.sender, origin)
    for user_id, contents in message.messages.items():
        parse_user_id(user_id)
        for device_id in contents:
            parse_device_id(device_id)
    return message


def _parse_device_list_update(content: JsonObject, origin: ServerName) -> DeviceListUpdate:
    update = msgspec.convert(content, DeviceListUpdate)
    _check_own_user(update.user_id, origin)
    parse_device_id(update.device_id)
    return update


def _parse_signing_key_update(content: JsonObject, origin: ServerName) -> SigningKeyUpdate:
    update = msgspec.convert(content, SigningKeyUpdate)
    _check_own_user(update.user_id, origin)
    return update


_PARSERS: Final[Mapping[str, Callable[[JsonObject, ServerName], Edu]]] = {
    "m.typing": _parse_typing,
    "m.presence": _parse_presence,
    "m.receipt": _parse_receipts,
    "m.direct_to_device": _parse_direct_to_device,
    "m.device_list_update": _parse_device_list_update,
    "m.signing_key_update": _parse_signing_key_update,
    # COMPAT(Synapse): also sent under its name from before MSC1756 was accepted.
    "org.matrix.signing_key_update": _parse_signing_key_update,
}

_NAMES: Final[Mapping[type[Any], str]] = {
    Typing: "m.typing",
    Presence: "m.presence",
    Receipts: "m.receipt",
    DirectToDevice: "m.direct_to_device",
    DeviceListUpdate: "m.device_list_update",
    SigningKeyUpdate: "m.signing_key_update",
}


def _check_own_user(user_id: str, origin: ServerName) -> None:
    if server_of(parse_user_id(user_id)) != origin:
        raise BadIdentifier(f"{origin} does not speak for {user_id}")


def _receipts_content(edu: Receipts) -> JsonObject:
    content: JsonObject = {}
    for receipt in edu.receipts:
        data = _ReceiptData(receipt.ts, receipt.thread_id)
        users = content.setdefault(receipt.room_id, {"m.read": {}})["m.read"]
        if receipt.user_id in users:
            raise ValueError("receipts of one user and room for several threads need several EDUs")
        users[receipt.user_id] = {"event_ids": [receipt.event_id], "data": msgspec.to_builtins(data)}
    return content
