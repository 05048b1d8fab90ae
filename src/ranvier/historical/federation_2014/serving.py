"""What peers may ask: PDUs, states, history, what they were sent, and queries.

Source: docs/federation-2014.md, "What may be asked".
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.errors import BadIdentifier, Forbidden, InvalidParam, NotFound, Unrecognized
from ranvier.core.identifiers import RoomAlias, UserID, parse_room_alias, parse_user_id, server_of
from ranvier.historical.federation_2014.naming import context_of
from ranvier.historical.federation_2014.peers import Peers
from ranvier.io.clock import Clock
from ranvier.services.accounts.profiles import Profiles
from ranvier.services.rooms.aliases import Aliases
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import historical_pdus as pdus
from ranvier.store.tables import historical_transactions as transactions
from ranvier.store.tables.historical_pdus import Name, StoredPdu

MAX_BACKFILL: Final = 100
MAX_STARTS: Final = 100
MAX_PULL: Final = 500
MAX_CONTEXT: Final = 10_000

PROFILE_FIELDS: Final = ("displayname", "avatar_url")


CatchUp = Callable[[str], Awaitable[None]]
"""Makes PDUs of what users of this server just did in the room of a context."""


class Serving:
    """Answers, as JSON."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        peers: Peers,
        profiles: Profiles,
        aliases: Aliases,
        catch_up: CatchUp,
    ) -> None:
        self._db = db
        self._clock = clock
        self._peers = peers
        self._profiles = profiles
        self._aliases = aliases
        self._catch_up = catch_up

    async def pdu(self, name: Name) -> bytes:
        """Raises: NotFound."""
        found = await self._db.read(pdus.find_pdu, name)
        if found is None:
            raise NotFound("There is no such PDU here.")
        return self._answer([found.json])

    async def state(self, context: str) -> bytes:
        """The state of a context now; of one that is not known here, nothing."""
        await self._catch_up(context)
        return self._answer([one.json for one in await self._db.read(pdus.list_state, context)])

    async def context(self, context: str) -> bytes:
        """All that is held of a context, in the order in which it came."""
        await self._catch_up(context)
        held = await self._db.read(pdus.list_context, context, MAX_CONTEXT)
        return self._answer([one.json for one in held])

    async def backfill(self, context: str, starts: Sequence[Name], limit: int) -> bytes:
        """PDUs and what came before them, generation by generation."""
        found = await self._db.read(read_backfill, context, starts[:MAX_STARTS], min(limit, MAX_BACKFILL))
        return self._answer([one.json for one in found])

    async def pull(self, origin: str, after: Sequence[str]) -> bytes:
        """What was sent to a peer after the newest of some transactions. Raises: Forbidden."""
        if not self._peers.is_peer(origin):
            raise Forbidden("This server speaks with configured peers alone.")
        return self._answer(
            await self._db.read(transactions.list_sent_after, origin, after[:MAX_STARTS], MAX_PULL)
        )

    async def query(self, query_type: str, args: dict[str, str]) -> JsonObject:
        """Raises: InvalidParam, NotFound, Unrecognized."""
        match query_type:
            case "profile":
                return await self._profile(args.get("user_id"), args.get("field"))
            case "directory":
                return await self._directory(args.get("room_alias"))
            case _:
                raise Unrecognized(f"No handler for Query type '{query_type[:100]}'")

    async def _profile(self, user_id: str | None, field: str | None) -> JsonObject:
        asked = _own_user(user_id, self._peers.own_server)
        if field is not None and field not in PROFILE_FIELDS:
            raise InvalidParam("field is displayname or avatar_url.")
        profile = await self._profiles.get(asked)
        return {one: profile.get(one) for one in PROFILE_FIELDS if field in (None, one)}

    async def _directory(self, alias: str | None) -> JsonObject:
        way = await self._aliases.resolve(_own_alias(alias, self._peers.own_server))
        return {"room_id": context_of(way.room_id), "servers": [self._peers.own_server]}

    def _answer(self, found: Sequence[bytes]) -> bytes:
        head = encode({"origin": self._peers.own_server, "ts": self._clock.now_ms()})
        return head[:-1] + b',"pdus":[' + b",".join(found) + b"]}"


def read_backfill(txn: ReadTxn, context: str, starts: Sequence[Name], limit: int) -> list[StoredPdu]:
    """The walk: the starts, then what they cite, then what that cites; each PDU once, those of one generation in
    the order of falling depth."""
    held = pdus.list_pdus(txn, starts)
    generation = [
        held[name]
        for name in dict.fromkeys(starts)
        if name in held and held[name].context == context and not held[name].is_outlier
    ]
    found: dict[int, StoredPdu] = {}
    while generation and len(found) < limit:
        for pdu in generation[: limit - len(found)]:
            found[pdu.pdu_nid] = pdu
        parents = {
            parent.pdu_nid: parent
            for parent in pdus.list_parents(txn, context, [pdu.pdu_nid for pdu in generation])
            if parent.pdu_nid not in found
        }
        generation = sorted(parents.values(), key=lambda pdu: (-pdu.depth, -pdu.pdu_nid))
    return list(found.values())


def parse_start(value: str) -> Name:
    """`pdu_id,origin`. Raises: InvalidParam."""
    pdu_id, comma, origin = value.partition(",")
    if not (pdu_id and comma and origin) or "\0" in value:
        raise InvalidParam("v has the form pdu_id,origin")
    return origin, pdu_id


def _own_user(user_id: str | None, own_server: str) -> UserID:
    try:
        asked = parse_user_id(user_id)
    except BadIdentifier as error:
        raise InvalidParam(f"user_id: {error}.") from error
    if server_of(asked) != own_server:
        raise InvalidParam("User is not hosted on this Home Server")
    return asked


def _own_alias(alias: str | None, own_server: str) -> RoomAlias:
    try:
        asked = parse_room_alias(alias)
    except BadIdentifier as error:
        raise InvalidParam(f"room_alias: {error}.") from error
    if server_of(asked) != own_server:
        raise InvalidParam("Room Alias is not hosted on this Home Server")
    return asked
