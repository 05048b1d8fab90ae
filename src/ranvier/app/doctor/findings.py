"""What the doctor says, and what it looks with."""

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Final

import msgspec

from ranvier.app.config import Config
from ranvier.core.federation.discovery import Route
from ranvier.core.signing import SigningKey
from ranvier.io.clock import Clock
from ranvier.io.ports import HttpClient, HttpRequest, HttpResponse, Resolver
from ranvier.io.randomness import Randomness
from ranvier.io.tls import Certificate

PATIENCE_S: Final = 10.0
"""For one question."""
MAX_BYTES: Final = 262_144


class Level(Enum):
    FINE = "ok"
    NOTE = "note"  # may be as it should be
    FAULT = "fault"


class Finding(msgspec.Struct, frozen=True):
    """One line: what is so, and where it is a fault, what to do."""

    level: Level
    text: str


def fine(text: str) -> Finding:
    return Finding(Level.FINE, text)


def note(text: str) -> Finding:
    return Finding(Level.NOTE, text)


def fault(text: str) -> Finding:
    return Finding(Level.FAULT, text)


LookAtCertificate = Callable[[str, int, str], Awaitable[Certificate]]
"""The certificate at an address and port for a name, if it is trusted. Raises: RemoteFault."""
Connect = Callable[[str, int], Awaitable[None]]
"""Whether a host and port take connections. Raises: RemoteFault."""


class Instruments(msgspec.Struct, frozen=True):
    """What the doctor looks with. `http` goes to any address: all places are of the administrator's choice."""

    config: Config
    keys: Sequence[SigningKey]
    http: HttpClient
    resolver: Resolver
    clock: Clock
    randomness: Randomness
    look_at_certificate: LookAtCertificate
    connect: Connect

    async def get(self, url: str, max_redirects: int = 0) -> HttpResponse:
        """Raises: RemoteFault."""
        return await self.http.send(_get(url, max_redirects=max_redirects))

    async def ask(self, route: Route, path: str) -> HttpResponse:
        """GET from a server at one of its places. Raises: RemoteFault."""
        host = f"[{route.host}]" if ":" in route.host else route.host
        request = _get(f"https://{host}:{route.port}{path}")
        return await self.http.send(
            msgspec.structs.replace(
                request, headers={"Host": route.host_header}, certificate_name=route.certificate_name
            )
        )


def _get(url: str, max_redirects: int = 0) -> HttpRequest:
    return HttpRequest(
        method="GET",
        url=url,
        timeout_s=PATIENCE_S,
        max_response_bytes=MAX_BYTES,
        max_redirects=max_redirects,
    )
