"""Redacting what a user sent, in the background.

What a user of this server sent is redacted in that user's own name, which every room allows while the user is in it;
what others sent, in the name of the administrator, as far as the power goes.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ranvier.core.errors import InvalidParam, MatrixError, NotFound, ProtocolFault
from ranvier.core.identifiers import EventID, RoomID, UserID, parse_room_id, server_of
from ranvier.services.administration.tasks import REDACT_USER, Tasks
from ranvier.services.requester import Requester
from ranvier.services.rooms.timeline import Draft, Timeline
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships
from ranvier.store.tables.admin_tasks import AdminTask
from ranvier.store.tables.admin_users import list_redactable
from ranvier.store.tables.interned import Interner, find_user_nids
from ranvier.store.tables.rooms import list_rooms, list_rooms_by_id

MAX_EVENTS: Final = 100_000
"""Of one room."""
MAX_REASON_CHARS: Final = 1_000
_NOTED: Final = 50
"""Events between two notes of how far it has come."""


class RedactionWish(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the request."""

    rooms: Annotated[list[str], Meta(max_length=1_000)]  # none: all in which the user is or was
    reason: Annotated[str, Meta(max_length=MAX_REASON_CHARS)] | None = None
    limit: Annotated[int, Meta(ge=1)] = 1_000  # newest events of each room
    use_admin: bool = False
    after_ts: int = 0
    before_ts: int = 2**53


class RedactionResult(msgspec.Struct, kw_only=True):
    redacted_count: int = 0
    failed_redactions: dict[EventID, str] = {}


class _Found(msgspec.Struct, frozen=True):
    room_id: RoomID
    room_nid: int


class UserRedaction:
    """Redacts what users sent."""

    def __init__(self, db: Database, interner: Interner, timeline: Timeline, tasks: Tasks) -> None:
        self._db = db
        self._interner = interner
        self._timeline = timeline
        self._tasks = tasks

    async def start(self, requester: Requester, user_id: UserID, wish: RedactionWish) -> str:
        """The id of the task. Raises: NotFound, InvalidParam."""
        for room_id in wish.rooms:
            parse_room_id(room_id)
        if wish.after_ts > wish.before_ts:
            raise InvalidParam("after_ts lies behind before_ts.")
        await self._db.read(self._find_user, user_id)
        return await self._tasks.start(requester, REDACT_USER, user_id, wish)

    async def run(self, task: AdminTask) -> RedactionResult:
        """Do the task: what is redacted already is not found again."""
        wish = msgspec.json.decode(task.wish, type=RedactionWish)
        done = msgspec.json.decode(task.result, type=RedactionResult)
        user_id = UserID(task.resource_id)
        is_local = server_of(user_id) == self._interner.own_server
        actor = user_id if is_local and not wish.use_admin else UserID(task.requested_by)
        for room in await self._db.read(self._list_rooms, user_id, wish):
            for _, event_id in await self._db.read(self._list_events, room, user_id, wish):
                if event_id in done.failed_redactions:
                    continue
                await self._redact(room.room_id, event_id, actor, wish, done)
                if (done.redacted_count + len(done.failed_redactions)) % _NOTED == 0:
                    await self._tasks.note(task, done)
        return done

    async def _redact(
        self, room_id: RoomID, event_id: EventID, actor: UserID, wish: RedactionWish, done: RedactionResult
    ) -> None:
        content = {} if wish.reason is None else {"reason": wish.reason}
        draft = Draft(sender=actor, type="m.room.redaction", content=content, redacts=event_id)
        try:
            await self._timeline.send(room_id, [draft])
        except (MatrixError, ProtocolFault) as error:
            done.failed_redactions[event_id] = str(error)
        else:
            done.redacted_count += 1

    def _find_user(self, txn: ReadTxn, user_id: UserID) -> int:
        nid = find_user_nids(txn, self._interner, (user_id,)).get(user_id)
        if nid is None:
            raise NotFound("There is no such user.")
        return nid

    def _list_rooms(self, txn: ReadTxn, user_id: UserID, wish: RedactionWish) -> Sequence[_Found]:
        if wish.rooms:
            found = list(list_rooms_by_id(txn, [RoomID(room_id) for room_id in wish.rooms]).values())
        else:
            nid = self._find_user(txn, user_id)
            known = memberships.list_rooms_of_user(txn, nid, memberships.MEMBERSHIPS)
            found = list(list_rooms(txn, [one.room_nid for one in known]).values())
        return [_Found(room.room_id, room.room_nid) for room in found]

    def _list_events(
        self, txn: ReadTxn, room: _Found, user_id: UserID, wish: RedactionWish
    ) -> list[tuple[int, EventID]]:
        return list_redactable(
            txn,
            room.room_nid,
            self._find_user(txn, user_id),
            after_ms=wish.after_ts,
            before_ms=wish.before_ts,
            limit=min(wish.limit, MAX_EVENTS),
        )
