"""The guard of what only servers may ask."""

from ranvier.core.identifiers import ServerName
from ranvier.http.request import Request
from ranvier.services.remote.verification import Verification


class Origins:
    """The `OriginVerifier` of the application."""

    def __init__(self, verification: Verification) -> None:
        self._verification = verification

    async def origin(self, request: Request, method: str, raw_target: str) -> ServerName:
        """Raises: Unauthorized, LimitExceeded."""
        authorization = request.headers.get("authorization")
        return await self._verification.origin(method, raw_target, authorization, request.raw_body)
