"""Inviting users of other servers to our rooms: their server signs the invite before the room gets it.

Spec: server-server API, "Inviting to a room".
"""

import logging
from typing import Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.errors import BadGateway, BadJson, Forbidden, InviteBlocked, MatrixError, ProtocolFault
from ranvier.core.events.build import wire_json, with_signatures
from ranvier.core.events.parse import pdu_of_object
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID, server_of
from ranvier.core.room_versions import RoomVersion
from ranvier.io.ports import Misbehaved, RemoteFault
from ranvier.services.federation.admissions import read_shown_state
from ranvier.services.federation.relaying import Relaying
from ranvier.services.remote.requests import Ask, Refused, Requests, path_of
from ranvier.services.rooms.member_content import member_draft
from ranvier.services.rooms.timeline import Timeline
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import rooms
from ranvier.store.tables.interned import Interner

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0


class RemoteInviting:
    """Invites them."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        timeline: Timeline,
        requests: Requests,
        relaying: Relaying,
    ) -> None:
        self._db = db
        self._interner = interner
        self._timeline = timeline
        self._requests = requests
        self._relaying = relaying

    async def invite(self, sender: UserID, room_id: RoomID, invitee: UserID, content: JsonObject) -> EventID:
        """The room has the invite, and so has the user's server, when this returns.

        Raises: AuthRejected, Forbidden; InviteBlocked; BadGateway.
        """
        draft = member_draft(sender, invitee, content)
        invite, version = await self._timeline.build(room_id, draft)
        room, shown = await self._db.read(self._read_shown, room_id, sender)
        server = server_of(invitee)
        try:
            signed = await self._offer(server, invite, version, shown)
        except RemoteFault as fault:
            log.info("cannot invite %s: %s", invitee, fault)
            raise _explain(fault, invitee) from fault
        # The room may have moved on meanwhile: the invite is taken like one that comes from elsewhere.
        await self._relaying.admit(room, signed)
        return signed.event_id

    def _read_shown(self, txn: ReadTxn, room_id: RoomID, sender: UserID) -> tuple[rooms.Room, list[bytes]]:
        room = rooms.find_room(txn, room_id)
        if room is None:
            raise Forbidden("You are not in this room.")
        return room, read_shown_state(txn, self._interner, room, (("m.room.member", sender),))

    async def _offer(self, server: ServerName, invite: Pdu, version: RoomVersion, shown: list[bytes]) -> Pdu:
        """The invite with the signature of the invited user's server. Raises: RemoteFault."""
        content = b'{"event":%b,"invite_room_state":[%b],"room_version":%b}' % (
            invite.json,
            b",".join(shown),
            orjson.dumps(version.name),
        )
        try:
            body = await self._put(server, "v2", invite, content)
            event = _event_of(server, parse_object(body))
        except Refused as fault:
            # Only servers from before 2019 lack v2, and they know no newer rooms.
            if version.hash_event_ids or fault.status not in (400, 404):
                raise
            unsigned = {"invite_room_state": [parse_object(one) for one in shown]}
            body = await self._put(server, "v1", invite, wire_json(invite, unsigned))
            event = _event_of_v1(server, body)
        except BadJson as error:
            raise Misbehaved(f"{server} did not answer an invite with an object") from error
        return _with_signature_of(server, event, invite, version)

    async def _put(self, server: ServerName, api: str, invite: Pdu, content: bytes) -> bytes:
        path = path_of(f"/_matrix/federation/{api}/invite", invite.room_id, invite.event_id)
        # What is signed is the canonical form of the body.
        ask = Ask(
            method="PUT",
            path=path,
            content=encode(parse_object(content)),
            timeout_s=TIMEOUT_S,
            despite_standing=True,
        )
        return await self._requests.fetch(server, ask)


def _event_of(server: ServerName, answer: JsonObject) -> JsonObject:
    event = answer.get("event")
    if not isinstance(event, dict):
        raise Misbehaved(f"{server} did not give the invite back")
    return event


def _event_of_v1(server: ServerName, body: bytes) -> JsonObject:
    """Version 1 answers `[200, {"event": …}]`."""
    try:
        _, answer = msgspec.json.decode(body, type=tuple[int, msgspec.Raw])
        return _event_of(server, parse_object(bytes(answer)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadJson) as error:
        raise Misbehaved(f"{server} did not give the invite back") from error


def _with_signature_of(server: ServerName, event: JsonObject, invite: Pdu, version: RoomVersion) -> Pdu:
    """Raises: Misbehaved."""
    try:
        theirs = pdu_of_object(event, version)
        if theirs.event_id != invite.event_id:
            raise Misbehaved(f"{server} gave another event back than the invite")
        return with_signatures(invite, {server: theirs.signatures.get(server, {})})
    except ProtocolFault as error:
        raise Misbehaved(f"{server} gave back what is no event: {error}") from error


def _explain(fault: RemoteFault, invitee: UserID) -> MatrixError:
    if isinstance(fault, Refused) and fault.errcode == "M_INVITE_BLOCKED":
        return InviteBlocked(f"{invitee} does not want to be invited.")
    if isinstance(fault, Refused) and fault.status == 403:
        return Forbidden(f"The server of {invitee} does not accept the invite.")
    return BadGateway(f"{invitee} cannot be invited: the user's server cannot be reached, or refuses.")
