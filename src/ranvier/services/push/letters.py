"""The mails that tell what is unread.

Names and messages are others' words: each stays on its line, and is text in HTML. The subject has none of them.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.io.ports import Mail
from ranvier.services.mail_texts import UNREAD, MailTexts
from ranvier.services.push.gateway import Notice
from ranvier.services.push.notices import Notices

MAX_NAME_CHARS: Final = 80
MAX_BODY_CHARS: Final = 300

# Control characters and line breaks; marks that turn the direction of the text behind them; halves of surrogate pairs.
_UNPRINTED: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")


class Line(msgspec.Struct, frozen=True):
    """What one event says."""

    sender: str
    text: str  # goes right behind the sender


class RoomPart(msgspec.Struct, frozen=True):
    """What is new in one room."""

    name: str
    lines: Sequence[Line]


def write_letter(texts: MailTexts, recipient: str, found: Notices, unsubscribe_url: str) -> Mail:
    """The mail that tells `found`."""
    new, unread = len(found.notices), max(found.unread, len(found.notices))
    values = {"new": new, "unread": unread, "rooms": _by_room(found.notices), "link": unsubscribe_url}
    return texts.write(UNREAD, recipient, values, unsubscribe_url)


def _by_room(notices: Sequence[Notice]) -> list[RoomPart]:
    """In the order in which the rooms had news."""
    rooms: dict[str, list[Notice]] = {}
    for notice in notices:
        rooms.setdefault(notice.room_id, []).append(notice)
    return [RoomPart(_room_name(news[0]), [_line(notice) for notice in news]) for news in rooms.values()]


def _room_name(notice: Notice) -> str:
    for name in (notice.room_name, notice.room_alias):
        if name is not None and (shown := _one_line(name, MAX_NAME_CHARS)):
            return shown
    return f"A room with {_sender(notice)}"


def _sender(notice: Notice) -> str:
    return _one_line(notice.sender_name or "", MAX_NAME_CHARS) or notice.sender


def _line(notice: Notice) -> Line:
    return Line(_sender(notice), _text(notice))


def _text(notice: Notice) -> str:
    if notice.is_about_user:
        return " invites you"
    if notice.type == "m.room.encrypted":
        return " sent an encrypted message"
    body = notice.content.get("body")
    if notice.type != "m.room.message" or not isinstance(body, str):
        return " did something of which you want to be told"
    shown = _one_line(body, MAX_BODY_CHARS)
    return f" {shown}" if notice.content.get("msgtype") == "m.emote" else f": {shown}"


def _one_line(text: str, limit: int) -> str:
    # Cut first: the text can be as long as an event.
    shown = _UNPRINTED.sub(" ", text[: 2 * limit]).strip()
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
