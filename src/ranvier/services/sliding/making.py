"""From what was read of a room to what is told of it, and what the client knows then. Pure functions.

Spec: MSC4186, `RoomResult`.
"""

from collections.abc import Sequence

import msgspec

from ranvier.core.identifiers import RoomID, UserID
from ranvier.core.tokens import encode_room_token
from ranvier.services.sliding.planning import RoomPlan
from ranvier.services.sliding.results import RoomResult
from ranvier.services.sliding.room_facts import room_texts, slice_heroes
from ranvier.services.sliding.room_state import Granted
from ranvier.services.sliding.told import ALL_EVENTS, MAX_MEMBERS, NO_EXTENSION, Told
from ranvier.services.sync.slices import Slice
from ranvier.store.tables.memberships import JOIN
from ranvier.store.tables.timeline import live_order


class Parts(msgspec.Struct, frozen=True):
    """The slices that a plan asks for."""

    change: Slice | None
    whole: Slice | None

    def timeline_of(self, plan: RoomPlan) -> Slice | None:
        """The one whose timeline is told."""
        if self.whole is not None and (plan.told is None or plan.expands):
            return self.whole
        return self.change

    def news_of(self, plan: RoomPlan) -> Slice | None:
        """The one whose name, members and so on are told: all of the room for who knows nothing of it."""
        return self.timeline_of(plan) if plan.told is None else self.change


class Facts(msgspec.Struct, frozen=True):
    """What was read of a room."""

    room_id: RoomID
    parts: Parts
    granted: Granted
    counts: tuple[int, int] | None  # unread; None: nobody asks
    bump: int
    is_direct: bool


class ReadRoom(msgspec.Struct, frozen=True):
    """What became of a plan."""

    result: RoomResult | None  # None: there are no news after all
    told: Told  # what the client knows then
    event_nids: Sequence[int] = ()  # of the timeline


def make_room(
    plan: RoomPlan, facts: Facts, timeline: Sequence[bytes], reader: UserID, since: int | None
) -> ReadRoom:
    """The result of a room that the user is or was in. `since`: position of the client's knowledge."""
    part, news, told = facts.parts.timeline_of(plan), facts.parts.news_of(plan), plan.told
    is_expanded = told is not None and plan.expands and part is not None and _reaches_back(plan, part)
    knows = _told(plan, facts, part)
    if told is not None and not (timeline or is_expanded or _has_news(plan, facts, told, news)):
        return ReadRoom(None, knows)
    name, avatar = (None, None) if news is None else room_texts(news)
    summary = None if news is None else news.summary
    result = RoomResult(
        room_id=facts.room_id,
        membership=plan.place.membership,
        is_initial=told is None,
        bump_stamp=_bump_stamp(plan, facts.bump),
        name=name,
        avatar=avatar,
        heroes=() if news is None else slice_heroes(news, reader),
        is_direct=facts.is_direct if told is None or told.is_direct != facts.is_direct else None,
        required_state=[entry.before for entry in facts.granted.entries],
        removed=facts.granted.removed,
        timeline=timeline,
        is_limited=part is not None and part.limited,
        is_expanded=is_expanded,
        live_count=0 if since is None or part is None else _count_live(part, since, len(timeline)),
        prev_batch=None if part is None else encode_room_token(part.prev_order),
        joined_count=None if summary is None else summary.joined_count,
        invited_count=None if summary is None else summary.invited_count,
        counts=facts.counts,
    )
    nids = () if part is None else [entry.record.event_nid for entry in part.timeline]
    return ReadRoom(result, knows, nids)


def _has_news(plan: RoomPlan, facts: Facts, told: Told, news: Slice | None) -> bool:
    """Whether there is anything to tell besides events."""
    return (
        bool(facts.granted.entries or facts.granted.removed)
        or (news is not None and (news.limited or news.summary is not None))
        or facts.is_direct != told.is_direct
        or (facts.counts is not None and facts.counts != told.counts)
        or plan.place.membership != told.membership
    )


def _told(plan: RoomPlan, facts: Facts, part: Slice | None) -> Told:
    """What the client knows of the room then."""
    before = frozenset[int]() if plan.told is None else plan.told.members
    members = facts.granted.members | before
    return Told(
        None,
        _depth(plan, part),
        plan.config.required_state,
        NO_EXTENSION if plan.told is None else plan.told.extensions,
        plan.place.membership,
        facts.is_direct,
        facts.counts,
        members if len(members) <= MAX_MEMBERS else frozenset(),
    )


def _depth(plan: RoomPlan, part: Slice | None) -> int:
    """How many of the newest events the client then has without a gap."""
    if part is None:
        assert plan.told is not None, "whoever knows nothing gets something"
        return plan.told.depth
    count = len(part.timeline)
    if part.limited:
        # Where a gap and not the limit ends the timeline, asking for as many again would bring no more.
        return max(count, plan.config.timeline_limit)
    if part.window.since is None:
        return ALL_EVENTS
    return min(ALL_EVENTS, count + (0 if plan.told is None else plan.told.depth))


def _reaches_back(plan: RoomPlan, part: Slice) -> bool:
    """Whether a timeline has events from before what the client was told of last."""
    return plan.upto is not None and bool(part.timeline) and part.begins_at <= live_order(plan.upto)


def _count_live(part: Slice, since: int, shown: int) -> int:
    """How many events came after the client's last answer; `shown`: without those of ignored users."""
    orders = [entry.record.room_order for entry in part.timeline]
    return min(shown, sum(1 for order in orders if order is not None and order > live_order(since)))


def _bump_stamp(plan: RoomPlan, bump: int) -> int:
    # Spec: MSC4186: where the user is not joined, it is when that came about.
    if plan.place.membership != JOIN:
        return plan.place.position
    return bump or plan.place.position
