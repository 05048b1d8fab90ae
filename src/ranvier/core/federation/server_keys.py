"""The keys that a server publishes: its document, and what a key in it is good for.

A key counts only if it has itself signed the document that names it: nobody can publish a key of others.

Spec: server-server API, "Publishing Keys"; rooms v5, "Signing key validity period".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from ranvier.core import canonical_json
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier, BadJson, BadSignature
from ranvier.core.identifiers import KeyID, ServerName, parse_key_id
from ranvier.core.signing import (
    ALGORITHM,
    SigningKey,
    VerifyKey,
    parse_verify_key,
    sign_json,
    verify_json,
)

T = TypeVar("T")

MAX_DOCUMENT_BYTES: Final = 65_536
MAX_KEYS: Final = 50
"""Of each kind in one document: each current key costs a verification."""

MAX_VALIDITY_MS: Final = 7 * 24 * 3_600_000
OWN_VALIDITY_MS: Final = 24 * 3_600_000
"""How long others may keep our document before they ask again; well above the hour that is the least."""

_MAX_TIMESTAMP_MS: Final = 2**63 - 1


class OldVerifyKey(msgspec.Struct, frozen=True):
    """A key that a server used until `expired_ts` (ms): good for events of that time, not for requests."""

    key: VerifyKey
    expired_ts: int


class ServerKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A document whose signatures have been verified."""

    server_name: ServerName
    verify_keys: Mapping[KeyID, VerifyKey]
    old_verify_keys: Mapping[KeyID, OldVerifyKey]
    valid_until_ms: int  # never more than 7 days after it was received
    received_ms: int
    document: JsonObject  # as it came, with fields unknown to us and every signature


def build_key_document(
    server_name: ServerName,
    keys: Sequence[SigningKey],
    old_keys: Mapping[KeyID, OldVerifyKey],
    valid_until_ts: int,
) -> JsonObject:
    """Our own document, signed by each of `keys`."""
    document: JsonObject = {
        "server_name": server_name,
        "valid_until_ts": valid_until_ts,
        "verify_keys": {key.key_id: {"key": key.verify_key.encode()} for key in keys},
        "old_verify_keys": {
            key_id: {"key": old.key.encode(), "expired_ts": old.expired_ts}
            for key_id, old in old_keys.items()
        },
    }
    for key in keys:
        document = sign_json(document, server_name, key)
    return document


def parse_key_document(raw: bytes, server_name: ServerName, received_ms: int) -> ServerKeys:
    """What `server_name` answered to GET /_matrix/key/v2/server.

    Raises: BadJson; BadSignature when it is another server's, or no key in it has signed it.
    """
    return check_key_document(canonical_json.parse_object(raw, MAX_DOCUMENT_BYTES), server_name, received_ms)


def check_key_document(document: JsonObject, server_name: ServerName, received_ms: int) -> ServerKeys:
    """Check a decoded document, as `parse_key_document` does. Keys of unknown algorithms are left out, and so
    are current keys that have not signed the document.

    Raises: BadJson or BadSignature.
    """
    if document.get("server_name") != server_name:
        raise BadSignature(f"not the key document of {server_name}")
    claimed = _parse_keys(document, "verify_keys", _parse_current)
    signed = {
        key_id: key for key_id, key in claimed.items() if _has_signed(document, server_name, key_id, key)
    }
    if not signed:
        raise BadSignature(f"no key in the document of {server_name} has signed it")
    valid_until_ts = _parse_timestamp(document, "valid_until_ts")
    return ServerKeys(
        server_name=server_name,
        verify_keys=signed,
        old_verify_keys=_parse_keys(document, "old_verify_keys", _parse_old),
        # "Servers MUST use the lesser of this field and 7 days into the future".
        valid_until_ms=min(valid_until_ts, received_ms + MAX_VALIDITY_MS),
        received_ms=received_ms,
        document=document,
    )


def _has_signed(document: JsonObject, server_name: ServerName, key_id: KeyID, key: VerifyKey) -> bool:
    try:
        verify_json(document, server_name, key_id, key)
    except BadSignature:
        return False
    return True


def _parse_keys(document: JsonObject, field: str, parse: Callable[[JsonObject], T]) -> dict[KeyID, T]:
    keys = document.get(field, {})
    if not isinstance(keys, dict) or len(keys) > MAX_KEYS:
        raise BadJson(f"{field} is an object of at most {MAX_KEYS} keys")
    return {KeyID(key_id): parse(value) for key_id, value in keys.items() if _is_ours(key_id, value)}


def _is_ours(key_id: str, value: object) -> bool:
    """Whether this is a key that we can use at all. Others are theirs to publish."""
    try:
        algorithm, _ = parse_key_id(key_id)
    except BadIdentifier:
        return False
    return algorithm == ALGORITHM and isinstance(value, dict)


def _parse_current(value: JsonObject) -> VerifyKey:
    return parse_verify_key(value.get("key"))


def _parse_old(value: JsonObject) -> OldVerifyKey:
    return OldVerifyKey(parse_verify_key(value.get("key")), _parse_timestamp(value, "expired_ts"))


def _parse_timestamp(value: JsonObject, field: str) -> int:
    timestamp = value.get(field)
    if type(timestamp) is not int or not 0 <= timestamp <= _MAX_TIMESTAMP_MS:
        raise BadJson(f"{field} is a time in milliseconds")
    return timestamp
