"""Invites that come for users of this server, to rooms that it mostly does not know.

Spec: server-server API, "Inviting to a room"; client-server API, "Invite permission".
"""

from collections.abc import Sequence

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import (
    Forbidden,
    IncompatibleRoomVersion,
    InvalidParam,
    InviteBlocked,
    UnsupportedRoomVersion,
)
from ranvier.core.events.build import countersign
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID, server_of
from ranvier.core.invite_permission import Verdict
from ranvier.core.limits import MAX_EVENT_FIELD_BYTES
from ranvier.core.room_versions import RoomVersion, get_federated_version
from ranvier.services.accounts.creation import SummonUsers
from ranvier.services.federation.admissions import Doorkeeper, parse_member_event
from ranvier.services.rooms.checking import Checking, RoomRef
from ranvier.services.rooms.elsewhere import Elsewhere, is_here, read_shown
from ranvier.services.rooms.permissions import read_invite_permission
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import rooms
from ranvier.store.tables.accounts import find_account_by_id
from ranvier.store.tables.interned import Interner


class Invitations:
    """Takes invites in."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        elsewhere: Elsewhere,
        checking: Checking,
        doorkeeper: Doorkeeper,
        summon: SummonUsers,
    ) -> None:
        self._summon = summon
        self._db = db
        self._interner = interner
        self._elsewhere = elsewhere
        self._checking = checking
        self._doorkeeper = doorkeeper

    async def invite(
        self,
        origin: ServerName,
        room_id: RoomID,
        event_id: EventID,
        room_version: str,
        event: JsonObject,
        shown: Sequence[object],
    ) -> bytes:
        """The invite with our signature: the user knows of it now.

        Args: shown - the state of the room that the user is to see, as it came.
        Raises: IncompatibleRoomVersion; InvalidParam; Forbidden, InviteBlocked.
        """
        try:
            version = get_federated_version(room_version)
        except UnsupportedRoomVersion as error:
            raise IncompatibleRoomVersion(
                "This server does not know the version of the room.",
                room_version=room_version[:MAX_EVENT_FIELD_BYTES],
            ) from error
        invite = self._parse(origin, room_id, event_id, version, event)
        ref = RoomRef(0, room_id, version)
        (checked,) = await self._checking.check(ref, (event,))
        if not isinstance(checked, Pdu):
            raise InvalidParam(f"The invite is not what it should be: {checked}.")
        state = await read_shown(self._checking, ref, shown)
        # Servers may demand that of older rooms, too, whose servers may still send stripped events. We do not.
        if version.auth.room_id_is_create_hash and not state.is_whole:
            raise InvalidParam(
                "invite_room_state lacks the create event, or has what is no event of the room."
            )
        await self._summon((UserID(str(invite.state_key)),))
        is_here = await self._db.read(self._check_welcome, invite)
        signed = countersign(invite, version, self._doorkeeper.server, self._doorkeeper.key)
        if not is_here:
            await self._elsewhere.record(signed, version, state.stripped)
        return signed.json

    def _parse(
        self, origin: ServerName, room_id: RoomID, event_id: EventID, version: RoomVersion, event: JsonObject
    ) -> Pdu:
        invite = parse_member_event(event, room_id, event_id, version)
        if invite.content.get("membership") != "invite":
            raise InvalidParam("The event is no invite.")
        if server_of(invite.sender) != origin:
            raise InvalidParam("The invite is not from a user of the server that sends it.")
        if not str(invite.state_key).endswith(f":{self._doorkeeper.server}"):
            raise InvalidParam("The invited user is not of this server.")
        return invite

    def _check_welcome(self, txn: ReadTxn, invite: Pdu) -> bool:
        """Whether this server is in the room, so that it gets the invite again as any other event.

        Raises: Forbidden, InviteBlocked.
        """
        check_welcome(txn, invite.sender, UserID(str(invite.state_key)), invite.room_id)
        room = rooms.find_room(txn, invite.room_id)
        return room is not None and is_here(txn, self._interner, room.room_nid)


def check_welcome(txn: ReadTxn, sender: UserID, user_id: UserID, room_id: RoomID) -> None:
    """Make sure that a user of this server may be invited to a room by `sender`.

    Raises: Forbidden, InviteBlocked.
    """
    account = find_account_by_id(txn, user_id)
    if account is None or account.deactivated_ms is not None:
        raise Forbidden("This user cannot be invited.")
    if rooms.is_blocked(txn, room_id):
        raise Forbidden("This server takes no part in that room.")
    if read_invite_permission(txn, account.user_nid).decide(sender) is Verdict.BLOCK:
        raise InviteBlocked("This user does not want to be invited.")
