"""What notified a user, lately and long ago. Spec: client-server API, GET /notifications."""

from collections.abc import Sequence
from typing import Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.tokens import encode_list_token, parse_list_token
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.presenting import NOBODY, Presenting, client_event
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import notifications, rooms
from ranvier.store.tables.events import list_events

MAX_PAGE: Final = 100
DEFAULT_PAGE: Final = 20

_NEWEST: Final = 2**62
"""Above every number of an event."""


class NotificationPage(msgspec.Struct, frozen=True):
    """A page, newest first. `next_token` is None at the end."""

    notifications: Sequence[JsonObject]
    next_token: str | None


class NotificationHistory:
    """Reads them, page by page."""

    def __init__(self, db: Database, clock: Clock, presenting: Presenting) -> None:
        self._db = db
        self._clock = clock
        self._presenting = presenting

    async def page(
        self, requester: Requester, token: str | None, limit: int, *, only_highlights: bool
    ) -> NotificationPage:
        """Events that notified the requester, in rooms that they are in or invited to.

        Raises: BadToken.
        """
        below = _NEWEST if token is None else int(parse_list_token(token, (int,))[0])
        return await self._db.read(
            self._read, requester, below, min(limit, MAX_PAGE), only_highlights=only_highlights
        )

    def _read(
        self, txn: ReadTxn, requester: Requester, below: int, limit: int, *, only_highlights: bool
    ) -> NotificationPage:
        found = notifications.list_notified(
            txn, requester.user_nid, below=below, limit=limit + 1, only_highlights=only_highlights
        )
        shown = found[:limit]
        records = list_events(txn, [one.event_nid for one in shown])
        room_ids = rooms.list_rooms(txn, {one.room_nid for one in shown})
        facts = self._presenting.facts(txn, list(records.values()), with_replaced=False)
        events = {one.record.event_nid: client_event(one, NOBODY, self._clock.now_ms()) for one in facts}
        return NotificationPage(
            [
                {
                    "actions": orjson.Fragment(one.actions),
                    "event": orjson.Fragment(events[one.event_nid]),
                    "read": one.is_read,
                    "room_id": room_ids[one.room_nid].room_id,
                    "ts": records[one.event_nid].origin_server_ts,
                }
                for one in shown
            ],
            encode_list_token(shown[-1].event_nid) if len(found) > limit else None,
        )
