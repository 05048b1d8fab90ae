"""Events as clients see them, as bytes to be embedded in responses: made once, sent many times.

A client event is a head that never changes, and an end that depends on who reads it where: `close`.

Spec: client-server API, "Room event format" and "Stripped state".
"""

from typing import Final

import msgspec
import orjson

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID

_REDACTION: Final = b'"m.room.redaction"'


class _Stored(msgspec.Struct, gc=False):
    content: msgspec.Raw
    origin_server_ts: msgspec.Raw
    sender: msgspec.Raw
    type: msgspec.Raw
    state_key: msgspec.Raw = msgspec.Raw()
    redacts: msgspec.Raw = msgspec.Raw()
    msc4354_sticky: msgspec.Raw = msgspec.Raw()


_STORED: Final = msgspec.json.Decoder(_Stored)
_RAW_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Unsigned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a server adds to an event for one reader. Fields left at None are not sent."""

    age: int | None = None  # ms
    transaction_id: str | None = None  # only for the device that sent the event
    membership: str | None = None  # of the reader, at the event
    replaces_state: str | None = None
    prev_sender: str | None = None  # not in the specification; clients show who had invited by it
    prev_content: msgspec.Raw | None = None  # see `raw_content`
    redacted_because: msgspec.Raw | None = None  # a client event
    invite_room_state: list[msgspec.Raw] | None = None  # stripped states
    knock_room_state: list[msgspec.Raw] | None = None
    relations: msgspec.Raw | None = msgspec.field(default=None, name="m.relations")


_ENCODER: Final = msgspec.json.Encoder()


def encode_unsigned(unsigned: Unsigned) -> bytes:
    """`unsigned` as JSON, for `close`."""
    return _ENCODER.encode(unsigned)


def raw_content(json: bytes) -> msgspec.Raw:
    """The bytes of `content` in the stored bytes of a Pdu (a view: it keeps them alive)."""
    return _STORED.decode(json).content


def sender_of(json: bytes) -> str:
    """The sender of an event, from its stored bytes."""
    sender: str = msgspec.json.decode(_STORED.decode(json).sender)
    return sender


def client_head(json: bytes, event_id: EventID) -> bytes:
    """The part of a client event that is the same for every reader, from the stored bytes of a Pdu.

    It is not JSON by itself: `close` ends it. m.room.redaction events name what they redact both in `content`
    and beside it, whatever the room version (rooms/v11.md, "Moving the redacts property").
    """
    stored = _STORED.decode(json)
    content = bytes(stored.content)
    event_type = bytes(stored.type)
    redacts = b""
    if event_type == _REDACTION:
        content, redacts = _redacts_twice(content, bytes(stored.redacts))
    state_key, sticky = bytes(stored.state_key), bytes(stored.msc4354_sticky)
    return b"".join(
        (
            b'{"content":',
            content,
            b',"event_id":',
            orjson.dumps(event_id),
            b',"msc4354_sticky":' + sticky if sticky else b"",
            b',"origin_server_ts":',
            stored.origin_server_ts,
            redacts,
            b',"sender":',
            stored.sender,
            b',"state_key":' + state_key if state_key else b"",
            b',"type":',
            event_type,
        )
    )


def _redacts_twice(content: bytes, redacts: bytes) -> tuple[bytes, bytes]:
    """The content and the top-level member, each with the one `redacts` that the event has (or none)."""
    inner = bytes(_RAW_OBJECT.decode(content).get("redacts", b""))
    if redacts and not inner:
        content = content[:-1] + (b"," if len(content) > 2 else b"") + b'"redacts":' + redacts + b"}"
    known = redacts or inner
    return content, b',"redacts":' + known if known else b""


def close(head: bytes, *, room_id: RoomID | None = None, unsigned: bytes = b"") -> bytes:
    """A whole client event: the head, then `room_id` where the response does not say it elsewhere (as /sync
    does), then `unsigned` (JSON from `encode_unsigned`) if there is any."""
    if room_id is None:
        return b'%b,"unsigned":%b}' % (head, unsigned) if unsigned else head + b"}"
    room = orjson.dumps(room_id)
    if unsigned:
        return b'%b,"room_id":%b,"unsigned":%b}' % (head, room, unsigned)
    return b'%b,"room_id":%b}' % (head, room)


def stripped_state(pdu: Pdu) -> bytes:
    """The four fields of a state event that show a room to somebody outside it.

    Spec: client-server API, "Stripped state".
    """
    stored = _STORED.decode(pdu.json)
    return b'{"content":%b,"sender":%b,"state_key":%b,"type":%b}' % (
        stored.content,
        stored.sender,
        stored.state_key,
        stored.type,
    )
