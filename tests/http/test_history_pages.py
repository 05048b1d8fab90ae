"""Whatever a room went through: its pages, forth and back, joined at any place, hold each visible event once and
in order."""

from hashlib import sha256
from typing import Any, Final

import msgspec
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, UserID
from ranvier.core.visibility import JOINED_NOW, NEVER_JOINED, EventSight, HistoryVisibility, can_user_see
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.prepared import Batch, Outcome, PreparedEvent

from .homeserver import Homeserver, User
from .scripted_room import Room

VISIBILITIES: Final = tuple(value.value for value in HistoryVisibility)

Action = tuple[str, int]
ACTIONS: Final = st.lists(
    st.tuples(
        st.sampled_from(("say", "say", "topic", "redact", "backfill", "visibility", "membership")),
        st.integers(0, 30),
    ),
    max_size=14,
)


class Known(msgspec.Struct):
    """What the model knows of an event: enough to say who sees it."""

    event_id: str
    visibility: str
    membership: str  # bob's, before it
    is_bobs: bool = False
    visibility_before: str | None = None


class Story:
    """A room, and a model of its timeline."""

    def __init__(self, homeserver: Homeserver, room: Room, alice: User, bob: User) -> None:
        self.foundation = homeserver.foundation
        self.room = room
        self.alice = alice
        self.bob = bob
        self.timeline: list[Known] = []
        self.visibility = "shared"
        self.membership = "leave"
        self.count = 0

    async def begin(self) -> None:
        answer = await self.alice.get(f"{self.room.path}/messages", dir="f", limit=100)
        self.timeline = [Known(event["event_id"], "shared", "leave") for event in answer.json["chunk"]]

    def note(self, event_id: str, **more: Any) -> None:
        if event_id not in [known.event_id for known in self.timeline]:
            self.timeline.append(Known(event_id, self.visibility, self.membership, **more))

    async def do(self, action: Action) -> None:
        kind, number = action
        self.count += 1
        match kind:
            case "say":
                self.note(await self.room.say(self.alice, f"{self.count}"))
            case "topic":
                self.note(await self.room.set_state(self.alice, "m.room.topic", {"topic": str(number % 3)}))
            case "redact":
                target = self.timeline[number % len(self.timeline)].event_id
                self.note(await self.room.redact(self.alice, EventID(target)))
            case "visibility":
                await self.change_visibility(VISIBILITIES[number % 4])
            case "membership":
                await self.change_membership()
            case "backfill":
                await self.backfill(number % len(self.timeline), 1 + number % 3)

    async def change_visibility(self, visibility: str) -> None:
        content = {"history_visibility": visibility}
        event_id = await self.room.set_state(self.alice, "m.room.history_visibility", content)
        before, self.visibility = self.visibility, visibility
        self.note(event_id, visibility_before=before)

    async def change_membership(self) -> None:
        if self.membership == "join":
            event_id, new = await self.room.leave(self.bob), "leave"
        else:
            event_id, new = await self.room.join(self.bob), "join"
        self.note(event_id, is_bobs=True)
        self.membership = new

    async def backfill(self, index: int, count: int) -> None:
        """Find `count` events in a gap below one of the timeline."""
        above = self.timeline[index]
        db, interner, nodes = self.foundation.ports.db, self.foundation.interner, self.foundation.nodes
        record = await db.read(events.find_event, EventID(above.event_id))
        assert record is not None
        found = [
            PreparedEvent(
                pdu=self.old_event(number), outcome=Outcome.BACKFILLED, state_before=record.state_root
            )
            for number in range(count)
        ]
        batch = Batch(room_nid=record.room_nid, events=tuple(found), now_ms=1, below_order=record.room_order)
        remember_appended(interner, nodes, await db.write(append, interner, nodes, batch))
        before = above.visibility if above.visibility_before is None else above.visibility_before
        self.timeline += [Known(one.pdu.event_id, before, above.membership) for one in found]
        # Where in the gap they stand is for the store to say, and for its tests.
        orders = await db.read(_orders, [known.event_id for known in self.timeline])
        pairs = sorted(zip(orders, self.timeline, strict=True), key=lambda pair: pair[0])
        self.timeline = [known for _, known in pairs]

    def old_event(self, number: int) -> Pdu:
        name = f"{self.room.room_id} {self.count} {number}"
        fields: dict[str, Any] = {
            "type": "m.room.message",
            "sender": UserID(self.alice.user_id),
            "origin_server_ts": 1,
            "depth": 1,
            "content": {"body": "old"},
            "signatures": {},
        }
        edges: dict[str, Any] = {"prev_events": [], "auth_events": []}
        return Pdu(
            event_id=EventID("$" + sha256(name.encode()).hexdigest()[:43]),
            room_id=self.room.room_id,
            prev_events=(),
            auth_events=(),
            json=orjson.dumps(fields | edges, option=orjson.OPT_SORT_KEYS),
            **fields,
        )

    def expected(self, user: User) -> list[str]:
        """What the user sees, oldest first."""
        if user is self.alice:
            return [known.event_id for known in self.timeline]
        bobs = [index for index, known in enumerate(self.timeline) if known.is_bobs]
        until = NEVER_JOINED
        if bobs:
            until = JOINED_NOW if self.membership == "join" else bobs[-1]
        seen = [
            known.event_id
            for index, known in enumerate(self.timeline)
            if can_user_see(_sight_of(known, index), until)
        ]
        if self.membership == "join" or self.visibility == "world_readable":
            return seen
        # Who left sees nothing behind it, but where everybody does.
        behind = {known.event_id for known in self.timeline[bobs[-1] + 1 :]} if bobs else set(seen)
        return [event_id for event_id in seen if event_id not in behind]


def _sight_of(known: Known, index: int) -> EventSight:
    before = known.visibility_before
    return EventSight(
        room_order=index,
        visibility=HistoryVisibility(known.visibility),
        membership=known.membership,
        visibility_before=None if before is None else HistoryVisibility(before),
        is_own_membership=known.is_bobs,
    )


async def read_all(user: User, room: Room, limit: int, direction: str, token: str | None = None) -> list[str]:
    found: list[str] = []
    while True:
        query = {"dir": direction, "limit": limit} | ({"from": token} if token else {})
        answer = await user.get(f"{room.path}/messages", **query)
        if answer.status == 403:
            return []
        assert answer.status == 200, answer.body
        assert len(answer.json["chunk"]) <= limit
        found += [event["event_id"] for event in answer.json["chunk"]]
        token = answer.json.get("end")
        if token is None:
            return found


def _orders(txn: ReadTxn, event_ids: list[str]) -> list[int]:
    found = events.list_events_by_id(txn, [EventID(event_id) for event_id in event_ids])
    return [found[EventID(event_id)].room_order or 0 for event_id in event_ids]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, limit=st.integers(1, 7), place=st.integers(0, 40))
async def test_pages_hold_each_visible_event_once(
    homeserver: Homeserver, actions: list[Action], limit: int, place: int
) -> None:
    alice, bob = [await _user(homeserver, name) for name in ("alice", "bob")]
    story = Story(homeserver, await Room.create(homeserver, alice), alice, bob)
    await story.begin()
    for action in actions:
        await story.do(action)
    every = [known.event_id for known in story.timeline]
    orders = await homeserver.foundation.ports.db.read(_orders, every)
    token = f"t{orders[place % len(orders)]}"
    for user in (alice, bob):
        expected = story.expected(user)
        assert await read_all(user, story.room, limit, "f") == expected
        assert await read_all(user, story.room, limit, "b") == expected[::-1]
        older = await read_all(user, story.room, limit, "b", token)
        newer = await read_all(user, story.room, limit, "f", token)
        assert older[::-1] + newer == expected


async def _user(homeserver: Homeserver, name: str) -> User:
    answer = await homeserver.client.get("/_matrix/client/v3/register/available", username=name)
    return await (homeserver.register(name) if answer.status == 200 else homeserver.login(name))
