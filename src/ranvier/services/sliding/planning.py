"""Which rooms have news for the client, and what has to be read of each. Pure functions.

Spec: MSC4186, "Room results", "Changing room configs".
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from ranvier.services.sliding.request import RoomConfig
from ranvier.services.sliding.roster import Content, Place
from ranvier.services.sliding.told import NO_EXTENSION, PERHAPS_TOLD, UNSURE, Knowledge, Told
from ranvier.services.sync.timelines import Window
from ranvier.store.tables.memberships import INVITE, JOIN, KNOCK

PENDING: Final = frozenset((INVITE, KNOCK))


class RoomPlan(msgspec.Struct, frozen=True):
    """A room that may have news."""

    room_nid: int
    place: Place
    config: RoomConfig
    told: Told | None  # None: the client gets the room from scratch
    upto: int | None  # where the client stands in it; None: nowhere
    change: Window | None
    whole: Window | None
    expands: bool = False  # the timeline is wanted further back
    grows: bool = False  # more state is wanted

    @property
    def is_pending(self) -> bool:
        return self.place.membership in PENDING

    @property
    def is_initial(self) -> bool:
        return self.told is None


class Since(msgspec.Struct, frozen=True):
    """What happened after the client's knowledge."""

    knowledge: Knowledge
    now: int
    changed: AbstractSet[int]  # rooms that changed for everybody in them
    read: AbstractSet[int]  # rooms in which the user read on


def plan_rooms(content: Content, wanted: Mapping[int, RoomConfig], since: Since) -> list[RoomPlan]:
    """The plans of those wanted rooms that may have news.

    Cost: a few comparisons a wanted room.
    """
    plans = []
    knowledge = since.knowledge
    rooms, position = knowledge.rooms, knowledge.position
    for nid, config in wanted.items():
        told, place = rooms.get(nid), content.places[nid]
        if (
            told is not None
            and told.upto is None
            and told.membership != UNSURE
            and place.position <= position
            and nid not in since.changed
            and nid not in since.read
            and config.timeline_limit <= told.depth
            and (nid in content.direct) == told.is_direct
            and told.required_state.covers(config.required_state)
        ):
            continue
        plan = _plan_room(
            nid, place, config, None if told is None or told.membership == UNSURE else told, since
        )
        if plan is not None:
            plans.append(plan)
    return plans


def _plan_room(
    nid: int, place: Place, config: RoomConfig, told: Told | None, since: Since
) -> RoomPlan | None:
    upto = None if told is None else since.knowledge.position if told.upto is None else told.upto
    if place.membership in PENDING:
        is_told = told is not None and told.membership == place.membership and upto is not None
        if is_told and upto is not None and place.position <= upto:
            return None
        return RoomPlan(nid, place, config, None, None, None, None)
    if place.membership == JOIN:
        return _plan_joined(nid, place, config, told, upto, since)
    return _plan_left(nid, place, config, told, upto)


def _plan_joined(
    nid: int, place: Place, config: RoomConfig, told: Told | None, upto: int | None, since: Since
) -> RoomPlan:
    whole = Window(nid, None, since.now, True)
    changed = nid in since.changed or (told is not None and told.upto is not None)
    if told is None or upto is None or told.membership != JOIN or place.position > upto:
        return RoomPlan(nid, place, config, None, None, None, whole)
    expands = config.timeline_limit > told.depth
    grows = not told.required_state.covers(config.required_state)
    return RoomPlan(
        nid,
        place,
        config,
        told,
        upto,
        Window(nid, upto, since.now, False) if changed else None,
        whole if expands or grows else None,
        expands,
        grows,
    )


def _plan_left(
    nid: int, place: Place, config: RoomConfig, told: Told | None, upto: int | None
) -> RoomPlan | None:
    """A room that the user left, or was thrown out of: what came up to then."""
    until = place.position
    if told is None or upto is None:
        if not place.was_joined:
            return RoomPlan(nid, place, config, None, None, Window(nid, until - 1, until, False), None)
        return RoomPlan(nid, place, config, None, None, None, Window(nid, None, until, True))
    if until <= upto:
        return None
    if told.membership == JOIN:
        return RoomPlan(nid, place, config, told, upto, Window(nid, upto, until, False), None)
    # An invite or knock that came to nothing, or a stay between two answers: only its end is told.
    return RoomPlan(nid, place, config, told, upto, Window(nid, until - 1, until, False), None)


def doubtful(knowledge: Knowledge, touched: AbstractSet[int], content: Content) -> Knowledge:
    """The same knowledge where the client may know more: what changed since is marked, so that it is told from
    scratch. What the client has of it cannot be told apart from what it lacks."""
    unsure = {nid for nid, told in knowledge.rooms.items() if told.upto is not None or nid in touched}
    # Also what it may have been told of before it was over.
    unsure.update(
        nid
        for nid, place in content.places.items()
        if place.membership != JOIN and place.position > knowledge.position
    )
    return msgspec.structs.replace(
        knowledge, rooms={**knowledge.rooms, **dict.fromkeys(unsure, PERHAPS_TOLD)}, is_stale=False
    )


def left_behind(
    rooms: Mapping[int, Told],
    wanted: Mapping[int, RoomConfig],
    touched: Iterable[int],
    moved: AbstractSet[int],
    position: int,
) -> dict[int, Told]:
    """What the client is not told of, of rooms that it knows: it falls behind in them. `moved`: where the user's
    own membership changed."""
    found = {}
    for nid in touched:
        told = rooms.get(nid)
        if told is None or nid in wanted or told.upto is not None:
            continue
        if told.membership == JOIN or nid in moved:
            found[nid] = told.behind(position)
        else:
            # Nothing but the user's own data changes where the user is not: all of that is told anew.
            found[nid] = msgspec.structs.replace(told, extensions=NO_EXTENSION)
    return found
