"""Rooms of other servers, in one: what `services.rooms` asks for by its port `RemoteRooms`."""

from collections.abc import Awaitable, Callable, Sequence

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.services.flows.remote_inviting import RemoteInviting
from ranvier.services.flows.remote_joining import RemoteJoining
from ranvier.services.flows.remote_knocking import RemoteKnocking
from ranvier.services.flows.remote_leaving import RemoteLeaving


class FederatedRooms:
    """Passes each call to the flow that does it."""

    def __init__(
        self,
        joining: RemoteJoining,
        knocking: RemoteKnocking,
        leaving: RemoteLeaving,
        inviting: RemoteInviting,
        settle: Callable[[RoomID], Awaitable[bool]],
    ) -> None:
        self._joining = joining
        self._knocking = knocking
        self._leaving = leaving
        self._inviting = inviting
        self._settle = settle

    async def join(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        return await self._joining.join(user_id, room_id, servers, content)

    async def join_through(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        return await self._joining.join_through(user_id, room_id, servers, content)

    async def settle(self, room_id: RoomID) -> bool:
        return await self._settle(room_id)

    async def knock(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        return await self._knocking.knock(user_id, room_id, servers, content)

    async def leave(self, user_id: UserID, room_id: RoomID, content: JsonObject) -> bool:
        return await self._leaving.leave(user_id, room_id, content)

    async def invite(self, sender: UserID, room_id: RoomID, invitee: UserID, content: JsonObject) -> EventID:
        return await self._inviting.invite(sender, room_id, invitee, content)
