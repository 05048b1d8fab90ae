"""Being in rooms. Spec: client-server API, "Room membership"."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from ranvier.core.errors import MissingParam, ServerNotTrusted
from ranvier.core.identifiers import (
    RoomID,
    ServerName,
    UserID,
    parse_server_name,
    parse_user_id,
)
from ranvier.http.client.create_room import RoomIdAnswer
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.requester import Requester
from ranvier.services.rooms.aliases import Aliases
from ranvier.services.rooms.creating import NO_IDENTITY_SERVER
from ranvier.services.rooms.joining import Joining
from ranvier.services.rooms.membership import Membership


class ReasonBody(msgspec.Struct, frozen=True):
    reason: str | None = None


class JoinBody(ReasonBody, frozen=True):
    third_party_signed: dict[str, object] | None = None


class TargetBody(msgspec.Struct, frozen=True):
    user_id: str
    reason: str | None = None


class InviteBody(msgspec.Struct, frozen=True):
    """Either `user_id`, or what an invite by third-party identifier has instead."""

    user_id: str | None = None
    reason: str | None = None
    medium: str | None = None
    address: str | None = None


class JoinedRoomsAnswer(msgspec.Struct, frozen=True):
    joined_rooms: list[RoomID]


class RoomMembership:
    """The endpoints by which users come and go."""

    def __init__(self, membership: Membership, joining: Joining, aliases: Aliases) -> None:
        self._membership = membership
        self._joining = joining
        self._aliases = aliases

    @endpoint(
        "POST",
        "/_matrix/client/v3/rooms/{roomId}/join",
        operation="joinRoomById",
        rate=Rate.JOIN,
        guests=True,
    )
    async def join_room_by_id(self, request: Request) -> RoomIdAnswer:
        return await self._join(request, request.room_id, ())

    @endpoint(
        "POST",
        "/_matrix/client/v3/join/{roomIdOrAlias}",
        operation="joinRoom",
        rate=Rate.JOIN,
        guests=True,
    )
    async def join_room(self, request: Request) -> RoomIdAnswer:
        way = await self._aliases.find_way(request.path["roomIdOrAlias"])
        return await self._join(request, way.room_id, (*_servers(request), *way.servers))

    async def _join(self, request: Request, room_id: RoomID, servers: Sequence[ServerName]) -> RoomIdAnswer:
        body = request.body(JoinBody, empty_is_object=True)
        if body.third_party_signed is not None:
            raise ServerNotTrusted(NO_IDENTITY_SERVER)
        # COMPAT(synapse): clients put fields of their own into the member event this way.
        extra = {
            key: value
            for key, value in request.json(empty_is_object=True).items()
            if key not in JoinBody.__struct_fields__
        }
        await self._joining.join(request.requester, room_id, body.reason, servers, extra)
        return RoomIdAnswer(room_id)

    @endpoint(
        "POST",
        "/_matrix/client/v3/knock/{roomIdOrAlias}",
        operation="knockRoom",
        rate=Rate.JOIN,
    )
    async def knock_room(self, request: Request) -> RoomIdAnswer:
        way = await self._aliases.find_way(request.path["roomIdOrAlias"])
        body = request.body(ReasonBody, empty_is_object=True)
        servers = (*_servers(request), *way.servers)
        await self._joining.knock(request.requester, way.room_id, body.reason, servers)
        return RoomIdAnswer(way.room_id)

    @endpoint(
        "POST",
        "/_matrix/client/v3/rooms/{roomId}/invite",
        operation="inviteUser",
        rate=Rate.INVITE,
    )
    async def invite_user(self, request: Request) -> dict[str, object]:
        body = request.body(InviteBody)
        if body.user_id is None:
            if body.medium is None and body.address is None:
                raise MissingParam("user_id: whom to invite is missing.")
            raise ServerNotTrusted(NO_IDENTITY_SERVER)
        await self._membership.invite(
            request.requester,
            request.room_id,
            parse_user_id(body.user_id),
            body.reason,
        )
        return {}

    @endpoint(
        "POST",
        "/_matrix/client/v3/rooms/{roomId}/leave",
        operation="leaveRoom",
        rate=Rate.WRITE,
        guests=True,
    )
    async def leave_room(self, request: Request) -> dict[str, object]:
        body = request.body(ReasonBody, empty_is_object=True)
        await self._membership.leave(request.requester, request.room_id, body.reason)
        return {}

    @endpoint("POST", "/_matrix/client/v3/rooms/{roomId}/kick", operation="kick", rate=Rate.WRITE)
    async def kick(self, request: Request) -> dict[str, object]:
        return await _change(request, self._membership.kick)

    @endpoint("POST", "/_matrix/client/v3/rooms/{roomId}/ban", operation="ban", rate=Rate.WRITE)
    async def ban(self, request: Request) -> dict[str, object]:
        return await _change(request, self._membership.ban)

    @endpoint("POST", "/_matrix/client/v3/rooms/{roomId}/unban", operation="unban", rate=Rate.WRITE)
    async def unban(self, request: Request) -> dict[str, object]:
        return await _change(request, self._membership.unban)

    @endpoint("POST", "/_matrix/client/v3/rooms/{roomId}/forget", operation="forgetRoom", rate=Rate.WRITE)
    async def forget_room(self, request: Request) -> dict[str, object]:
        await self._membership.forget(request.requester, request.room_id)
        return {}

    @endpoint("GET", "/_matrix/client/v3/joined_rooms", operation="getJoinedRooms")
    async def get_joined_rooms(self, request: Request) -> JoinedRoomsAnswer:
        return JoinedRoomsAnswer(await self._membership.list_joined_rooms(request.requester))


def _servers(request: Request) -> list[ServerName]:
    """Through which servers to try; `server_name` is what `via` was called until v1.12."""
    query = request.query()
    return [parse_server_name(name) for name in (*query.all("via"), *query.all("server_name"))]


_Change = Callable[[Requester, RoomID, UserID, str | None], Awaitable[None]]


async def _change(request: Request, change: _Change) -> dict[str, object]:
    body = request.body(TargetBody)
    await change(request.requester, request.room_id, parse_user_id(body.user_id), body.reason)
    return {}
