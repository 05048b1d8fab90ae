"""Sends delayed events when they are due, or when somebody asks for it. Spec: MSC4140."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from ranvier.core.canonical_json import encode, parse_object
from ranvier.core.errors import (
    AuthRejected,
    DelayedEventFinalised,
    MatrixError,
    ProtocolFault,
    ServerFault,
    UserDeactivated,
)
from ranvier.core.identifiers import EventID, RoomID
from ranvier.io.clock import Clock
from ranvier.services.delayed_events.scheduling import find_own
from ranvier.services.requester import Requester
from ranvier.services.rooms.changing_state import ChangingState
from ranvier.services.rooms.sending import Sending
from ranvier.store.database import Database, Hint, Kind, ReadTxn, WriteTxn
from ranvier.store.tables.accounts import AccountKind, find_account
from ranvier.store.tables.delayed_events import (
    DelayedEvent,
    claim,
    claim_due,
    finalise,
    find_next_due_ms,
    reschedule,
)

log = logging.getLogger(__name__)

CLAIM_MS: Final = 60_000
"""For so long nobody else tries to send an event. Then it is tried again: the process has died."""

AT_ONCE: Final = 100
MAX_IDLE_S: Final = 600.0


class DelayedSending:
    """The worker that sends what is due."""

    name = "delayed events"

    def __init__(self, db: Database, clock: Clock, sending: Sending, changing_state: ChangingState) -> None:
        self._db = db
        self._clock = clock
        self._sending = sending
        self._changing_state = changing_state
        self._scheduled = asyncio.Event()
        db.subscribe(self._hear)

    async def run(self) -> None:
        while True:
            self._scheduled.clear()
            next_ms = await self._db.read(find_next_due_ms)
            idle_s = MAX_IDLE_S if next_ms is None else (next_ms - self._clock.now_ms()) / 1000
            if idle_s > 0:
                await self._wait(min(idle_s, MAX_IDLE_S))
            else:
                await self._send_due()

    async def send_now(self, requester: Requester | None, delay_id: str) -> None:
        """Send an event before it is due. If that fails it stays scheduled.

        Raises: NotFound, DelayedEventFinalised; what sending an event raises.
        """
        delayed = await self._db.write(_claim_now, delay_id, requester, self._clock.now_ms())
        if delayed is None:
            return
        try:
            event_id = await self._send(delayed)
        except BaseException:
            due_ms = delayed.scheduled_ms + delayed.delay_ms
            await self._db.write(reschedule, delayed.delay_nid, delayed.scheduled_ms, due_ms)
            raise
        await self._db.write(finalise, delayed, self._clock.now_ms(), event_id)

    async def _send_due(self) -> None:
        """Those of one room one after the other, in the order in which they are due."""
        now_ms = self._clock.now_ms()
        by_room: defaultdict[RoomID, list[DelayedEvent]] = defaultdict(list)
        for delayed in await self._db.write(claim_due, now_ms, now_ms + CLAIM_MS, AT_ONCE):
            by_room[delayed.room_id].append(delayed)
        await asyncio.gather(*map(self._send_all, by_room.values()))

    async def _send_all(self, due: Sequence[DelayedEvent]) -> None:
        for delayed in due:
            try:
                event_id = await self._send(delayed)
            except (MatrixError, ProtocolFault) as error:
                failure = encode(_told(error))
                await self._db.write(finalise, delayed, self._clock.now_ms(), None, failure)
            except ServerFault as error:
                # Not its delay id: whoever reads that may send it.
                log.warning("cannot send the delayed event %d yet: %s", delayed.delay_nid, error)
            else:
                await self._db.write(finalise, delayed, self._clock.now_ms(), event_id)

    async def _send(self, delayed: DelayedEvent) -> EventID:
        requester = await self._db.read(_requester, delayed.user_nid)
        content, ts = parse_object(delayed.content), delayed.origin_server_ts
        if delayed.state_key is not None:
            return await self._changing_state.set(
                requester, delayed.room_id, delayed.type, delayed.state_key, content, ts, delayed.sticky_ms
            )
        # The delay id as transaction id: what was sent just before a crash is found, and not sent again.
        return await self._sending.send_message(
            requester,
            delayed.room_id,
            delayed.type,
            content,
            delayed.delay_id,
            origin_server_ts=ts,
            sticky_ms=delayed.sticky_ms,
        )

    async def _wait(self, seconds: float) -> None:
        """Until something is scheduled, or for as long."""
        try:
            async with self._clock.timeout(seconds):
                await self._scheduled.wait()
        except TimeoutError:
            return

    def _hear(self, hints: Sequence[Hint]) -> None:
        if any(hint.kind in (Kind.JOB, Kind.GAP) for hint in hints):
            self._scheduled.set()


def _claim_now(txn: WriteTxn, delay_id: str, requester: Requester | None, now_ms: int) -> DelayedEvent | None:
    """None: it has been sent already, or is just being sent."""
    delayed = find_own(txn, delay_id, requester)
    if delayed.event_id is not None or (delayed.is_claimed and (delayed.run_ms or 0) > now_ms):
        return None
    if delayed.finalised_ms is not None:
        raise DelayedEventFinalised("The event has been canceled.")
    claim(txn, delayed.delay_nid, now_ms + CLAIM_MS)
    return delayed


def _requester(txn: ReadTxn, user_nid: int) -> Requester:
    """Who sends: the user as of now, with no device. Raises: UserDeactivated."""
    account = find_account(txn, user_nid)
    if account is None or account.deactivated_ms is not None or account.is_locked:
        raise UserDeactivated("This account is closed or locked.")
    return Requester(
        user_id=account.user_id,
        user_nid=user_nid,
        device_id=None,
        is_guest=account.kind is AccountKind.GUEST,
        is_suspended=account.is_suspended,
    )


def _told(error: MatrixError | ProtocolFault) -> dict[str, object]:
    """What clients read about an event that could not be sent."""
    if isinstance(error, MatrixError):
        return error.body()
    errcode = "M_FORBIDDEN" if isinstance(error, AuthRejected) else "M_BAD_JSON"
    return {"errcode": errcode, "error": str(error)}
