"""Filters that clients upload once and name by their id.

Spec: client-server API, "Filtering".
"""

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.errors import NotFound
from ranvier.core.filters import parse_filter
from ranvier.core.identifiers import UserID
from ranvier.services.accounts.account_data import check_own
from ranvier.services.requester import Requester
from ranvier.store.database import Database
from ranvier.store.tables.filters import find_filter, upsert_filter


class Filters:
    """Stores and finds filters."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def define(self, requester: Requester, user_id: UserID, body: JsonObject) -> str:
        """Store a filter; its id, the same for the same filter.

        Raises: Forbidden; BadJsonValue when it is none.
        """
        check_own(requester, user_id)
        content = encode(body)
        parse_filter(content)
        return str(await self._db.write(upsert_filter, requester.user_nid, content))

    async def get(self, requester: Requester, user_id: UserID, filter_id: str) -> bytes:
        """The filter as it was given, JSON. Raises: Forbidden, NotFound."""
        check_own(requester, user_id)
        return await self._find(requester.user_nid, filter_id)

    async def _find(self, user_nid: int, filter_id: str) -> bytes:
        is_number = filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 20
        content = await self._db.read(find_filter, user_nid, int(filter_id)) if is_number else None
        if content is None:
            raise NotFound("There is no such filter.")
        return content
