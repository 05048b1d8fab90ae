"""Mail addresses and phone numbers of users. This server sends neither mail nor text messages and trusts no
identity server, so none can be proved here: what an administrator's import left is listed and can be deleted.

Spec: client-server API, "Adding Account Administrative Contact Information".
"""

import msgspec

from ranvier.services.requester import Requester
from ranvier.store.database import Database
from ranvier.store.tables.threepids import delete_threepid, list_threepids


class ClientThreepid(msgspec.Struct, frozen=True):
    """An address as its user sees it."""

    medium: str
    address: str
    validated_at: int
    added_at: int


class Threepids:
    """Lists and deletes addresses."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list(self, requester: Requester) -> list[ClientThreepid]:
        found = await self._db.read(list_threepids, requester.user_nid)
        return [ClientThreepid(one.medium, one.address, one.validated_ms, one.added_ms) for one in found]

    async def delete(self, requester: Requester, medium: str, address: str) -> None:
        """Forget an address, if the account has it."""
        await self._db.write(delete_threepid, requester.user_nid, medium, address)
