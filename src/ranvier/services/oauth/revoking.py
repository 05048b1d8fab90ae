"""Ending a session by showing one of its tokens.

Spec: client-server API, "Token revocation"; RFC 7009; MSC4254.
"""

from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.devices import delete_devices, find_device
from ranvier.store.tables.oauth_grants import find_holder
from ranvier.store.tables.tokens import delete_token, hash_token


class Revoking:
    """Whoever holds a token may end what it is good for: so leaked tokens can be made harmless by anybody."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def revoke(self, token: str) -> None:
        """The session that an access or refresh token belongs to is over, device and all. Unknown ones are no error."""
        await self._db.write(_revoke, hash_token(token))


def _revoke(txn: WriteTxn, token_hash: bytes) -> None:
    holder = find_holder(txn, token_hash)
    if holder is None:
        return
    device = None if holder.device_id is None else find_device(txn, holder.user_nid, holder.device_id)
    delete_devices(txn, [] if device is None else [device])
    delete_token(txn, holder.token_nid)
