"""Reading rooms, and taking their past or all of them away."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ranvier.core.errors import MatrixError, NotFound
from ranvier.core.identifiers import parse_event_id
from ranvier.http.admin.declaring import V1, V2, administers, is_backwards
from ranvier.http.client.event_context import context_request, encode_context
from ranvier.http.client.room_history import encode_page, page_request
from ranvier.http.request import Request
from ranvier.services.administration.deletion import DeletionOrders, DeletionWish, Shutdown
from ranvier.services.administration.history import RoomReading
from ranvier.services.administration.purging import HistoryPurge
from ranvier.services.administration.rooms import Rooms
from ranvier.services.administration.tasks import DELETE_ROOM, PURGE_HISTORY, AdminTask, Status, Tasks
from ranvier.services.rooms.remote_times import TimedEvent


class PurgeWish(msgspec.Struct, frozen=True, kw_only=True):
    delete_local_events: bool = False
    purge_up_to_event_id: str | None = None
    purge_up_to_ts: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class RoomReadingEndpoints:
    """What people wrote; each look at it is in the audit log."""

    def __init__(self, reading: RoomReading) -> None:
        self._reading = reading

    @administers(
        "GET", f"{V1}/rooms/{{roomId}}/messages", operation="listMessagesOfRoom", looks_at_content=True
    )
    async def list_messages(self, request: Request) -> dict[str, Any]:
        query = request.query()
        page = await self._reading.get_messages(request.requester, request.room_id, page_request(query))
        return encode_page(page, query)

    @administers(
        "GET",
        f"{V1}/rooms/{{roomId}}/context/{{eventId}}",
        operation="getContextInRoom",
        looks_at_content=True,
    )
    async def get_context(self, request: Request) -> dict[str, Any]:
        found = await self._reading.get_context(request.requester, request.room_id, context_request(request))
        return encode_context(found)

    @administers("GET", f"{V1}/rooms/{{roomId}}/timestamp_to_event", operation="findEventByTime")
    async def find_event_by_time(self, request: Request) -> TimedEvent:
        query = request.query()
        query.required("ts")
        return await self._reading.find_event(
            request.requester, request.room_id, query.integer("ts", 0), forwards=not is_backwards(query)
        )

    @administers("GET", f"{V1}/fetch_event/{{eventId}}", operation="fetchEvent", looks_at_content=True)
    async def fetch_event(self, request: Request) -> dict[str, Any]:
        return {"event": await self._reading.get_stored(request.event_id)}


class HistoryPurgeEndpoints:
    """Taking the past of a room away."""

    def __init__(self, purge: HistoryPurge, tasks: Tasks) -> None:
        self._purge = purge
        self._tasks = tasks

    @administers(
        "POST",
        f"{V1}/purge_history/{{roomId}}",
        f"{V1}/purge_history/{{roomId}}/{{eventId}}",
        operation="purgeHistory",
    )
    async def purge_history(self, request: Request) -> dict[str, str]:
        body = request.body(PurgeWish, empty_is_object=True)
        event_id = request.path.get("eventId", body.purge_up_to_event_id)
        purge_id = await self._purge.start(
            request.requester,
            request.room_id,
            event_id=None if event_id is None else parse_event_id(event_id),
            before_ms=body.purge_up_to_ts,
            delete_local_events=body.delete_local_events,
        )
        return {"purge_id": purge_id}

    @administers("GET", f"{V1}/purge_history_status/{{purgeId}}", operation="getHistoryPurge")
    async def get_history_purge(self, request: Request) -> dict[str, Any]:
        task = await self._tasks.find(request.path["purgeId"], PURGE_HISTORY)
        status = Status.ACTIVE if task.status is Status.SCHEDULED else task.status
        answer = {"status": status.value, **msgspec.json.decode(task.result, type=dict[str, Any])}
        return answer if task.error is None else answer | {"error": task.error}


class RoomDeletionEndpoints:
    """Deleting rooms."""

    def __init__(self, orders: DeletionOrders, rooms: Rooms, tasks: Tasks) -> None:
        self._orders = orders
        self._rooms = rooms
        self._tasks = tasks

    @administers("DELETE", f"{V1}/rooms/{{roomId}}", operation="deleteRoomAndWait")
    async def delete_room_and_wait(self, request: Request) -> dict[str, Any]:
        room_id = request.room_id
        wish = request.body(DeletionWish, empty_is_object=True)
        if wish.block and not await self._rooms.is_known(room_id):
            await self._rooms.block(request.requester, room_id, is_blocked=True)
            return _shown(Shutdown())
        task_id = await self._orders.start(request.requester, room_id, wish)
        task = await self._tasks.wait(task_id, DELETE_ROOM)
        if task.status is Status.FAILED:
            raise MatrixError(task.error or "The room could not be deleted.")
        return _shown(msgspec.json.decode(task.result, type=Shutdown))

    @administers("DELETE", f"{V2}/rooms/{{roomId}}", operation="deleteRoom")
    async def delete_room(self, request: Request) -> dict[str, str]:
        wish = request.body(DeletionWish)
        return {"delete_id": await self._orders.start(request.requester, request.room_id, wish)}

    @administers("GET", f"{V2}/rooms/{{roomId}}/delete_status", operation="listDeletionsOfRoom")
    async def list_deletions(self, request: Request) -> dict[str, Any]:
        found = await self._tasks.list_of(request.room_id, DELETE_ROOM)
        if not found:
            raise NotFound("This room was not deleted, or that was long ago.")
        return {"results": [_status(task) for task in found]}

    @administers("GET", f"{V2}/rooms/delete_status/{{deleteId}}", operation="getDeletion")
    async def get_deletion(self, request: Request) -> dict[str, Any]:
        return _status(await self._tasks.find(request.path["deleteId"], DELETE_ROOM))


def _status(task: AdminTask) -> dict[str, Any]:
    done = msgspec.json.decode(task.result, type=Shutdown)
    answer: dict[str, Any] = {
        "delete_id": task.task_id,
        "room_id": task.resource_id,
        "status": task.status.value,
        "shutdown_room": _shown(done),
        "events_deleted": done.events_deleted,
    }
    return answer if task.error is None else answer | {"error": task.error}


def _shown(done: Shutdown) -> dict[str, Any]:
    return {
        "kicked_users": done.kicked_users,
        "failed_to_kick_users": done.failed_to_kick_users,
        "local_aliases": done.local_aliases,
        "new_room_id": done.new_room_id,
    }
