"""Other servers tell that the devices of their users changed: our users who share a room with them ask anew.

What the devices are is asked of their server when somebody wants to know; nothing of it is kept here, so nothing can
be out of date.

Spec: server-server API, "Device Management".
"""

from ranvier.core.federation.edus import DeviceListUpdate, SigningKeyUpdate
from ranvier.core.identifiers import ServerName, UserID
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.device_lists import mark_changed
from ranvier.store.tables.interned import Interner, find_user_nids
from ranvier.store.tables.memberships import list_local_sharing


class RemoteDeviceLists:
    """Takes the EDUs."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def device_list_update(self, _origin: ServerName, edu: DeviceListUpdate) -> None:
        """That the server may speak for the user was checked. Raises: StoreFault."""
        await self._db.write(_note, self._interner, edu.user_id)

    async def signing_key_update(self, _origin: ServerName, edu: SigningKeyUpdate) -> None:
        """As `device_list_update`."""
        await self._db.write(_note, self._interner, edu.user_id)


def _note(txn: WriteTxn, interner: Interner, user_id: UserID) -> None:
    nid = find_user_nids(txn, interner, [user_id]).get(user_id)
    if nid is not None and list_local_sharing(txn, nid):
        mark_changed(txn, nid)
