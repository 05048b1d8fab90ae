"""Finds users by what they are called. Spec: client-server API, "User Directory"."""

from typing import Final

import msgspec

from ranvier.core.identifiers import UserID
from ranvier.services.requester import Requester
from ranvier.services.user_directory.indexing import DirectoryIndexer
from ranvier.services.user_directory.words import prefixes_of
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.interned import Interner, list_user_ids
from ranvier.store.tables.user_directory import search_users

MAX_RESULTS: Final = 50
MAX_TERM_CHARS: Final = 512


class FoundUser(msgspec.Struct, frozen=True, omit_defaults=True):
    user_id: UserID
    display_name: str | None = None
    avatar_url: str | None = None


class FoundUsers(msgspec.Struct, frozen=True):
    results: list[FoundUser]
    limited: bool


class UserSearch:
    """Searches the directory of users."""

    def __init__(self, db: Database, interner: Interner, indexer: DirectoryIndexer) -> None:
        self._db = db
        self._interner = interner
        self._indexer = indexer

    async def search(self, requester: Requester, search_term: str, limit: int) -> FoundUsers:
        """Users whose name or id has words that begin with those of `search_term`.

        The best come first: whole words before beginnings, users with a name before others.
        """
        prefixes = prefixes_of(search_term[:MAX_TERM_CHARS])
        if not prefixes:
            return FoundUsers([], limited=False)
        await self._indexer.refresh()
        return await self._db.read(self._read, requester, prefixes, min(limit, MAX_RESULTS))

    def _read(self, txn: ReadTxn, requester: Requester, prefixes: list[str], limit: int) -> FoundUsers:
        found = search_users(txn, requester.user_nid, prefixes)
        user_ids = list_user_ids(txn, self._interner, found)

        def rank(user_nid: int) -> tuple[bool, bool, str]:
            word, entry = found[user_nid]
            return word not in prefixes, entry.display_name is None, user_ids[user_nid]

        best = sorted(found, key=rank)[:limit]
        results = [
            FoundUser(user_ids[nid], found[nid][1].display_name, found[nid][1].avatar_url) for nid in best
        ]
        return FoundUsers(results, limited=len(found) > limit)
