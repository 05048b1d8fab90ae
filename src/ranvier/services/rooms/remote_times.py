"""Which event of a room is nearest to a time, as other servers of the room know it.

Spec: server-server API, `GET /timestamp_to_event/{roomId}`.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import EventID, RoomID, ServerName, parse_event_id
from ranvier.io.ports import RemoteFault
from ranvier.services.remote.requests import Ask, Requests, path_of
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships, rooms
from ranvier.store.tables.interned import Interner, list_server_names

MAX_SERVERS: Final = 3
TIMEOUT_S: Final = 10.0
_PATH: Final = "/_matrix/federation/v1/timestamp_to_event"


class TimedEvent(msgspec.Struct, frozen=True):
    event_id: EventID
    origin_server_ts: int  # ms


FetchNear = Callable[[RoomID, int, bool], Awaitable[TimedEvent | None]]
"""What the servers of a room say is nearest to a time (ms) after it (True) or before it. Raises nothing."""


async def fetch_nothing(room_id: RoomID, ts: int, forwards: bool) -> TimedEvent | None:
    """Where federation is off, nobody says anything."""
    return None


class RemoteTimes:
    """Asks them."""

    def __init__(self, db: Database, interner: Interner, requests: Requests) -> None:
        self._db = db
        self._interner = interner
        self._requests = requests

    async def fetch(self, room_id: RoomID, ts: int, forwards: bool) -> TimedEvent | None:
        """See `FetchNear`. The largest servers are asked, one after another until one knows."""
        for server in await self._db.read(self._read_servers, room_id):
            ask = Ask(
                method="GET",
                path=path_of(_PATH, room_id),
                query=(("ts", str(ts)), ("dir", "f" if forwards else "b")),
                timeout_s=TIMEOUT_S,
            )
            try:
                answer = await self._requests.ask(server, ask)
                event_id = parse_event_id(answer.get("event_id"))
            except (RemoteFault, BadIdentifier):
                continue
            told = answer.get("origin_server_ts")
            if type(told) is int and (told >= ts if forwards else told <= ts):
                return TimedEvent(event_id, told)
        return None

    def _read_servers(self, txn: ReadTxn, room_id: RoomID) -> list[ServerName]:
        room = rooms.find_room(txn, room_id)
        if room is None:
            return []
        nids = [nid for nid, _ in memberships.list_servers_in_room(txn, room.room_nid)[: MAX_SERVERS + 1]]
        names = list_server_names(txn, self._interner, nids)
        return [names[nid] for nid in nids if names[nid] != self._interner.own_server][:MAX_SERVERS]
