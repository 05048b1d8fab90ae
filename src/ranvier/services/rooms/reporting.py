"""Reports of inappropriate content. Spec: client-server API, "Reporting content" (v1.18).

Whether a reported room or user exists, and whether an event does in a room that the reporter may not see, is
not told: such a report is answered like any other, and dropped.
"""

from typing import Final

import msgspec

from ranvier.core.errors import InvalidParam, NotFound
from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import events, memberships, reports, rooms
from ranvier.store.tables.interned import Interner, find_user_nids, list_user_ids
from ranvier.store.tables.reports import Report

MAX_REASON_CHARS: Final = 10_000


class Reporting:
    """Keeps what users report."""

    def __init__(self, db: Database, interner: Interner, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock

    async def report_event(
        self, requester: Requester, room_id: RoomID, event_id: EventID, reason: str
    ) -> None:
        """Raises: NotFound, also when the requester is not joined to the room; InvalidParam."""
        report = Report(
            reporter_nid=requester.user_nid,
            subject=reports.EVENT,
            room_id=room_id,
            event_id=event_id,
            reason=_encode(reason),
            received_ms=self._clock.now_ms(),
        )
        await self._db.write(_report_event, self._interner, report)

    async def report_room(self, requester: Requester, room_id: RoomID, reason: str) -> None:
        """Raises: InvalidParam."""
        report = Report(
            reporter_nid=requester.user_nid,
            subject=reports.ROOM,
            room_id=room_id,
            reason=_encode(reason),
            received_ms=self._clock.now_ms(),
        )
        await self._db.write(_report_room, report)

    async def report_user(self, requester: Requester, user_id: UserID, reason: str) -> None:
        """Raises: InvalidParam."""
        report = Report(
            reporter_nid=requester.user_nid,
            subject=reports.USER,
            user_id=user_id,
            reason=_encode(reason),
            received_ms=self._clock.now_ms(),
        )
        await self._db.write(_report_user, self._interner, report)


def _encode(reason: str) -> bytes:
    if len(reason) > MAX_REASON_CHARS:
        raise InvalidParam(f"A reason has at most {MAX_REASON_CHARS} characters.")
    return msgspec.json.encode(reason)


def _report_event(txn: WriteTxn, interner: Interner, report: Report) -> None:
    assert report.room_id is not None, "an event is reported with its room"
    assert report.event_id is not None, "it is the subject"
    room = rooms.find_room(txn, report.room_id)
    event = events.find_event(txn, report.event_id)
    if room is None or event is None or event.room_nid != room.room_nid or event.status.is_outlier:
        raise NotFound("The event was not found, or you are not joined to the room.")
    membership = memberships.find_membership(txn, room.room_nid, report.reporter_nid)
    if membership is None or membership.membership != memberships.JOIN:
        raise NotFound("The event was not found, or you are not joined to the room.")
    sender = list_user_ids(txn, interner, (event.sender_nid,))[event.sender_nid]
    reports.insert_report(txn, msgspec.structs.replace(report, user_id=sender))


def _report_room(txn: WriteTxn, report: Report) -> None:
    assert report.room_id is not None, "it is the subject"
    if rooms.find_room(txn, report.room_id) is not None:
        reports.insert_report(txn, report)


def _report_user(txn: WriteTxn, interner: Interner, report: Report) -> None:
    assert report.user_id is not None, "it is the subject"
    if find_user_nids(txn, interner, (report.user_id,)):
        reports.insert_report(txn, report)
