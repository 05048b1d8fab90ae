"""Deleting rooms: everybody of this server leaves, aliases move to a room that says why, and what is known of the room
goes.

All of it is one task that may be broken off anywhere and begun anew: what is done is noted in the transaction that does
it, or is seen in the room.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ranvier.core.errors import InvalidParam, MatrixError, ProtocolFault
from ranvier.core.identifiers import RoomID, ServerName, UserID
from ranvier.core.room_versions import RoomVersion
from ranvier.io.clock import Clock
from ranvier.services.administration.people import act_as, check_local, get_account, get_room
from ranvier.services.administration.purging import RoomPurge
from ranvier.services.administration.tasks import DELETE_ROOM, Tasks
from ranvier.services.requester import Requester
from ranvier.services.rooms.creating import Creating
from ranvier.services.rooms.live import LiveRoom
from ranvier.services.rooms.member_content import member_draft
from ranvier.services.rooms.new_room import NewRoom, build_drafts
from ranvier.services.rooms.timeline import Draft, Timeline
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import admin_tasks, aliases, memberships, rooms
from ranvier.store.tables.admin_tasks import AdminTask, Status
from ranvier.store.tables.interned import Interner, find_server_nids, list_user_ids
from ranvier.store.tables.purge import is_told

log = logging.getLogger(__name__)

DEFAULT_ROOM_NAME: Final = "Content Violation Notification"
DEFAULT_MESSAGE: Final = "A room that you were in has been closed by the administrators of this server."
TELL_S: Final = 30.0
"""How long other servers are given to hear that our users have left, before the events that say so are deleted."""
_LOOK_S: Final = 0.1
_PRESENT: Final = (memberships.JOIN, memberships.INVITE, memberships.KNOCK)

Leave = Callable[[Requester, RoomID], Awaitable[None]]
"""Leave a room, reject an invite or take a knock back. Raises: MatrixError, ProtocolFault."""


class DeletionWish(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the request."""

    new_room_user_id: str | None = None
    room_name: str | None = None
    message: str | None = None
    block: bool = False
    purge: bool = True
    force_purge: bool = False


class Shutdown(msgspec.Struct, kw_only=True):
    """What has become of the room so far."""

    kicked_users: list[UserID] = []
    failed_to_kick_users: list[UserID] = []
    local_aliases: list[str] = []
    new_room_id: RoomID | None = None
    events_deleted: int = 0


class _AlreadyThere(MatrixError):
    """There is nothing to do."""


class Movers(msgspec.Struct, frozen=True):
    """How users come out of one room and into another."""

    leave: Leave
    timeline: Timeline
    creating: Creating
    version: RoomVersion  # of the room that they come into


class DeletionOrders:
    """Begins to delete rooms: whichever process of the server has time does it."""

    def __init__(self, db: Database, own_server: ServerName, clock: Clock, tasks: Tasks) -> None:
        self._db = db
        self._own_server = own_server
        self._clock = clock
        self._tasks = tasks

    async def start(self, requester: Requester, room_id: RoomID, wish: DeletionWish) -> str:
        """Begin to delete a room; the id of the task. Nobody of this server can enter from now on.

        Raises: NotFound; InvalidParam: it is being deleted already, or the user for the new room is not of here.
        """
        if wish.new_room_user_id is not None:
            user_id = UserID(wish.new_room_user_id)
            check_local(user_id, self._own_server)
            await self._db.read(get_account, user_id)

        def also(txn: WriteTxn) -> None:
            get_room(txn, room_id)
            under_way = (Status.SCHEDULED, Status.ACTIVE)
            if any(one.status in under_way for one in admin_tasks.list_tasks_of(txn, room_id, DELETE_ROOM)):
                raise InvalidParam("This room is being deleted already.")
            if wish.block:
                rooms.block_room(txn, room_id, requester.user_id, self._clock.now_ms())

        return await self._tasks.start(requester, DELETE_ROOM, room_id, wish, also)


class RoomDeletion:
    """Deletes rooms."""

    def __init__(
        self, db: Database, interner: Interner, clock: Clock, tasks: Tasks, movers: Movers, purge: RoomPurge
    ) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._tasks = tasks
        self._movers = movers
        self._purge = purge

    async def run(self, task: AdminTask) -> Shutdown:
        """Do the task. Raises: MatrixError, ProtocolFault when it cannot be done."""
        wish = msgspec.json.decode(task.wish, type=DeletionWish)
        done = msgspec.json.decode(task.result, type=Shutdown)
        room_id = RoomID(task.resource_id)
        room = await self._db.read(rooms.find_room, room_id)
        assert room is not None, "the rows of rooms are never deleted"
        if wish.new_room_user_id is not None and done.new_room_id is None:
            await self._open_new_room(task, wish, UserID(wish.new_room_user_id), done)
        if room.state_root or room.joined_count or room.invited_count:
            await self._move_users(task, room, wish, done)
            await self._move_aliases(task, room, done)
        if not wish.purge:
            return done
        if done.failed_to_kick_users and not wish.force_purge:
            raise InvalidParam(
                "Not everybody could be made to leave: force_purge deletes the room all the same."
            )
        await self._wait_until_told(room.room_nid)

        async def progress(deleted: int) -> None:
            done.events_deleted = before + deleted
            await self._tasks.note(task, done)

        before = done.events_deleted
        await self._purge.purge(room_id, room.room_nid, progress)
        return done

    async def _open_new_room(
        self, task: AdminTask, wish: DeletionWish, user_id: UserID, done: Shutdown
    ) -> None:
        """Make the room that says why; it is noted in the transaction that makes it."""
        host = act_as(await self._db.read(get_account, user_id))
        new_room = NewRoom(
            preset="private_chat",
            name=wish.room_name or DEFAULT_ROOM_NAME,
            power_level_content_override={"users_default": -10},
        )
        founder = await self._movers.creating.founder(host)
        drafts = build_drafts(new_room, founder, self._movers.version, (), None)
        message = {"msgtype": "m.text", "body": wish.message or DEFAULT_MESSAGE}
        drafts.append(Draft(sender=host.user_id, type="m.room.message", content=message))

        def note(txn: WriteTxn, room_nid: int) -> None:
            done.new_room_id = rooms.list_rooms(txn, (room_nid,))[room_nid].room_id
            encoded = msgspec.json.encode(done)
            admin_tasks.change_task(txn, task.task_id, Status.ACTIVE, encoded, self._clock.now_ms())

        await self._movers.timeline.create(self._movers.version, drafts, note)

    async def _move_users(
        self, task: AdminTask, room: rooms.Room, wish: DeletionWish, done: Shutdown
    ) -> None:
        """Let every user of this server leave; who is joined enters the new room before, if there is one."""
        present = await self._db.read(_list_present, self._interner, room.room_nid)
        known = {*done.kicked_users, *done.failed_to_kick_users}
        done.kicked_users += [
            one.user_id for one, is_joined in present if is_joined and one.user_id not in known
        ]
        done.failed_to_kick_users.clear()
        await self._tasks.note(task, done)
        for requester, is_joined in present:
            try:
                if is_joined and done.new_room_id is not None and wish.new_room_user_id is not None:
                    await self._bring(UserID(wish.new_room_user_id), requester.user_id, done.new_room_id)
                await self._movers.leave(requester, room.room_id)
            except (MatrixError, ProtocolFault) as error:
                log.warning("%s cannot be made to leave %s: %s", requester.user_id, room.room_id, error)
                done.failed_to_kick_users.append(requester.user_id)
            else:
                await self._db.write(memberships.forget_room, room.room_nid, requester.user_nid)
        failed = set(done.failed_to_kick_users)
        done.kicked_users = [user_id for user_id in done.kicked_users if user_id not in failed]
        await self._tasks.note(task, done)

    async def _bring(self, host: UserID, user_id: UserID, room_id: RoomID) -> None:
        member = ("m.room.member", user_id)

        def check(room: LiveRoom) -> None:
            if room.membership(user_id) == memberships.JOIN:
                raise _AlreadyThere("The user is in the new room.")

        drafts = [
            member_draft(sender, user_id, {"membership": membership})
            for sender, membership in ((host, "invite"), (user_id, "join"))
        ]
        with suppress(_AlreadyThere):
            await self._movers.timeline.send(room_id, drafts, check=check, needs=[member])

    async def _move_aliases(self, task: AdminTask, room: rooms.Room, done: Shutdown) -> None:
        def move(txn: WriteTxn) -> list[str]:
            named: list[str] = [one.alias for one in aliases.list_aliases(txn, room.room_nid)]
            new_room = None if done.new_room_id is None else rooms.find_room(txn, done.new_room_id)
            if new_room is not None:
                aliases.move_aliases(txn, room.room_nid, new_room.room_nid)
            return named

        done.local_aliases += await self._db.write(move)
        await self._tasks.note(task, done)

    async def _wait_until_told(self, room_nid: int) -> None:
        """Give other servers in the room the time to hear that our users have left."""
        own = await self._db.read(find_server_nids, self._interner, (self._interner.own_server,))
        deadline = self._clock.monotonic() + TELL_S
        while self._clock.monotonic() < deadline:
            if await self._db.read(is_told, room_nid, own.get(self._interner.own_server, 0)):
                return
            await self._clock.sleep(_LOOK_S)


def _list_present(txn: ReadTxn, interner: Interner, room_nid: int) -> Sequence[tuple[Requester, bool]]:
    """The users of this server who are joined, invited or knocking, and whether they are joined."""
    joined = set(memberships.list_local_members(txn, room_nid))
    nids = memberships.list_local_members(txn, room_nid, _PRESENT)
    names = list_user_ids(txn, interner, nids)
    return [
        (Requester(user_id=names[nid], user_nid=nid, device_id=None), nid in joined) for nid in sorted(nids)
    ]
