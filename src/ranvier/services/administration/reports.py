"""What users reported, for administrators."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import reports
from ranvier.store.tables.events import find_event
from ranvier.store.tables.interned import Interner, find_user_nids, list_user_ids
from ranvier.store.tables.reports import ReportFilter, StoredReport
from ranvier.store.tables.rooms import RoomSummary, list_rooms_by_id, list_summaries

_NO_SUMMARY = RoomSummary()


class ReportInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A report of an event, with the names that Synapse gives its parts."""

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
        backwards: bool,
        limit: int,
        offset: int,
    ) -> ReportPage:
        """A page of the reports of events. None: whoever reported, wherever, whatever they reported."""

        def read(txn: ReadTxn) -> ReportPage:
            nid = None
            if reporter is not None:
                nid = find_user_nids(txn, self._interner, (reporter,)).get(reporter, 0)
            only = ReportFilter(reporter_nid=nid, room_id=room_id, user_id=sender)
            found = reports.list_reports(txn, only, backwards=backwards, limit=limit, offset=offset)
            return ReportPage(self._describe(txn, found), reports.count_reports(txn, only))

        return await self._db.read(read)

    async def get(self, report_nid: int) -> tuple[ReportInfo, JsonObject | None]:
        """The report and the event as it is stored; None if that is not here any more. Raises: NotFound."""

        def read(txn: ReadTxn) -> tuple[ReportInfo, JsonObject | None]:
            found = reports.find_report(txn, report_nid)
            if found is None or found.report.event_id is None:
                raise NotFound("There is no such report.")
            event = find_event(txn, found.report.event_id)
            stored: JsonObject | None = None if event is None else msgspec.json.decode(event.json)
            return self._describe(txn, [found])[0], stored

        return await self._db.read(read)

    async def delete(self, report_nid: int) -> None:
        """Raises: NotFound."""
        if not await self._db.write(reports.delete_report, report_nid):
            raise NotFound("There is no such report.")

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
