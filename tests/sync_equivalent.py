"""A small reference client: what it knows after any number of syncs must be what a first sync tells.

`Follower` folds the answers of /sync into a model, as the specification tells clients to. Tests let one follow
along while things happen and then compare it with one that has just begun: `assert_equivalent`.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from .http.client import Client

SYNC: Final = "/_matrix/client/v3/sync"
MEMBER: Final = "m.room.member"

Slot = tuple[str, str]


class RoomModel:
    """A joined room as a client sees it."""

    def __init__(self) -> None:
        self.state: dict[Slot, str] = {}  # -> event_id
        self.timeline: list[dict[str, Any]] = []  # contiguous up to now
        self.account_data: dict[str, Any] = {}
        self.typing: list[str] = []
        self.receipts: dict[tuple[str, str, str | None], str] = {}  # (type, user, thread) -> event_id
        self.summary: dict[str, Any] = {}
        self.counts: Any = None
        self.prev_batch: str | None = None

    def apply(self, section: Mapping[str, Any], *, state_after: bool) -> None:
        timeline = section["timeline"]
        if timeline["limited"]:
            self.timeline = []
        if not self.timeline:
            self.prev_batch = timeline.get("prev_batch")
        assert ("state" in section) is not state_after
        assert ("state_after" in section) is state_after
        for event in section["state_after" if state_after else "state"]["events"]:
            self.state[event["type"], event["state_key"]] = event["event_id"]
        for event in timeline["events"]:
            if "state_key" in event and not state_after:
                self.state[event["type"], event["state_key"]] = event["event_id"]
            self.timeline.append(event)
        for event in section["account_data"]["events"]:
            self.account_data[event["type"]] = event["content"]
        for event in section["ephemeral"]["events"]:
            self._apply_ephemeral(event)
        self.summary |= section.get("summary", {})
        self.counts = section.get("unread_notifications", self.counts)

    def _apply_ephemeral(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "m.typing":
            self.typing = sorted(event["content"]["user_ids"])
            return
        assert event["type"] == "m.receipt"
        for event_id, by_type in event["content"].items():
            for receipt_type, by_user in by_type.items():
                for user_id, receipt in by_user.items():
                    self.receipts[receipt_type, user_id, receipt.get("thread_id")] = event_id


class Follower:
    """A client that syncs. `query` is what it puts into each request, `room_filter` the filter's `room`."""

    def __init__(self, client: Client, *, room_filter: Mapping[str, Any] | None = None, **query: Any) -> None:
        self._client = client
        self._query = query
        self._state_after = query.get("use_state_after") == "true"
        if room_filter is not None:
            self._query = {**query, "filter": json.dumps({"room": room_filter})}
        self.since: str | None = None
        self.joined: dict[str, RoomModel] = {}
        self.invited: dict[str, list[Slot]] = {}
        self.knocked: set[str] = set()
        self.account_data: dict[str, Any] = {}

    async def sync(self, **query: Any) -> dict[str, Any]:
        """One request; folds the answer in and returns it."""
        answer = await self._client.get(SYNC, since=self.since, **self._query, **query)
        assert answer.status == 200, answer.body
        told: dict[str, Any] = answer.json
        self._apply(told)
        return told

    def _apply(self, told: Mapping[str, Any]) -> None:
        self.since = told["next_batch"]
        for event in told.get("account_data", {}).get("events", ()):
            self.account_data[event["type"]] = event["content"]
        rooms = told.get("rooms", {})
        for room_id in (*rooms.get("leave", ()), *rooms.get("invite", ()), *rooms.get("knock", ())):
            self.joined.pop(room_id, None)
            self.invited.pop(room_id, None)
            self.knocked.discard(room_id)
        for room_id, section in rooms.get("invite", {}).items():
            stripped = section["invite_state"]["events"]
            self.invited[room_id] = sorted((event["type"], event["state_key"]) for event in stripped)
        self.knocked.update(rooms.get("knock", ()))
        for room_id, section in rooms.get("join", {}).items():
            self.invited.pop(room_id, None)
            self.knocked.discard(room_id)
            self.joined.setdefault(room_id, RoomModel()).apply(section, state_after=self._state_after)


async def assert_equivalent(follower: Follower, fresh: Follower, *, knows_senders: bool = True) -> None:
    """`follower`, brought up to date, knows what `fresh` is told at first. Both are of one user and filter.
    `knows_senders`: whether all whom the timeline shows are in the room's state; it may resolve to one without.
    """
    await follower.sync()
    await fresh.sync()
    assert follower.joined.keys() == fresh.joined.keys()
    assert follower.invited.keys() == fresh.invited.keys()
    assert follower.knocked == fresh.knocked
    assert follower.account_data == fresh.account_data
    for room_id, expected in fresh.joined.items():
        _compare(follower.joined[room_id], expected)
        if knows_senders:
            senders = {event["sender"] for event in follower.joined[room_id].timeline}
            missing = {sender for sender in senders if (MEMBER, sender) not in follower.joined[room_id].state}
            assert not missing, "whoever is seen in the timeline is known"


def _compare(known: RoomModel, expected: RoomModel) -> None:
    lazy_gap = {slot for slot in known.state if slot[0] == MEMBER} ^ {
        slot for slot in expected.state if slot[0] == MEMBER
    }
    # Members that only one of them was told of are no difference: they are loaded lazily.
    both = {slot for slot in (*known.state, *expected.state) if slot not in lazy_gap}
    assert {slot: known.state.get(slot) for slot in both} == {slot: expected.state.get(slot) for slot in both}
    count = min(len(known.timeline), len(expected.timeline))
    assert _ids(known.timeline[len(known.timeline) - count :]) == _ids(
        expected.timeline[len(expected.timeline) - count :]
    )
    assert known.account_data == expected.account_data
    assert known.typing == expected.typing
    assert known.receipts == expected.receipts
    assert known.counts == expected.counts
    for key in ("m.joined_member_count", "m.invited_member_count"):
        assert known.summary[key] == expected.summary[key]


def _ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events]


def check_full_members(follower: Follower, fresh: Follower) -> None:
    """Without lazy loading there is no excuse for a member that is not known."""
    for room_id, expected in fresh.joined.items():
        assert follower.joined[room_id].state == expected.state
