"""What clients of end-to-end encryption sign. Only the signatures are real."""

from typing import Any

import nacl.signing
import orjson

from ranvier.core.unpadded_base64 import encode_base64

from .homeserver import User


class Key:
    """An ed25519 key under the name by which signatures cite it: a device's, or by its own public key."""

    def __init__(self, seed: int, name: str | None = None) -> None:
        self._secret = nacl.signing.SigningKey(seed.to_bytes(32, "big"))
        self.public = encode_base64(bytes(self._secret.verify_key))
        self.id = f"ed25519:{name or self.public}"

    def sign(self, document: dict[str, Any], user_id: str) -> dict[str, Any]:
        """The document with this key's signature added."""
        signed = {name: value for name, value in document.items() if name not in ("signatures", "unsigned")}
        signature = encode_base64(
            self._secret.sign(orjson.dumps(signed, option=orjson.OPT_SORT_KEYS)).signature
        )
        signatures = {user: dict(keys) for user, keys in document.get("signatures", {}).items()}
        signatures.setdefault(user_id, {})[self.id] = signature
        return {**document, "signatures": signatures}


def device_key(user: User) -> Key:
    """The same for a user's device whenever it is asked for."""
    return Key(sum(f"{user.user_id}{user.device_id}".encode()) + 1000, user.device_id)


def device_keys(user: User, **more: Any) -> dict[str, Any]:
    key = device_key(user)
    document = {
        "user_id": user.user_id,
        "device_id": user.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {key.id: key.public, f"curve25519:{user.device_id}": Key(1).public},
    } | more
    return key.sign(document, user.user_id)


def one_time_key(user: User, seed: int, **more: Any) -> dict[str, Any]:
    return device_key(user).sign({"key": Key(seed).public, **more}, user.user_id)


def cross_signing_key(user: User, usage: str, key: Key) -> dict[str, Any]:
    """Not signed yet."""
    return {"user_id": user.user_id, "usage": [usage], "keys": {key.id: key.public}}
