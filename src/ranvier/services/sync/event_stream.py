"""What clients of before /sync hear: one flat stream of events, told from the same responses as /sync gives.

Spec: client-server API, `GET /initialSync` and `GET /events` (both deprecated since r0).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.identifiers import RoomID
from ranvier.core.tokens import parse_room_token, parse_sync_token
from ranvier.services.requester import Requester
from ranvier.services.sync.filters import SyncFilters
from ranvier.services.sync.request import SyncRequest
from ranvier.services.sync.sync import Sync
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.directory import is_published
from ranvier.store.tables.rooms import list_rooms_by_id


class Stream(msgspec.Struct, frozen=True):
    """Events of all kinds, oldest first; each says its room."""

    events: Sequence[JsonObject]
    end: int  # a position


class RoomStart(msgspec.Struct, frozen=True, kw_only=True):
    """A room as a client first hears of it. Places are room_orders."""

    room_id: RoomID
    membership: str
    invite: JsonObject | None = None
    start: int | None = None
    messages: Sequence[JsonObject] = ()
    state: Sequence[JsonObject] = ()
    account_data: Sequence[JsonObject] = ()
    is_published: bool = False


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a client first hears."""

    rooms: Sequence[RoomStart]
    presence: Sequence[JsonObject]
    account_data: Sequence[JsonObject]
    end: int


class EventStream:
    """Answers clients of old."""

    def __init__(self, db: Database, sync: Sync, filters: SyncFilters) -> None:
        self._db = db
        self._sync = sync
        self._filters = filters

    async def start(self, requester: Requester, limit: int, *, include_leave: bool) -> Start:
        """All rooms with at most `limit` messages each, and the place from which `listen` goes on."""
        only: Any = {"room": {"timeline": {"limit": limit}, "include_leave": include_leave}}
        profile = await self._filters.find_profile(requester.user_nid, encode(only).decode())
        told = await self._ask(requester, SyncRequest(profile=profile, since=None))
        rooms = list(_rooms(told))
        published = await self._db.read(_list_published, [room.room_id for room in rooms])
        return Start(
            rooms=[msgspec.structs.replace(room, is_published=room.room_id in published) for room in rooms],
            presence=_events(told, "presence"),
            account_data=_events(told, "account_data"),
            end=_end(told),
        )

    async def listen(self, requester: Requester, since: int | None, timeout_ms: int) -> Stream:
        """What happened after the position `since` (None: from now on), as soon as there is something."""
        after = self._db.position() if since is None else since
        profile = await self._filters.find_profile(requester.user_nid, None)
        told = await self._ask(requester, SyncRequest(profile=profile, since=after, timeout_ms=timeout_ms))
        return Stream(list(_flatten(told)), _end(told))

    async def _ask(self, requester: Requester, request: SyncRequest) -> JsonObject:
        # Not as the device: what is sent to it alone has no place in this stream, and must not count as heard.
        nobody = msgspec.structs.replace(requester, device_nid=None)
        told: JsonObject = orjson.loads(await self._sync.sync(nobody, request))
        return told


def _end(told: JsonObject) -> int:
    return parse_sync_token(told["next_batch"]).position


def _events(section: Mapping[str, Any], name: str) -> list[JsonObject]:
    events: list[JsonObject] = section.get(name, {}).get("events", [])
    return events


def _rooms(told: JsonObject) -> Iterator[RoomStart]:
    for section, rooms in told.get("rooms", {}).items():
        for room_id, room in rooms.items():
            shown = _events(room, f"{section}_state")
            timeline = room.get("timeline")
            yield RoomStart(
                room_id=RoomID(room_id),
                membership=section,
                invite=shown[-1] if section == "invite" else None,
                start=None if timeline is None else parse_room_token(timeline["prev_batch"]),
                messages=_in_room(room_id, _events(room, "timeline")),
                state=_in_room(room_id, shown or _events(room, "state")),
                account_data=_events(room, "account_data"),
            )


def _flatten(told: JsonObject) -> Iterator[JsonObject]:
    yield from _events(told, "presence")
    for section, rooms in told.get("rooms", {}).items():
        for room_id, room in rooms.items():
            for part in (f"{section}_state", "timeline", "ephemeral", "account_data"):
                yield from _in_room(room_id, _events(room, part))
    yield from _events(told, "account_data")


def _in_room(room_id: str, events: Sequence[JsonObject]) -> list[JsonObject]:
    return [{**event, "room_id": room_id} for event in events]


def _list_published(txn: ReadTxn, room_ids: Sequence[RoomID]) -> set[RoomID]:
    rooms = list_rooms_by_id(txn, room_ids)
    return {room_id for room_id, room in rooms.items() if is_published(txn, room.room_nid)}
