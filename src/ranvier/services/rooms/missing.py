"""What an event cites and we lack, asked of other servers: everything bounded, everything checked.

Spec: server-server API, "Backfilling and retrieving missing events", "Retrieving events", "Retrieving
authorization chain".
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, ServerName, parse_event_id
from ranvier.io.ports import Misbehaved, RemoteFault
from ranvier.services.remote.keyring import KeyWanted
from ranvier.services.remote.requests import Ask, Refused, Requests, path_of
from ranvier.services.rooms.checking import Checking, RoomRef, list_unchecked

log = logging.getLogger(__name__)

MAX_MISSING: Final = 20
"""Events of one get_missing_events."""

MAX_BACKFILL: Final = 100

MAX_SINGLE: Final = 200
"""Events that are asked for one by one; of more, the whole state is asked for at once."""

MAX_AT_A_TIME: Final = 10

MAX_STATE: Final = 200_000
"""Events of a room's state, and of its auth chain."""

MAX_STATE_BYTES: Final = 512 * 1_048_576
STATE_TIMEOUT_S: Final = 300.0

_HAS_NONE: Final = (400, 403, 404)
_PREFIX: Final = "/_matrix/federation/v1"


class StateIds(msgspec.Struct, frozen=True):
    """The state before an event and what authorizes it, by ids."""

    state: Collection[EventID]
    auth_chain: Collection[EventID]


class Fetched(msgspec.Struct, frozen=True):
    """Events that came, and the keys of those that came and could not be checked."""

    pdus: Sequence[Pdu]
    unchecked: Collection[KeyWanted]


class Told(msgspec.Struct, frozen=True):
    """Some of the events that were asked for."""

    pdus: Sequence[Pdu]
    is_all: bool  # that the server is willing to tell
    has_unchecked: bool  # some could not be checked


class Missing:
    """Asks for events of a room. Its functions raise RemoteFault; what comes is checked, what is bad dropped."""

    def __init__(self, requests: Requests, checking: Checking) -> None:
        self._requests = requests
        self._checking = checking

    async def fetch_missing(
        self, server: ServerName, room: RoomRef, earliest: Collection[EventID], latest: Collection[EventID]
    ) -> Told:
        """What lies between some events and later ones, both excluded; MAX_MISSING at most."""
        content: JsonObject = {
            "earliest_events": list(earliest),
            "latest_events": list(latest),
            "limit": MAX_MISSING,
            "min_depth": 0,
        }
        path = path_of(f"{_PREFIX}/get_missing_events", room.room_id)
        answer = await self._requests.post(server, path, content)
        events = _list_objects(answer, "events", MAX_MISSING)
        fetched = await self._check(server, room, events)
        return Told(fetched.pdus, len(events) < MAX_MISSING, bool(fetched.unchecked))

    async def fetch_backfill(
        self, server: ServerName, room: RoomRef, event_ids: Sequence[EventID], limit: int
    ) -> Sequence[Pdu]:
        """Some events and what precedes them."""
        limit = min(limit, MAX_BACKFILL)
        query = [*(("v", event_id) for event_id in event_ids), ("limit", str(limit))]
        answer = await self._requests.get(server, path_of(f"{_PREFIX}/backfill", room.room_id), query)
        # "May exceed the limit": but not by as much as a server likes.
        events = _list_objects(answer, "pdus", 2 * limit)
        return (await self._check(server, room, events, limit_parents=False)).pdus

    async def fetch_auth_chain(self, server: ServerName, room: RoomRef, event_id: EventID) -> Sequence[Pdu]:
        """All that authorizes an event, directly or not."""
        path = path_of(f"{_PREFIX}/event_auth", room.room_id, event_id)
        answer = await self._requests.ask(server, _large(path))
        return (await self._check(server, room, _list_objects(answer, "auth_chain", MAX_STATE))).pdus

    async def fetch_state_ids(self, server: ServerName, room: RoomRef, event_id: EventID) -> StateIds:
        """The state before an event, by ids."""
        path = path_of(f"{_PREFIX}/state_ids", room.room_id)
        answer = await self._requests.ask(server, _large(path, event_id))
        return StateIds(_list_ids(answer, "pdu_ids"), _list_ids(answer, "auth_chain_ids"))

    async def fetch_state(self, server: ServerName, room: RoomRef, event_id: EventID) -> Fetched:
        """The state before an event and what authorizes it, in one list."""
        path = path_of(f"{_PREFIX}/state", room.room_id)
        answer = await self._requests.ask(server, _large(path, event_id))
        events = _list_objects(answer, "auth_chain", MAX_STATE) + _list_objects(answer, "pdus", MAX_STATE)
        return await self._check(server, room, events)

    async def fetch_events(
        self, server: ServerName, room: RoomRef, event_ids: Collection[EventID], *, must_answer: bool = False
    ) -> Fetched:
        """Those of the events that the server has, asked for one by one. Raises nothing, but with `must_answer`
        RemoteFault, unless the server says of each what it is or that it has none."""
        slots = asyncio.Semaphore(MAX_AT_A_TIME)

        async def fetch(event_id: EventID) -> list[JsonObject]:
            async with slots:
                try:
                    answer = await self._requests.get(server, path_of(f"{_PREFIX}/event", event_id))
                    return _list_objects(answer, "pdus", 1)
                except RemoteFault as fault:
                    if must_answer and not (isinstance(fault, Refused) and fault.status in _HAS_NONE):
                        raise
                    log.info("no event %s from %s: %s", event_id, server, fault)
                    return []

        answers = await asyncio.gather(*(fetch(event_id) for event_id in event_ids))
        wanted = set(event_ids)
        fetched = await self._check(server, room, [event for answer in answers for event in answer])
        return Fetched([pdu for pdu in fetched.pdus if pdu.event_id in wanted], fetched.unchecked)

    async def _check(
        self, server: ServerName, room: RoomRef, events: Sequence[JsonObject], *, limit_parents: bool = True
    ) -> Fetched:
        checked = await self._checking.check(room, events, server, limit_parents=limit_parents)
        for fault in checked:
            if not isinstance(fault, Pdu):
                log.info("an event of %s is dropped: %s", room.room_id, fault)
        return Fetched([pdu for pdu in checked if isinstance(pdu, Pdu)], list_unchecked(checked))


def _large(path: str, event_id: EventID | None = None) -> Ask:
    return Ask(
        method="GET",
        path=path,
        query=() if event_id is None else (("event_id", event_id),),
        timeout_s=STATE_TIMEOUT_S,
        max_response_bytes=MAX_STATE_BYTES,
    )


def _list_objects(answer: JsonObject, name: str, limit: int) -> list[JsonObject]:
    """What is no object counts as an empty one, which is no event. Raises: Misbehaved."""
    values: Any = answer.get(name)
    if not isinstance(values, list):
        raise Misbehaved(f"{name} is no array")
    return [value if isinstance(value, dict) else {} for value in values[:limit]]


def _list_ids(answer: JsonObject, name: str) -> set[EventID]:
    """Raises: Misbehaved."""
    values: Any = answer.get(name)
    if not isinstance(values, list) or len(values) > MAX_STATE:
        raise Misbehaved(f"{name} is no array of at most {MAX_STATE} ids")
    try:
        return {parse_event_id(value) for value in values}
    except BadIdentifier as error:
        raise Misbehaved(f"{name}: {error}") from error
