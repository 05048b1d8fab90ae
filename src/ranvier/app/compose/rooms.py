"""Rooms: sending into them; who is in them; how they are made and found."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.room_send import RoomSend
from ranvier.services.rooms.sending import Sending


def compose_rooms(foundation: Foundation) -> Composed:
    sending = Sending(foundation.ports.db, foundation.live, foundation.timeline)
    return Composed(endpoints=[RoomSend(sending)])
