"""Stored filters. Spec: client-server API, "Filtering"."""

from ranvier.core.identifiers import UserID
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.filters import Filters


class FilterEndpoints:
    """The endpoints at /filter."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters

    @endpoint(
        "POST",
        "/_matrix/client/v3/user/{userId}/filter",
        operation="defineFilter",
        rate=Rate.WRITE,
        guests=True,
    )
    async def define_filter(self, request: Request) -> dict[str, str]:
        user_id = UserID(request.path["userId"])
        return {"filter_id": await self._filters.define(request.requester, user_id, request.json())}

    @endpoint("GET", "/_matrix/client/v3/user/{userId}/filter/{filterId}", operation="getFilter", guests=True)
    async def get_filter(self, request: Request) -> bytes:
        user_id = UserID(request.path["userId"])
        return await self._filters.get(request.requester, user_id, request.path["filterId"])
