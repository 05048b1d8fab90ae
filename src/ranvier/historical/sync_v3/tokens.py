"""Tokens of sync v3: `V3_S<session>[_F<filter>]_<events>_<typing>_<to-device>`, and those of pages.

They are not secret: a session belongs to one device, and is looked up together with it.
"""

import re
from typing import Final

import msgspec

from ranvier.core.errors import BadToken
from ranvier.core.tokens import MAX_POSITION

_NUMBER: Final = r"(0|[1-9][0-9]{0,17})"
_TOKEN: Final = re.compile(rf"V3_S{_NUMBER}(?:_F{_NUMBER})?_{_NUMBER}_{_NUMBER}_{_NUMBER}")
_PAGE: Final = re.compile(rf"([1-9][0-9]{{0,8}})(?:-{_NUMBER})?")


class Positions(msgspec.Struct, frozen=True):
    """Up to where a client knows each kind of stream; 0: it was told nothing of it yet."""

    events: int = 0  # room members, rooms, account data
    typing: int = 0
    to_device: int = 0

    @property
    def newest(self) -> int:
        return max(self.events, self.typing, self.to_device)


class Token(msgspec.Struct, frozen=True):
    session: int
    filter: int | None
    positions: Positions


class Page(msgspec.Struct, frozen=True):
    """A page of a stream, counted from 0; `position`: the snapshot, where it is not that of the token."""

    index: int
    position: int | None = None


def encode_token(token: Token) -> str:
    at = token.positions
    sticky = "" if token.filter is None else f"_F{token.filter}"
    return f"V3_S{token.session}{sticky}_{at.events}_{at.typing}_{at.to_device}"


def parse_token(text: str) -> Token:
    """Raises: BadToken."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise BadToken("this is no token of sync v3")
    session, sticky, *positions = match.groups()
    numbers = [int(position) for position in positions]
    if max(numbers) > MAX_POSITION:
        raise BadToken("this token lies beyond any position")
    return Token(int(session), None if sticky is None else int(sticky), Positions(*numbers))


def encode_page(page: Page) -> str:
    return f"{page.index + 1}" if page.position is None else f"{page.index + 1}-{page.position}"


def parse_page(text: str) -> Page:
    """Raises: BadToken."""
    match = _PAGE.fullmatch(text)
    if match is None:
        raise BadToken("p.since is 1, or what p.next was")
    number, position = match.groups()
    if position is not None and int(position) > MAX_POSITION:
        raise BadToken("this page lies beyond any position")
    return Page(int(number) - 1, None if position is None else int(position))
