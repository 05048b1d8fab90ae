"""Which servers may ask about a room, or take part in it: those in it, unless its server ACL shuts them out.

Spec: server-server API, "Server Access Control Lists (ACLs)".
"""

from typing import Final

from ranvier.core.errors import Forbidden, NotFound
from ranvier.core.identifiers import RoomID, ServerName, StateKey
from ranvier.core.room_versions import get_room_version
from ranvier.core.server_acl import ServerAcl, parse_server_acl
from ranvier.services.recent import Recent
from ranvier.services.rooms.live import pdu_of
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, memberships, rooms, state
from ranvier.store.tables.interned import Interner, find_server_nids, find_state_key_nids

MAX_ACL_BYTES: Final = 4 * 1024 * 1024
"""Of the events whose ACLs are kept compiled, all together; compiled they take four times as much."""

_ACL: Final[StateKey] = ("m.room.server_acl", "")


class Gate:
    """Its functions run in read transactions, on any thread."""

    def __init__(self, interner: Interner) -> None:
        self._interner = interner
        # By event_nid: what an event says never changes.
        self._acls: Recent[int, ServerAcl] = Recent(MAX_ACL_BYTES)

    def enter(self, txn: ReadTxn, origin: ServerName, room_id: RoomID) -> rooms.Room:
        """The room, for a server that is in it.

        Raises: Forbidden. The words are the same for a room that is not known here: who is not in it learns
        nothing.
        """
        room = rooms.find_room(txn, room_id)
        if room is None or not self._is_in(txn, origin, room):
            raise Forbidden("Your server is not in this room.")
        self._check_acl(txn, origin, room)
        return room

    def approach(self, txn: ReadTxn, origin: ServerName, room_id: RoomID) -> rooms.Room:
        """The room, for a server that need not be in it: this one is, and can let others in.

        Raises: NotFound, Forbidden.
        """
        room = rooms.find_room(txn, room_id)
        if (
            room is None
            or not self._is_in(txn, self._interner.own_server, room)
            or not get_room_version(room.version).is_federated
        ):
            raise NotFound("This server is not in that room.")
        if rooms.is_blocked(txn, room_id):
            raise Forbidden("This room is blocked on this server.")
        self._check_acl(txn, origin, room)
        return room

    def admit(self, txn: ReadTxn, origin: ServerName, room_id: RoomID) -> rooms.Room:
        """The same, where this server also knows the room well enough to let others in or out.

        Raises: NotFound, Forbidden.
        """
        room = self.approach(txn, origin, room_id)
        if room.is_partial:
            # Not Forbidden: the others are to be asked.
            raise NotFound("This server does not know that room well enough yet.")
        return room

    def _is_in(self, txn: ReadTxn, server: ServerName, room: rooms.Room) -> bool:
        nid = find_server_nids(txn, self._interner, (server,)).get(server)
        return nid is not None and memberships.is_server_in_room(txn, room.room_nid, nid)

    def _check_acl(self, txn: ReadTxn, origin: ServerName, room: rooms.Room) -> None:
        slot = find_state_key_nids(txn, self._interner, (_ACL,)).get(_ACL)
        if slot is None:
            return
        event_nid = state.list_current_slots(txn, room.room_nid, (slot,)).get(slot)
        if event_nid is not None and not self._acl(txn, room, event_nid).allows(origin):
            raise Forbidden("The room's access control list does not let your server take part.")

    def _acl(self, txn: ReadTxn, room: rooms.Room, event_nid: int) -> ServerAcl:
        acl = self._acls.get(event_nid)
        if acl is None:
            record = events.list_events(txn, (event_nid,))[event_nid]
            acl = parse_server_acl(pdu_of(record, room.room_id, get_room_version(room.version)).content)
            if record.redacted_by is None:
                self._acls.keep(event_nid, acl, len(record.json))
        return acl
