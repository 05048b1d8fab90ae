"""Confirming a request of a client by signing in once more at a provider: the stage m.login.sso.

Spec: client-server API, "SSO during User-Interactive Authentication".
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import encode
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import UserID
from ranvier.services.accounts.uia import SSO, UserInteractive
from ranvier.services.sso.providers import Provider, Providers
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.accounts import find_account, list_external_ids

_DEEDS: Final = {
    "deleteDevice": "sign out one of your devices",
    "deleteDevices": "sign out some of your devices",
    "changePassword": "set a new password for your account",
    "deactivateAccount": "close your account for ever",
    "generateLoginToken": "sign in another app",
    "uploadCrossSigningKeys": "replace the keys by which others know you",
    "add3PID": "add an e-mail address to your account",
}


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody is asked to confirm."""

    user_id: UserID
    user_nid: int
    deed: str  # "… wants to" is before it
    providers: Sequence[Provider]  # at which the account is known


class Confirming:
    """Asks, and takes the answer."""

    def __init__(self, db: Database, uia: UserInteractive, providers: Providers) -> None:
        self._db = db
        self._uia = uia
        self._providers = providers

    async def describe(self, session_id: str) -> Demand:
        """Raises: NotFound: no such session, or it is nobody's."""
        session = await self._uia.find_session(session_id)
        user_nid = session.user_nid
        found = None if user_nid is None else await self._db.read(_read, user_nid)
        if user_nid is None or found is None:
            raise NotFound("This session is unknown or has expired.")
        user_id, provider_ids = found
        deed = _DEEDS.get(session.request.partition(" ")[0], "do what needs your consent")
        known = [one for one in self._providers.list() if one.id in provider_ids]
        return Demand(user_id=user_id, user_nid=user_nid, deed=deed, providers=known)

    async def confirm(self, session_id: str, user_nid: int) -> None:
        """`user_nid`: who has signed in, and agreed. Raises: NotFound, AnothersProof."""
        demand = await self.describe(session_id)
        await self._uia.prove(session_id, SSO, user_nid, encode({"user_id": demand.user_id}))


def _read(txn: ReadTxn, user_nid: int) -> tuple[UserID, set[str]] | None:
    """The user, and the providers that know them."""
    account = find_account(txn, user_nid)
    if account is None:
        return None
    return account.user_id, {provider for provider, _ in list_external_ids(txn, user_nid)}
