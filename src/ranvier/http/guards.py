"""What stands between the network and an endpoint. The application floor brings the implementations."""

from typing import Protocol

from ranvier.core.identifiers import ServerName
from ranvier.http.endpoint import Endpoint
from ranvier.http.request import Request
from ranvier.services.requester import Requester


class Authenticator(Protocol):
    """Knows access tokens."""

    async def user(self, token: str, acting_as: str | None, device_id: str | None) -> Requester:
        """Whom a token stands for. `acting_as` and `device_id` are what an application service claims to be.

        Raises: UnknownToken, Forbidden.
        """

    def seen(self, requester: Requester, ip: str, agent: str | None) -> None:
        """Note that a request came. Called for every one: must be cheap."""

    async def appservice(self, token: str) -> Requester:
        """Which application service a token stands for. Raises: UnknownToken, Forbidden."""

    async def appservice_or_none(self, token: str) -> Requester | None:
        """The same; None: the token is none of an application service."""


class OriginVerifier(Protocol):
    """Knows other servers."""

    async def origin(self, request: Request, method: str, raw_target: str) -> ServerName:
        """Which server signed this request. Raises: Unauthorized, LimitExceeded."""


class RateLimiter(Protocol):
    """Counts what callers do."""

    def check(self, endpoint: Endpoint, request: Request) -> None:
        """Raises: LimitExceeded."""


class Observer(Protocol):
    """Counts what was answered."""

    def answered(self, endpoint: Endpoint, status: int, seconds: float) -> None: ...
