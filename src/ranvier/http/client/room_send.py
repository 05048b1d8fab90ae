"""Sending messages and redactions. Spec: client-server API, "Sending events to a room", "Redactions"."""

from typing import Final

import msgspec

from ranvier.core.errors import InvalidParam
from ranvier.core.events.sticky import MAX_DURATION_MS
from ranvier.core.limits import MAX_SAFE_INTEGER
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.delayed_events.scheduling import DelayedEvents, DelayWish
from ranvier.services.rooms.sending import Sending

_DELAY: Final = "org.matrix.msc4140.delay"
_STICKY: Final = "org.matrix.msc4354.sticky_duration_ms"


class EventIdAnswer(msgspec.Struct, frozen=True):
    event_id: str


class DelayIdAnswer(msgspec.Struct, frozen=True):
    delay_id: str


class RoomSend:
    """Events that are no state."""

    def __init__(self, sending: Sending, delayed: DelayedEvents) -> None:
        self._sending = sending
        self._delayed = delayed

    @endpoint(
        "PUT",
        "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}",
        operation="sendMessage",
        rate=Rate.MESSAGE,
        guests=True,
    )
    async def send_message(self, request: Request) -> EventIdAnswer | DelayIdAnswer:
        delay_ms = delay_of(request)
        if delay_ms is not None:
            wish = DelayWish(
                room_id=request.room_id,
                type=request.path["eventType"],
                content=request.json(empty_is_object=True),
                delay_ms=delay_ms,
                txn_id=request.path["txnId"],
                origin_server_ts=dated(request),
                sticky_ms=stickiness(request),
            )
            return DelayIdAnswer(await self._delayed.schedule(request.requester, wish))
        event_id = await self._sending.send_message(
            request.requester,
            request.room_id,
            request.path["eventType"],
            request.json(),
            request.path["txnId"],
            origin_server_ts=dated(request),
            sticky_ms=stickiness(request),
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
            request.room_id,
            request.event_id,
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


def delay_of(request: Request) -> int | None:
    """For how many milliseconds the event has to wait, in the form that clients use; None: it is sent at once.

    Spec: MSC4140, its form of 2024.
    """
    if _DELAY not in request.raw_query:
        return None
    query = request.query()
    return None if query.text(_DELAY) is None else query.integer(_DELAY, 0, most=MAX_SAFE_INTEGER)


def stickiness(request: Request) -> int | None:
    """For how many milliseconds the event is to be sticky; None: it is not. Spec: MSC4354."""
    if _STICKY not in request.raw_query:
        return None
    query = request.query()
    if query.text(_STICKY) is None:
        return None
    duration_ms = query.integer(_STICKY, 0)
    if duration_ms > MAX_DURATION_MS:
        raise InvalidParam(f"An event is sticky for at most {MAX_DURATION_MS} ms.")
    return duration_ms
