"""What other servers tell of rooms that this one is not in: summaries, and the children of spaces.

All of it is hearsay: it is bounded, checked for shape, and kept for the server that told it only, so that no
server can speak about a room to those who asked another one.

Spec: server-server API, "Spaces".
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.errors import BadIdentifier, BadJson, LimitExceeded
from ranvier.core.identifiers import RoomID, ServerName, parse_room_id
from ranvier.io.clock import Clock
from ranvier.io.ports import Misbehaved, RemoteFault
from ranvier.services.remote.flights import Flights
from ranvier.services.remote.requests import Ask, Requests, path_of
from ranvier.services.rooms.room_summary import Summary
from ranvier.services.rooms.space_children import MAX_CHILDREN, SpaceChild, parse_child
from ranvier.services.turns import ASKER, Turns

KEPT_S: Final = 300.0
"""How long an answer is kept. That a server knows nothing may be over the moment after."""

MAX_ANSWER_BYTES: Final = 4 * 1_048_576
MAX_KEPT_BYTES: Final = 32 * 1_048_576
MAX_SERVERS: Final = 3
"""Servers that are asked about one room, one after another."""

MAX_AT_A_TIME: Final = 20
ASKED_FOR_ONE: Final = 5
WAITING_FOR_ONE: Final = 50
TIMEOUT_S: Final = 10.0
_PATH: Final = "/_matrix/federation/v1/hierarchy"
_ENTRY_BYTES: Final = 500

_UNTOLD: Final[JsonObject] = {"num_joined_members": 0, "world_readable": False, "guest_can_join": False}
"""Of a summary, where a server does not tell."""


class RemoteSpace(msgspec.Struct, frozen=True):
    """A room as a server tells of it."""

    server: ServerName
    summary: Summary
    children: Sequence[SpaceChild]  # in their order
    known: Mapping[RoomID, Summary]  # what it tells of these
    inaccessible: Collection[RoomID]  # there, but not for our users


FetchSpace = Callable[[Sequence[ServerName], RoomID, bool], Awaitable[RemoteSpace | None]]
"""What the first of some servers that knows a room tells of it; None if none does. The flag: suggested
children only."""


async def no_remote_space(
    servers: Sequence[ServerName], room_id: RoomID, suggested_only: bool
) -> RemoteSpace | None:
    """Where federation is off, nobody tells anything."""
    return None


async def no_remote_summary(servers: Sequence[ServerName], room_id: RoomID) -> Summary | None:
    """The same."""
    return None


_Key = tuple[ServerName, RoomID, bool]


class RemoteSpaces:
    """Asks, and remembers for a while."""

    def __init__(self, requests: Requests, clock: Clock) -> None:
        self._requests = requests
        self._clock = clock
        self._flights: Flights[_Key, RemoteSpace | None] = Flights()
        self._slots = asyncio.Semaphore(MAX_AT_A_TIME)
        self._askers: Turns[str] = Turns(ASKED_FOR_ONE, WAITING_FOR_ONE)
        # Until when, how many bytes, and the answer; the oldest first.
        self._kept: OrderedDict[_Key, tuple[float, int, RemoteSpace]] = OrderedDict()
        self._kept_bytes = 0

    async def fetch(
        self, servers: Sequence[ServerName], room_id: RoomID, suggested_only: bool
    ) -> RemoteSpace | None:
        """See `FetchSpace`. Raises nothing. Cost: a request for each server that was not asked lately."""
        for server in list(dict.fromkeys(servers))[:MAX_SERVERS]:
            found = await self._find((server, room_id, suggested_only))
            if found is not None:
                return found
        return None

    async def fetch_summary(self, servers: Sequence[ServerName], room_id: RoomID) -> Summary | None:
        """See `room_summary.FetchSummary`."""
        found = await self.fetch(servers, room_id, False)
        return None if found is None else found.summary

    async def _find(self, key: _Key) -> RemoteSpace | None:
        kept = self._kept.get(key)
        if kept is not None and self._clock.monotonic() < kept[0]:
            return kept[2]
        try:
            async with self._askers.take(ASKER.get()):
                return await self._flights.fly(key, lambda: self._ask(key))
        except LimitExceeded:
            return None

    async def _ask(self, key: _Key) -> RemoteSpace | None:
        server, room_id, suggested_only = key
        ask = Ask(
            method="GET",
            path=path_of(_PATH, room_id),
            query=(("suggested_only", "true" if suggested_only else "false"),),
            timeout_s=TIMEOUT_S,
            max_response_bytes=MAX_ANSWER_BYTES,
        )
        try:
            async with self._slots:
                body = await self._requests.fetch(server, ask)
            answer = await asyncio.to_thread(parse_object, body, MAX_ANSWER_BYTES)
            found = parse_space(server, room_id, answer, suggested_only=suggested_only)
        except (RemoteFault, BadJson):
            return None
        self._keep(key, len(body), found)
        return found

    def _keep(self, key: _Key, size: int, found: RemoteSpace) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self._kept_bytes -= old[1]
        # What an answer takes in memory besides its text.
        size += _ENTRY_BYTES
        self._kept[key] = (self._clock.monotonic() + KEPT_S, size, found)
        self._kept_bytes += size
        while self._kept_bytes > MAX_KEPT_BYTES:
            _, (_, dropped, _) = self._kept.popitem(last=False)
            self._kept_bytes -= dropped


def parse_space(
    server: ServerName, room_id: RoomID, answer: JsonObject, *, suggested_only: bool
) -> RemoteSpace:
    """Raises: Misbehaved unless it is about this room. What else is malformed is left out."""
    room = answer.get("room")
    summary = _parse_summary(room)
    if summary is None or not isinstance(room, dict) or summary.room_id != room_id:
        raise Misbehaved(f"{server} told of something else than {room_id}")
    told = [_parse_summary(one) for one in _list(answer, "children")]
    children = [parse_child(one) for one in _list(room, "children_state")]
    held = [one for one in children if one is not None and (one.is_suggested or not suggested_only)]
    return RemoteSpace(
        server=server,
        summary=summary,
        children=sorted(held, key=lambda child: child.order) if summary.room_type == "m.space" else (),
        known={one.room_id: one for one in told if one is not None},
        inaccessible={RoomID(one) for one in _list(answer, "inaccessible_children") if isinstance(one, str)},
    )


def _list(answer: JsonObject, name: str) -> list[Any]:
    values = answer.get(name)
    return values[:MAX_CHILDREN] if isinstance(values, list) else []


def _parse_summary(value: object) -> Summary | None:
    if not isinstance(value, dict):
        return None
    try:
        told = msgspec.convert(_UNTOLD | value | {"membership": None}, Summary)
        parse_room_id(told.room_id)
        encode(msgspec.to_builtins(told))  # what is no canonical JSON has no business in an event
    except (msgspec.ValidationError, BadIdentifier, BadJson):
        return None
    allowed: list[RoomID] = []
    for one in told.allowed_room_ids or ():
        try:
            allowed.append(parse_room_id(one))
        except BadIdentifier:
            continue
    return msgspec.structs.replace(
        told, num_joined_members=max(0, told.num_joined_members), allowed_room_ids=allowed or None
    )
