"""Tables from the rules of "Room History Visibility"."""

import pytest

from ranvier.core.visibility import (
    JOINED_NOW,
    NEVER_JOINED,
    EventSight,
    HistoryVisibility,
    ServerSight,
    can_server_see,
    can_user_see,
    needs_memberships,
    parse_history_visibility,
)

WORLD, SHARED, INVITED, JOINED = (
    HistoryVisibility.WORLD_READABLE,
    HistoryVisibility.SHARED,
    HistoryVisibility.INVITED,
    HistoryVisibility.JOINED,
)
AT = 1000

# visibility -> membership at the event -> (visible to one who never joined, to one who joined after it)
TABLE = {
    WORLD: dict.fromkeys(["join", "invite", "knock", "leave", "ban"], (True, True)),
    SHARED: {"join": (True, True)} | dict.fromkeys(["invite", "knock", "leave", "ban"], (False, True)),
    INVITED: {"join": (True, True), "invite": (True, True)}
    | dict.fromkeys(["knock", "leave", "ban"], (False, False)),
    JOINED: {"join": (True, True)} | dict.fromkeys(["invite", "knock", "leave", "ban"], (False, False)),
}


@pytest.mark.parametrize("visibility", TABLE)
def test_rules_one_to_five(visibility):
    for membership, (never, later) in TABLE[visibility].items():
        event = EventSight(AT, visibility, membership)
        assert can_user_see(event, NEVER_JOINED) is never, membership
        assert can_user_see(event, JOINED_NOW) is later, membership


def test_one_who_left_sees_what_was_shared_before_and_nothing_after():
    left_at = AT
    assert can_user_see(EventSight(left_at - 1, SHARED, "leave"), left_at)
    assert not can_user_see(EventSight(left_at + 1, SHARED, "leave"), left_at)


@pytest.mark.parametrize(
    ("before", "after", "membership", "visible"),
    [
        (WORLD, JOINED, "leave", True),
        (JOINED, WORLD, "leave", True),
        (JOINED, INVITED, "invite", True),
        # Neither is the wider one: `shared` hides from the invited what `invited` shows.
        (INVITED, SHARED, "invite", True),
        (SHARED, INVITED, "invite", True),
        (SHARED, JOINED, "invite", False),
        (INVITED, JOINED, "leave", False),
    ],
)
def test_a_change_of_history_visibility_is_seen_if_before_or_after_allows(before, after, membership, visible):
    event = EventSight(AT, after, membership, visibility_before=before)
    assert can_user_see(event, NEVER_JOINED) is visible


@pytest.mark.parametrize("membership", ["join", "leave", "ban", "invite", "knock"])
def test_own_membership_events_are_always_seen(membership):
    assert can_user_see(EventSight(AT, JOINED, membership, is_own_membership=True), NEVER_JOINED)


@pytest.mark.parametrize(
    "content", [None, {}, {"history_visibility": "else"}, {"history_visibility": ["joined"]}]
)
def test_not_understood_means_shared(content):
    assert parse_history_visibility(content) is SHARED


@pytest.mark.parametrize("value", list(HistoryVisibility))
def test_understood(value):
    assert parse_history_visibility({"history_visibility": str(value)}) is value


@pytest.mark.parametrize(
    ("sight", "visible"),
    [
        (ServerSight(WORLD, frozenset(), False), True),
        (ServerSight(SHARED, frozenset(), True), True),
        (ServerSight(SHARED, frozenset(), False), False),
        (ServerSight(SHARED, frozenset({"leave", "join"}), False), True),
        (ServerSight(INVITED, frozenset({"leave", "invite"}), True), True),
        (ServerSight(INVITED, frozenset({"leave"}), True), False),
        (ServerSight(JOINED, frozenset({"invite"}), True), False),
        (ServerSight(JOINED, frozenset({"invite", "join"}), True), True),
        (ServerSight(JOINED, frozenset(), False, is_own=True), True),
        (ServerSight(JOINED, frozenset(), False, visibility_before=WORLD), True),
        (ServerSight(JOINED, frozenset(), False, visibility_before=SHARED), False),
    ],
)
def test_a_server_sees_what_one_of_its_users_sees(sight, visible):
    assert can_server_see(sight) is visible


def test_only_restricted_history_needs_memberships():
    assert not needs_memberships([WORLD, SHARED])
    assert needs_memberships([SHARED, INVITED])
    assert needs_memberships([JOINED])
