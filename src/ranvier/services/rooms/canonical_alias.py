"""What m.room.canonical_alias may name: aliases that lead to its room.

Spec: client-server API, PUT /rooms/{roomId}/state/{eventType}/{stateKey}, m.room.canonical_alias.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadAlias, BadIdentifier, InvalidParam, MatrixError
from ranvier.core.identifiers import RoomAlias, RoomID, StateKey, parse_room_alias, server_of
from ranvier.core.room_versions import get_room_version
from ranvier.services.rooms.live import read_slots
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import aliases, rooms
from ranvier.store.tables.interned import Interner

CANONICAL_ALIAS: Final[StateKey] = ("m.room.canonical_alias", "")


FindRoom = Callable[[str], Awaitable[RoomID]]
"""The room to which an alias leads. Raises: MatrixError when it leads nowhere, or cannot be asked for."""

MAX_FOREIGN: Final = 10
"""New aliases of other servers in one event: each is asked for."""


class CanonicalAliases:
    """Checks canonical aliases before they are set."""

    def __init__(self, db: Database, interner: Interner, find_room: FindRoom) -> None:
        self._db = db
        self._interner = interner
        self._find_room = find_room

    async def check(self, room_id: RoomID, content: JsonObject) -> None:
        """Aliases that the room's event names already are not looked at.

        Raises: InvalidParam for what is no alias; BadAlias for one that leads elsewhere or nowhere.
        """
        named = list_named(content)
        if not named:
            return
        foreign = await self._db.read(_check, self._interner, room_id, named)
        if len(foreign) > MAX_FOREIGN:
            raise InvalidParam(f"At most {MAX_FOREIGN} aliases of other servers can be added at once.")
        for alias in foreign:
            if await self._find(alias) != room_id:
                raise BadAlias(f"{alias} does not lead to this room.")

    async def _find(self, alias: RoomAlias) -> RoomID | None:
        try:
            return await self._find_room(alias)
        except MatrixError:
            return None


def list_named(content: JsonObject) -> list[object]:
    """What the content names as alias or alternative alias, of whatever type. Raises: InvalidParam."""
    alternatives = content.get("alt_aliases")
    if alternatives is not None and not isinstance(alternatives, list):
        raise InvalidParam("alt_aliases must be an array.")
    alias = content.get("alias")
    return [*([] if alias in (None, "") else [alias]), *(alternatives or [])]


def _check(txn: ReadTxn, interner: Interner, room_id: RoomID, named: Collection[object]) -> list[RoomAlias]:
    """The new aliases that only other servers know; those of this server are checked."""
    room = rooms.find_room(txn, room_id)
    if room is None:
        return []  # sending the event will say so
    version = get_room_version(room.version)
    current = read_slots(txn, interner, room.room_nid, room_id, version, (CANONICAL_ALIAS,))[CANONICAL_ALIAS]
    known = [] if current is None else _list_known(current.content)
    foreign: list[RoomAlias] = []
    for alias in {_parse(one): None for one in named if one not in known}:
        if server_of(alias) != interner.own_server:
            foreign.append(alias)
            continue
        found = aliases.find_alias(txn, alias)
        if found is None or found.room_nid != room.room_nid:
            raise BadAlias(f"{alias} does not lead to this room.")
    return foreign


def _list_known(content: JsonObject) -> list[object]:
    """The same of content that another server may have written."""
    try:
        return list_named(content)
    except InvalidParam:
        return [content.get("alias")]


def _parse(alias: object) -> RoomAlias:
    try:
        return parse_room_alias(alias)
    except BadIdentifier as error:
        raise InvalidParam(f"m.room.canonical_alias: {error}.") from error
