"""What of a room's state its result says apart: name, picture, and after whom it may be named.

Pure functions over slices of classic sync.
"""

from typing import Final

import msgspec

from ranvier.core.identifiers import UserID
from ranvier.services.sliding.results import Hero, Text
from ranvier.services.sync.entries import Entry
from ranvier.services.sync.slices import Slice
from ranvier.services.sync.summaries import HEROES

_NAME: Final = "m.room.name"
_AVATAR: Final = "m.room.avatar"
_MEMBER: Final = "m.room.member"


class _Content(msgspec.Struct, gc=False):
    name: object = None
    url: object = None
    displayname: object = None
    avatar_url: object = None


class _Event(msgspec.Struct, gc=False):
    state_key: str
    content: _Content


_EVENT: Final = msgspec.json.Decoder(_Event)


def room_texts(part: Slice) -> tuple[Text | None, Text | None]:
    """Name and picture, as far as the slice tells of them.

    Spec: client-server API, m.room.name: an empty name is none.
    """
    name = avatar = None
    for entry in part.state:
        if entry.record.type == _NAME and (event := _EVENT.decode(entry.before)).state_key == "":
            name = Text(_text(event.content.name))
        elif entry.record.type == _AVATAR and (event := _EVENT.decode(entry.before)).state_key == "":
            avatar = Text(_text(event.content.url))
    return name, avatar


def slice_heroes(part: Slice, reader: UserID) -> list[Hero]:
    """Those after whom a room without a name may be named, except for the reader."""
    if part.summary is None or part.summary.heroes is None:
        return []
    members = {
        event.state_key: event.content for entry in _members(part) for event in (_EVENT.decode(entry.before),)
    }
    heroes = [hero for hero in part.summary.heroes if hero != reader][:HEROES]
    unknown = _Content()
    return [
        Hero(hero, _text(content.displayname), _text(content.avatar_url))
        for hero in heroes
        for content in (members.get(hero, unknown),)
    ]


def _members(part: Slice) -> list[Entry]:
    return [entry for entry in (*part.state, *part.members) if entry.record.type == _MEMBER]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
