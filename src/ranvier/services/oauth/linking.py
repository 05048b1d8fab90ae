"""A device without a browser waits, while a person with one types its code and agrees.

Spec: RFC 8628; client-server API, "Device authorisation flow"; MSC4341.
"""

from typing import Final

import msgspec

from ranvier.core.errors import NotFound
from ranvier.core.oauth.client_metadata import DEVICE_CODE, Client
from ranvier.core.oauth.refusals import OAuthRefusal
from ranvier.core.oauth.scopes import Scope, parse_scope
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.oauth.addresses import LINK, Addresses
from ranvier.services.oauth.browsers import Person
from ranvier.services.oauth.clients import Clients, decode_client
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.oauth_clients import find_oauth_client, touch_oauth_client
from ranvier.store.tables.oauth_device_codes import (
    Decision,
    DeviceCode,
    count_device_codes,
    decide,
    find_by_user_code,
    insert_device_code,
)
from ranvier.store.tables.tokens import hash_token

LIFETIME_S: Final = 900
INTERVAL_S: Final = 5
MAX_WAITING: Final = 10_000
USER_CODE_CHARS: Final = 8
# RFC 8628, 6.1: no vowels, so no words; nothing that looks like something else.
_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"


class DeviceAuthorization(msgspec.Struct, frozen=True):
    """The answer that the device gets. Spec: RFC 8628, 3.2."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class LinkRequest(msgspec.Struct, frozen=True):
    """What a person is asked to agree to."""

    user_code: str
    client: Client
    scope: Scope


class Linking:
    """Gives out the codes, and takes what people decide."""

    def __init__(
        self, db: Database, clock: Clock, randomness: Randomness, clients: Clients, addresses: Addresses
    ) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness
        self._clients = clients
        self._addresses = addresses

    async def begin(self, client_id: str, scope: str) -> DeviceAuthorization:
        """Raises: OAuthRefusal."""
        client = await self._clients.find(client_id)
        if client is None:
            raise OAuthRefusal("invalid_client", "This client is not registered here.")
        if DEVICE_CODE not in client.grant_types:
            raise OAuthRefusal("unauthorized_client", "The client did not register for device codes.")
        wanted = parse_scope(scope)
        device_code = self._randomness.token()
        while True:
            user_code = self._randomness.text(USER_CODE_CHARS, _ALPHABET)
            now_ms = self._clock.now_ms()
            waiting = DeviceCode(client_id, wanted.text, now_ms + LIFETIME_S * 1000, INTERVAL_S)
            if await self._db.write(_insert, hash_token(device_code), hash_token(user_code), waiting, now_ms):
                break
        shown = f"{user_code[:4]}-{user_code[4:]}"
        return DeviceAuthorization(
            device_code,
            shown,
            self._addresses.url(LINK),
            self._addresses.url(LINK, user_code=shown),
            LIFETIME_S,
            INTERVAL_S,
        )

    async def find(self, typed: str) -> LinkRequest:
        """What waits for the code that a person typed. Raises: NotFound."""
        user_code = _canonical(typed)
        found = await self._db.read(_find, hash_token(user_code), self._clock.now_ms())
        if found is None:
            raise NotFound("This code is not right, or has expired.")
        scope, metadata = found
        return LinkRequest(f"{user_code[:4]}-{user_code[4:]}", decode_client(metadata), parse_scope(scope))

    async def decide(self, typed: str, person: Person, *, is_allowed: bool) -> None:
        """Raises: NotFound."""
        decision = Decision.ALLOWED if is_allowed else Decision.DENIED
        user_code_hash, now_ms = hash_token(_canonical(typed)), self._clock.now_ms()
        if not await self._db.write(decide, user_code_hash, decision, person.user_nid, now_ms):
            raise NotFound("This code is not right, or has expired.")


def _canonical(typed: str) -> str:
    """As it was made: people type small letters, blanks and dashes."""
    return "".join(letter for letter in typed[:40].upper() if letter in _ALPHABET)


def _insert(
    txn: WriteTxn, device_code_hash: bytes, user_code_hash: bytes, waiting: DeviceCode, now_ms: int
) -> bool:
    if count_device_codes(txn, now_ms) >= MAX_WAITING:
        raise OAuthRefusal("temporarily_unavailable", "Too many devices wait. Try again later.")
    if not touch_oauth_client(txn, waiting.client_id, now_ms):
        raise OAuthRefusal("invalid_client", "This client is not registered here any more.")
    return insert_device_code(txn, device_code_hash, user_code_hash, waiting)


def _find(txn: ReadTxn, user_code_hash: bytes, now_ms: int) -> tuple[str, bytes] | None:
    """Scope, and the client's metadata."""
    waiting = find_by_user_code(txn, user_code_hash, now_ms)
    metadata = None if waiting is None else find_oauth_client(txn, waiting.client_id)
    return None if waiting is None or metadata is None else (waiting.scope, metadata)
