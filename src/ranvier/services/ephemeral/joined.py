"""The room that a user is joined to, or a refusal that tells nothing about it."""

from ranvier.core.errors import Forbidden
from ranvier.core.identifiers import RoomID, UserID
from ranvier.services.rooms.live import LiveRoom, LiveRooms


async def find_joined_room(live: LiveRooms, room_id: RoomID, user_id: UserID) -> LiveRoom:
    """The room, of which `user_id` is a joined member. Cost: no query for a room in use.

    Raises: Forbidden, in the same words for a room that is not known here.
    """
    room = await live.find(room_id, (("m.room.member", user_id),))
    if room is None or room.membership(user_id) != "join":
        raise Forbidden("You are not in this room.")
    return room
