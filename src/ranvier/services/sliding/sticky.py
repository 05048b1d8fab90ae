"""The sticky events extension: those of the user's rooms, the oldest first. Spec: MSC4480.

As with messages to the device, it has positions of its own. Of a room that the user entered since, everything that
has not expired is told.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.services.sliding.request import Paged
from ranvier.services.sliding.results import StickyAnswer
from ranvier.services.sync.slices import Slices
from ranvier.services.sync.sticky import StickyQuestion, ToldSticky
from ranvier.store.database import ReadTxn

MAX_EVENTS: Final = 100


class StickyScope(msgspec.Struct, frozen=True):
    """Joined rooms: those that the user is in since the client's position, and those entered after."""

    known: Collection[int]
    entered: Collection[int]
    shown: Collection[int]  # event_nids that timelines of this answer have
    ignored: frozenset[int]
    now: int
    now_ms: int


def read_sticky_answer(txn: ReadTxn, slices: Slices, asked: Paged, scope: StickyScope) -> StickyAnswer:
    """Cost: 1 query for known rooms and 1 for those that were entered, 1 more each if there are any; and the ids of
    rooms that are not in memory."""
    since, limit = asked.since or 0, max(1, min(asked.limit, MAX_EVENTS))
    told: list[ToldSticky] = []
    if scope.known and since < scope.now:
        question = StickyQuestion(scope.known, since, scope.now, scope.ignored, scope.now_ms, limit)
        told += slices.sticky(txn, question)
    next_batch = told[-1].event.position if len(told) == limit else scope.now
    if scope.entered:
        told += slices.sticky(txn, StickyQuestion(scope.entered, 0, scope.now, scope.ignored, scope.now_ms))
    news = [one for one in told if one.event.event_nid not in scope.shown]
    ids = slices.room_ids(txn, {one.event.room_nid for one in news})
    of_rooms: dict[RoomID, list[bytes]] = {}
    for one in news:
        of_rooms.setdefault(ids[one.event.room_nid], []).append(one.json)
    return StickyAnswer(next_batch, of_rooms)
