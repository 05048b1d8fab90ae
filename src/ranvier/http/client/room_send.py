"""Sending messages and redactions. Spec: client-server API, "Sending events to a room", "Redactions"."""

import msgspec

from ranvier.core.identifiers import parse_event_id, parse_room_id
from ranvier.core.limits import MAX_SAFE_INTEGER
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.sending import Sending


class EventIdAnswer(msgspec.Struct, frozen=True):
    event_id: str


class RoomSend:
    """Events that are no state."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    @endpoint(
        "PUT",
        "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}",
        operation="sendMessage",
        rate=Rate.MESSAGE,
        guests=True,
    )
    async def send_message(self, request: Request) -> EventIdAnswer:
        event_id = await self._sending.send_message(
            request.requester,
            parse_room_id(request.path["roomId"]),
            request.path["eventType"],
            request.json(),
            request.path["txnId"],
            origin_server_ts=dated(request),
        )
        return EventIdAnswer(event_id)

    @endpoint(
        "PUT",
        "/_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}",
        operation="redactEvent",
        rate=Rate.MESSAGE,
    )
    async def redact_event(self, request: Request) -> EventIdAnswer:
        event_id = await self._sending.redact(
            request.requester,
            parse_room_id(request.path["roomId"]),
            parse_event_id(request.path["eventId"]),
            request.json(empty_is_object=True),
            request.path["txnId"],
        )
        return EventIdAnswer(event_id)


def dated(request: Request) -> int | None:
    """The time that an application service gives its event; None for everybody else.

    Spec: application service API, "Timestamp massaging".
    """
    if request.requester.appservice_id is None or not request.raw_query:
        return None
    query = request.query()
    return None if query.text("ts") is None else query.integer("ts", 0, most=MAX_SAFE_INTEGER)
