"""Other servers, as administrators see them."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from ranvier.core.errors import InvalidParam, NotFound
from ranvier.core.identifiers import RoomID, ServerName
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import destinations
from ranvier.store.tables.destinations import Destination
from ranvier.store.tables.interned import Interner, find_server_nids

ORDERS: Final = (
    "destination",
    "retry_last_ts",
    "retry_interval",
    "failure_ts",
    "last_successful_stream_ordering",
)

TryAgain = Callable[[ServerName], Awaitable[None]]
"""Ask a server that failed again now."""


class DestinationInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A server, with the names that Synapse gives its parts."""

    destination: ServerName
    retry_last_ts: int  # when it last failed; 0: it did not
    retry_interval: int
    failure_ts: int | None
    last_successful_stream_ordering: int | None


class SharedRoom(msgspec.Struct, frozen=True):
    room_id: RoomID
    stream_ordering: int


class DestinationPage(msgspec.Struct, frozen=True):
    destinations: list[DestinationInfo]
    total: int


class SharedRoomPage(msgspec.Struct, frozen=True):
    rooms: list[SharedRoom]
    total: int


class Destinations:
    """Looks servers up."""

    def __init__(self, db: Database, interner: Interner, try_again: TryAgain | None) -> None:
        """`try_again`: None where there is no federation."""
        self._db = db
        self._interner = interner
        self._try_again = try_again

    async def list_page(
        self, search_term: str | None, order: str, *, backwards: bool, limit: int, offset: int
    ) -> DestinationPage:
        """A page of those to which anything was ever sent, by one of ORDERS."""
        found = [
            _info(name, one)
            for name, one in await self._db.read(destinations.list_known_destinations, search_term)
        ]
        if order != "destination":
            found.sort(key=lambda one: getattr(one, order) or 0)
        if backwards:
            found.reverse()
        return DestinationPage(found[offset : offset + limit], len(found))

    async def get(self, server: ServerName) -> DestinationInfo:
        """Raises: NotFound: nothing was ever sent there."""
        return await self._db.read(self._read, server)

    async def list_rooms(
        self, server: ServerName, *, backwards: bool, limit: int, offset: int
    ) -> SharedRoomPage:
        """A page of the rooms that the server is in. Raises: NotFound."""

        def read(txn: ReadTxn) -> SharedRoomPage:
            self._read(txn, server)
            nid = find_server_nids(txn, self._interner, (server,))[server]
            found = destinations.list_rooms_with(txn, nid, backwards=backwards, limit=limit, offset=offset)
            total = destinations.count_rooms_with(txn, nid)
            return SharedRoomPage([SharedRoom(*one) for one in found], total)

        return await self._db.read(read)

    async def reset(self, server: ServerName) -> None:
        """Try a server that failed again now. Raises: NotFound; InvalidParam: it does not fail."""
        if (await self.get(server)).retry_interval == 0 or self._try_again is None:
            raise InvalidParam("This server is not being left alone.")
        await self._try_again(server)

    def _read(self, txn: ReadTxn, server: ServerName) -> DestinationInfo:
        nid = find_server_nids(txn, self._interner, (server,)).get(server)
        found = None if nid is None else destinations.list_destinations(txn, (nid,)).get(nid)
        if found is None:
            raise NotFound("Nothing was ever sent to this server.")
        return _info(server, found)


_NEVER: Final = 0


def _info(server: ServerName, one: Destination) -> DestinationInfo:
    is_failing = one.failing_since_ms is not None
    last_try_ms = max(one.retry_at_ms - one.retry_interval_ms, one.failing_since_ms or 0)
    return DestinationInfo(
        destination=server,
        retry_last_ts=last_try_ms if is_failing else _NEVER,
        retry_interval=one.retry_interval_ms if is_failing else 0,
        failure_ts=one.failing_since_ms,
        last_successful_stream_ordering=one.sent_position or None,
    )
