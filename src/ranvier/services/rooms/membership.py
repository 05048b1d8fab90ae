"""Who is what in a room that this server knows: inviting, leaving, kicking, banning, forgetting.

What the room's own rules say is decided where the event is built; here stands what the endpoints say besides.
Spec: client-server API, "Room membership".
"""

from collections.abc import Collection
from contextlib import suppress
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import CannotLeaveServerNoticeRoom, Forbidden, MatrixError, NotFound, UserSuspended
from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.services.requester import Requester
from ranvier.services.rooms.inviting import Inviting
from ranvier.services.rooms.live import LiveRoom
from ranvier.services.rooms.member_content import member_content, member_draft
from ranvier.services.rooms.remote import RemoteRooms
from ranvier.services.rooms.timeline import Check, Timeline
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import account_data, memberships, notice_rooms, rooms

_PRESENT: Final = ("join", "invite", "knock")


class NothingToDo(MatrixError):
    """The room is already as it was to become."""


class Membership:
    """Changes of membership but for joining and knocking, which are `Joining`."""

    def __init__(self, db: Database, timeline: Timeline, inviting: Inviting, remote: RemoteRooms) -> None:
        self._db = db
        self._timeline = timeline
        self._inviting = inviting
        self._remote = remote

    async def invite(
        self, requester: Requester, room_id: RoomID, user_id: UserID, reason: str | None = None
    ) -> None:
        """Raises: Forbidden, AuthRejected; what `Inviting.check` raises."""
        extra = {} if reason is None else {"reason": reason}
        await self._inviting.invite(requester, room_id, user_id, extra)

    async def leave(self, requester: Requester, room_id: RoomID, reason: str | None = None) -> None:
        """Leave, reject an invite or take a knock back. Who has left has nothing to do.

        Raises: Forbidden, AuthRejected; CannotLeaveServerNoticeRoom: it is an invite of the server itself.
        """

        def check(room: LiveRoom) -> None:
            membership = room.membership(requester.user_id)
            if membership == "leave":
                raise NothingToDo("You have left this room.")
            if membership not in _PRESENT:
                raise Forbidden("You are not in this room.")

        await self._check_may_leave(requester, room_id)
        content = member_content("leave", reason=reason)
        if await self._remote.leave(requester.user_id, room_id, content):
            return
        with suppress(NothingToDo):
            await self._send(requester, room_id, requester.user_id, content, check)

    async def kick(
        self, requester: Requester, room_id: RoomID, user_id: UserID, reason: str | None = None
    ) -> None:
        """Make somebody else leave. Raises: Forbidden (also if they are not in the room), AuthRejected."""
        await self._change(
            requester, room_id, user_id, "leave", reason, _PRESENT, f"{user_id} is not in the room."
        )

    async def ban(
        self, requester: Requester, room_id: RoomID, user_id: UserID, reason: str | None = None
    ) -> None:
        """Raises: Forbidden, AuthRejected."""
        await self._send(requester, room_id, user_id, member_content("ban", reason=reason))

    async def unban(
        self, requester: Requester, room_id: RoomID, user_id: UserID, reason: str | None = None
    ) -> None:
        """Raises: Forbidden (also if they are not banned), AuthRejected."""
        await self._change(
            requester, room_id, user_id, "leave", reason, ("ban",), f"{user_id} is not banned."
        )

    async def set(
        self,
        requester: Requester,
        room_id: RoomID,
        user_id: UserID,
        content: JsonObject,
        origin_server_ts: int | None = None,
    ) -> EventID:
        """Send a member event as a client wrote it: any but an invite to, or a join of the room.

        Raises: Forbidden, AuthRejected; CannotLeaveServerNoticeRoom.
        """
        if user_id == requester.user_id and content.get("membership") == "leave":
            await self._check_may_leave(requester, room_id)
        return await self._send(requester, room_id, user_id, content, origin_server_ts=origin_server_ts)

    async def forget(self, requester: Requester, room_id: RoomID) -> None:
        """Hide a room that the user has left, with what the user kept about it.

        Raises: MatrixError (400) when the user has not left it; NotFound when the user was never anything in it.
        """
        await self._db.write(_forget, requester.user_nid, room_id)

    async def _check_may_leave(self, requester: Requester, room_id: RoomID) -> None:
        """Raises: CannotLeaveServerNoticeRoom. Spec: client-server API, "Server Notices"."""
        if await self._db.read(notice_rooms.is_notice_invite, requester.user_nid, room_id):
            raise CannotLeaveServerNoticeRoom("This is where the server tells you what you have to know.")

    async def list_joined_rooms(self, requester: Requester) -> list[RoomID]:
        """The rooms that the user is joined to."""
        return await self._db.read(_read_joined_rooms, requester.user_nid)

    async def _change(
        self,
        requester: Requester,
        room_id: RoomID,
        user_id: UserID,
        membership: str,
        reason: str | None,
        expected: Collection[str],
        otherwise: str,
    ) -> None:
        def check(room: LiveRoom) -> None:
            # Whether somebody is in the room is told to its members only.
            if room.membership(requester.user_id) != "join":
                raise Forbidden("You are not in this room.")
            if room.membership(user_id) not in expected:
                raise Forbidden(otherwise)

        content = member_content(membership, reason=reason)
        await self._send(requester, room_id, user_id, content, check)

    async def _send(
        self,
        requester: Requester,
        room_id: RoomID,
        user_id: UserID,
        content: JsonObject,
        check: Check | None = None,
        *,
        origin_server_ts: int | None = None,
    ) -> EventID:
        is_leaving = user_id == requester.user_id and content.get("membership") == "leave"
        if requester.is_suspended and not is_leaving:
            raise UserSuspended("This account is suspended: it may do nothing in a room but leave.")
        draft = member_draft(requester.user_id, user_id, content, origin_server_ts)
        (event_id,) = await self._timeline.send(room_id, [draft], check=check)
        return event_id


def _forget(txn: WriteTxn, user_nid: int, room_id: RoomID) -> None:
    room = rooms.find_room(txn, room_id)
    membership = None if room is None else memberships.find_membership(txn, room.room_nid, user_nid)
    if room is None or membership is None:
        raise NotFound("You were never in this room.")
    if membership.membership in _PRESENT:
        raise MatrixError("Leave the room first: only then can you forget it.")
    memberships.forget_room(txn, room.room_nid, user_nid)
    account_data.delete_account_data_of_room(txn, user_nid, room.room_nid)


def _read_joined_rooms(txn: ReadTxn, user_nid: int) -> list[RoomID]:
    nids = [one.room_nid for one in memberships.list_rooms_of_user(txn, user_nid)]
    return [room.room_id for room in rooms.list_rooms(txn, nids).values()]
