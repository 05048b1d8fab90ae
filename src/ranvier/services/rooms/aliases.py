"""Room aliases: names that lead to a room. Spec: client-server API, "Room aliases"."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.select import CREATE, POWER_LEVELS
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import (
    AliasExists,
    AuthRejected,
    Forbidden,
    InvalidParam,
    MatrixError,
    NotFound,
    UserSuspended,
)
from ranvier.core.identifiers import (
    RoomAlias,
    RoomID,
    ServerName,
    UserID,
    parse_room_alias,
    parse_room_id,
    server_of,
)
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.access import access_joined
from ranvier.services.rooms.canonical_alias import CANONICAL_ALIAS
from ranvier.services.rooms.live import read_slots
from ranvier.services.rooms.sight import Sight
from ranvier.services.rooms.timeline import Draft, Timeline
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import aliases, memberships, rooms
from ranvier.store.tables.interned import Interner, list_server_names
from ranvier.store.tables.rooms import Room

MAX_SERVERS: Final = 100
"""Servers named as ways into a room."""


class ResolvedAlias(msgspec.Struct, frozen=True):
    """Where an alias leads, and which servers know the way in."""

    room_id: RoomID
    servers: Sequence[ServerName]


class AliasOwners(Protocol):
    """Those besides users who have aliases of their own: application services."""

    def check_alias(self, requester: Requester, alias: RoomAlias) -> None:
        """Raises: ExclusiveNamespace: the requester may not make or delete this alias."""

    def controls_alias(self, requester: Requester, alias: RoomAlias) -> bool:
        """Whether the alias is the requester's own to manage, whoever made it."""


SummonAlias = Callable[[RoomAlias], Awaitable[bool]]
"""Let an application service make an alias that is not known yet; whether it did. Raises: RequestTimeout."""

FetchAlias = Callable[[RoomAlias], Awaitable[ResolvedAlias]]
"""Ask an alias' own server where it leads. Raises: NotFound, BadGateway."""


class Aliases:
    """Aliases of this server, and where those of others lead."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        sight: Sight,
        timeline: Timeline,
        clock: Clock,
        fetch: FetchAlias,
        owners: AliasOwners,
        summon: SummonAlias,
    ) -> None:
        self._fetch = fetch
        self._owners = owners
        self._summon = summon
        self._db = db
        self._interner = interner
        self._sight = sight
        self._timeline = timeline
        self._clock = clock

    async def find_room(self, room_id_or_alias: str) -> RoomID:
        """The room that is named either way; whether it is known here is not asked.

        Raises: NotFound (no such alias); BadGateway; BadIdentifier.
        """
        return (await self.find_way(room_id_or_alias)).room_id

    async def find_way(self, room_id_or_alias: str) -> ResolvedAlias:
        """The same, with servers that are in the room where an alias tells them."""
        if not room_id_or_alias.startswith("#"):
            return ResolvedAlias(parse_room_id(room_id_or_alias), ())
        return await self.resolve(parse_room_alias(room_id_or_alias))

    async def resolve(self, alias: RoomAlias) -> ResolvedAlias:
        """Raises: NotFound; BadGateway; RequestTimeout: an application service does not answer."""
        if server_of(alias) != self._interner.own_server:
            return await self._fetch(alias)
        try:
            return await self._db.read(_resolve, self._interner, alias)
        except NotFound:
            if not await self._summon(alias):
                raise
        return await self._db.read(_resolve, self._interner, alias)

    async def create(self, requester: Requester, alias: RoomAlias, room_id: RoomID) -> None:
        """Let an alias lead to a room of the requester.

        Raises: InvalidParam (an alias of another server); AliasExists; Forbidden; UserSuspended;
        ExclusiveNamespace.
        """
        if requester.is_suspended:
            raise UserSuspended("This account is suspended: it may not name rooms.")
        if server_of(alias) != self._interner.own_server:
            raise InvalidParam(f"Aliases made here end in :{self._interner.own_server}.")
        if any(character.isspace() for character in alias):
            raise InvalidParam("An alias has no white space.")
        self._owners.check_alias(requester, alias)
        await self._db.write(_create, requester, alias, room_id, self._clock.now_ms())

    async def delete(self, requester: Requester, alias: RoomAlias) -> None:
        """Delete an alias, and take it out of the room's canonical aliases if the requester may do that.

        Who made the alias may, who may change the canonical alias, and administrators.

        Raises: NotFound; Forbidden; UserSuspended; ExclusiveNamespace.
        """
        if requester.is_suspended:
            raise UserSuspended("This account is suspended: it may not change rooms.")
        self._owners.check_alias(requester, alias)
        is_own = self._owners.controls_alias(requester, alias)
        room_id, canonical = await self._db.write(_delete, self._interner, requester, alias, is_own)
        if canonical is None:
            return
        draft = Draft(
            sender=requester.user_id, type="m.room.canonical_alias", state_key="", content=canonical
        )
        try:
            await self._timeline.send(room_id, [draft])
        except (AuthRejected, MatrixError):
            return  # the alias is gone all the same, as the specification recommends

    async def list_of_room(self, requester: Requester, room_id: RoomID) -> list[RoomAlias]:
        """The aliases of this server that lead to the room. Raises: Forbidden."""
        return await self._db.read(self._read_of_room, requester, room_id)

    def _read_of_room(self, txn: ReadTxn, requester: Requester, room_id: RoomID) -> list[RoomAlias]:
        room = rooms.find_room(txn, room_id)
        if room is None or not self._sight.is_world_readable(txn, room.state_root):
            room = access_joined(txn, room_id, requester.user_nid)
        return [one.alias for one in aliases.list_aliases(txn, room.room_nid)]


def may_set_canonical_alias(txn: ReadTxn, interner: Interner, room: Room, user_id: UserID) -> bool:
    """Whether the user is in the room with the power to send m.room.canonical_alias: the measure for who
    decides how the room is found."""
    version = get_room_version(room.version)
    member = ("m.room.member", user_id)
    state = read_slots(txn, interner, room.room_nid, room.room_id, version, (CREATE, POWER_LEVELS, member))
    own = state[member]
    if own is None or own.content.get("membership") != memberships.JOIN:
        return False
    power = PowerLevels.from_events(state[CREATE], state[POWER_LEVELS], version)
    return power.user_level(user_id) >= power.event_level("m.room.canonical_alias", is_state=True)


def _resolve(txn: ReadTxn, interner: Interner, alias: RoomAlias) -> ResolvedAlias:
    found = aliases.find_alias(txn, alias)
    if found is None:
        raise NotFound(f"There is no room with the alias {alias}.")
    room = rooms.list_rooms(txn, (found.room_nid,))[found.room_nid]
    nids = [nid for nid, _ in memberships.list_servers_in_room(txn, room.room_nid)[:MAX_SERVERS]]
    names = list_server_names(txn, interner, nids)
    # This server answers for the alias, so it is a way in while anybody of it is there.
    servers = sorted((names[nid] for nid in nids), key=lambda name: name != interner.own_server)
    return ResolvedAlias(room.room_id, servers)


def _create(txn: WriteTxn, requester: Requester, alias: RoomAlias, room_id: RoomID, now_ms: int) -> None:
    room = access_joined(txn, room_id, requester.user_nid)
    if not aliases.insert_alias(txn, alias, room.room_nid, requester.user_nid, now_ms):
        raise AliasExists(f"{alias} leads to a room already.")


def _delete(
    txn: WriteTxn, interner: Interner, requester: Requester, alias: RoomAlias, is_own: bool
) -> tuple[RoomID, JsonObject | None]:
    """The room, and what its canonical alias is to be, if it named the alias."""
    found = aliases.find_alias(txn, alias)
    if found is None:
        raise NotFound(f"There is no room with the alias {alias}.")
    room = rooms.list_rooms(txn, (found.room_nid,))[found.room_nid]
    if not (
        is_own
        or requester.is_admin
        or found.creator_user_nid == requester.user_nid
        or may_set_canonical_alias(txn, interner, room, requester.user_id)
    ):
        raise Forbidden("You may not delete this alias.")
    aliases.delete_alias(txn, alias)
    version = get_room_version(room.version)
    current = read_slots(txn, interner, room.room_nid, room.room_id, version, (CANONICAL_ALIAS,))
    event = current[CANONICAL_ALIAS]
    return room.room_id, None if event is None else _without(event.content, alias)


def _without(content: JsonObject, alias: RoomAlias) -> JsonObject | None:
    """The content without the alias; None if it did not name it."""
    changed = dict(content)
    if content.get("alias") == alias:
        del changed["alias"]
    alternatives = content.get("alt_aliases")
    if isinstance(alternatives, list) and alias in alternatives:
        changed["alt_aliases"] = [one for one in alternatives if one != alias]
    return changed if changed != content else None
