"""Joining rooms, and knocking at them.

Spec: client-server API, "Joining rooms", "Knocking on rooms", "Restricted rooms", "Guest access".
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.auth.select import CREATE, JOIN_RULES, POWER_LEVELS
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, GuestAccessForbidden, MatrixError, UserSuspended
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, StateKey, UserID, server_of
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.services.requester import Requester
from ranvier.services.rooms.conditions import (
    RESTRICTED,
    find_authorising_user,
    join_rule_of,
    list_allowed_rooms,
    meets_condition,
)
from ranvier.services.rooms.elsewhere import is_here, list_here
from ranvier.services.rooms.live import LiveRoom, read_slots
from ranvier.services.rooms.member_content import member_content, member_draft
from ranvier.services.rooms.remote import AlreadyHere, RemoteRooms
from ranvier.services.rooms.succession import follow
from ranvier.services.rooms.timeline import Timeline
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import events, memberships, profiles, rooms
from ranvier.store.tables.interned import Interner, list_server_names, list_user_ids

MAX_OTHERS: Final = 5
"""Servers in a room, the largest first, that are asked to vouch for a user."""

_GUEST_ACCESS: Final[StateKey] = ("m.room.guest_access", "")
_AUTHORISED_VIA: Final = "join_authorised_via_users_server"


class Entrance(msgspec.Struct, frozen=True):
    """What decides about entering a room, as it is now."""

    membership: str | None  # of the user
    profile: Mapping[str, bytes]
    authorised_via: UserID | None  # who lets the user into a restricted room
    predecessor: RoomID | None  # the room that this one replaced
    is_here: bool  # whether this server is in the room
    servers: Sequence[ServerName]  # others that are in it: asked where this one cannot let the user in
    guesses: Sequence[ServerName] = ()  # others that may be: asked if the client names none
    needs_others: bool = False  # this server is in the room, but cannot vouch for the user


class Joining:
    """Lets users into rooms, through other servers where this one is not in them."""

    def __init__(self, db: Database, interner: Interner, timeline: Timeline, remote: RemoteRooms) -> None:
        self._db = db
        self._interner = interner
        self._timeline = timeline
        self._remote = remote

    async def join(
        self,
        requester: Requester,
        room_id: RoomID,
        reason: str | None = None,
        servers: Sequence[ServerName] = (),
        extra: JsonObject | None = None,
    ) -> None:
        """Join; whoever is joined already has nothing to do. `servers` are asked first if others have to be;
        `extra` goes into the content beside the user's profile.

        Raises: NotFound (no server knows the room); UserSuspended; GuestAccessForbidden; Forbidden, AuthRejected;
        BadGateway; IncompatibleRoomVersion, UnableToAuthoriseJoin, UnableToGrantJoin.
        """
        entrance = await self._enter(requester, room_id)
        if entrance.membership != memberships.JOIN or not entrance.is_here:
            content = {
                **member_content("join", entrance.profile, reason),
                **(extra or {}),
                "membership": "join",
            }
            entrance = _with_ways(entrance, servers)
            await self._join(requester, room_id, entrance, content)

    async def join_as(
        self,
        requester: Requester,
        room_id: RoomID,
        content: JsonObject,
        origin_server_ts: int | None = None,
    ) -> EventID:
        """Join, or change what the room sees of the user, with a content that the client wrote.

        Raises: as `join` does.
        """
        entrance = _with_ways(await self._enter(requester, room_id), ())
        return await self._join(requester, room_id, entrance, content, origin_server_ts)

    async def knock(
        self,
        requester: Requester,
        room_id: RoomID,
        reason: str | None = None,
        servers: Sequence[ServerName] = (),
    ) -> None:
        """Ask to be let in. `servers` are asked first if others have to be.

        Raises: NotFound (no server knows the room); UserSuspended; Forbidden, AuthRejected; BadGateway;
        IncompatibleRoomVersion.
        """
        entrance = await self._enter(requester, room_id)
        entrance = _with_ways(entrance, servers)
        content = member_content("knock", entrance.profile, reason)
        await self._knock(requester, room_id, entrance, content)

    async def knock_as(
        self,
        requester: Requester,
        room_id: RoomID,
        content: JsonObject,
        origin_server_ts: int | None = None,
    ) -> EventID:
        """The same with a content that the client wrote."""
        entrance = _with_ways(await self._enter(requester, room_id), ())
        return await self._knock(requester, room_id, entrance, content, origin_server_ts)

    async def list_guests(self, room_id: RoomID) -> list[UserID]:
        """The guest accounts of this server that are joined; none if the room is not known here."""
        return await self._db.read(_read_guests, self._interner, room_id)

    async def _join(
        self,
        requester: Requester,
        room_id: RoomID,
        entrance: Entrance,
        content: JsonObject,
        origin_server_ts: int | None = None,
    ) -> EventID:
        # Which user vouches is what this server answers for: no client may say it.
        content = {key: value for key, value in content.items() if key != _AUTHORISED_VIA}
        if not entrance.is_here or entrance.needs_others:
            return await self._join_elsewhere(requester, room_id, entrance, content)
        if entrance.authorised_via is not None:
            content[_AUTHORISED_VIA] = entrance.authorised_via

        def check(room: LiveRoom) -> None:
            if requester.is_guest and not _lets_guests_in(room.state(*_GUEST_ACCESS)):
                raise GuestAccessForbidden("Guests may not join this room.")

        draft = member_draft(requester.user_id, requester.user_id, content, origin_server_ts)
        (event_id,) = await self._timeline.send(room_id, [draft], check=check, needs=[_GUEST_ACCESS])
        if entrance.predecessor is not None and entrance.membership != memberships.JOIN:
            await self._db.write(_follow, requester.user_nid, entrance.predecessor, room_id)
        return event_id

    async def _join_elsewhere(
        self, requester: Requester, room_id: RoomID, entrance: Entrance, content: JsonObject
    ) -> EventID:
        if requester.is_guest:
            raise GuestAccessForbidden("Guests may not join rooms of other servers.")
        join = self._remote.join_through if entrance.is_here else self._remote.join
        try:
            event_id = await join(requester.user_id, room_id, entrance.servers, content)
        except MatrixError:
            # What lets the user in may have come here while another server was asked.
            now = await self._enter(requester, room_id)
            if not entrance.is_here or not now.is_here or now.needs_others:
                raise
            return await self._join(requester, room_id, now, content)
        except AlreadyHere:
            return await self._join(requester, room_id, await self._enter(requester, room_id), content)
        entered = await self._enter(requester, room_id)
        if entered.predecessor is not None:
            await self._db.write(_follow, requester.user_nid, entered.predecessor, room_id)
        return event_id

    async def _knock(
        self,
        requester: Requester,
        room_id: RoomID,
        entrance: Entrance,
        content: JsonObject,
        origin_server_ts: int | None = None,
    ) -> EventID:
        if not entrance.is_here:
            return await self._remote.knock(requester.user_id, room_id, entrance.servers, content)
        draft = member_draft(requester.user_id, requester.user_id, content, origin_server_ts)
        (event_id,) = await self._timeline.send(room_id, [draft])
        return event_id

    async def _enter(self, requester: Requester, room_id: RoomID) -> Entrance:
        if requester.is_suspended:
            raise UserSuspended("This account is suspended: it may not enter rooms.")
        entrance = await self._db.read(_read_entrance, self._interner, requester, room_id)
        if entrance.needs_others and await self._remote.settle(room_id):
            # What lets the user in had come already.
            entrance = await self._db.read(_read_entrance, self._interner, requester, room_id)
        return entrance


def _read_entrance(txn: ReadTxn, interner: Interner, requester: Requester, room_id: RoomID) -> Entrance:
    """Read from the tables, not from memory: what is refused here is refused for good."""
    if rooms.is_blocked(txn, room_id):
        raise Forbidden("This room is blocked on this server.")
    room = rooms.find_room(txn, room_id)
    own_profile = profiles.find_profile(txn, requester.user_nid)
    if room is None:
        return Entrance(None, own_profile, None, None, False, (), _list_namesakes(room_id))
    now = memberships.find_membership(txn, room.room_nid, requester.user_nid)
    membership = None if now is None else now.membership
    if not is_here(txn, interner, room.room_nid):
        inviters = _list_inviters(txn, interner, now)
        guesses = [*_list_others(txn, interner, room), *_list_namesakes(room_id)]
        return Entrance(membership, own_profile, None, None, False, inviters, guesses)
    summary = rooms.list_summaries(txn, (room.room_nid,)).get(room.room_nid)
    authority, needs_others = None, False
    if membership not in (memberships.JOIN, memberships.INVITE):
        version = get_room_version(room.version)
        authority, needs_others = _find_authority(txn, interner, requester, room, version)
    if room.is_partial and membership != memberships.JOIN:
        # Whether the user may enter, only those can tell who know what the user was there before.
        needs_others = True
    others = _list_others(txn, interner, room) if needs_others else []
    return Entrance(
        membership,
        own_profile,
        authority,
        None
        if summary is None or summary.predecessor_room_id is None
        else RoomID(summary.predecessor_room_id),
        True,
        others,
        needs_others=bool(others),
    )


def _with_ways(entrance: Entrance, servers: Sequence[ServerName]) -> Entrance:
    """With the servers that the client names, or else those that we can think of."""
    return msgspec.structs.replace(
        entrance, servers=[*servers, *entrance.servers, *(() if servers else entrance.guesses)]
    )


def _list_others(txn: ReadTxn, interner: Interner, room: rooms.Room) -> list[ServerName]:
    """Other servers in the room, or that were when this one left it; the largest first."""
    nids = [nid for nid, _ in memberships.list_servers_in_room(txn, room.room_nid)[: MAX_OTHERS + 1]]
    names = list_server_names(txn, interner, nids)
    return [names[nid] for nid in nids if names[nid] != interner.own_server]


def _list_inviters(txn: ReadTxn, interner: Interner, now: memberships.Membership | None) -> list[ServerName]:
    """The server of who invited the user, which was in the room then."""
    if now is None or now.membership != memberships.INVITE:
        return []
    invite = events.list_events(txn, (now.event_nid,))[now.event_nid]
    return [server_of(user_id) for user_id in list_user_ids(txn, interner, (invite.sender_nid,)).values()]


def _list_namesakes(room_id: RoomID) -> list[ServerName]:
    """The server where the room was made, which its id told until version 12."""
    return [server_of(room_id)] if ":" in room_id else []


def _follow(txn: WriteTxn, user_nid: int, predecessor_id: RoomID, room_id: RoomID) -> None:
    room = rooms.find_room(txn, room_id)
    predecessor = rooms.find_room(txn, predecessor_id)
    if room is None or predecessor is None:
        return
    # Only the rooms themselves together say that one follows the other: anybody can name a predecessor.
    closed = rooms.list_summaries(txn, (predecessor.room_nid,)).get(predecessor.room_nid)
    if closed is not None and closed.successor_room_id == room_id:
        follow(txn, user_nid, predecessor, room)


def _find_authority(
    txn: ReadTxn, interner: Interner, requester: Requester, room: rooms.Room, version: RoomVersion
) -> tuple[UserID | None, bool]:
    """Who of here vouches for the user, if the room is restricted; and whether only others could, because this
    server does not know that the user fulfills a condition, or has nobody who may invite."""
    state = read_slots(
        txn, interner, room.room_nid, room.room_id, version, (CREATE, POWER_LEVELS, JOIN_RULES)
    )
    join_rules = state[JOIN_RULES]
    if join_rule_of(join_rules) not in RESTRICTED or not version.auth.restricted:
        return None, False
    if not meets_condition(txn, requester.user_nid, join_rules):
        allowed = list_allowed_rooms(join_rules)
        here = list_here(txn, interner, rooms.list_rooms_by_id(txn, allowed).values())
        return None, len(here) < len(set(allowed))
    authority = find_authorising_user(txn, interner, room.room_nid, state, version)
    return authority, authority is None


def _read_guests(txn: ReadTxn, interner: Interner, room_id: RoomID) -> list[UserID]:
    room = rooms.find_room(txn, room_id)
    if room is None:
        return []
    nids = memberships.list_joined_guests(txn, room.room_nid)
    return list(list_user_ids(txn, interner, nids).values())


def _lets_guests_in(guest_access: Pdu | None) -> bool:
    return guest_access is not None and guest_access.content.get("guest_access") == "can_join"
