"""What users reported as inappropriate, for administrators.

Table: reports. Owner: services.rooms.reporting. Growth: one row a report.
Index -> query: primary key -> list, newest first.
"""

from typing import Any, Final

import msgspec

from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.store.database import ReadTxn, Row, WriteTxn

EVENT: Final = "event"
ROOM: Final = "room"
USER: Final = "user"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`subject` says which of the ids is meant; the others say where it was found."""

    reporter_nid: int
    subject: str
    room_id: RoomID | None = None
    event_id: EventID | None = None
    user_id: UserID | None = None
    reason: bytes  # a JSON string
    received_ms: int


class StoredReport(msgspec.Struct, frozen=True):
    report_nid: int
    report: Report


class ReportFilter(msgspec.Struct, frozen=True, kw_only=True):
    """None: whichever."""

    subjects: tuple[str, ...] = (EVENT,)
    reporter_nid: int | None = None
    room_id: str | None = None
    user_id: str | None = None  # whom it is about


_INSERT: Final = """
    INSERT INTO reports (report_nid, reporter_nid, subject, room_id, event_id, user_id, reason, received_ms)
    VALUES (:report_nid, :reporter_nid, :subject, :room_id, :event_id, :user_id, :reason, :received_ms)
"""
_COLUMNS: Final = "report_nid, reporter_nid, subject, room_id, event_id, user_id, reason, received_ms"
_WANTED: Final = """
    FROM reports WHERE subject IN (:subjects[])
        AND (CAST(:reporter_nid AS BIGINT) IS NULL OR reporter_nid = :reporter_nid)
        AND (CAST(:room_id AS TEXT) IS NULL OR room_id = :room_id)
        AND (CAST(:user_id AS TEXT) IS NULL OR user_id = :user_id)
"""
_FIND: Final = f"SELECT {_COLUMNS} FROM reports WHERE report_nid = :report_nid"  # noqa: S608
_DELETE: Final = "DELETE FROM reports WHERE report_nid = :report_nid"


def insert_report(txn: WriteTxn, report: Report) -> int:
    """Keep a report; its number."""
    report_nid = txn.next_position()
    txn.execute(_INSERT, report_nid=report_nid, **msgspec.structs.asdict(report))
    return report_nid


def list_reports(
    txn: ReadTxn, wanted: ReportFilter, *, backwards: bool, limit: int, offset: int
) -> list[StoredReport]:
    """A page of the reports; `backwards`: the newest first."""
    direction = "DESC" if backwards else "ASC"
    sql = f"SELECT {_COLUMNS} {_WANTED} ORDER BY report_nid {direction} LIMIT :limit OFFSET :offset"
    return [_report(row) for row in txn.all(sql, limit=limit, offset=offset, **_params(wanted))]


def count_reports(txn: ReadTxn, wanted: ReportFilter) -> int:
    """How many all pages have together."""
    return int(txn.value(f"SELECT COUNT(*) {_WANTED}", **_params(wanted)))


def find_report(txn: ReadTxn, report_nid: int) -> StoredReport | None:
    row = txn.first(_FIND, report_nid=report_nid)
    return None if row is None else _report(row)


def delete_report(txn: WriteTxn, report_nid: int) -> bool:
    """False if there is none."""
    return txn.execute(_DELETE, report_nid=report_nid) > 0


def _params(wanted: ReportFilter) -> dict[str, Any]:
    return msgspec.structs.asdict(wanted) | {"subjects": list(wanted.subjects)}


def _report(row: Row) -> StoredReport:
    nid, reporter_nid, subject, room_id, event_id, user_id, reason, received_ms = row
    return StoredReport(
        nid,
        Report(
            reporter_nid=reporter_nid,
            subject=subject,
            room_id=room_id,
            event_id=event_id,
            user_id=user_id,
            reason=reason,
            received_ms=received_ms,
        ),
    )
