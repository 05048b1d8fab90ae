"""What another server's user would have to send to join, knock at or leave one of our rooms: a member event
without hashes and signatures, which that server completes.

Spec: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)",
"Restricted rooms".
"""

from collections.abc import Collection

import msgspec

from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.select import CREATE, JOIN_RULES, POWER_LEVELS, auth_keys_for
from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import (
    Forbidden,
    IncompatibleRoomVersion,
    NotFound,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
)
from ranvier.core.events.build import EventTemplate, Placement, encode_template
from ranvier.core.events.pdu import Pdu
from ranvier.core.hashes import reference_hash
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID, server_of
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.services.federation.gate import Gate
from ranvier.services.rooms.conditions import (
    RESTRICTED,
    find_authorising_user,
    join_rule_of,
    list_allowed_rooms,
)
from ranvier.services.rooms.doubts import Doubts
from ranvier.services.rooms.live import LiveRoom, LiveRooms, read_slots
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships
from ranvier.store.tables.interned import Interner, find_server_nids, find_user_nids
from ranvier.store.tables.rooms import Room, find_room

_PRESENT = (memberships.JOIN, memberships.INVITE)


class Offers:
    """Offers events to sign."""

    def __init__(
        self, db: Database, interner: Interner, live: LiveRooms, gate: Gate, doubts: Doubts, clock: Clock
    ) -> None:
        self._db = db
        self._interner = interner
        self._live = live
        self._gate = gate
        self._doubts = doubts
        self._clock = clock

    async def join(
        self, origin: ServerName, room_id: RoomID, user_id: UserID, versions: Collection[str]
    ) -> bytes:
        """`versions` are those that the other server knows.

        Raises: NotFound, Forbidden, AuthRejected; IncompatibleRoomVersion; UnableToAuthoriseJoin,
        UnableToGrantJoin (a restricted room that another server may let the user into).
        """
        _check_speaks_for(origin, user_id)
        await self.settle(room_id)
        authority = await self._db.read(self._read_join, origin, room_id, user_id, versions)
        content: JsonObject = {"membership": "join"}
        if authority is not None:
            content["join_authorised_via_users_server"] = authority
        return await self._offer(room_id, user_id, content)

    async def knock(
        self, origin: ServerName, room_id: RoomID, user_id: UserID, versions: Collection[str]
    ) -> bytes:
        """Raises: NotFound, Forbidden, AuthRejected; IncompatibleRoomVersion."""
        _check_speaks_for(origin, user_id)
        await self._db.read(self._read_room, origin, room_id, versions)
        return await self._offer(room_id, user_id, {"membership": "knock"})

    async def leave(self, origin: ServerName, room_id: RoomID, user_id: UserID) -> bytes:
        """Raises: NotFound, Forbidden, AuthRejected."""
        _check_speaks_for(origin, user_id)
        await self._db.read(self._gate.admit, origin, room_id)
        return await self._offer(room_id, user_id, {"membership": "leave"})

    async def settle(self, room_id: RoomID) -> None:
        """Before anybody is told the room's state. Raises: NotFound, where that cannot be told just now."""
        await self._doubts.settle(room_id)

    def check_condition(self, txn: ReadTxn, room: Room, user_id: UserID) -> None:
        """Make sure that the user may enter a restricted room by one of its conditions (or was invited).

        Raises: UnableToAuthoriseJoin when this server cannot tell; Forbidden.
        """
        self._find_condition(txn, room, user_id)

    def _read_room(
        self, txn: ReadTxn, origin: ServerName, room_id: RoomID, versions: Collection[str]
    ) -> Room:
        room = self._gate.admit(txn, origin, room_id)
        if room.version not in versions:
            raise IncompatibleRoomVersion(
                f"Your server does not know room version {room.version}.", room_version=room.version
            )
        return room

    def _read_join(
        self,
        txn: ReadTxn,
        origin: ServerName,
        room_id: RoomID,
        user_id: UserID,
        versions: Collection[str],
    ) -> UserID | None:
        """Who of here vouches for the join, if anybody has to."""
        room = self._read_room(txn, origin, room_id, versions)
        state = self._find_condition(txn, room, user_id)
        if state is None:
            return None
        authority = find_authorising_user(
            txn, self._interner, room.room_nid, state, get_room_version(room.version)
        )
        if authority is None:
            raise UnableToGrantJoin("Nobody of this server may invite you. Try another server.")
        return authority

    def _find_condition(
        self, txn: ReadTxn, room: Room, user_id: UserID
    ) -> dict[tuple[str, str], Pdu | None] | None:
        """The state that restricts the room, when the user fulfills a condition of it; None when no condition
        has to be fulfilled."""
        version = get_room_version(room.version)
        slots = (CREATE, POWER_LEVELS, JOIN_RULES)
        state = read_slots(txn, self._interner, room.room_nid, room.room_id, version, slots)
        join_rules = state[JOIN_RULES]
        if join_rule_of(join_rules) not in RESTRICTED or not version.auth.restricted:
            return None
        user_nid = find_user_nids(txn, self._interner, (user_id,)).get(user_id, 0)
        now = memberships.find_membership(txn, room.room_nid, user_nid)
        if now is not None and now.membership in _PRESENT:
            return None
        allowed = list_allowed_rooms(join_rules)
        known = [room_id for room_id in allowed if self._is_here(txn, room_id)]
        if not memberships.list_joined_among(txn, user_nid, known):
            if len(known) < len(allowed):
                raise UnableToAuthoriseJoin("This server is not in the rooms whose members may join.")
            raise Forbidden("You are in none of the rooms whose members may join.")
        return state

    def _is_here(self, txn: ReadTxn, room_id: RoomID) -> bool:
        """Whether this server is in a room, so that it knows who else is."""
        room = find_room(txn, room_id)
        own = self._interner.own_server
        nid = find_server_nids(txn, self._interner, (own,)).get(own)
        return room is not None and nid is not None and memberships.is_server_in_room(txn, room.room_nid, nid)

    async def _offer(self, room_id: RoomID, user_id: UserID, content: JsonObject) -> bytes:
        version = get_room_version((await self._find(room_id)).version.name)
        slots = auth_keys_for("m.room.member", user_id, user_id, content, version)
        # From here on, nothing else changes the room.
        room = await self._find(room_id, slots)
        authorizing = [pdu for slot in slots if (pdu := room.state(*slot)) is not None]
        self._check(room, user_id, content)
        template = EventTemplate(
            room_id=room_id, type="m.room.member", state_key=user_id, sender=user_id, content=content
        )
        offered = encode_template(template, self._place(room, authorizing), version)
        return b'{"event":%b,"room_version":%b}' % (offered, msgspec.json.encode(version.name))

    async def _find(self, room_id: RoomID, slots: Collection[tuple[str, str]] = ()) -> LiveRoom:
        room = await self._live.find(room_id, slots)
        if room is None:
            raise NotFound("This server is not in that room.")
        return room

    def _place(self, room: LiveRoom, authorizing: Collection[Pdu]) -> Placement:
        cited = () if room.version.hash_event_ids else (*room.heads, *authorizing)
        return Placement(
            prev_events=[head.event_id for head in room.heads],
            auth_events=[pdu.event_id for pdu in authorizing],
            depth=max((head.depth for head in room.heads), default=0) + 1,
            origin_server_ts=self._clock.now_ms(),
            reference_hashes={
                pdu.event_id: reference_hash(parse_object(pdu.json), room.version) for pdu in cited
            },
        )

    def _check(self, room: LiveRoom, user_id: UserID, content: JsonObject) -> None:
        """Whether the room would take the event. Raises: AuthRejected."""
        trial = Pdu(
            event_id=EventID("$trial"),
            room_id=room.room_id,
            sender=user_id,
            type="m.room.member",
            state_key=user_id,
            content=content,
            origin_server_ts=0,
            depth=0,
            prev_events=tuple(head.event_id for head in room.heads),
            auth_events=(),
            # We sign what we vouch for when it comes back.
            signatures={self._interner.own_server: {"ed25519:later": ""}},
            json=b"",
        )
        check_state_dependent(trial, room.state, room.version)


def _check_speaks_for(origin: ServerName, user_id: UserID) -> None:
    if server_of(user_id) != origin:
        raise Forbidden("Your server speaks for its own users only.")
