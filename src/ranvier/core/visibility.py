"""Which events a user or a server may see, by the room's history visibility at the event.

The rules are pure functions of few small values, so that a page of events needs one lookup of (visibility,
membership) for each state it spans, and one number for the user. What a client hides for other reasons
(ignored users, retention, soft-failed events) is not decided here.

Spec: client-server API, "Room History Visibility", "Server behaviour".
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec


class HistoryVisibility(StrEnum):
    WORLD_READABLE = "world_readable"
    SHARED = "shared"
    INVITED = "invited"
    JOINED = "joined"


NEVER_JOINED: Final = -(2**63)
"""`joined_until` of a user who was never joined."""
JOINED_NOW: Final = 2**63 - 1
"""`joined_until` of a user who is joined."""

_BY_NAME: Final[Mapping[str, HistoryVisibility]] = {value.value: value for value in HistoryVisibility}


class EventSight(msgspec.Struct, frozen=True):
    """What must be known about one event and one user."""

    room_order: int
    """Where the event stands in the room's timeline."""
    visibility: HistoryVisibility
    """At the event; for an m.room.history_visibility event, the value that it sets."""
    membership: str
    """Of the user, in the state at the event: join, invite, knock, ban or leave (also if never there)."""
    visibility_before: HistoryVisibility | None = None
    """Only for an m.room.history_visibility event: the value that it replaces."""
    is_own_membership: bool = False
    """Whether the event is the m.room.member event of this very user."""


class ServerSight(msgspec.Struct, frozen=True):
    """What must be known about one event and one server."""

    visibility: HistoryVisibility
    memberships: frozenset[str]
    """Of the server's users, in the state at the event."""
    had_member_since: bool
    """Whether any of the server's users is joined now or was joined at any time after the event."""
    visibility_before: HistoryVisibility | None = None
    """Only for an m.room.history_visibility event: the value that it replaces."""
    is_own: bool = False
    """Whether one of the server's users sent it, or is the one whose membership it sets."""


def parse_history_visibility(content: Mapping[str, Any] | None) -> HistoryVisibility:
    """What an m.room.history_visibility event sets: `shared` if there is none or it is not understood."""
    value = content.get("history_visibility") if content else None
    known = _BY_NAME.get(value) if isinstance(value, str) else None
    return known or HistoryVisibility.SHARED


def can_see(visibility: HistoryVisibility, membership: str, *, joined_after: bool) -> bool:
    """The rule for one event whose state does not change under it.

    `joined_after`: whether the user was joined at any time after the event (being joined now is enough).
    """
    # 1. If the history_visibility was set to world_readable, allow.
    # 2. If the user's membership was join, allow.
    if visibility is HistoryVisibility.WORLD_READABLE or membership == "join":
        return True
    # 3. If history_visibility was set to shared, and the user joined the room at any point after, allow.
    if visibility is HistoryVisibility.SHARED:
        return joined_after
    # 4. If the user's membership was invite, and the history_visibility was set to invited, allow.
    # 5. Otherwise, deny.
    return visibility is HistoryVisibility.INVITED and membership == "invite"


def can_user_see(event: EventSight, joined_until: int) -> bool:
    """Whether a user may see an event.

    Args:
        joined_until - the room_order of the event that ended the user's last stay in the room; NEVER_JOINED;
            or JOINED_NOW. Who left sees what was shared up to then, and nothing that came later.
    """
    # SPEC: the text asks that the membership before or after the event would allow it. We always allow it:
    # the event is about the user, who is told of it in any case (invite_state, knock_state, the rooms left
    # in a sync).
    if event.is_own_membership:
        return True
    joined_after = event.room_order < joined_until
    if can_see(event.visibility, event.membership, joined_after=joined_after):
        return True
    # A change of history_visibility itself: before *or* after must allow. Neither is simply the wider one: to
    # somebody invited who never joined, `invited` shows what `shared` hides.
    before = event.visibility_before
    return before is not None and can_see(before, event.membership, joined_after=joined_after)


def can_server_see(event: ServerSight) -> bool:
    """Whether a server may be given an event in full: whether any of its users could see it.

    A server that sent the event, or whose user it is about, has it by right. What it may not see is sent
    to it redacted, or not at all, as the endpoint says.
    """
    if event.is_own or _any_user_sees(event.visibility, event):
        return True
    return event.visibility_before is not None and _any_user_sees(event.visibility_before, event)


def needs_memberships(visibilities: Iterable[HistoryVisibility]) -> bool:
    """Whether memberships at the events matter at all to a user or a server that is in the room now."""
    open_to_members = (HistoryVisibility.WORLD_READABLE, HistoryVisibility.SHARED)
    return not all(value in open_to_members for value in visibilities)


def _any_user_sees(visibility: HistoryVisibility, event: ServerSight) -> bool:
    return any(
        can_see(visibility, membership, joined_after=event.had_member_since)
        for membership in event.memberships or ("leave",)
    )
