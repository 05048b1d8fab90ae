"""Reporting content. Spec: client-server API, "Reporting content"."""

import msgspec

from ranvier.core.identifiers import parse_user_id
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.reporting import Reporting


class EventReportBody(msgspec.Struct, frozen=True):
    reason: str = ""


class ReportBody(msgspec.Struct, frozen=True):
    reason: str


class ReportContent:
    """Reports of events, rooms and users."""

    def __init__(self, reporting: Reporting) -> None:
        self._reporting = reporting

    @endpoint(
        "POST",
        "/_matrix/client/v3/rooms/{roomId}/report/{eventId}",
        operation="reportEvent",
        rate=Rate.WRITE,
    )
    async def report_event(self, request: Request) -> dict[str, object]:
        body = request.body(EventReportBody, empty_is_object=True)
        room_id = request.room_id
        event_id = request.event_id
        await self._reporting.report_event(request.requester, room_id, event_id, body.reason)
        return {}

    @endpoint("POST", "/_matrix/client/v3/rooms/{roomId}/report", operation="reportRoom", rate=Rate.WRITE)
    async def report_room(self, request: Request) -> dict[str, object]:
        body = request.body(ReportBody)
        await self._reporting.report_room(request.requester, request.room_id, body.reason)
        return {}

    @endpoint("POST", "/_matrix/client/v3/users/{userId}/report", operation="reportUser", rate=Rate.WRITE)
    async def report_user(self, request: Request) -> dict[str, object]:
        body = request.body(ReportBody)
        await self._reporting.report_user(
            request.requester, parse_user_id(request.path["userId"]), body.reason
        )
        return {}
