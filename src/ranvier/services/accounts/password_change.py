"""Changing a password.

Spec: client-server API, POST /account/password.
"""

import json
from collections.abc import Sequence

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, ThreepidAuthFailed
from ranvier.core.identifiers import UserID
from ranvier.services.accounts.passwords import Passwords
from ranvier.services.accounts.uia import (
    EMAIL_IDENTITY,
    PASSWORD,
    SSO,
    Flow,
    Proofs,
    UserInteractive,
)
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.accounts import find_account_by_id, set_password_hash
from ranvier.store.tables.devices import delete_devices, list_devices
from ranvier.store.tables.passing_tokens import delete_passing_tokens_of_user
from ranvier.store.tables.pushers import delete_other_pushers, delete_pushers_of_user
from ranvier.store.tables.threepid_validations import delete_validation
from ranvier.store.tables.tokens import delete_tokens_of_user, delete_tokens_without_device


class PasswordChange:
    """Changes the password of whoever proves to be the owner, logged in or not."""

    def __init__(
        self, db: Database, uia: UserInteractive, passwords: Passwords, others: Sequence[Flow] = ()
    ) -> None:
        """`others`: flows by which somebody proves to be the owner here, and nowhere else."""
        self._others = others
        self._db = db
        self._uia = uia
        self._passwords = passwords

    async def change(
        self, requester: Requester | None, new_password: str, auth: JsonObject | None, *, logout_devices: bool
    ) -> None:
        """Set the password. With `logout_devices` every session but the requester's ends.

        Raises: UiaRequired, WeakPassword, InvalidParam, ThreepidAuthFailed.
        """
        self._passwords.check_new(new_password)
        proofs = await self._uia.authorize_owner(requester, "changePassword", auth, others=self._others)
        password_hash = await self._passwords.hash(new_password)
        keep = None if requester is None else requester.device_nid
        await self._db.write(_change, proofs, password_hash, keep_device=keep, logout_devices=logout_devices)


def proven_user(proofs: Proofs) -> UserID:
    """Who gave a password, signed in again at a provider, or proved an address. Raises: ThreepidAuthFailed: the
    address is to be a new user's.
    """
    user_id = json.loads(proofs.get(PASSWORD) or proofs.get(SSO) or proofs[EMAIL_IDENTITY]).get("user_id")
    if user_id is None:
        raise ThreepidAuthFailed("This address was not confirmed to set a new password.")
    return UserID(user_id)


def _change(
    txn: WriteTxn, proofs: Proofs, password_hash: str, *, keep_device: int | None, logout_devices: bool
) -> None:
    """Set the password; what proved an address proves nothing any more."""
    set_password(
        txn, proven_user(proofs), password_hash, keep_device=keep_device, logout_devices=logout_devices
    )
    if EMAIL_IDENTITY in proofs:
        delete_validation(txn, json.loads(proofs[EMAIL_IDENTITY])["sid"])


def set_password(
    txn: WriteTxn, user_id: UserID, password_hash: str, *, keep_device: int | None, logout_devices: bool
) -> None:
    """Store a password and end what the one who knew the old one may have begun.

    `keep_device`: the device_nid that stays logged in.
    Raises: Forbidden: the account was closed meanwhile.
    """
    account = find_account_by_id(txn, user_id)
    if account is None or account.deactivated_ms is not None:
        raise Forbidden("This account is deactivated.")
    user_nid = account.user_nid
    set_password_hash(txn, user_nid, password_hash)
    delete_passing_tokens_of_user(txn, user_nid)
    if not logout_devices:
        return
    delete_devices(
        txn, [device for device in list_devices(txn, user_nid) if device.device_nid != keep_device]
    )
    if keep_device is None:
        delete_tokens_of_user(txn, user_nid)
        delete_pushers_of_user(txn, user_nid)
    else:
        delete_tokens_without_device(txn, user_nid)
        delete_other_pushers(txn, user_nid, keep_device)
