"""What users reported: events, rooms and users."""

from collections.abc import Sequence
from typing import Any

import msgspec

from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import RoomID, UserID
from ranvier.http.admin.declaring import V1, administers, is_backwards, page_of
from ranvier.http.request import Query, Request
from ranvier.services.administration.reports import EVENT, ROOM, USER, ReportInfo, Reports

# What only reports of events have.
_OF_EVENTS = ("event_id", "sender", "score")


class ReportEndpoints:
    """What was reported of events."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    @administers("GET", f"{V1}/event_reports", operation="listEventReports")
    async def list_reports(self, request: Request) -> dict[str, Any]:
        query = request.query()
        part = page_of(query)
        page = await self._reports.list_page(
            _user(query, "user_id"),
            _room(query),
            _user(query, "event_sender_user_id"),
            subject=EVENT,
            backwards=is_backwards(query, "b"),
            **part,
        )
        return _listed("event_reports", [msgspec.to_builtins(one) for one in page.reports], page.total, part)

    @administers("GET", f"{V1}/event_reports/{{reportId}}", operation="getEventReport", looks_at_content=True)
    async def get_report(self, request: Request) -> dict[str, Any]:
        info, event = await self._reports.get(_report(request))
        return {**msgspec.to_builtins(info), "event_json": event}

    @administers("DELETE", f"{V1}/event_reports/{{reportId}}", operation="deleteEventReport")
    async def delete_report(self, request: Request) -> dict[str, str]:
        await self._reports.delete(_report(request))
        return {}


class UserReportEndpoints:
    """What was reported of users."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    @administers("GET", f"{V1}/user_reports", operation="listUserReports")
    async def list_reports(self, request: Request) -> dict[str, Any]:
        query = request.query()
        part = page_of(query)
        page = await self._reports.list_of_users(
            _user(query, "user_id"),
            _user(query, "target_user_id"),
            backwards=is_backwards(query, "b"),
            **part,
        )
        return _listed("user_reports", [msgspec.to_builtins(one) for one in page.reports], page.total, part)

    @administers("GET", f"{V1}/user_reports/{{reportId}}", operation="getUserReport", looks_at_content=True)
    async def get_report(self, request: Request) -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.to_builtins(await self._reports.get_of_user(_report(request)))
        return shown

    @administers("DELETE", f"{V1}/user_reports/{{reportId}}", operation="deleteUserReport")
    async def delete_report(self, request: Request) -> dict[str, str]:
        await self._reports.delete(_report(request), USER)
        return {}


class RoomReportEndpoints:
    """What was reported of rooms; Synapse has nothing to show them."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    @administers("GET", f"{V1}/room_reports", operation="listRoomReports")
    async def list_reports(self, request: Request) -> dict[str, Any]:
        query = request.query()
        part = page_of(query)
        page = await self._reports.list_page(
            _user(query, "user_id"),
            _room(query),
            None,
            subject=ROOM,
            backwards=is_backwards(query, "b"),
            **part,
        )
        return _listed("room_reports", [_of_room(one) for one in page.reports], page.total, part)

    @administers("GET", f"{V1}/room_reports/{{reportId}}", operation="getRoomReport", looks_at_content=True)
    async def get_report(self, request: Request) -> dict[str, Any]:
        return _of_room(await self._reports.get_of_room(_report(request)))

    @administers("DELETE", f"{V1}/room_reports/{{reportId}}", operation="deleteRoomReport")
    async def delete_report(self, request: Request) -> dict[str, str]:
        await self._reports.delete(_report(request), ROOM)
        return {}


def _of_room(info: ReportInfo) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(info).items() if name not in _OF_EVENTS}


def _listed(name: str, shown: Sequence[Any], total: int, part: dict[str, int]) -> dict[str, Any]:
    answer: dict[str, Any] = {name: shown, "total": total}
    reached = part["offset"] + len(shown)
    return answer | {"next_token": reached} if shown and reached < total else answer


def _user(query: Query, name: str) -> UserID | None:
    """Nothing that is stored has a U+0000."""
    text = query.text(name)
    return None if text is None else UserID(text.replace("\0", ""))


def _room(query: Query) -> RoomID | None:
    text = query.text("room_id")
    return None if text is None else RoomID(text.replace("\0", ""))


def _report(request: Request) -> int:
    text = request.path["reportId"]
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidParam("A report is named by a number.")
    return int(text)
