"""What users of this server do in rooms that they are not in yet, where those are contexts of 2014: the ports by
which services reach other servers. Whatever is not of this protocol goes on to the ports of today.

Source: docs/federation-2014.md, "Joining", "Queries".
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadGateway, BadIdentifier, Forbidden, NotFound
from ranvier.core.identifiers import (
    EventID,
    RoomAlias,
    RoomID,
    ServerName,
    UserID,
    parse_server_name,
    server_of,
)
from ranvier.core.room_versions import get_room_version
from ranvier.historical.federation_2014.entering import Entering, Waiting, find_member
from ranvier.historical.federation_2014.events import INVITE_JOIN
from ranvier.historical.federation_2014.ledger import Ledger, parse_held
from ranvier.historical.federation_2014.naming import context_of, room_id_of
from ranvier.historical.federation_2014.outgoing import Outgoing
from ranvier.historical.federation_2014.pdu import BadPdu, OldPdu, make_pdu
from ranvier.historical.federation_2014.peers import Declined, Peers
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.io.randomness import Randomness
from ranvier.services.accounts.profiles import FetchProfile
from ranvier.services.rooms.aliases import FetchAlias, ResolvedAlias
from ranvier.services.rooms.member_content import member_draft
from ranvier.services.rooms.remote import AlreadyHere, RemoteRooms
from ranvier.services.rooms.timeline import Timeline
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import historical_contexts as contexts
from ranvier.store.tables import historical_pdus as pdus
from ranvier.store.tables import rooms
from ranvier.store.tables.historical_transactions import unqueue_pdu

log = logging.getLogger(__name__)

JOIN_TIMEOUT_S: Final = 10.0

ID_LENGTH: Final = 18

_MEMBER: Final = "m.room.member"


class Author:
    """Makes PDUs of users of this server that are none of a room's events."""

    def __init__(self, ledger: Ledger, clock: Clock, randomness: Randomness) -> None:
        self.ledger = ledger
        self.clock = clock
        self._randomness = randomness

    def make(
        self, txn: ReadTxn, context: str, pdu_type: str, content: JsonObject, more: JsonObject
    ) -> OldPdu:
        """Raises: BadPdu."""
        name = (self.ledger.server, self._randomness.text(ID_LENGTH))
        prev, depth = self.ledger.place(txn, context)
        return make_pdu(name, context, self.clock.now_ms(), pdu_type, content, prev, depth, more)


class BridgedRooms:
    """`RemoteRooms`, for both protocols."""

    def __init__(
        self,
        db: Database,
        author: Author,
        peers: Peers,
        outgoing: Outgoing,
        entering: Entering,
        waiting: Waiting,
        timeline: Timeline,
        rest: RemoteRooms,
    ) -> None:
        """`rest`: today's."""
        self._db = db
        self._author = author
        self._peers = peers
        self._outgoing = outgoing
        self._entering = entering
        self._waiting = waiting
        self._timeline = timeline
        self._rest = rest

    async def join(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        context = context_of(room_id)
        is_known, once = await self._db.read(self._read_known, room_id)
        for host in dict.fromkeys(server for server in (*servers, *once) if self._peers.is_peer(server)):
            try:
                state = await self._peers.fetch_state(host, context)
            except RemoteFault as fault:
                log.info("cannot join %s through %s: %s", context, host, fault)
                continue
            if state:
                return await self._join_through(host, context, state, user_id, content)
        if is_known:
            raise BadGateway("No server in this room can be reached.")
        return await self._rest.join(user_id, room_id, servers, content)

    async def join_through(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        return await self._rest.join_through(user_id, room_id, servers, content)

    async def settle(self, room_id: RoomID) -> bool:
        return await self._rest.settle(room_id)

    async def knock(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        is_known, _ = await self._db.read(self._read_known, room_id)
        if is_known:
            raise Forbidden("Nobody can knock at this room.")
        return await self._rest.knock(user_id, room_id, servers, content)

    async def leave(self, user_id: UserID, room_id: RoomID, content: JsonObject) -> bool:
        is_known, _ = await self._db.read(self._read_known, room_id)
        if not is_known:
            return await self._rest.leave(user_id, room_id, content)
        context = context_of(room_id)
        if await self._entering.is_in(context):
            return False
        return await self._decline(context, user_id, content)

    async def invite(self, sender: UserID, room_id: RoomID, invitee: UserID, content: JsonObject) -> EventID:
        is_known, _ = await self._db.read(self._read_known, room_id)
        if not is_known:
            return await self._rest.invite(sender, room_id, invitee, content)
        if not self._peers.is_peer(server_of(invitee)):
            raise BadGateway(f"{invitee} cannot be invited: that server is no peer of this one.")
        (event_id,) = await self._timeline.send(room_id, [member_draft(sender, invitee, content)])
        return event_id

    async def _join_through(
        self, host: ServerName, context: str, state: Sequence[OldPdu], user_id: UserID, content: JsonObject
    ) -> EventID:
        """The dance: ask `host` to let the user in, and wait for the join that it makes.

        Raises: Forbidden, BadGateway.
        """
        if await self._entering.is_in(context):
            raise AlreadyHere
        future = self._waiting.expect(context, user_id)
        try:
            there = next((pdu for pdu in state if _joins(pdu, user_id)), None)
            if there is not None:
                return await self._entering.enter(there, host)
            await self._ask(host, context, user_id, content)
            async with self._author.clock.timeout(JOIN_TIMEOUT_S):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise BadGateway("Unable to join remote room: its server does not let the user in.") from error
        except (RemoteFault, BadPdu) as error:
            raise BadGateway(f"Unable to join remote room: {error}.") from error
        finally:
            self._waiting.forget(context, user_id)

    async def _ask(self, host: ServerName, context: str, user_id: UserID, content: JsonObject) -> None:
        """Raises: Forbidden when the host says no; TimeoutError, and nothing is asked then."""
        pdu = await self._db.write(self._queue_request, host, context, user_id, content)
        try:
            async with self._author.clock.timeout(JOIN_TIMEOUT_S):
                reason = await self._outgoing.wait_for_result(host, pdu)
        except TimeoutError:
            await self._db.write(_take_back, host, pdu)
            raise
        if reason is not None:
            raise Forbidden(f"The server of the room does not let you in: {reason}.")

    def _queue_request(
        self, txn: WriteTxn, host: ServerName, context: str, user_id: UserID, content: JsonObject
    ) -> OldPdu:
        told: JsonObject = {key: content[key] for key in ("displayname", "avatar_url") if key in content}
        more: JsonObject = {"user_id": user_id, "target_host": host}
        asked: JsonObject = {**told, "membership": "join"}
        pdu = self._author.make(txn, context, INVITE_JOIN, asked, more)
        self._author.ledger.send_aside(txn, pdu, host)
        return pdu

    async def _decline(self, context: str, user_id: UserID, content: JsonObject) -> bool:
        held = await self._db.read(find_member, context, user_id)
        if held is None:
            return False
        invite = parse_held(held)
        membership = invite.content.get("membership")
        if membership == "ban":
            raise Forbidden("You are banned from this room.")
        if membership == "leave":
            return True
        more: JsonObject = {
            "user_id": user_id,
            "state_key": user_id,
            "prev_state_id": held.name[1],
            "prev_state_origin": held.name[0],
        }
        leave = await self._db.read(self._author.make, context, _MEMBER, content, more)
        await self._entering.record_leave(leave, invite.origin)
        self._outgoing.look()
        return True

    def _read_known(self, txn: ReadTxn, room_id: RoomID) -> tuple[bool, list[ServerName]]:
        """Whether the room is of this protocol, as far as anything is known of it, and who was in it."""
        room = rooms.find_room(txn, room_id)
        if room is None or get_room_version(room.version).is_federated:
            return False, []
        servers = [pdu.name[0] for pdu in pdus.list_state(txn, context_of(room_id))]
        joined = contexts.list_servers(txn, room.room_nid)
        return True, [ServerName(name) for name in dict.fromkeys((*sorted(joined), *servers))]


class BridgedQueries:
    """Aliases and profiles of peers, asked by this protocol first."""

    def __init__(self, peers: Peers, fetch_alias: FetchAlias, fetch_profile: FetchProfile) -> None:
        """The functions: today's."""
        self._peers = peers
        self._fetch_alias = fetch_alias
        self._fetch_profile = fetch_profile

    async def resolve(self, alias: RoomAlias) -> ResolvedAlias:
        """Raises: NotFound, BadGateway."""
        server = server_of(alias)
        if self._peers.is_peer(server):
            try:
                return self._way(await self._peers.query(server, "directory", room_alias=alias), server)
            except (RemoteFault, BadIdentifier) as fault:
                log.info("%s does not tell where %s leads: %s", server, alias, fault)
        return await self._fetch_alias(alias)

    async def profile(self, user_id: UserID) -> JsonObject:
        """Raises: NotFound, BadGateway."""
        server = server_of(user_id)
        if self._peers.is_peer(server):
            try:
                profile = await self._peers.query(server, "profile", user_id=user_id)
                return {key: value for key in _PROFILE if isinstance(value := profile.get(key), str)}
            except Declined as fault:
                if fault.status == 404:
                    raise NotFound("There is no such user.") from fault
                log.info("%s does not tell who %s is: %s", server, user_id, fault)
            except RemoteFault as fault:
                log.info("%s does not tell who %s is: %s", server, user_id, fault)
        return await self._fetch_profile(user_id)

    def _way(self, answer: JsonObject, server: ServerName) -> ResolvedAlias:
        """Raises: BadIdentifier."""
        context, named = answer.get("room_id"), answer.get("servers")
        room_id = (
            room_id_of(context, self._peers.own_server) if isinstance(context, str) and context else None
        )
        if room_id is None:
            raise BadIdentifier("the alias leads to no room")
        servers = [parse_server_name(name) for name in (named if isinstance(named, list) else [])[:100]]
        return ResolvedAlias(room_id, list(dict.fromkeys((server, *servers))))


_PROFILE: Final = ("displayname", "avatar_url")


def _joins(pdu: OldPdu, user_id: UserID) -> bool:
    return pdu.pdu_type == _MEMBER and pdu.state_key == user_id and pdu.content.get("membership") == "join"


def _take_back(txn: WriteTxn, host: ServerName, pdu: OldPdu) -> None:
    held = pdus.find_pdu(txn, pdu.name)
    if held is not None:
        unqueue_pdu(txn, host, held.pdu_nid)
