"""Clients register themselves, without anybody's leave: so people are shown what they say, and their number is bounded.

Spec: client-server API, "Client registration"; RFC 7591.
"""

from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.oauth.client_metadata import Client, parse_client
from ranvier.io.clock import Clock
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.oauth_clients import (
    count_oauth_clients,
    evict_oauth_client,
    find_oauth_client,
    insert_oauth_client,
)

MAX_CLIENTS: Final = 10_000


class Clients:
    """Registers and finds them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def register(self, body: JsonObject) -> Client:
        """Raises: OAuthRefusal."""
        client = parse_client(body)
        await self._db.write(_register, client, self._clock.now_ms())
        return client

    async def find(self, client_id: str) -> Client | None:
        metadata = await self._db.read(find_oauth_client, client_id)
        return None if metadata is None else decode_client(metadata)


def decode_client(metadata: bytes) -> Client:
    """What `register` stored."""
    return msgspec.json.decode(metadata, type=Client)


def _register(txn: WriteTxn, client: Client, now_ms: int) -> None:
    client_id = client.client_id
    if find_oauth_client(txn, client_id) is None and count_oauth_clients(txn) >= MAX_CLIENTS:
        evict_oauth_client(txn)
    insert_oauth_client(txn, client_id, msgspec.json.encode(client), now_ms)
