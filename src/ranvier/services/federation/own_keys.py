"""This server's keys as others get them, and others' keys as this server vouches for them.

Spec: server-server API, "Publishing Keys", "Querying Keys Through Another Server".
"""

from collections.abc import Sequence
from typing import Final

from ranvier.core import canonical_json
from ranvier.core.federation.notary import KeyQuery, build_response
from ranvier.core.federation.server_keys import (
    OWN_VALIDITY_MS,
    ServerKeys,
    build_key_document,
    check_key_document,
)
from ranvier.core.identifiers import ServerName
from ranvier.core.signing import SigningKey
from ranvier.io.clock import Clock
from ranvier.services.remote.keyring import Keyring

RENEWAL_MS: Final = 3_600_000
"""How old a document that is given out may be; well below its validity."""


class OwnKeys:
    """The document of this server's keys, signed anew from time to time."""

    def __init__(self, server: ServerName, keys: Sequence[SigningKey], clock: Clock) -> None:
        self._server = server
        self._keys = keys
        self._clock = clock
        self._document: ServerKeys | None = None

    def document(self) -> ServerKeys:
        """Valid for a day, less an hour at most."""
        now_ms = self._clock.now_ms()
        document = self._document
        if document is None or now_ms >= document.received_ms + RENEWAL_MS:
            built = build_key_document(self._server, self._keys, {}, now_ms + OWN_VALIDITY_MS)
            document = self._document = check_key_document(built, self._server, now_ms)
        return document

    def encoded(self) -> bytes:
        """The answer to GET /_matrix/key/v2/server."""
        return canonical_json.encode(self.document().document)


class Notary:
    """Vouches for the keys of servers that it asked itself."""

    def __init__(self, server: ServerName, key: SigningKey, own_keys: OwnKeys, keyring: Keyring) -> None:
        self._server = server
        self._key = key
        self._own_keys = own_keys
        self._keyring = keyring

    async def query(self, queries: Sequence[KeyQuery]) -> bytes:
        """The answer to /_matrix/key/v2/query: servers that cannot be asked and were never known are left
        out."""
        documents = await self._keyring.find_documents(queries)
        if any(query.server_name == self._server for query in queries):
            documents.append(self._own_keys.document())
        return build_response(documents, self._server, self._key)
