"""The public keys of end-to-end encryption: device keys, one-time keys, cross-signing keys. What shape they have, who
must have signed them, and how they are shown to others.

The server cannot decrypt anything with them; it checks what it can, so that a fault shows where it was made.

Spec: client-server API, "Key algorithms", "Uploading keys", "Cross-signing".
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from ranvier.core import canonical_json
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadJson, BadKey, BadSignature
from ranvier.core.identifiers import DeviceID, UserID
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.core.signing import VerifyKey, merge_signatures, parse_verify_key, verify_json

ED25519: Final = "ed25519"
SIGNED_CURVE25519: Final = "signed_curve25519"

SignaturesByUser = Mapping[str, Mapping[str, str]]
"""user id -> key id, e.g. ed25519:ABCDEF -> signature."""


class _DeviceKeys(msgspec.Struct):
    user_id: str
    device_id: str
    algorithms: list[str]
    keys: dict[str, str]
    signatures: dict[str, dict[str, str]]


class _SignedKey(msgspec.Struct):
    key: str
    signatures: dict[str, dict[str, str]]


class _CrossSigningKey(msgspec.Struct):
    user_id: str
    usage: list[str]
    keys: dict[str, str]


def parse_device_keys(document: JsonObject, user_id: UserID, device_id: DeviceID) -> bytes:
    """What is stored of device keys: canonical JSON without `unsigned`.

    Raises: BadKey when they lack what they must have, or are another device's; BadSignature when the device's own
    signature is there but wrong. Without one they are of no use to others, who check it; some peers allow it.
    """
    shape = _convert(document, _DeviceKeys, "device keys")
    if shape.user_id != user_id or shape.device_id != device_id:
        raise BadKey("device keys name their own user and device")
    key_id = f"{ED25519}:{device_id}"
    if key_id in shape.keys and key_id in shape.signatures.get(user_id, {}):
        verify_json(document, user_id, key_id, parse_verify_key(shape.keys[key_id]))
    return _encode({name: value for name, value in document.items() if name != "unsigned"})


def find_device_verify_key(keys: bytes, device_id: DeviceID) -> VerifyKey | None:
    """The ed25519 key in stored device keys. Never raises."""
    public_key = orjson.loads(keys).get("keys", {}).get(f"{ED25519}:{device_id}")
    try:
        return parse_verify_key(public_key)
    except BadSignature:
        return None


def parse_one_time_key(name: str, value: object) -> tuple[str, str, bytes]:
    """(algorithm, key id, JSON) of a one-time or fallback key that is uploaded as `algorithm:key_id`.

    Signatures are for those to check who claim the key.

    Raises: BadKey.
    """
    algorithm, colon, key_id = name.partition(":")
    if not (algorithm and colon and key_id) or not is_name(name):
        raise BadKey(f"{name[:100]!r} is not of the form algorithm:key_id")
    if not isinstance(value, str) or algorithm == SIGNED_CURVE25519:
        _convert(value, _SignedKey, name[:100])
    return algorithm, key_id, _encode(value)


def is_same_key(one: bytes, other: bytes) -> bool:
    """Whether two one-time keys (JSON) are the same key, perhaps signed anew."""
    return one == other or is_same_document(orjson.loads(one), orjson.loads(other))


class CrossSigningKey(msgspec.Struct, frozen=True):
    """A cross-signing key whose shape was checked. Who signed it is `check_signed_by`'s question."""

    public_key: str  # as its document names it
    document: JsonObject

    @property
    def key_id(self) -> str:
        return f"{ED25519}:{self.public_key}"

    @property
    def verify_key(self) -> VerifyKey:
        return parse_verify_key(self.public_key)

    def encode(self) -> bytes:
        return _encode(self.document)


def parse_cross_signing_key(document: JsonObject, user_id: UserID, usage: str) -> CrossSigningKey:
    """A key for `usage`: master, self_signing or user_signing.

    Raises: BadKey when it is another user's, for another usage, or not exactly one ed25519 key.
    """
    shape = _convert(document, _CrossSigningKey, f"the {usage} key")
    if shape.user_id != user_id:
        raise BadKey(f"the {usage} key names another user")
    if usage not in shape.usage:
        raise BadKey(f"the {usage} key is not for that usage")
    if len(shape.keys) != 1:
        raise BadKey(f"the {usage} key must be exactly one key")
    ((key_id, public_key),) = shape.keys.items()
    if key_id != f"{ED25519}:{public_key}":
        raise BadKey(f"the {usage} key must be an ed25519 key under its own name")
    key = CrossSigningKey(public_key, document)
    try:
        key.verify_key  # noqa: B018 - that it can be read is what is asked
    except BadSignature as error:
        raise BadKey(f"the {usage} key: {error}") from error
    return key


def check_signed_by(key: CrossSigningKey, user_id: UserID, master: CrossSigningKey) -> None:
    """Raises: BadSignature unless `master` signed `key`."""
    verify_json(key.document, user_id, master.key_id, master.verify_key)


def is_same_document(one: object, other: object) -> bool:
    """Whether two keys are the same, but for who signed them."""
    return bool(_without_signatures(one) == _without_signatures(other))


def show_key(
    json: bytes, signatures: SignaturesByUser, unsigned: Mapping[str, object] | None = None
) -> bytes:
    """A stored key as others see it: with signatures that were uploaded apart, and with `unsigned`."""
    if signatures:
        document = orjson.loads(json)
        document["signatures"] = merge_signatures(document.get("signatures", {}), signatures)
        json = orjson.dumps(document)
    if unsigned is None:
        return json
    # What is stored never has this member itself.
    return b'%b,"unsigned":%b}' % (json[:-1], orjson.dumps(unsigned))


def is_name(value: str) -> bool:
    """Whether a string may name an algorithm, key or session: not empty, not long, and without NUL."""
    return 0 < len(value) <= MAX_IDENTIFIER_BYTES and "\0" not in value


def _without_signatures(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    return {name: value for name, value in document.items() if name not in ("signatures", "unsigned")}


def _convert(value: object, shape: type[Any], what: str) -> Any:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise BadKey(f"{what}: {error}") from error


def _encode(value: object) -> bytes:
    try:
        return canonical_json.encode(value)
    except BadJson as error:
        raise BadKey(f"a key that cannot be signed: {error}") from error
