"""What users do in rooms, and to users, of other servers: what this rank asks of those who can reach them."""

from collections.abc import Sequence
from typing import NoReturn, Protocol

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadGateway, Forbidden, NotFound
from ranvier.core.identifiers import EventID, RoomAlias, RoomID, ServerName, UserID


class AlreadyHere(Exception):
    """Meanwhile somebody else of this server has entered the room: it can be joined like any other."""


class RemoteRooms(Protocol):
    """Rooms that this server is not in, and users of other servers."""

    async def join(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        """Join through one of `servers`. Raises: MatrixError; AlreadyHere."""

    async def join_through(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        """Join a room that this server is in, but whose conditions only another one can vouch for.

        Raises: MatrixError.
        """

    async def settle(self, room_id: RoomID) -> bool:
        """Wait a moment for events of a room that have come and are being taken. False: there are none."""

    async def knock(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        """Raises: MatrixError."""

    async def leave(self, user_id: UserID, room_id: RoomID, content: JsonObject) -> bool:
        """Reject an invite or take a knock back. False: the room is here, or the user is nothing in it.

        Raises: Forbidden.
        """

    async def invite(self, sender: UserID, room_id: RoomID, invitee: UserID, content: JsonObject) -> EventID:
        """Invite a user of another server to a room of ours.

        Raises: MatrixError, AuthRejected.
        """


async def no_remote_alias(alias: RoomAlias) -> NoReturn:
    """Where federation is off, aliases of other servers lead nowhere."""
    raise NotFound(f"There is no room with the alias {alias}.")


async def no_remote_directory(server: ServerName, _wish: object) -> NoReturn:
    raise BadGateway(f"The directory of {server} cannot be reached: federation is off.")


class NoRemoteRooms:
    """Federation is off."""

    async def join(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        raise NotFound("This room is not known here.")

    async def join_through(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        raise Forbidden("Nobody of this server who is in the room may let you in.")

    async def settle(self, room_id: RoomID) -> bool:
        return False

    async def knock(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        raise NotFound("This room is not known here.")

    async def leave(self, user_id: UserID, room_id: RoomID, content: JsonObject) -> bool:
        return False

    async def invite(self, sender: UserID, room_id: RoomID, invitee: UserID, content: JsonObject) -> EventID:
        raise BadGateway(f"{invitee} cannot be invited: federation is off.")
