"""A small reference client of sliding sync, in either form: it folds answers into a model, as MSC4186 tells it to.

Tests let it look through windows that come and go while things happen, and then compare what it knows with what
a first classic sync tells: `assert_knows`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from .http.client import Answer, Client
from .sync_equivalent import Follower, RoomModel

SIMPLIFIED: Final = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
FINAL: Final = "/_matrix/client/v4/sync"

Form = Literal["simplified", "final"]
FORMS: Final[tuple[Form, ...]] = ("simplified", "final")
ALL_EXTENSIONS: Final = {
    name: {"enabled": True} for name in ("to_device", "e2ee", "account_data", "receipts", "typing")
}
EVERYTHING: Final = (("*", "*"),)
MEMBER: Final = "m.room.member"


class View:
    """A room as the client sees it."""

    def __init__(self) -> None:
        self.membership = "join"
        self.state: dict[tuple[str, str], str | None] = {}  # -> event_id
        self.timeline: list[dict[str, Any]] = []  # contiguous up to now
        self.name: str | None = None
        self.heroes: list[str] = []
        self.counts: tuple[int, int] | None = None
        self.joined_count: int | None = None
        self.invited_count: int | None = None
        self.bump_stamp = 0
        self.is_dm = False
        self.stripped: list[dict[str, Any]] | None = None
        self.prev_batch: str | None = None


class SlidingClient:
    """A connection. `lists` and `subscriptions` are in a form of their own: see `config`."""

    def __init__(self, client: Client, form: Form, *, conn_id: str | None = None, user_id: str = "") -> None:
        self.client = client
        self.form = form
        self.conn_id = conn_id
        self.user_id = user_id
        self.pos: str | None = None
        self.lists: dict[str, Any] = {}
        self.subscriptions: dict[str, Any] = {}
        self.extensions: dict[str, Any] = {}
        self.rooms: dict[str, View] = {}
        self.counts: dict[str, int] = {}
        self.shown: dict[str, list[str]] = {}  # simplified form only: the rooms of the first window
        self.account_data: dict[str, Any] = {}
        self.room_account_data: dict[str, dict[str, Any]] = {}
        self.typing: dict[str, list[str]] = {}
        self.receipts: dict[str, dict[tuple[str, str, str | None], str]] = {}
        self.to_device: list[dict[str, Any]] = []

    def config(
        self,
        limit: int,
        state: Sequence[tuple[str, str]] = EVERYTHING,
        window: Sequence[int] | None = None,
        **filters: Any,
    ) -> dict[str, Any]:
        """What a list (with a window) or a subscription asks for. State is in the simplified form."""
        body: dict[str, Any] = {"timeline_limit": limit}
        if self.form == "simplified":
            body["required_state"] = [list(pair) for pair in state]
            if window is not None:
                body["ranges"] = [list(window)]
        else:
            include = [
                {
                    **({} if event_type == "*" else {"type": event_type}),
                    **({} if key == "*" else {"state_key": self.user_id if key == "$ME" else key}),
                }
                for event_type, key in state
                if key != "$LAZY"
            ]
            body["required_state"] = {"include": include, "lazy_members": (MEMBER, "$LAZY") in state}
            if window is not None:
                body["range"] = list(window)
        if filters:
            body["filters"] = filters
        return body

    async def ask(self, *, pos: str | None = None, timeout_ms: int = 0, **more: Any) -> Answer:
        """One request; nothing of the answer is folded in."""
        body: dict[str, Any] = {
            "lists": self.lists,
            "room_subscriptions": self.subscriptions,
            "extensions": self._extensions(),
            **more,
        }
        if self.conn_id is not None:
            body["conn_id"] = self.conn_id
        if self.form == "simplified":
            return await self.client.post(SIMPLIFIED, body, pos=pos, timeout=timeout_ms)
        return await self.client.post(FINAL, body | ({"pos": pos} if pos else {}) | {"timeout": timeout_ms})

    async def sync(self, timeout_ms: int = 0) -> dict[str, Any]:
        """One request; folds the answer in and returns it."""
        answer = await self.ask(pos=self.pos, timeout_ms=timeout_ms)
        assert answer.status == 200, answer.body
        told: dict[str, Any] = answer.json
        self.fold(told)
        return told

    def fold(self, told: Mapping[str, Any]) -> None:
        self.pos = told["pos"]
        for name, one in told.get("lists", {}).items():
            self.counts[name] = one["count"]
            if self.form == "simplified" and one["ops"]:
                self.shown[name] = one["ops"][0]["room_ids"]
        for room_id, section in told["rooms"].items():
            self._fold_room(room_id, section)
        extensions = told["extensions"]
        data = extensions.get("account_data", {})
        for event in data.get("global", ()):
            self.account_data[event["type"]] = event["content"]
        for room_id, events in data.get("rooms", {}).items():
            for event in events:
                self.room_account_data.setdefault(room_id, {})[event["type"]] = event["content"]
        # Nobody is told who types in rooms that the extension is not for.
        self.typing = {
            room_id: users
            for room_id, users in self.typing.items()
            if room_id not in self.rooms or self.rooms[room_id].membership == "join"
        }
        for room_id, event in extensions.get(self._key("typing"), {}).get("rooms", {}).items():
            self.typing[room_id] = sorted(event["content"]["user_ids"])
        for room_id, event in extensions.get("receipts", {}).get("rooms", {}).items():
            for event_id, by_type in event["content"].items():
                for receipt_type, by_user in by_type.items():
                    for user_id, receipt in by_user.items():
                        key = (receipt_type, user_id, receipt.get("thread_id"))
                        self.receipts.setdefault(room_id, {})[key] = event_id
        self.to_device += extensions.get("to_device", {}).get("events", ())

    def _fold_room(self, room_id: str, section: Mapping[str, Any]) -> None:
        if section.get("initial"):
            self.rooms[room_id] = View()
        view = self.rooms[room_id]
        stripped = section.get("invite_state", section.get("stripped_state"))
        if stripped is not None:
            view.stripped = stripped
            view.membership = next(
                event["content"]["membership"]
                for event in stripped
                if (event["type"], event["state_key"]) == (MEMBER, self.user_id)
            )
            assert section.get("membership", view.membership) == view.membership
            return
        is_expanded = section.get("unstable_expanded_timeline", section.get("expanded_timeline", False))
        if section["limited"] or is_expanded:
            view.timeline = []
            view.prev_batch = section.get("prev_batch")
        known = {event["event_id"] for event in view.timeline}
        repeated = [event for event in section["timeline"] if event["event_id"] in known]
        assert not repeated, "nothing is told twice"
        assert section["num_live"] <= len(section["timeline"])
        view.timeline += section["timeline"]
        for event in section["required_state"]:
            if "content" not in event:
                view.state.pop((event["type"], event["state_key"]), None)
                continue
            view.state[event["type"], event["state_key"]] = event["event_id"]
            if (event["type"], event["state_key"]) == (MEMBER, self.user_id):
                view.membership = event["content"]["membership"]
        view.membership = section.get("membership", view.membership)
        if view.membership != "join":
            # What others have read meanwhile is not told when the user comes back.
            told = self.receipts.get(room_id, {})
            self.receipts[room_id] = {
                key: event_id for key, event_id in told.items() if key[1] == self.user_id
            }
        view.name = section.get("name", view.name)
        view.joined_count = section.get("joined_count", view.joined_count)
        view.invited_count = section.get("invited_count", view.invited_count)
        view.bump_stamp = section.get("bump_stamp", view.bump_stamp)
        view.is_dm = section.get("is_dm", view.is_dm if self.form == "final" else False)
        if "heroes" in section:
            view.heroes = [hero["user_id"] for hero in section["heroes"]]
        if self.form == "simplified":
            view.counts = (section["notification_count"], section["highlight_count"])

    def _extensions(self) -> dict[str, Any]:
        return {self._key(name): body for name, body in self.extensions.items()}

    def _key(self, name: str) -> str:
        return "org.matrix.msc4508.typing" if (self.form, name) == ("final", "typing") else name


async def assert_knows(sliding: SlidingClient, fresh: Follower) -> None:
    """`sliding`, which looked at all rooms last with all state, knows what `fresh` is told at first."""
    await fresh.sync()
    known = {room_id: view for room_id, view in sliding.rooms.items() if view.membership == "join"}
    assert known.keys() == fresh.joined.keys(), known.keys() ^ fresh.joined.keys()
    invited = {room_id for room_id, view in sliding.rooms.items() if view.membership == "invite"}
    assert invited == fresh.invited.keys()
    assert {r for r, view in sliding.rooms.items() if view.membership == "knock"} == fresh.knocked
    for room_id, expected in fresh.joined.items():
        _compare(sliding, room_id, known[room_id], expected)
    data = {key: value for key, value in sliding.account_data.items() if value}
    assert data == {key: value for key, value in fresh.account_data.items() if value}


def _compare(sliding: SlidingClient, room_id: str, view: View, expected: RoomModel) -> None:
    assert view.state == expected.state
    count = min(len(view.timeline), len(expected.timeline))
    assert count, "something is shown of every room"
    mine = [event["event_id"] for event in view.timeline[-count:]]
    assert mine == [event["event_id"] for event in expected.timeline[-count:]]
    assert view.joined_count == expected.summary["m.joined_member_count"]
    assert view.invited_count == expected.summary["m.invited_member_count"]
    if not view.name:
        assert view.heroes == expected.summary.get("m.heroes", [])
    if sliding.form == "simplified":
        counts = expected.counts
        assert view.counts == (counts["notification_count"], counts["highlight_count"])
    assert sliding.typing.get(room_id, []) == expected.typing
    mine_data = {key: value for key, value in sliding.room_account_data.get(room_id, {}).items() if value}
    assert mine_data == {key: value for key, value in expected.account_data.items() if value}
    own = {key: value for key, value in expected.receipts.items() if key[1] == sliding.user_id}
    told = sliding.receipts.get(room_id, {})
    assert {key: value for key, value in told.items() if key[1] == sliding.user_id} == own
    assert all(expected.receipts[key] == value for key, value in told.items())
