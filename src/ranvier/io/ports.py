"""The network as services see it: DNS, HTTP and mail, and the faults that come from it. Adapters stand in the
modules beside; tests and simulations bring their own.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from ranvier.core.federation.discovery import SrvRecord


class RemoteFault(Exception):
    """Something outside failed us; a later attempt may succeed. Its text is for our log, not for clients."""


class Unreachable(RemoteFault):
    """No connection: DNS, routing, refusal, TLS."""


class AddressRefused(Unreachable):
    """Our own policy does not allow connecting to any address of this host."""


class TimedOut(RemoteFault):
    """The deadline passed before the exchange was over."""


class Misbehaved(RemoteFault):
    """What came back broke HTTP, was cut off, or exceeded a bound."""


class Disconnected(Misbehaved):
    """The connection ended before the answer did: a server may close one that it kept open, just when it is
    used again."""


class Resolver(Protocol):
    """DNS. Empty if the name has no such record. Raises: Unreachable or TimedOut when DNS itself fails."""

    async def resolve_host(self, name: str) -> Sequence[str]:
        """The IPv6 and IPv4 addresses of a host name, CNAMEs followed."""
        ...

    async def resolve_srv(self, name: str) -> Sequence[SrvRecord]:
        """The SRV records of a name such as `_matrix-fed._tcp.example.org`, in no order."""
        ...


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Nothing in it is encoded or normalized on the way: it is sent as it stands."""

    method: str
    url: str  # absolute, percent-encoded; its host is a name to look up or an IP address
    headers: Mapping[str, str] = {}  # "Host" replaces the one that the url gives
    body: bytes | None = None
    certificate_name: str | None = None  # whose certificate is expected, and SNI; None: the host of the url
    timeout_s: float = 60.0  # for everything together, redirects and body included
    max_response_bytes: int = 1_048_576
    max_redirects: int = 0  # only from https to https are they followed


class HttpResponse(msgspec.Struct, frozen=True):
    """A whole answer, whatever its status."""

    status: int
    headers: Mapping[str, str]  # names in lower case; repeated ones joined by ", "
    body: bytes


class StreamedResponse(Protocol):
    """An answer whose body comes in pieces."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, once. Raises: Misbehaved above `max_response_bytes` or when it is cut off; TimedOut."""
        ...


class HttpClient(Protocol):
    """Requests to other machines. Both functions raise only RemoteFaults."""

    async def send(self, request: HttpRequest) -> HttpResponse: ...

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[StreamedResponse]:
        """Like `send`, for large bodies: leaving the block ends the exchange."""
        ...


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one person."""

    recipient: str
    subject: str
    text: str
    html: str | None = None
    unsubscribe_url: str | None = None  # where a POST ends mails like this one


class Mailer(Protocol):
    async def send(self, mail: Mail) -> None:
        """Hand over to the mail server. Raises: RemoteFault; ValueError for a bad recipient or subject."""
        ...
