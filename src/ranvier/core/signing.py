"""ed25519 keys, and signatures over canonical JSON.

Spec: appendices, "Signing JSON" and "Checking for a Signature".
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import nacl.bindings
import nacl.exceptions

from ranvier.core import canonical_json
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadBase64, BadIdentifier, BadJson, BadSignature
from ranvier.core.identifiers import KeyID, ServerName, parse_key_id
from ranvier.core.unpadded_base64 import decode_base64, encode_base64

ALGORITHM: Final = "ed25519"
SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


class VerifyKey(msgspec.Struct, frozen=True):
    """The public half of a signing key."""

    public_key: bytes  # 32 bytes

    def __post_init__(self) -> None:
        """Raises: BadSignature when the key has another length, which libsodium would not notice."""
        if len(self.public_key) != PUBLIC_KEY_BYTES:
            raise BadSignature(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(self.public_key)}")

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raises: BadSignature unless `signature` (64 bytes) is this key's over `message`."""
        _check_signature_length(signature)
        try:
            nacl.bindings.crypto_sign_open(signature + message, self.public_key)
        except nacl.exceptions.BadSignatureError as error:
            raise BadSignature("the signature does not verify") from error

    def encode(self) -> str:
        """Unpadded base64, as key documents and third-party invites hold it."""
        return encode_base64(self.public_key)


class SigningKey:
    """A secret ed25519 key, under the id by which others know it. `repr` does not show the secret."""

    __slots__ = ("_secret_key", "key_id", "public_key")

    key_id: KeyID  # e.g. ed25519:a_1
    public_key: bytes  # 32 bytes

    def __init__(self, seed: bytes, version: str) -> None:
        """The key that grows from `seed`: 32 random bytes, made by the caller.

        Raises: BadIdentifier when `version` breaks the grammar, ValueError when the seed has another length.
        """
        parse_key_id(f"{ALGORITHM}:{version}")
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes")
        self.key_id = KeyID(f"{ALGORITHM}:{version}")
        self.public_key, self._secret_key = nacl.bindings.crypto_sign_seed_keypair(seed)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"

    def sign(self, message: bytes) -> bytes:
        """The signature (64 bytes) over `message`."""
        return nacl.bindings.crypto_sign(message, self._secret_key)[:SIGNATURE_BYTES]

    @property
    def verify_key(self) -> VerifyKey:
        return VerifyKey(self.public_key)

    @property
    def version(self) -> str:
        return self.key_id.partition(":")[2]

    def encode(self) -> str:
        """One line of a key file, without its end: `ed25519 <version> <unpadded base64 of the seed>`.

        It is the secret: only for a file that nobody else may read.
        """
        return f"{ALGORITHM} {self.version} {encode_base64(self._secret_key[:SEED_BYTES])}"


def parse_signing_keys(text: str) -> list[SigningKey]:
    """The keys of a key file, in its order; the first one signs. Blank lines do not count.

    The format is that of other homeservers, so that a server can be moved with its identity.

    Raises: BadSignature when a line is no key or there is none. The message never shows the line.
    """
    keys = [
        _parse_signing_key(line, number) for number, line in enumerate(text.splitlines(), 1) if line.strip()
    ]
    if not keys:
        raise BadSignature("the key file has no key")
    return keys


def _parse_signing_key(line: str, number: int) -> SigningKey:
    match line.split():
        case [algorithm, version, seed] if algorithm == ALGORITHM:
            try:
                return SigningKey(decode_base64(seed), version)
            except (BadBase64, BadIdentifier, ValueError) as error:
                raise BadSignature(f"line {number} of the key file is no ed25519 key") from error
    raise BadSignature(f"line {number} of the key file does not read `ed25519 <version> <base64>`")


def encode_signing_keys(keys: Iterable[SigningKey]) -> str:
    """The text of a key file that holds these keys. Reverse of `parse_signing_keys`."""
    return "".join(f"{key.encode()}\n" for key in keys)


def parse_verify_key(text: object) -> VerifyKey:
    """The key that unpadded base64 in a key document or a third-party invite names.

    Raises: BadSignature unless it is base64 of 32 bytes.
    """
    try:
        return VerifyKey(decode_base64(text))
    except BadBase64 as error:
        raise BadSignature("a public key is not base64") from error


def parse_signature(text: object) -> bytes:
    """The 64 bytes of a signature in unpadded base64.

    Raises: BadSignature.
    """
    try:
        signature = decode_base64(text)
    except BadBase64 as error:
        raise BadSignature("a signature is missing, or not base64") from error
    _check_signature_length(signature)
    return signature


def _check_signature_length(signature: bytes) -> None:
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")


def signed_bytes(obj: JsonObject) -> bytes:
    """What a signature over `obj` covers: its canonical JSON without `signatures` and `unsigned`.

    Raises: BadJson.
    """
    return canonical_json.encode(
        {key: value for key, value in obj.items() if key not in ("signatures", "unsigned")}
    )


def sign_json(obj: JsonObject, signer: str, key: SigningKey) -> JsonObject:
    """A copy of `obj` with the signature of `signer` (a server name, or a user id) added to those it has.

    Raises: BadJson; BadSignature when `signatures` is there but is not an object of objects.
    """
    signature = encode_base64(key.sign(signed_bytes(obj)))
    return {
        **obj,
        "signatures": merge_signatures(obj.get("signatures", {}), {signer: {key.key_id: signature}}),
    }


def merge_signatures(signatures: object, added: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """A copy of `signatures` with `added`, which wins where both have the same key id.

    Raises: BadSignature when `signatures` is not an object of objects.
    """
    if not isinstance(signatures, Mapping) or not all(
        isinstance(keys, Mapping) for keys in signatures.values()
    ):
        raise BadSignature("signatures is not an object of objects")
    merged = {signer: dict(keys) for signer, keys in signatures.items()}
    for signer, keys in added.items():
        merged.setdefault(signer, {}).update(keys)
    return merged


def verify_json(obj: JsonObject, signer: str, key_id: str, verify_key: VerifyKey) -> None:
    """Check that `obj` has a signature of `signer` under `key_id`, and that it is `verify_key`'s.

    Raises: BadSignature, also when there is no such signature or `obj` has no canonical form.
    """
    signature = find_signature(obj.get("signatures"), signer, key_id)
    if signature is None:
        raise BadSignature(f"not signed by {signer[:300]} with {key_id[:300]}")
    try:
        message = signed_bytes(obj)
    except BadJson as error:
        raise BadSignature(f"nothing that can be signed: {error}") from error
    verify_key.verify(message, parse_signature(signature))


def find_signature(signatures: object, signer: str, key_id: str) -> object | None:
    """The raw value at signatures[signer][key_id], or None where the path breaks."""
    by_key = signatures.get(signer) if isinstance(signatures, Mapping) else None
    return by_key.get(key_id) if isinstance(by_key, Mapping) else None


def signing_key_ids(signatures: object, signer: ServerName) -> list[KeyID]:
    """The ed25519 key ids under which `signer` has signed; other algorithms are left out. Never raises.

    Spec: appendices, "Checking for a Signature", steps 1 and 2.
    """
    by_key = signatures.get(signer) if isinstance(signatures, Mapping) else None
    if not isinstance(by_key, Mapping):
        return []
    return [
        KeyID(key_id) for key_id in by_key if isinstance(key_id, str) and key_id.startswith(f"{ALGORITHM}:")
    ]
