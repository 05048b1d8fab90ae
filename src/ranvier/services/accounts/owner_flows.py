"""How the owner of an account can prove it: by the password, or by the identity provider that the account came from."""

from collections.abc import Collection, Sequence

from ranvier.services.accounts.uia import OWNER, PASSWORD, SSO, Flow
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.accounts import find_account, list_external_ids


class OwnerFlows:
    """Knows what each account has."""

    def __init__(self, db: Database, provider_ids: Collection[str], *, by_password: bool) -> None:
        """`by_password`: whether passwords are taken here at all."""
        self._db = db
        self._provider_ids = frozenset(provider_ids)
        self._by_password = by_password

    async def find(self, requester: Requester) -> Sequence[Flow]:
        """What this user can do. Never nothing: who has neither is asked for a password, and cannot have it."""
        return await self._db.read(self._find, requester.user_nid) or OWNER

    def _find(self, txn: ReadTxn, user_nid: int) -> Sequence[Flow]:
        account = find_account(txn, user_nid)
        has_password = account is not None and account.password_hash is not None
        is_known = any(provider in self._provider_ids for provider, _ in list_external_ids(txn, user_nid))
        return [
            *([(PASSWORD,)] if has_password and self._by_password else []),
            *([(SSO,)] if is_known else []),
        ]
