"""Credentials for TURN servers, which know no users but a secret that they share with this server.

Spec: client-server API, "Voice over IP"; draft-uberti-behave-turn-rest, which coturn follows.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

import msgspec

from ranvier.core.identifiers import UserID
from ranvier.io.clock import Clock


class RelayAccess(msgspec.Struct, frozen=True):
    """How a client reaches the TURN servers. `ttl` in seconds."""

    username: str
    password: str
    uris: Sequence[str]
    ttl: int


class Relays:
    """The TURN servers that the administrator names."""

    def __init__(self, clock: Clock, uris: Sequence[str], shared_secret: str, lifetime_s: int) -> None:
        self._clock = clock
        self._uris = uris
        self._secret = shared_secret
        self._lifetime_s = lifetime_s

    def admit(self, user_id: UserID) -> RelayAccess:
        """Credentials for a user, from now on."""
        username = f"{self._clock.now_ms() // 1000 + self._lifetime_s}:{user_id}"
        # SHA-1, because that is what TURN servers compute.
        mac = hmac.digest(self._secret.encode(), username.encode(), hashlib.sha1)
        return RelayAccess(username, base64.b64encode(mac).decode("ascii"), self._uris, self._lifetime_s)
