"""What passes: typing, receipts and presence, as they wait for one server. Newer ones replace older ones, and what
cannot be told soon is not told at all.
"""

from collections.abc import Iterator
from typing import Final, TypeVar

from ranvier.core.federation.edus import Presence, PresenceItem, Receipt, Receipts, Typing, encode_edu
from ranvier.core.identifiers import RoomID, UserID

K = TypeVar("K")
V = TypeVar("V")

MAX_WAITING: Final = 2_000
"""Of each kind, for one server; more are dropped, the oldest first."""

MAX_PARKED: Final = 200
"""Receipts for a server that is not reached; there may be thousands of those. Nothing else waits for them."""

MAX_PRESENCE_ITEMS: Final = 50
MAX_RECEIPTS: Final = 200
"""In one EDU."""


class Ephemera:
    """What waits."""

    __slots__ = ("_presence", "_receipts", "_typing")

    def __init__(self) -> None:
        self._typing: dict[tuple[RoomID, UserID], Typing] = {}
        self._receipts: dict[tuple[RoomID, UserID, str | None], Receipt] = {}
        self._presence: dict[UserID, PresenceItem] = {}

    def __bool__(self) -> bool:
        return bool(self._typing or self._receipts or self._presence)

    def add(self, unit: Typing | Receipt | PresenceItem, *, is_parked: bool = False) -> None:
        """Let something wait. `is_parked`: the server is not sent to until a later time."""
        match unit:
            case Receipt():
                key = (unit.room_id, unit.user_id, unit.thread_id)
                _put(self._receipts, key, unit, MAX_PARKED if is_parked else MAX_WAITING)
            case Typing() if not is_parked:
                _put(self._typing, (unit.room_id, unit.user_id), unit, MAX_WAITING)
            case PresenceItem() if not is_parked:
                _put(self._presence, unit.user_id, unit, MAX_WAITING)

    def clear(self) -> None:
        self._typing.clear()
        self._receipts.clear()
        self._presence.clear()

    def take(self, limit: int) -> list[bytes]:
        """At most `limit` encoded EDUs; they wait no longer."""
        taken: list[bytes] = []
        for edu in self._iter():
            if len(taken) == limit:
                break
            taken.append(edu)
        return taken

    def _iter(self) -> Iterator[bytes]:
        """Each EDU is taken out just before it is given."""
        while self._receipts:
            yield encode_edu(Receipts(tuple(self._take_receipts())))
        while self._typing:
            yield encode_edu(self._typing.pop(next(iter(self._typing))))
        while self._presence:
            users = list(self._presence)[:MAX_PRESENCE_ITEMS]
            yield encode_edu(Presence(tuple([self._presence.pop(user_id) for user_id in users])))

    def _take_receipts(self) -> list[Receipt]:
        """Receipts for one EDU, which holds one of each user and room: other threads have to wait."""
        taken: list[Receipt] = []
        seen: set[tuple[RoomID, UserID]] = set()
        for key in list(self._receipts):
            if key[:2] not in seen:
                seen.add(key[:2])
                taken.append(self._receipts.pop(key))
            if len(taken) == MAX_RECEIPTS:
                break
        return taken


def _put(waiting: dict[K, V], key: K, value: V, most: int) -> None:
    waiting.pop(key, None)
    waiting[key] = value
    while len(waiting) > most:
        del waiting[next(iter(waiting))]
