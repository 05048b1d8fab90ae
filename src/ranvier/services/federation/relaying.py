"""Events that other servers signed and that our rooms get through us: joins, leaves and knocks from outside, and
invites that the invited user's server signed. They are checked like any that is received, and sent on by us.
"""

from ranvier.core.canonical_json import parse_object
from ranvier.core.errors import Forbidden, InvalidParam
from ranvier.core.events.pdu import Pdu
from ranvier.core.room_versions import get_room_version
from ranvier.services.rooms.admission import Admission
from ranvier.services.rooms.checking import Checking, RoomRef
from ranvier.services.rooms.deciding import Case
from ranvier.services.rooms.policy_servers import PolicyServers
from ranvier.store.database import Database
from ranvier.store.tables.events import Status, list_known
from ranvier.store.tables.rooms import Room


class Relaying:
    """Takes them in."""

    def __init__(
        self, db: Database, checking: Checking, admission: Admission, policies: PolicyServers
    ) -> None:
        self._db = db
        self._checking = checking
        self._admission = admission
        self._policies = policies

    async def admit(self, room: Room, pdu: Pdu) -> None:
        """Make the event part of the room; nothing is done for one that is already. We ask the room's policy
        server for its signature: who comes from outside does not know of it.

        Raises: InvalidParam (a signature is missing or wrong); Forbidden (the room does not allow it, or it cites
        what is not here); what `PolicyServers.sign` raises.
        """
        ref = RoomRef(room.room_nid, room.room_id, get_room_version(room.version))
        (checked,) = await self._checking.check(ref, (parse_object(pdu.json),))
        if not isinstance(checked, Pdu):
            raise InvalidParam(f"The event is not what it should be: {checked}.")
        known = (await self._db.read(list_known, (pdu.event_id,))).get(pdu.event_id)
        if known is None or known.status.is_outlier:
            signed = await self._policies.sign(room.room_id, ref.version, (checked,))
            await self._admission.admit(Case(room=ref, pdus=signed, is_relayed=True))
            known = (await self._db.read(list_known, (pdu.event_id,))).get(pdu.event_id)
        if known is None or known.room_nid != room.room_nid or known.status is not Status.ACCEPTED:
            raise Forbidden("The room does not allow this.")
