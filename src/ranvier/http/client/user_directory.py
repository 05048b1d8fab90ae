"""Finding people. Spec: client-server API, "User Directory"."""

from typing import Annotated, Final

import msgspec

from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.services.user_directory.searching import FoundUsers, UserSearch

DEFAULT_LIMIT: Final = 10


class SearchBody(msgspec.Struct):
    search_term: str
    limit: Annotated[int, msgspec.Meta(ge=0)] = DEFAULT_LIMIT


class UserDirectory:
    """The directory of users."""

    def __init__(self, search: UserSearch) -> None:
        self._search = search

    @endpoint("POST", "/_matrix/client/v3/user_directory/search", operation="searchUserDirectory")
    async def search_user_directory(self, request: Request) -> FoundUsers:
        body = request.body(SearchBody)
        return await self._search.search(request.requester, body.search_term, body.limit)
