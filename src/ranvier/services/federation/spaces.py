"""A space and its rooms, as far as another server's users could look into them.

Spec: server-server API, "Spaces".
"""

import msgspec

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import RoomID, ServerName
from ranvier.core.room_versions import get_room_version
from ranvier.services.rooms.elsewhere import is_here
from ranvier.services.rooms.hierarchy import TreeRoom, list_children, tree_room
from ranvier.services.rooms.room_summary import Summary, build_summary, list_allowed_rooms_of
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships, rooms
from ranvier.store.tables.interned import Interner, find_server_nids, find_user_nids
from ranvier.store.tables.rooms import Room, RoomSummary

_OPEN_DOORS = ("public", "knock", "knock_restricted")


class SpaceShown(msgspec.Struct, frozen=True):
    """The answer."""

    room: TreeRoom
    children: list[Summary]
    inaccessible_children: list[RoomID]  # known here, but not for the other server to see


class Spaces:
    """Shows spaces to servers."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def show(self, origin: ServerName, room_id: RoomID, *, suggested_only: bool) -> SpaceShown:
        """Raises: NotFound, also for a room that is not for the server to see."""
        return await self._db.read(self._read, origin, room_id, suggested_only=suggested_only)

    def _read(self, txn: ReadTxn, origin: ServerName, room_id: RoomID, *, suggested_only: bool) -> SpaceShown:
        room = rooms.find_room(txn, room_id)
        if room is None or not is_here(txn, self._interner, room.room_nid):
            raise NotFound("This room is not found.")
        summary = rooms.list_summaries(txn, (room.room_nid,)).get(room.room_nid, RoomSummary())
        if not self._may_see(txn, origin, room, summary):
            raise NotFound("This room is not found.")
        children = list_children(txn, room, summary, suggested_only=suggested_only)
        found = rooms.list_rooms_by_id(txn, [RoomID(child.slot[1]) for child in children])
        summaries = rooms.list_summaries(txn, [one.room_nid for one in found.values()])
        shown: list[Summary] = []
        hidden: list[RoomID] = []
        for one in found.values():
            if not is_here(txn, self._interner, one.room_nid):
                continue
            about = summaries.get(one.room_nid, RoomSummary())
            if self._may_see(txn, origin, one, about):
                allowed = list_allowed_rooms_of(txn, self._interner, one, about)
                shown.append(build_summary(one, about, allowed))
            else:
                hidden.append(one.room_id)
        return SpaceShown(tree_room(txn, self._interner, room, summary, children), shown, hidden)

    def _may_see(self, txn: ReadTxn, origin: ServerName, room: Room, summary: RoomSummary) -> bool:
        """Whether any of the server's users is in the room, or could come in or look in."""
        if not get_room_version(room.version).is_federated:
            return False
        if summary.history_visibility == "world_readable" or summary.join_rule in _OPEN_DOORS:
            return True
        nid = find_server_nids(txn, self._interner, (origin,)).get(origin)
        if nid is None:
            return False
        if memberships.is_server_in_room(txn, room.room_nid, nid):
            return True
        allowed = rooms.list_rooms_by_id(txn, list_allowed_rooms_of(txn, self._interner, room, summary))
        if any(memberships.is_server_in_room(txn, one.room_nid, nid) for one in allowed.values()):
            return True
        users = memberships.list_users_of_server(txn, room.room_nid, nid)
        nids = find_user_nids(txn, self._interner, users).values()
        known = memberships.list_memberships(txn, room.room_nid, nids).values()
        return any(one.membership == memberships.INVITE for one in known)
