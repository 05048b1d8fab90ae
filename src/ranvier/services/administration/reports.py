"""What users reported, for administrators."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import reports
from ranvier.store.tables.events import find_event
from ranvier.store.tables.interned import Interner, find_user_nids, list_user_ids
from ranvier.store.tables.reports import EVENT as EVENT
from ranvier.store.tables.reports import ROOM as ROOM
from ranvier.store.tables.reports import USER as USER
from ranvier.store.tables.reports import ReportFilter, StoredReport
from ranvier.store.tables.rooms import RoomSummary, list_rooms_by_id, list_summaries

_NO_SUMMARY = RoomSummary()


class ReportInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A report of an event or a room, with the names that Synapse gives its parts."""

    id: int
    received_ts: int
    room_id: RoomID | None
    name: str | None
    event_id: EventID | None
    user_id: UserID  # who reported
    reason: str | None
    score: int | None = None
    sender: UserID | None
    canonical_alias: str | None


class ReportPage(msgspec.Struct, frozen=True):
    reports: list[ReportInfo]
    total: int


class UserReportInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A report of a user, with the names that Synapse gives its parts."""

    id: int
    received_ts: int
    target_user_id: UserID | None
    user_id: UserID  # who reported
    reason: str | None


class UserReportPage(msgspec.Struct, frozen=True):
    reports: list[UserReportInfo]
    total: int


class Reports:
    """Looks reports up."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def list_page(
        self,
        reporter: UserID | None,
        room_id: RoomID | None,
        sender: UserID | None,
        *,
        subject: str,
        backwards: bool,
        limit: int,
        offset: int,
    ) -> ReportPage:
        """A page of the reports of events or rooms. None: whoever reported, wherever, whatever they reported."""

        def read(txn: ReadTxn) -> ReportPage:
            only = ReportFilter(
                subjects=(subject,), reporter_nid=self._nid(txn, reporter), room_id=room_id, user_id=sender
            )
            found = reports.list_reports(txn, only, backwards=backwards, limit=limit, offset=offset)
            return ReportPage(self._describe(txn, found), reports.count_reports(txn, only))

        return await self._db.read(read)

    async def list_of_users(
        self, reporter: UserID | None, target: UserID | None, *, backwards: bool, limit: int, offset: int
    ) -> UserReportPage:
        """A page of the reports of users. None: whoever reported, whomever."""

        def read(txn: ReadTxn) -> UserReportPage:
            only = ReportFilter(subjects=(USER,), reporter_nid=self._nid(txn, reporter), user_id=target)
            found = reports.list_reports(txn, only, backwards=backwards, limit=limit, offset=offset)
            return UserReportPage(self._describe_users(txn, found), reports.count_reports(txn, only))

        return await self._db.read(read)

    async def get(self, report_nid: int) -> tuple[ReportInfo, JsonObject | None]:
        """The report and the event as it is stored; None if that is not here any more. Raises: NotFound."""

        def read(txn: ReadTxn) -> tuple[ReportInfo, JsonObject | None]:
            found = _find(txn, report_nid, EVENT)
            event = None if found.report.event_id is None else find_event(txn, found.report.event_id)
            stored: JsonObject | None = None if event is None else msgspec.json.decode(event.json)
            return self._describe(txn, [found])[0], stored

        return await self._db.read(read)

    async def get_of_room(self, report_nid: int) -> ReportInfo:
        """Raises: NotFound."""
        return await self._db.read(lambda txn: self._describe(txn, [_find(txn, report_nid, ROOM)])[0])

    async def get_of_user(self, report_nid: int) -> UserReportInfo:
        """Raises: NotFound."""
        return await self._db.read(lambda txn: self._describe_users(txn, [_find(txn, report_nid, USER)])[0])

    async def delete(self, report_nid: int, subject: str = EVENT) -> None:
        """Raises: NotFound."""

        def write(txn: WriteTxn) -> None:
            _find(txn, report_nid, subject)
            reports.delete_report(txn, report_nid)

        await self._db.write(write)

    def _nid(self, txn: ReadTxn, reporter: UserID | None) -> int | None:
        """None: whoever; 0: somebody who never did anything here."""
        if reporter is None:
            return None
        return find_user_nids(txn, self._interner, (reporter,)).get(reporter, 0)

    def _describe_users(self, txn: ReadTxn, found: list[StoredReport]) -> list[UserReportInfo]:
        reporters = list_user_ids(txn, self._interner, {one.report.reporter_nid for one in found})
        return [
            UserReportInfo(
                id=one.report_nid,
                received_ts=one.report.received_ms,
                target_user_id=one.report.user_id,
                user_id=reporters[one.report.reporter_nid],
                reason=msgspec.json.decode(one.report.reason, type=str),
            )
            for one in found
        ]

    def _describe(self, txn: ReadTxn, found: list[StoredReport]) -> list[ReportInfo]:
        reporters = list_user_ids(txn, self._interner, {one.report.reporter_nid for one in found})
        named = {one.report.room_id for one in found if one.report.room_id is not None}
        rooms = list_rooms_by_id(txn, named)
        summaries = list_summaries(txn, [room.room_nid for room in rooms.values()])
        infos = []
        for one in found:
            report = one.report
            room = None if report.room_id is None else rooms.get(report.room_id)
            summary = _NO_SUMMARY if room is None else summaries.get(room.room_nid, _NO_SUMMARY)
            infos.append(
                ReportInfo(
                    id=one.report_nid,
                    received_ts=report.received_ms,
                    room_id=report.room_id,
                    name=summary.name,
                    event_id=report.event_id,
                    user_id=reporters[report.reporter_nid],
                    reason=msgspec.json.decode(report.reason, type=str),
                    sender=report.user_id,
                    canonical_alias=summary.canonical_alias,
                )
            )
        return infos


def _find(txn: ReadTxn, report_nid: int, subject: str) -> StoredReport:
    """Raises: NotFound."""
    found = reports.find_report(txn, report_nid)
    if found is None or found.report.subject != subject:
        raise NotFound("There is no such report.")
    return found
