"""Mail addresses and phone numbers of users. This server sends no text messages and trusts no identity server: only
mail addresses can be proved here, where mail is sent. What an administrator's import left is listed, too.

Spec: client-server API, "Adding Account Administrative Contact Information".
"""

import msgspec

from ranvier.core.errors import ThreepidInUse
from ranvier.io.clock import Clock
from ranvier.services.accounts.email_validation import EMAIL, Credentials, Purpose, check_validated
from ranvier.services.push.pushers import delete_mail_pushers
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.threepid_validations import delete_validation
from ranvier.store.tables.threepids import (
    Threepid,
    delete_threepid,
    find_threepid_owner,
    insert_threepid,
    list_threepids,
)


class ClientThreepid(msgspec.Struct, frozen=True):
    """An address as its user sees it."""

    medium: str
    address: str
    validated_at: int
    added_at: int


class Threepids:
    """Adds, lists and deletes addresses."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def add(self, requester: Requester, credentials: Credentials) -> None:
        """Add the address that a session has proved. Raises: ThreepidAuthFailed, ThreepidInUse."""
        await self._db.write(_add, requester.user_nid, credentials, self._clock.now_ms())

    async def list(self, requester: Requester) -> list[ClientThreepid]:
        found = await self._db.read(list_threepids, requester.user_nid)
        return [ClientThreepid(one.medium, one.address, one.validated_ms, one.added_ms) for one in found]

    async def delete(self, requester: Requester, medium: str, address: str) -> None:
        """Forget an address, if the account has it, and send no more mails there."""
        await self._db.write(forget_address, requester.user_nid, medium, address)


def forget_address(txn: WriteTxn, user_nid: int, medium: str, address: str) -> None:
    """An address is not the user's any more."""
    if delete_threepid(txn, user_nid, medium, address) and medium == EMAIL:
        delete_mail_pushers(txn, user_nid, address)


def _add(txn: WriteTxn, user_nid: int, credentials: Credentials, now_ms: int) -> None:
    _, address = check_validated(txn, credentials, (Purpose.ADD,), now_ms)
    is_new = insert_threepid(txn, user_nid, Threepid(EMAIL, address, now_ms, now_ms))
    if not is_new and find_threepid_owner(txn, EMAIL, address) != user_nid:
        raise ThreepidInUse("This address belongs to an account already.")
    delete_validation(txn, credentials.sid)
