"""Messages, state and redactions that users send."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadJsonValue, Forbidden, ServerFault, UserSuspended
from ranvier.core.identifiers import EventID, RoomID, parse_event_id
from ranvier.services.requester import Requester
from ranvier.services.rooms.live import LiveRoom, LiveRooms
from ranvier.services.rooms.relating import check_relation
from ranvier.services.rooms.timeline import Draft, Timeline
from ranvier.store.database import Database, Integrity, ReadTxn
from ranvier.store.tables import events
from ranvier.store.tables.client_transactions import ClientTransaction, find_transaction

MAX_ATTEMPTS: Final = 10

MAX_REMEMBERED: Final = 10_000
"""Transactions whose event is remembered; older ones are found in the table."""

_REDACTION: Final = "m.room.redaction"


class Sending:
    """Sends events on behalf of users, once for each transaction id."""

    def __init__(
        self,
        db: Database,
        live: LiveRooms,
        timeline: Timeline,
        note_activity: Callable[[Requester], None],
    ) -> None:
        """`note_activity` hears of everybody who sends something."""
        self._db = db
        self._note_activity = note_activity
        self._live = live
        self._timeline = timeline
        self._under_way: dict[ClientTransaction, asyncio.Future[EventID | None]] = {}
        self._sent: OrderedDict[ClientTransaction, EventID] = OrderedDict()

    async def send_message(
        self,
        requester: Requester,
        room_id: RoomID,
        event_type: str,
        content: JsonObject,
        txn_id: str,
        *,
        origin_server_ts: int | None = None,
        sticky_ms: int | None = None,
    ) -> EventID:
        """Send an event that is no state; a repeated `txn_id` of the device gets the event of the first time.
        `sticky_ms`: for how long it is sticky (MSC4354).

        Raises: UserSuspended, what `Timeline.send` raises.
        Spec: client-server API, PUT /rooms/{roomId}/send/{eventType}/{txnId}; "Transaction identifiers".
        """
        if event_type == _REDACTION:
            # Since v1.18 (MSC4169): what is redacted stands in the content, whatever the room version.
            return await self.redact(
                requester,
                room_id,
                _redacted_by(content),
                content,
                txn_id,
                origin_server_ts=origin_server_ts,
            )
        _check_may_send(requester)
        self._note_activity(requester)
        room = await self._room(room_id)
        transaction = _transaction(requester, room, f"send/{event_type}", txn_id)
        draft = Draft(
            sender=requester.user_id,
            type=event_type,
            content=content,
            transaction=transaction,
            origin_server_ts=origin_server_ts,
            sticky_ms=sticky_ms,
        )
        return await self._once(room, transaction, draft)

    async def redact(
        self,
        requester: Requester,
        room_id: RoomID,
        event_id: EventID,
        content: JsonObject,
        txn_id: str,
        *,
        origin_server_ts: int | None = None,
    ) -> EventID:
        """Take the content of an event away.

        Raises: Forbidden (another one's event), what `Timeline.send` raises.
        Spec: client-server API, PUT /rooms/{roomId}/redact/{eventId}/{txnId}.
        """
        room = await self._room(room_id)
        transaction = _transaction(requester, room, f"redact/{event_id}", txn_id)
        await self._check_may_redact(requester, room, event_id)
        draft = Draft(
            sender=requester.user_id,
            type=_REDACTION,
            content={key: value for key, value in content.items() if key != "redacts"},
            redacts=event_id,
            transaction=transaction,
            origin_server_ts=origin_server_ts,
        )
        return await self._once(room, transaction, draft)

    async def _room(self, room_id: RoomID) -> LiveRoom:
        room = await self._live.find(room_id)
        if room is None:
            # The same words as for a room that is known here: who is not in it learns nothing.
            raise Forbidden("You are not in this room.")
        return room

    async def _once(self, room: LiveRoom, transaction: ClientTransaction, draft: Draft) -> EventID:
        """Send the draft unless this transaction has sent its event, or is about to."""
        sent = self._sent.get(transaction)
        if sent is not None:
            return sent
        while (under_way := self._under_way.get(transaction)) is not None:
            event_id = await asyncio.shield(under_way)
            if event_id is not None:
                return event_id
        self._under_way[transaction] = promise = asyncio.get_running_loop().create_future()
        try:
            event_id = await self._send_or_find(room, transaction, draft)
            promise.set_result(event_id)
            return event_id
        except Exception as error:
            promise.set_exception(error)
            promise.exception()  # nobody has to ask for it
            raise
        finally:
            del self._under_way[transaction]
            if not promise.done():  # this request was cancelled: the next one finds out what became of it
                promise.set_result(None)
            del promise  # what it raises keeps this frame

    async def _send_or_find(self, room: LiveRoom, transaction: ClientTransaction, draft: Draft) -> EventID:
        """Send first and ask later: a transaction id that was used before is rare, and `append` notices."""
        if "m.relates_to" in draft.content:
            sent = await self._db.read(_find_sent_or_check, transaction, draft)
            if sent is not None:
                return sent
        for _ in range(MAX_ATTEMPTS):
            try:
                (event_id,) = await self._timeline.send(room.room_id, [draft])
            except Integrity:
                found = await self._db.read(_find_sent, transaction)
                if found is None:
                    continue  # the transaction that used it has been forgotten meanwhile
                event_id = found
            self._sent[transaction] = event_id
            if len(self._sent) > MAX_REMEMBERED:
                self._sent.popitem(last=False)
            return event_id
        raise ServerFault("the room changes too fast")

    async def _check_may_redact(self, requester: Requester, room: LiveRoom, event_id: EventID) -> None:
        """Whether the user may: the rules of rooms let every user of a server redact what others of it sent.

        Spec: client-server API, PUT /redact: "Any user [...] may send redactions for their own events", who has the
        `redact` level also for those of others, and "server administrators [...] events sent by users on their server".
        """
        is_moderator = room.power.user_level(requester.user_id) >= room.power.redact
        if is_moderator and not requester.is_suspended:
            return
        record = await self._db.read(events.find_event, event_id)
        is_here = record is not None and record.room_nid == room.nid
        is_own = record is not None and is_here and record.sender_nid == requester.user_nid
        if requester.is_suspended and not is_own:
            raise UserSuspended("This account is suspended: it may redact its own events only.")
        # Those of users of other servers come to nothing for an administrator, by the rules of rooms.
        # That there is no such event in the room is said by the timeline, and to members alone.
        if is_here and not (is_own or requester.is_admin):
            raise Forbidden("You may redact your own events only.")


def _find_sent(txn: ReadTxn, transaction: ClientTransaction) -> EventID | None:
    event_nid = find_transaction(txn, transaction)
    if event_nid is None:
        return None
    return events.list_events(txn, (event_nid,))[event_nid].event_id


def _find_sent_or_check(txn: ReadTxn, transaction: ClientTransaction, draft: Draft) -> EventID | None:
    """The event of this transaction, if it was sent: then whatever it relates to by now is no fault of it."""
    sent = _find_sent(txn, transaction)
    if sent is None:
        check_relation(txn, transaction.room_nid, transaction.user_nid, draft.type, draft.content)
    return sent


def _transaction(requester: Requester, room: LiveRoom, request: str, txn_id: str) -> ClientTransaction:
    return ClientTransaction(
        user_nid=requester.user_nid,
        device_id=requester.device_id or "",
        room_nid=room.nid,
        request=request,
        txn_id=txn_id,
    )


def _check_may_send(requester: Requester) -> None:
    if requester.is_suspended:
        raise UserSuspended("This account is suspended: it may not send anything.")


def _redacted_by(content: JsonObject) -> EventID:
    redacts = content.get("redacts")
    if redacts is None:
        raise BadJsonValue("redacts: a redaction names the event that it redacts.")
    return parse_event_id(redacts)
