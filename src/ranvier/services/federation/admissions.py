"""Letting other servers' users into our rooms, hearing their knocks, and letting them go.

The event comes signed by its server, is checked like any other that is received, and is passed on to the
room's other servers by us.

Spec: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)".
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.auth.select import CREATE, JOIN_RULES
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, InvalidParam, ProtocolFault
from ranvier.core.events.build import countersign
from ranvier.core.events.parse import pdu_of_object
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, StateKey, UserID, server_of
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.core.signing import SigningKey
from ranvier.services.federation.gate import Gate
from ranvier.services.federation.offers import Offers
from ranvier.services.federation.relaying import Relaying
from ranvier.services.federation.sight import wire_forms
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, memberships, state
from ranvier.store.tables.edges import list_auth_chain
from ranvier.store.tables.interned import Interner, find_state_key_nids, list_server_names
from ranvier.store.tables.rooms import Room
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes

SHOWN_STATE: Final[tuple[StateKey, ...]] = (
    CREATE,
    JOIN_RULES,
    ("m.room.name", ""),
    ("m.room.avatar", ""),
    ("m.room.topic", ""),
    ("m.room.canonical_alias", ""),
    ("m.room.encryption", ""),
)
"""What somebody who is invited or knocks gets to see. Spec: client-server API, "Stripped state"."""

MAX_HEROES: Final = 5
_NAMES: Final[tuple[StateKey, ...]] = (("m.room.name", ""), ("m.room.canonical_alias", ""))
_AUTHORISED_VIA: Final = "join_authorised_via_users_server"


class Doorkeeper(msgspec.Struct, frozen=True):
    """Who vouches for restricted joins: this server, by its signature."""

    server: ServerName
    key: SigningKey


class Admissions:
    """Takes in the events that `Offers` offered."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        nodes: NodeCache,
        gate: Gate,
        offers: Offers,
        relaying: Relaying,
        doorkeeper: Doorkeeper,
    ) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._gate = gate
        self._offers = offers
        self._relaying = relaying
        self._doorkeeper = doorkeeper

    async def join(
        self,
        origin: ServerName,
        room_id: RoomID,
        event_id: EventID,
        event: JsonObject,
        *,
        omit_members: bool = False,
    ) -> bytes:
        """The room's state before the join, and what authorizes it; with `omit_members` of the room's members
        those alone that name a room without name, and nothing twice.

        Raises: InvalidParam (not such an event); NotFound, Forbidden; UnableToAuthoriseJoin.
        """
        await self._offers.settle(room_id)
        room = await self._db.read(self._gate.admit, origin, room_id)
        pdu = _parse(origin, room, event_id, event, "join")
        version = get_room_version(room.version)
        vouching = pdu.content.get(_AUTHORISED_VIA)
        if version.auth.restricted and isinstance(vouching, str) and self._is_own(vouching):
            # Whoever is let in once could bring the same event again: the conditions are asked for each time.
            await self._db.read(self._offers.check_condition, room, pdu.sender)
            pdu = countersign(pdu, version, self._doorkeeper.server, self._doorkeeper.key)
        servers = await self._db.read(self._read_servers, room)
        await self._relaying.admit(room, pdu)
        return await self._db.read(self._read_answer, room, pdu, servers, omit_members=omit_members)

    async def leave(self, origin: ServerName, room_id: RoomID, event_id: EventID, event: JsonObject) -> None:
        """Raises: InvalidParam, NotFound, Forbidden."""
        room = await self._db.read(self._gate.admit, origin, room_id)
        await self._relaying.admit(room, _parse(origin, room, event_id, event, "leave"))

    async def knock(self, origin: ServerName, room_id: RoomID, event_id: EventID, event: JsonObject) -> bytes:
        """What the knocking user is shown of the room. Raises: InvalidParam, NotFound, Forbidden."""
        room = await self._db.read(self._gate.admit, origin, room_id)
        await self._relaying.admit(room, _parse(origin, room, event_id, event, "knock"))
        shown = await self._db.read(read_shown_state, self._interner, room)
        return b'{"knock_room_state":[%b]}' % b",".join(shown)

    def _is_own(self, user_id: str) -> bool:
        return user_id.endswith(f":{self._doorkeeper.server}")

    def _read_servers(self, txn: ReadTxn, room: Room) -> list[ServerName]:
        nids = [nid for nid, _ in memberships.list_servers_in_room(txn, room.room_nid)]
        names = list_server_names(txn, self._interner, nids)
        return [names[nid] for nid in nids]

    def _read_answer(
        self, txn: ReadTxn, room: Room, join: Pdu, servers: list[ServerName], *, omit_members: bool
    ) -> bytes:
        record = events.list_events_by_id(txn, (join.event_id,))[join.event_id]
        root = record.state_root
        if root is None:
            raise Forbidden("The room does not allow this.")
        version = get_room_version(room.version)
        nids = list(state_map.to_dict(SnapshotNodes(txn, self._nodes), root).values())
        if omit_members:
            nids = self._without_members(txn, room, nids)
        cited = {known.event_nid for known in events.list_known(txn, join.auth_events).values()}
        chain = list_auth_chain(txn, {*nids, *cited}) | cited
        if omit_members:
            chain.difference_update(nids)
        stored = events.list_events(txn, {*nids, *chain})
        return (
            b'{"auth_chain":[%b],"event":%b,"members_omitted":%b,"origin":%b,"servers_in_room":%b,"state":[%b]}'
            % (
                b",".join(wire_forms([stored[nid] for nid in chain], version)),
                record.json,
                b"true" if omit_members else b"false",
                msgspec.json.encode(self._doorkeeper.server),
                msgspec.json.encode(servers),
                b",".join(wire_forms([stored[nid] for nid in nids], version)),
            )
        )

    def _without_members(self, txn: ReadTxn, room: Room, state_nids: Collection[int]) -> list[int]:
        """A state without its member events, but for those of the heroes in a room without name.

        Spec: `omit_members` of `PUT /send_join`.
        """
        kept = events.list_of_other_types(txn, state_nids, "m.room.member")
        names = find_state_key_nids(txn, self._interner, _NAMES)
        if not state.list_current_slots(txn, room.room_nid, names.values()):
            present = set(state_nids)
            for membership in (memberships.JOIN, memberships.INVITE):
                members = memberships.list_members(txn, room.room_nid, membership, MAX_HEROES + 1)
                kept += [nid for _, nid in members if nid in present]
        return kept


def read_shown_state(
    txn: ReadTxn, interner: Interner, room: Room, extra: tuple[StateKey, ...] = ()
) -> list[bytes]:
    """The events that show a room to somebody outside it, whole, with `extra` slots such as the inviter's member
    event."""
    slots = find_state_key_nids(txn, interner, (*SHOWN_STATE, *extra))
    filled = state.list_current_slots(txn, room.room_nid, slots.values())
    return wire_forms(events.list_events(txn, filled.values()).values(), get_room_version(room.version))


def parse_member_event(event: JsonObject, room_id: RoomID, event_id: EventID, version: RoomVersion) -> Pdu:
    """The event of a handshake. Raises: InvalidParam unless it is the member event that the path names."""
    try:
        pdu = pdu_of_object(event, version)
    except ProtocolFault as fault:
        raise InvalidParam(f"This is no event of room version {version.name}: {fault}.") from fault
    if pdu.room_id != room_id or pdu.event_id != event_id:
        raise InvalidParam("The event is another one than the path says.")
    if pdu.type != "m.room.member" or pdu.state_key is None:
        raise InvalidParam("The event is no m.room.member.")
    return pdu


def _parse(origin: ServerName, room: Room, event_id: EventID, event: JsonObject, membership: str) -> Pdu:
    """Raises: InvalidParam."""
    pdu = parse_member_event(event, room.room_id, event_id, get_room_version(room.version))
    if pdu.content.get("membership") != membership:
        raise InvalidParam(f"The membership of the event is not {membership}.")
    if pdu.state_key != pdu.sender or server_of(UserID(pdu.sender)) != origin:
        raise InvalidParam("The sender of the event is not a user of your server, or not its subject.")
    return pdu
