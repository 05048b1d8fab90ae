"""The tokens that clients hand back: where a sync stands, where a page of a room ends, where a list goes on.

Tokens are not secret and not signed: a client that makes one up sees nothing that it could not have asked
for. But each form is read strictly, so that what we never issued is refused and not misread.

| form                    | what it is                                                            |
| ----------------------- | --------------------------------------------------------------------- |
| `s<position>`           | sync: every change up to and with this position is known              |
| `s<position>_<epoch>`   | the same, in a later life of a database that was restored from backup |
| `l<position>_<…>_<…>`   | sliding sync: the same, and which connection and which answer of it |
| `t<room_order>`         | a point of a room's timeline, just behind the event with this order   |
| `p<base64url>`          | where a list goes on: a few numbers and strings, its own affair       |
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.errors import BadToken

POSITION_SHIFT: Final = 20
"""The room_order of an event that arrives live is its position shifted by this (docs/adr/0001, decision
2).
"""
MAX_POSITION: Final = (2**63 - 1) >> POSITION_SHIFT
"""The largest position whose room_order is still a 64-bit integer."""
MAX_ROOM_ORDER: Final = 2**63 - 1
MIN_ROOM_ORDER: Final = -(2**63)
MAX_LIST_TOKEN_CHARS: Final = 2048

_SYNC: Final = re.compile(r"s(0|[1-9][0-9]{0,18})(?:_([1-9][0-9]{0,18}))?")
_SLIDING: Final = re.compile(r"l(0|[1-9][0-9]{0,18})_([1-9][0-9]{0,18})_([1-9][0-9]{0,18})")
_ROOM: Final = re.compile(r"t(0|-?[1-9][0-9]{0,18})")
_LIST: Final = re.compile(r"p([A-Za-z0-9_-]+)")

ListKey = int | str


class SyncToken(msgspec.Struct, frozen=True):
    """`position`: the last change that the client knows of. `epoch`: which life of the database it means."""

    position: int
    epoch: int = 0


def encode_sync_token(token: SyncToken) -> str:
    return f"s{token.position}_{token.epoch}" if token.epoch else f"s{token.position}"


def parse_sync_token(text: object) -> SyncToken:
    """Raises: BadToken. Whether the epoch is the present one is the caller's question."""
    match = _SYNC.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadToken("this is no sync token")
    position, epoch = int(match[1]), int(match[2] or 0)
    if position > MAX_POSITION or epoch > MAX_ROOM_ORDER:
        raise BadToken("this sync token lies beyond any position")
    return SyncToken(position, epoch)


class SlidingToken(msgspec.Struct, frozen=True):
    """A `pos` of sliding sync. `life`: of which connection, since it began anew. `answer`: after which answer."""

    position: int
    life: int
    answer: int


def encode_sliding_token(token: SlidingToken) -> str:
    return f"l{token.position}_{token.life}_{token.answer}"


def parse_sliding_token(text: object) -> SlidingToken:
    """Raises: BadToken. Whether there is such a connection is the caller's question."""
    match = _SLIDING.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadToken("this is no position of sliding sync")
    token = SlidingToken(int(match[1]), int(match[2]), int(match[3]))
    if token.position > MAX_POSITION or max(token.life, token.answer) > MAX_ROOM_ORDER:
        raise BadToken("this position of sliding sync lies beyond any")
    return token


def encode_room_token(room_order: int) -> str:
    """The point just behind the event with this order: going backwards from it, that event comes first."""
    return f"t{room_order}"


def parse_room_token(text: object) -> int:
    """The room_order of a point in a timeline, from a token of /messages and the like or from one of either sync.

    Raises: BadToken.
    """
    if not isinstance(text, str):
        raise BadToken("a token is a string")
    match = _ROOM.fullmatch(text)
    if match is None:
        sync = parse_sliding_token(text) if text.startswith("l") else parse_sync_token(text)
        return room_order_of(sync.position)
    order = int(match[1])
    if not MIN_ROOM_ORDER <= order <= MAX_ROOM_ORDER:
        raise BadToken("this token lies beyond any event")
    return order


def room_order_of(position: int) -> int:
    """The point of every room's timeline at which a position stands."""
    return position << POSITION_SHIFT


def encode_list_token(*keys: ListKey) -> str:
    """Where a list goes on: the sort key of the last entry that was given, or an offset.

    The keys together must be short enough for the token to be read back: MAX_LIST_TOKEN_CHARS.
    """
    return "p" + base64.urlsafe_b64encode(msgspec.json.encode(keys)).rstrip(b"=").decode()


def parse_list_token(text: object, shape: Sequence[type[int] | type[str]]) -> tuple[ListKey, ...]:
    """The keys that were encoded, checked against the types that the list uses.

    Raises: BadToken, also for a token of another list with another shape.
    """
    match = _LIST.fullmatch(text) if isinstance(text, str) and len(text) <= MAX_LIST_TOKEN_CHARS else None
    if match is None:
        raise BadToken("this is no token of a list")
    try:
        keys = msgspec.json.decode(base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError) as error:
        raise BadToken("this token of a list cannot be read") from error
    if not isinstance(keys, list) or [type(key) for key in keys] != list(shape):
        raise BadToken("this token belongs to another list")
    if any(isinstance(key, int) and not -(2**63) <= key < 2**63 for key in keys):
        raise BadToken("this token has a number out of range")
    if encode_list_token(*keys) != text:
        raise BadToken("this token was not issued in this form")
    return tuple(keys)
