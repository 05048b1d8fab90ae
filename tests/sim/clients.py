"""Clients that follow /sync through lost answers and dead servers, and remember all that they were told."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from ..http.client import Answer, Client, segment
from ..sliding_client import SlidingClient
from ..sync_equivalent import Follower
from .loop import ConnectionLost
from .server import SimServer, Watcher

CLIENT = "/_matrix/client/v3"
PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
"""Between attempts while a server does not answer: it may be down for hours."""

FORGED = "forged"
"""What the forger says, time and again. Everybody else says a thing once, however often it has to be sent."""

POLL_MS = 3_600_000
"""Longer than people's clients wait: it costs time to let a day pass."""


class Line:
    """A client's own connection, as bad as the client's luck."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.lost = 0.0
        self.is_dead = False  # there is no server any more

    async def ask(self, client: Client, method: str, path: str, **more: Any) -> Answer:
        """Raises: ConnectionLost, whether or not the server did it."""
        if self._rng.random() < self.lost:
            raise ConnectionLost
        answer = await client.request(method, path, **more)
        if self._rng.random() < self.lost:
            raise ConnectionLost
        return answer


class Patient:
    """Asks until there is an answer; the `Client` of a `Follower` or a `SlidingClient`."""

    def __init__(self, client: Client, line: Line) -> None:
        self._client = client
        self._line = line

    async def get(self, path: str, **query: Any) -> Answer:
        return await self._ask("GET", path, query=query)

    async def post(self, path: str, json: Any = None, **query: Any) -> Answer:
        return await self._ask("POST", path, json=json, query=query)

    async def can_see(self, room_id: str, event_id: str) -> bool:
        path = f"{CLIENT}/rooms/{segment(room_id)}/event/{segment(event_id)}"
        return (await self.get(path)).status == 200

    async def _ask(self, method: str, path: str, **more: Any) -> Answer:
        pause_s = PAUSE_S
        while True:
            try:
                answer = await self._line.ask(self._client, method, path, **more)
                if answer.status != 503:
                    return answer
            except ConnectionLost:
                pass
            if self._line.is_dead:
                await asyncio.Event().wait()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)


class Reader:
    """A user's device that reads everything: what it was told, and how often."""

    def __init__(
        self, server: SimServer, user: Any, line: Line, watcher: Watcher, rng: random.Random
    ) -> None:
        self.server = server
        self.user = user
        self._watcher = watcher
        # Without it a client cannot know the state of a room with branches: what is in the timeline need not hold.
        self.is_told_state_after = rng.random() < 0.7
        self._state = "state_after" if self.is_told_state_after else "state"
        self._joined: set[str] = set()
        self._limit = rng.choice((1, 3, 10, 50))
        self._client = Patient(user, line)
        self.follower = self.another()
        self.told: dict[str, Counter[str]] = {}  # by room: event ids
        self.shown_state: set[str] = set()  # event ids
        self._said: dict[tuple[str, str, str], str] = {}  # by room, sender and text: the event id
        self.to_device: Counter[str] = Counter()  # by the text in them
        self.outdated: set[str] = set()  # users whose devices changed; whoever asks for them takes them out

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            await self.read(timeout=POLL_MS)

    async def read(self, **query: Any) -> None:
        """One /sync, and what its gaps left out."""
        since = self.follower.since
        told = await self.follower.sync(**query)
        for event in told.get("to_device", {}).get("events", ()):
            self.to_device[event["content"].get("text", "")] += 1
        self.outdated.update(told.get("device_lists", {}).get("changed", ()))
        rooms = told.get("rooms", {})
        for room_id, section in rooms.get("leave", {}).items():
            # Who came back, and left again, may be told from before the first time.
            await self._take_section(room_id, section, since, again=self._moved(section))
            self._joined.discard(room_id)
        for room_id, section in rooms.get("join", {}).items():
            has_moved = self._moved(section)
            if room_id not in self._joined or (section["timeline"]["limited"] and has_moved):
                # A room that one comes (back) into is told from some point on, perhaps one known before.
                self.told[room_id] = Counter()
                await self._take_section(room_id, section, None)
            else:
                await self._take_section(room_id, section, since, again=has_moved)
            self._joined.add(room_id)

    def _moved(self, section: Mapping[str, Any]) -> bool:
        """Whether the user's own membership changed, or may have."""
        told = (*section[self._state]["events"], *section["timeline"]["events"])
        return any(event.get("state_key") == self.user.user_id for event in told)

    async def _take_section(
        self, room_id: str, section: Mapping[str, Any], since: str | None, *, again: bool = False
    ) -> None:
        """`again`: it may tell what was told before."""
        timeline = section["timeline"]
        self.shown_state.update(event["event_id"] for event in section[self._state]["events"])
        self._take(room_id, timeline["events"], again=again)
        if timeline["limited"]:
            await self._fill(room_id, timeline["prev_batch"], since, again=again)

    async def _fill(self, room_id: str, start: str, since: str | None, *, again: bool) -> None:
        path = f"{CLIENT}/rooms/{segment(room_id)}/messages"
        at: str | None = start
        while at is not None:
            query = {"dir": "b", "from": at, "to": since, "limit": 50}
            answer = await self._client.get(path, **query)
            if answer.status in (403, 404):
                return  # it left meanwhile, and may not look any more
            assert answer.status == 200, answer.body
            page = answer.json
            self._take(room_id, page["chunk"], again=again)
            at = page.get("end") if page["chunk"] else None

    def _take(self, room_id: str, events: list[dict[str, Any]], *, again: bool) -> None:
        known = self.told.setdefault(room_id, Counter())
        for event in events:
            event_id = event["event_id"]
            if again and known[event_id]:
                continue
            known[event_id] += 1
            text = event["content"].get("body")
            if text not in (None, FORGED):
                key = room_id, event["sender"], text
                if self._said.setdefault(key, event_id) != event_id:
                    self._watcher.blame(f"{key} was said twice: {self._said[key]} and {event_id}")
            if known[event_id] > 1:
                self._watcher.blame(f"{self.user.user_id} was told of {event_id} ({event['type']}) twice")

    async def can_see(self, room_id: str, event_id: str) -> bool:
        """Whether the server shows the event when asked for it."""
        return await self._client.can_see(room_id, event_id)

    def another(self) -> Follower:
        """One that has just begun."""
        more = {"use_state_after": "true"} if self.is_told_state_after else {}
        # It asks for nothing but `get`.
        client = cast(Client, self._client)
        return Follower(client, room_filter={"timeline": {"limit": self._limit}}, **more)


class Slider:
    """A device that follows all rooms by sliding sync; it begins anew when the server has forgotten it."""

    def __init__(self, server: SimServer, user: Any, line: Line) -> None:
        self.server = server
        self.user = user
        self._patient = Patient(user, line)
        self._client = cast(Client, self._patient)
        self.sliding = self._begin()

    def _begin(self) -> SlidingClient:
        # Of the two forms this one tells of slots of the state that became empty.
        sliding = SlidingClient(self._client, "final", user_id=self.user.user_id)
        sliding.lists = {"all": sliding.config(20, window=(0, 99))}
        # Messages to the device are another reader's, and are gone once they are read.
        sliding.extensions = {name: {"enabled": True} for name in ("account_data", "receipts", "typing")}
        return sliding

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            await self.read(POLL_MS)

    async def read(self, timeout_ms: int = 0) -> None:
        answer = await self.sliding.ask(pos=self.sliding.pos, timeout_ms=timeout_ms)
        if answer.errcode == "M_UNKNOWN_POS":
            self.sliding = self._begin()
            return
        assert answer.status == 200, answer.body
        self.sliding.fold(answer.json)

    async def can_see(self, room_id: str, event_id: str) -> bool:
        """Whether the server shows the event when asked for it."""
        return await self._patient.can_see(room_id, event_id)

    def fresh(self) -> Follower:
        """What it is compared with."""
        return Follower(self._client, use_state_after="true")
