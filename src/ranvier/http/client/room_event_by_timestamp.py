"""The event nearest to a time. Spec: client-server API, `GET /rooms/{roomId}/timestamp_to_event`."""

from ranvier.core.limits import MAX_SAFE_INTEGER
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.remote_times import TimedEvent
from ranvier.services.rooms.timestamps import Timestamps


class RoomEventByTimestamp:
    """From times to events."""

    def __init__(self, timestamps: Timestamps) -> None:
        self._timestamps = timestamps

    @endpoint(
        "GET",
        "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event",
        "/_matrix/client/unstable/org.matrix.msc3030/rooms/{roomId}/timestamp_to_event",
        operation="getEventByTimestamp",
        guests=True,
    )
    async def get_event_by_timestamp(self, request: Request) -> TimedEvent:
        query = request.query()
        query.required("ts")
        return await self._timestamps.find_event(
            request.requester,
            request.room_id,
            query.integer("ts", 0, most=MAX_SAFE_INTEGER),
            forwards=query.choice("dir", ("f", "b")) == "f",
        )
