"""How often one user may send, where an administrator wants it otherwise than for everybody."""

from ranvier.core.identifiers import ServerName, UserID
from ranvier.services.administration.people import check_local, get_account
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.accounts import (
    RatelimitOverride as RatelimitOverride,
)
from ranvier.store.tables.accounts import find_ratelimit_override, set_ratelimit_override


class RateLimits:
    """All raise: InvalidParam (a user of another server), NotFound."""

    def __init__(self, server_name: ServerName, db: Database) -> None:
        self._server_name = server_name
        self._db = db

    async def find(self, user_id: UserID) -> RatelimitOverride | None:
        """None: what holds for everybody."""
        check_local(user_id, self._server_name)

        def read(txn: ReadTxn) -> RatelimitOverride | None:
            return find_ratelimit_override(txn, get_account(txn, user_id).user_nid)

        return await self._db.read(read)

    async def set(self, user_id: UserID, override: RatelimitOverride | None) -> None:
        """None: what holds for everybody."""
        check_local(user_id, self._server_name)

        def write(txn: WriteTxn) -> None:
            set_ratelimit_override(txn, get_account(txn, user_id).user_nid, override)

        await self._db.write(write)
