"""Invites by third-party identifier that become invites of users, once an identity server knows whose the
identifier is.

The identity server tells the invited user's server, which puts the invite into the room itself if it is there,
or has it made by the server of whoever invited. Nothing here is believed: the room's authorization rules hold
what the identity server signed against the keys in the room's m.room.third_party_invite.

Spec: server-server API, "Third-party invites".
"""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.auth.third_party import is_signed_by_any
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadGateway, Forbidden, InvalidParam, MatrixError, ProtocolFault
from ranvier.core.identifiers import RoomID, ServerName, StateKey, UserID, server_of
from ranvier.io.ports import RemoteFault
from ranvier.services.federation.gate import Gate
from ranvier.services.federation.invitations import check_welcome
from ranvier.services.flows.remote_inviting import RemoteInviting
from ranvier.services.remote.requests import Refused, Requests, path_of
from ranvier.services.rooms.live import LiveRooms
from ranvier.services.rooms.member_content import member_draft
from ranvier.services.rooms.timeline import Timeline
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships, rooms
from ranvier.store.tables.interned import Interner, find_server_nids

log = logging.getLogger(__name__)

MAX_INVITES: Final = 100
"""Of one notification."""

_PATH: Final = "/_matrix/federation/v1/exchange_third_party_invite"
_PRESENT: Final = ("join", "invite", "ban")


class Bound(msgspec.Struct, frozen=True):
    """An invite that waited at the identity server for its user to be known."""

    room_id: RoomID
    sender: UserID
    invitee: UserID
    signed: JsonObject  # by the identity server: mxid, token, signatures


class ThirdPartyInvites:
    """Makes such invites, or has them made."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        live: LiveRooms,
        timeline: Timeline,
        requests: Requests,
        inviting: RemoteInviting,
        gate: Gate,
    ) -> None:
        self._db = db
        self._interner = interner
        self._live = live
        self._timeline = timeline
        self._requests = requests
        self._inviting = inviting
        self._gate = gate

    async def exchange(self, origin: ServerName, bound: Bound) -> None:
        """Invite a user of another server on behalf of the user of this one who invited the identifier.

        Raises: NotFound, Forbidden, AuthRejected; InviteBlocked, BadGateway.
        """
        await self._db.read(self._gate.approach, origin, bound.room_id)
        if server_of(bound.invitee) != origin:
            raise Forbidden("Your server speaks for its own users only.")
        if server_of(bound.sender) != self._interner.own_server:
            raise Forbidden("The user who sent the third-party invite is of another server.")
        content = await self._build_content(bound)
        if content is not None:
            await self._inviting.invite(bound.sender, bound.room_id, bound.invitee, content)

    async def bind(self, invites: Sequence[Bound]) -> None:
        """A third-party identifier is known to be that of a user of this server, for whom invites waited.

        Those that cannot be are dropped, as the identity server could do nothing about them.
        Raises: InvalidParam (too many); BadGateway when a server could not be reached: it is worth telling again.
        """
        if len(invites) > MAX_INVITES:
            raise InvalidParam(f"More than {MAX_INVITES} invites.")
        is_unreached = False
        for bound in invites:
            try:
                await self._db.read(check_welcome, bound.sender, bound.invitee, bound.room_id)
                if await self._db.read(self._is_here, bound.room_id):
                    await self._invite_here(bound)
                else:
                    await self._ask_inviter(bound)
            except (MatrixError, ProtocolFault) as error:
                log.info("a third-party invite to %s comes to nothing: %s", bound.room_id, error)
            except RemoteFault as fault:
                log.info("cannot exchange a third-party invite to %s: %s", bound.room_id, fault)
                is_unreached = is_unreached or not (isinstance(fault, Refused) and 400 <= fault.status < 500)
        if is_unreached:
            raise BadGateway("The server of a user who invited cannot be reached.")

    async def _invite_here(self, bound: Bound) -> None:
        """The sender may be of another server: what the identity server signed stands in for its signature."""
        content = await self._build_content(bound)
        if content is not None:
            draft = member_draft(bound.sender, bound.invitee, content)
            await self._timeline.send(bound.room_id, [draft])

    async def _ask_inviter(self, bound: Bound) -> None:
        """Raises: RemoteFault."""
        event: JsonObject = {
            "content": {
                "membership": "invite",
                # Servers demand a name, and take that of the room's own event.
                "third_party_invite": {"display_name": "", "signed": bound.signed},
            },
            "room_id": bound.room_id,
            "sender": bound.sender,
            "state_key": bound.invitee,
            "type": "m.room.member",
        }
        await self._requests.put(server_of(bound.sender), path_of(_PATH, bound.room_id), event)

    async def _build_content(self, bound: Bound) -> JsonObject | None:
        """The content of the invite; None for a user who is in the room, invited or banned: what was signed once
        must not bring that back for ever.

        Raises: Forbidden unless the signature is of a key that the room knows for this invite.
        """
        offer_slot: StateKey = ("m.room.third_party_invite", str(bound.signed.get("token")))
        member_slot: StateKey = ("m.room.member", bound.invitee)
        room = await self._live.find(bound.room_id, (offer_slot, member_slot))
        offer = None if room is None else room.state(*offer_slot)
        if room is None or offer is None or bound.signed.get("mxid") != bound.invitee:
            raise Forbidden("The room holds no such third-party invite.")
        if not is_signed_by_any(bound.signed, offer.content):
            raise Forbidden("No key of the third-party invite signed this.")
        if room.membership(bound.invitee) in _PRESENT:
            return None
        name = offer.content.get("display_name")
        shown = {"display_name": name if isinstance(name, str) else "", "signed": bound.signed}
        return {"membership": "invite", "third_party_invite": shown}

    def _is_here(self, txn: ReadTxn, room_id: RoomID) -> bool:
        room = rooms.find_room(txn, room_id)
        own = self._interner.own_server
        nid = find_server_nids(txn, self._interner, (own,)).get(own)
        return room is not None and nid is not None and memberships.is_server_in_room(txn, room.room_nid, nid)
