"""The directories of rooms that application services keep, one for each network of theirs.

Spec: application service API, "Published room directories".
"""

from typing import Final

from ranvier.core.errors import Forbidden, InvalidParam, NotFound
from ranvier.core.identifiers import RoomID
from ranvier.services.appservices.third_party import instance_id
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import directory, rooms

MAX_NETWORK_CHARS: Final = 255


class NetworkDirectories:
    """Publishes rooms. Who reads them names the instance of the network (`third_party_instance_id`)."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def publish(
        self, requester: Requester, network_id: str, room_id: RoomID, *, is_published: bool
    ) -> None:
        """Show a room in the requester's directory of a network, or show it no longer.

        Raises: Forbidden (no application service), NotFound (no such room), InvalidParam.
        """
        if requester.appservice_id is None:
            raise Forbidden("Only an application service may do this.")
        if not network_id or len(network_id) > MAX_NETWORK_CHARS or "\0" in network_id:
            raise InvalidParam(f"A network id has 1 to {MAX_NETWORK_CHARS} characters.")
        network = instance_id(requester.appservice_id, network_id)
        await self._db.write(_publish, room_id, network, is_published)


def _publish(txn: WriteTxn, room_id: RoomID, network: str, is_published: bool) -> None:
    room = rooms.find_room(txn, room_id)
    if room is None:
        raise NotFound("This room is not known here.")
    change = directory.publish_room if is_published else directory.hide_room
    change(txn, room.room_nid, network)
