"""How many are in a room, and after whom it may be named: kept up from its member events.

An upstream tells it itself only to clients that load members lazily, and not every one does.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject

HEROES: Final = 5

_PRESENT: Final = ("join", "invite")


class Tally(msgspec.Struct):
    """A room's joined and invited users, and the first few of them that came. Changes as members do."""

    joined: int = 0
    invited: int = 0
    heroes: list[str] = []

    @property
    def is_short(self) -> bool:
        """Whether there are more who could be heroes than are known: then count anew."""
        return len(self.heroes) <= HEROES and len(self.heroes) < self.joined + self.invited

    def change(self, user_id: str, before: str | None, now: str | None) -> None:
        """A user's membership became another one."""
        self.joined += (now == "join") - (before == "join")
        self.invited += (now == "invite") - (before == "invite")
        if now not in _PRESENT:
            if user_id in self.heroes:
                self.heroes.remove(user_id)
        elif user_id not in self.heroes and len(self.heroes) <= HEROES:
            # One more than is told: the user whom it is told to is none.
            self.heroes.append(user_id)

    def encode(self) -> bytes:
        return msgspec.json.encode(self)


def decode_tally(value: bytes | None) -> Tally:
    return Tally() if value is None else msgspec.json.decode(value, type=Tally)


def count(events: Iterable[JsonObject]) -> Tally:
    """The tally of a room with these member events, one for each user, in the order in which they came."""
    tally = Tally()
    for event in events:
        tally.change(event["state_key"], None, membership_of(event))
    return tally


def membership_of(event: JsonObject) -> str | None:
    membership = event["content"].get("membership")
    return membership if isinstance(membership, str) else None


def stored_membership(value: bytes | None) -> str | None:
    """The membership that a stored member event says."""
    return None if value is None else membership_of(orjson.loads(value))


def shown_heroes(tally: Tally, own: str) -> list[Any]:
    """Those whom a room is named after for one user."""
    return [user for user in tally.heroes if user != own][:HEROES]
