"""What users reported: events, rooms and users. Synapse has nothing to show reports of rooms."""

from typing import Any

import msgspec

from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import RoomID, UserID
from ranvier.http.admin.declaring import V1, administers, is_backwards, page_of
from ranvier.http.request import Request
from ranvier.services.administration.reports import EVENT, ROOM, USER, Reports, Wanted


class ReportEndpoints:
    """Reports, kind by kind."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    @administers("GET", f"{V1}/event_reports", operation="listEventReports")
    async def list_event_reports(self, request: Request) -> dict[str, Any]:
        return await self._list(request, EVENT, where="room_id", whom="event_sender_user_id")

    @administers("GET", f"{V1}/room_reports", operation="listRoomReports")
    async def list_room_reports(self, request: Request) -> dict[str, Any]:
        return await self._list(request, ROOM, where="room_id")

    @administers("GET", f"{V1}/user_reports", operation="listUserReports")
    async def list_user_reports(self, request: Request) -> dict[str, Any]:
        return await self._list(request, USER, whom="target_user_id")

    @administers("GET", f"{V1}/event_reports/{{reportId}}", operation="getEventReport", looks_at_content=True)
    async def get_event_report(self, request: Request) -> dict[str, Any]:
        return await self._get(request, EVENT)

    @administers("GET", f"{V1}/room_reports/{{reportId}}", operation="getRoomReport", looks_at_content=True)
    async def get_room_report(self, request: Request) -> dict[str, Any]:
        return await self._get(request, ROOM)

    @administers("GET", f"{V1}/user_reports/{{reportId}}", operation="getUserReport", looks_at_content=True)
    async def get_user_report(self, request: Request) -> dict[str, Any]:
        return await self._get(request, USER)

    @administers("DELETE", f"{V1}/event_reports/{{reportId}}", operation="deleteEventReport")
    async def delete_event_report(self, request: Request) -> dict[str, Any]:
        return await self._delete(request, EVENT)

    @administers("DELETE", f"{V1}/room_reports/{{reportId}}", operation="deleteRoomReport")
    async def delete_room_report(self, request: Request) -> dict[str, Any]:
        return await self._delete(request, ROOM)

    @administers("DELETE", f"{V1}/user_reports/{{reportId}}", operation="deleteUserReport")
    async def delete_user_report(self, request: Request) -> dict[str, Any]:
        return await self._delete(request, USER)

    async def _list(
        self, request: Request, subject: str, *, where: str | None = None, whom: str | None = None
    ) -> dict[str, Any]:
        """`where` and `whom`: the parameters that say which."""
        query = request.query()
        part = page_of(query)

        def said(name: str | None) -> str | None:
            text = None if name is None else query.text(name)
            return None if text is None else text.replace("\0", "")  # nothing that is stored has one

        reporter, room_id, target = said("user_id"), said(where), said(whom)
        wanted = Wanted(
            reporter=None if reporter is None else UserID(reporter),
            room_id=None if room_id is None else RoomID(room_id),
            whom=None if target is None else UserID(target),
        )
        page = await self._reports.list_page(subject, wanted, backwards=is_backwards(query, "b"), **part)
        answer: dict[str, Any] = {
            f"{subject}_reports": msgspec.to_builtins(page.reports),
            "total": page.total,
        }
        reached = part["offset"] + len(page.reports)
        return answer | {"next_token": reached} if page.reports and reached < page.total else answer

    async def _get(self, request: Request, subject: str) -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.to_builtins(await self._reports.get(subject, _report(request)))
        return shown

    async def _delete(self, request: Request, subject: str) -> dict[str, Any]:
        await self._reports.delete(subject, _report(request))
        return {}


def _report(request: Request) -> int:
    text = request.path["reportId"]
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidParam("A report is named by a number.")
    return int(text)
