"""What other servers' directories say: where their aliases lead, and which rooms they publish.

Spec: server-server API, "Querying for information", "Published Room Directory".
"""

import asyncio
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.errors import BadGateway, BadIdentifier, NotFound
from ranvier.core.identifiers import RoomAlias, ServerName, parse_room_id, parse_server_name, server_of
from ranvier.io.ports import RemoteFault
from ranvier.services.remote.requests import Ask, Refused, Requests
from ranvier.services.rooms.aliases import MAX_SERVERS, ResolvedAlias
from ranvier.services.rooms.public_rooms import RoomsPage, RoomsWish
from ranvier.services.turns import ASKER, Turns
from ranvier.store.tables.directory import OWN_NETWORK

TIMEOUT_S: Final = 20.0
MAX_RESPONSE_BYTES: Final = 2 * 1_048_576

# No account is needed to ask.
AT_ONCE: Final = 50
ASKED_FOR_ONE: Final = 5
WAITING_FOR_ONE: Final = 50

_DIRECTORY: Final = "/_matrix/federation/v1/query/directory"
_PUBLIC_ROOMS: Final = "/_matrix/federation/v1/publicRooms"


class RemoteDirectories:
    """Asks other servers. Users wait for the answers."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._askers: Turns[str] = Turns(ASKED_FOR_ONE, WAITING_FOR_ONE)
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def resolve(self, alias: RoomAlias) -> ResolvedAlias:
        """Where an alias of another server leads. Raises: NotFound, BadGateway, LimitExceeded."""
        ask = Ask(
            method="GET",
            path=_DIRECTORY,
            query=[("room_alias", alias)],
            timeout_s=TIMEOUT_S,
            despite_standing=True,
        )
        server = server_of(alias)
        try:
            answer = await self._ask(server, ask)
            return _way(answer, server)
        except Refused as fault:
            if fault.status == 404:
                raise NotFound(f"There is no room with the alias {alias}.") from fault
            raise BadGateway(f"{server} does not tell where {alias} leads.") from fault
        except (RemoteFault, BadIdentifier) as fault:
            raise BadGateway(f"{server} cannot be asked where {alias} leads.") from fault

    async def list_rooms(self, server: ServerName, wish: RoomsWish) -> RoomsPage:
        """A page of the rooms that another server publishes. Raises: BadGateway, LimitExceeded."""
        content: JsonObject = {"limit": wish.limit, "include_all_networks": wish.networks is None}
        if wish.networks is not None and wish.networks != (OWN_NETWORK,):
            content["third_party_instance_id"] = wish.networks[0]
        if wish.since is not None:
            content["since"] = wish.since
        wanted: JsonObject = {}
        if wish.text is not None:
            wanted["generic_search_term"] = wish.text
        if wish.room_types is not None:
            wanted["room_types"] = list(wish.room_types)
        if wanted:
            content["filter"] = wanted
        ask = Ask(
            method="POST",
            path=_PUBLIC_ROOMS,
            content=encode(content),
            timeout_s=TIMEOUT_S,
            max_response_bytes=MAX_RESPONSE_BYTES,
            despite_standing=True,
        )
        try:
            answer = await self._ask(server, ask)
            return msgspec.convert({"total_room_count_estimate": 0, **answer}, RoomsPage)
        except (RemoteFault, msgspec.ValidationError) as fault:
            raise BadGateway(f"The directory of {server} cannot be reached.") from fault

    async def _ask(self, server: ServerName, ask: Ask) -> JsonObject:
        """Raises: RemoteFault, LimitExceeded."""
        async with self._askers.take(ASKER.get()), self._slots:
            return await self._requests.ask(server, ask)


def _way(answer: JsonObject, server: ServerName) -> ResolvedAlias:
    """Raises: BadIdentifier."""
    named = answer.get("servers")
    servers = [parse_server_name(name) for name in (named if isinstance(named, list) else [])[:MAX_SERVERS]]
    return ResolvedAlias(parse_room_id(answer.get("room_id")), servers or [server])
