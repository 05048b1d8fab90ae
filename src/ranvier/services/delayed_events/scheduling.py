"""What users schedule, look up, restart and cancel.

A delay id is a secret of its own: whoever knows it may restart, send or cancel the event, as clients hand it on to
services that watch over a call. With an access token beside it, the event has to be the user's own.

Spec: MSC4140.
"""

from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject, encode_strict, parse_object
from ranvier.core.errors import (
    DelayedEventFinalised,
    EventTooLarge,
    Forbidden,
    InvalidParam,
    LimitExceeded,
    NotFound,
)
from ranvier.core.identifiers import RoomID
from ranvier.core.limits import MAX_EVENT_BYTES, MAX_EVENT_FIELD_BYTES
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.delayed_events import (
    DelayedEvent,
    NewDelayedEvent,
    count_scheduled,
    finalise,
    find_delayed_event,
    find_same_request,
    insert_delayed_event,
    list_scheduled,
    reschedule,
)

_ID_BYTES: Final = 24


class DelayLimits(msgspec.Struct, frozen=True):
    """What the administrator allows."""

    max_delay_ms: int
    max_scheduled: int  # for each user; 0: none at all


class DelayWish(msgspec.Struct, frozen=True, kw_only=True):
    """An event that somebody wants sent later."""

    room_id: RoomID
    type: str
    state_key: str | None = None
    content: JsonObject
    delay_ms: int
    txn_id: str | None = None
    origin_server_ts: int | None = None
    sticky_ms: int | None = None


class DelayedEvents:
    """The events that wait."""

    def __init__(self, db: Database, clock: Clock, randomness: Randomness, limits: DelayLimits) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness
        self._limits = limits

    async def schedule(self, requester: Requester, wish: DelayWish) -> str:
        """Keep the event until it is due; its delay id. A repeated `txn_id` of the device gets that of the first time.

        Raises: Forbidden, InvalidParam (the delay), LimitExceeded, EventTooLarge, BadJson.
        """
        limits = self._limits
        if limits.max_scheduled == 0 or wish.delay_ms > limits.max_delay_ms:
            raise Forbidden(
                f"An event can be delayed for at most {limits.max_delay_ms} ms here."
                if limits.max_scheduled
                else "Events cannot be delayed here."
            )
        if wish.delay_ms <= 0:
            raise InvalidParam("The delay must be a positive number of milliseconds.")
        new = NewDelayedEvent(
            delay_id=self._randomness.token(_ID_BYTES),
            user_nid=requester.user_nid,
            device_id=requester.device_id or "",
            txn_id=wish.txn_id,
            room_id=wish.room_id,
            type=wish.type,
            state_key=wish.state_key,
            content=_checked_content(wish),
            origin_server_ts=wish.origin_server_ts,
            sticky_ms=wish.sticky_ms,
            delay_ms=wish.delay_ms,
        )
        return await self._db.write(_schedule, new, limits.max_scheduled, self._clock.now_ms())

    async def list(self, requester: Requester) -> list[JsonObject]:
        """What the user has scheduled, the next one first."""
        scheduled = await self._db.read(list_scheduled, requester.user_nid)
        return [_as_told(one) for one in scheduled]

    async def get(self, requester: Requester, delay_id: str) -> JsonObject:
        """One event of the user, finalised ones included. Raises: NotFound."""
        return _as_told(await self._db.read(find_own, delay_id, requester))

    async def restart(self, requester: Requester | None, delay_id: str) -> None:
        """Wait the whole delay once more. Raises: NotFound, DelayedEventFinalised."""
        await self._db.write(_restart, delay_id, requester, self._clock.now_ms())

    async def cancel(self, requester: Requester | None, delay_id: str) -> None:
        """Never send it. Raises: NotFound, DelayedEventFinalised."""
        await self._db.write(_cancel, delay_id, requester, self._clock.now_ms())


def find_own(txn: ReadTxn, delay_id: str, requester: Requester | None) -> DelayedEvent:
    """The event of a delay id. Raises: NotFound, also when it is not the requester's."""
    delayed = find_delayed_event(txn, delay_id)
    if delayed is None or (requester is not None and delayed.user_nid != requester.user_nid):
        raise NotFound("There is no such delayed event.")
    return delayed


def _checked_content(wish: DelayWish) -> bytes:
    """What can be told before it is sent. Raises: EventTooLarge, BadJson."""
    content = encode_strict(wish.content)
    fields = (wish.type, wish.state_key or "")
    if len(content) > MAX_EVENT_BYTES or any(len(one.encode()) > MAX_EVENT_FIELD_BYTES for one in fields):
        raise EventTooLarge("The event is too large.")
    return content


def _schedule(txn: WriteTxn, new: NewDelayedEvent, most: int, now_ms: int) -> str:
    if new.txn_id is not None and (known := find_same_request(txn, new)) is not None:
        return known
    scheduled, next_ms = count_scheduled(txn, new.user_nid)
    if scheduled >= most:
        raise LimitExceeded(
            "The maximum number of delayed events has been reached.",
            retry_after_ms=max(next_ms - now_ms, 1),
        )
    insert_delayed_event(txn, new, now_ms)
    return new.delay_id


def _restart(txn: WriteTxn, delay_id: str, requester: Requester | None, now_ms: int) -> None:
    delayed = find_own(txn, delay_id, requester)
    if delayed.finalised_ms is not None or delayed.is_claimed:
        raise DelayedEventFinalised("The event has been sent or canceled.")
    reschedule(txn, delayed.delay_nid, now_ms, now_ms + delayed.delay_ms)


def _cancel(txn: WriteTxn, delay_id: str, requester: Requester | None, now_ms: int) -> None:
    delayed = find_own(txn, delay_id, requester)
    if delayed.event_id is not None or delayed.is_claimed:
        raise DelayedEventFinalised("The event has been sent.")
    if delayed.finalised_ms is None:
        finalise(txn, delayed, now_ms)


def _as_told(delayed: DelayedEvent) -> JsonObject:
    """As clients see it, under the names of the MSC and those of before (`delay`, `running_since`)."""
    told: JsonObject = {
        "delay_id": delayed.delay_id,
        "room_id": delayed.room_id,
        "type": delayed.type,
        "delay_ms": delayed.delay_ms,
        "delay": delayed.delay_ms,
        "scheduled_at": delayed.scheduled_ms,
        "running_since": delayed.scheduled_ms,
        "content": parse_object(delayed.content),
    }
    if delayed.state_key is not None:
        told["state_key"] = delayed.state_key
    if delayed.finalised_ms is not None:
        told["finalised_ts"] = delayed.finalised_ms
    if delayed.event_id is not None:
        told["event_id"] = delayed.event_id
    if delayed.error is not None:
        told["error"] = parse_object(delayed.error)
    return told
