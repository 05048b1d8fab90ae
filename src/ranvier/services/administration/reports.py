"""What users reported, for administrators."""

import msgspec
from msgspec import UNSET, UnsetType

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
    """A report, with the names that Synapse gives its parts. Which are set depends on what was reported."""

    id: int
    received_ts: int
    user_id: UserID  # who reported
    reason: str | None
    # Of events and rooms.
    room_id: RoomID | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    canonical_alias: str | UnsetType | None = UNSET
    # Of events.
    event_id: EventID | UnsetType | None = UNSET
    sender: UserID | UnsetType | None = UNSET
    score: int | UnsetType | None = UNSET
    # Of an event that is looked at by itself: as it is stored; None if it is not here any more.
    event_json: JsonObject | UnsetType | None = UNSET
    # Of users.
    target_user_id: UserID | UnsetType | None = UNSET


class ReportPage(msgspec.Struct, frozen=True):
    reports: list[ReportInfo]
    total: int


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """None: whoever reported, wherever, whomever."""

    reporter: UserID | None
    room_id: RoomID | None
    whom: UserID | None


class Reports:
    """Looks reports up. `subject`: EVENT, ROOM or USER."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def list_page(
        self, subject: str, wanted: Wanted, *, backwards: bool, limit: int, offset: int
    ) -> ReportPage:
        """A page of the reports of one kind."""

        def read(txn: ReadTxn) -> ReportPage:
            only = ReportFilter(
                subjects=(subject,),
                reporter_nid=self._nid(txn, wanted.reporter),
                room_id=wanted.room_id,
                user_id=wanted.whom,
            )
            found = reports.list_reports(txn, only, backwards=backwards, limit=limit, offset=offset)
            return ReportPage(self._describe(txn, found), reports.count_reports(txn, only))

        return await self._db.read(read)

    async def get(self, subject: str, report_nid: int) -> ReportInfo:
        """Raises: NotFound."""

        def read(txn: ReadTxn) -> ReportInfo:
            found = _find(txn, report_nid, subject)
            (info,) = self._describe(txn, [found])
            if subject != EVENT:
                return info
            event = None if found.report.event_id is None else find_event(txn, found.report.event_id)
            stored = None if event is None else msgspec.json.decode(event.json)
            return msgspec.structs.replace(info, event_json=stored)

        return await self._db.read(read)

    async def delete(self, subject: str, report_nid: int) -> None:
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

    def _describe(self, txn: ReadTxn, found: list[StoredReport]) -> list[ReportInfo]:
        reporters = list_user_ids(txn, self._interner, {one.report.reporter_nid for one in found})
        named = {one.report.room_id for one in found if one.report.room_id is not None}
        rooms = list_rooms_by_id(txn, named)
        summaries = list_summaries(txn, [room.room_nid for room in rooms.values()])
        infos = []
        for one in found:
            room = None if one.report.room_id is None else rooms.get(one.report.room_id)
            summary = _NO_SUMMARY if room is None else summaries.get(room.room_nid, _NO_SUMMARY)
            infos.append(_info(one, reporters[one.report.reporter_nid], summary))
        return infos


def _info(stored: StoredReport, reporter: UserID, room: RoomSummary) -> ReportInfo:
    report = stored.report
    info = ReportInfo(
        id=stored.report_nid,
        received_ts=report.received_ms,
        user_id=reporter,
        reason=msgspec.json.decode(report.reason, type=str),
    )
    if report.subject == USER:
        return msgspec.structs.replace(info, target_user_id=report.user_id)
    info = msgspec.structs.replace(
        info, room_id=report.room_id, name=room.name, canonical_alias=room.canonical_alias
    )
    if report.subject == ROOM:
        return info
    return msgspec.structs.replace(info, event_id=report.event_id, sender=report.user_id, score=None)


def _find(txn: ReadTxn, report_nid: int, subject: str) -> StoredReport:
    """Raises: NotFound."""
    found = reports.find_report(txn, report_nid)
    if found is None or found.report.subject != subject:
        raise NotFound("There is no such report.")
    return found
