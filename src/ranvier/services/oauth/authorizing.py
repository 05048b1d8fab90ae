"""A person agrees to what a client asks for: a code goes to the client.

Spec: RFC 6749, 4.1.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID
from ranvier.core.oauth.authorization import (
    AuthorizationRequest,
    Destination,
    parse_destination,
    parse_request,
)
from ranvier.core.oauth.client_metadata import Client
from ranvier.core.oauth.refusals import OAuthRefusal, invalid_request
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.oauth.addresses import Addresses
from ranvier.services.oauth.browsers import Person
from ranvier.services.oauth.clients import Clients
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.devices import find_device
from ranvier.store.tables.oauth_clients import touch_oauth_client
from ranvier.store.tables.oauth_codes import Code, insert_code
from ranvier.store.tables.tokens import hash_token

CODE_LIFETIME_MS: Final = 120_000


class Replaced(msgspec.Struct, frozen=True):
    """A session that a new one takes the place of."""

    device_id: DeviceID
    display_name: str | None


class Mistaken(Exception):
    """A request that cannot be agreed to. Its client may be told where it is sure who that is."""

    def __init__(self, refusal: OAuthRefusal, client: Client, destination: Destination) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.client = client
        self.destination = destination


class Authorizing:
    """Reads requests, and answers those that people agree to."""

    def __init__(
        self, db: Database, clock: Clock, randomness: Randomness, clients: Clients, addresses: Addresses
    ) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness
        self._clients = clients
        self._addresses = addresses

    async def read(self, fields: Mapping[str, str]) -> AuthorizationRequest:
        """Raises: OAuthRefusal: nobody but the person may be told; Mistaken."""
        client = await self._clients.find(fields.get("client_id", ""))
        if client is None:
            raise invalid_request("This client is not registered here, or has not been used for long.")
        destination = parse_destination(client, fields, self._addresses.issuer)
        try:
            return parse_request(client, destination, fields)
        except OAuthRefusal as refusal:
            raise Mistaken(refusal, client, destination) from refusal

    async def find_replaced(self, person: Person, device_id: DeviceID) -> Replaced | None:
        """The session that would end if the person agreed."""
        device = await self._db.read(find_device, person.user_nid, device_id)
        return None if device is None else Replaced(device.device_id, device.display_name)

    async def allow(self, request: AuthorizationRequest, person: Person) -> str:
        """Where the browser goes with a code. Raises: OAuthRefusal: the client is gone."""
        code = self._randomness.token()
        now_ms = self._clock.now_ms()
        stored = Code(
            request.client.client_id,
            person.user_nid,
            request.destination.redirect_uri,
            request.scope.text,
            request.code_challenge,
            now_ms + CODE_LIFETIME_MS,
        )
        if not await self._db.write(_insert, hash_token(code), stored, now_ms):
            raise invalid_request("This client is not registered here any more.")
        return request.destination.url({"code": code})

    def deny(self, request: AuthorizationRequest) -> str:
        """Where the browser goes without."""
        refusal = OAuthRefusal("access_denied", "The person did not agree.")
        return request.destination.url(refusal.parameters())


def _insert(txn: WriteTxn, code_hash: bytes, code: Code, now_ms: int) -> bool:
    if not touch_oauth_client(txn, code.client_id, now_ms):
        return False
    insert_code(txn, code_hash, code)
    return True
