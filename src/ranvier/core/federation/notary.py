"""Asking one server for the keys of others: the question, and the answer with the notary's own signature.

Spec: server-server API, "Querying Keys Through Another Server".
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ranvier.core import canonical_json
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier, BadJson, BadSignature
from ranvier.core.federation.server_keys import MAX_DOCUMENT_BYTES, ServerKeys, check_key_document
from ranvier.core.identifiers import KeyID, ServerName, parse_server_name
from ranvier.core.signing import SigningKey, VerifyKey, sign_json, signing_key_ids, verify_json

MAX_SERVERS: Final = 200
"""In one question. Each may cost a request to another server."""
MAX_KEYS_PER_SERVER: Final = 50
MAX_REQUEST_BYTES: Final = 1_048_576
MAX_DOCUMENTS: Final = 1000
"""In one answer: there may be several documents of one server."""


class KeyQuery(msgspec.Struct, frozen=True):
    """Which keys of a server are wanted, and until when (ms) each must be valid. No keys: all of them."""

    server_name: ServerName
    minimum_valid_until_ms: Mapping[KeyID, int]

    def is_answered_by(self, keys: ServerKeys, now_ms: int) -> bool:
        """Whether this copy will do, or the server must be asked again. Without keys: valid now."""
        wanted_until_ms = max(self.minimum_valid_until_ms.values(), default=now_ms)
        has_keys = all(
            key_id in keys.verify_keys or key_id in keys.old_verify_keys
            for key_id in self.minimum_valid_until_ms
        )
        return has_keys and keys.valid_until_ms >= wanted_until_ms


class _Criteria(msgspec.Struct):
    minimum_valid_until_ts: int | None = None


class _Request(msgspec.Struct):
    server_keys: dict[str, dict[str, _Criteria]]


_REQUEST: Final = msgspec.json.Decoder(_Request)


def build_request(queries: Iterable[KeyQuery]) -> bytes:
    """The body of POST /_matrix/key/v2/query."""
    wanted = {
        query.server_name: {
            key_id: {"minimum_valid_until_ts": until_ms}
            for key_id, until_ms in query.minimum_valid_until_ms.items()
        }
        for query in queries
    }
    return canonical_json.encode({"server_keys": wanted})


def parse_request(body: bytes, now_ms: int) -> list[KeyQuery]:
    """What is asked of us as a notary. A key without a minimum is wanted valid now.

    Raises: BadJson, also for more than MAX_SERVERS servers; BadIdentifier.
    """
    if len(body) > MAX_REQUEST_BYTES:
        raise BadJson(f"a key query has at most {MAX_REQUEST_BYTES} bytes")
    try:
        asked = _REQUEST.decode(body).server_keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(f"not a key query: {error}") from error
    if len(asked) > MAX_SERVERS or any(len(keys) > MAX_KEYS_PER_SERVER for keys in asked.values()):
        raise BadJson(f"a key query names at most {MAX_SERVERS} servers, {MAX_KEYS_PER_SERVER} keys of each")
    return [
        KeyQuery(
            parse_server_name(server),
            {
                KeyID(key_id): now_ms
                if wanted.minimum_valid_until_ts is None
                else wanted.minimum_valid_until_ts
                for key_id, wanted in keys.items()
            },
        )
        for server, keys in asked.items()
    ]


def build_response(documents: Iterable[ServerKeys], notary: ServerName, key: SigningKey) -> bytes:
    """Our answer as a notary: each document as it came, with our signature added."""
    signed = [sign_json(keys.document, notary, key) for keys in documents]
    return canonical_json.encode({"server_keys": signed})


def parse_response(
    body: bytes, notary: ServerName, notary_keys: Mapping[KeyID, VerifyKey], received_ms: int
) -> list[ServerKeys]:
    """The documents in a notary's answer that both the notary and their own server have signed. What is not
    signed by both is left out: one bad document says nothing about the others.

    Raises: BadJson when the answer as a whole is malformed.
    """
    verified = []
    for document in _list_documents(body):
        try:
            verified.append(_check(document, notary, notary_keys, received_ms))
        except (BadJson, BadSignature, BadIdentifier):
            continue
    return verified


def parse_relayed(
    body: bytes, known: Mapping[ServerName, Mapping[KeyID, VerifyKey]], received_ms: int
) -> list[ServerKeys]:
    """The documents in an answer of a server that is no notary to us: only those that a key has signed which their own
    server told before. So it can pass on what that server says now, and nothing else.

    Args: known - for each server that was asked about, the keys that it was last known to use.
    Raises: BadJson when the answer as a whole is malformed.
    """
    verified = []
    for document in _list_documents(body):
        try:
            verified.append(_check_relayed(document, known, received_ms))
        except (BadJson, BadSignature, BadIdentifier):
            continue
    return verified


def _list_documents(body: bytes) -> list[JsonObject]:
    """Raises: BadJson."""
    documents = canonical_json.parse_object(body, MAX_DOCUMENT_BYTES * MAX_SERVERS).get("server_keys")
    if not isinstance(documents, list) or len(documents) > MAX_DOCUMENTS:
        raise BadJson(f"server_keys is an array of at most {MAX_DOCUMENTS} documents")
    return [document for document in documents if isinstance(document, dict)]


def _check_relayed(
    document: JsonObject, known: Mapping[ServerName, Mapping[KeyID, VerifyKey]], received_ms: int
) -> ServerKeys:
    keys = check_key_document(document, parse_server_name(document.get("server_name")), received_ms)
    own = known.get(keys.server_name, {})
    signed = [
        key_id for key_id in signing_key_ids(document.get("signatures"), keys.server_name) if key_id in own
    ]
    if not signed:
        raise BadSignature(f"not signed by a key of {keys.server_name} that is known here")
    verify_json(document, keys.server_name, signed[0], own[signed[0]])
    return keys


def _check(
    document: JsonObject, notary: ServerName, notary_keys: Mapping[KeyID, VerifyKey], received_ms: int
) -> ServerKeys:
    known = [
        key_id for key_id in signing_key_ids(document.get("signatures"), notary) if key_id in notary_keys
    ]
    if not known:
        raise BadSignature(f"not signed by the notary {notary}")
    verify_json(document, notary, known[0], notary_keys[known[0]])
    return check_key_document(document, parse_server_name(document.get("server_name")), received_ms)
