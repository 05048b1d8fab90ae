"""A user's cross-signing keys.

Spec: client-server API, "Cross-signing"; MSC3967.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.encryption_keys import (
    CrossSigningKey,
    check_signed_by,
    find_device_verify_key,
    parse_cross_signing_key,
)
from ranvier.core.errors import BadSignature, Forbidden, InvalidSignature, MissingParam
from ranvier.core.identifiers import DeviceID, UserID
from ranvier.core.signing import verify_json
from ranvier.io.clock import Clock
from ranvier.services.accounts.uia import UserInteractive
from ranvier.services.requester import Requester
from ranvier.store.database import Conflict, Database, ReadTxn, WriteTxn
from ranvier.store.tables import cross_signing as table
from ranvier.store.tables.cross_signing import MASTER, SELF_SIGNING, USER_SIGNING
from ranvier.store.tables.devices import list_devices

CROSS_SIGNING_UPLOAD: Final = "uploadCrossSigningKeys"
"""What is authorized."""


class CrossSigningUpload(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends."""

    master_key: JsonObject | None = None
    self_signing_key: JsonObject | None = None
    user_signing_key: JsonObject | None = None
    auth: JsonObject | None = None

    def documents(self) -> dict[str, JsonObject]:
        """usage -> key, of those that are there."""
        keys = {
            MASTER: self.master_key,
            SELF_SIGNING: self.self_signing_key,
            USER_SIGNING: self.user_signing_key,
        }
        return {usage: key for usage, key in keys.items() if key is not None}


Keys = Mapping[str, CrossSigningKey]
"""usage -> key."""


class CrossSigning:
    """Takes cross-signing keys from their users."""

    def __init__(self, db: Database, clock: Clock, uia: UserInteractive) -> None:
        self._db = db
        self._clock = clock
        self._uia = uia

    async def upload(self, requester: Requester, upload: CrossSigningUpload) -> None:
        """Store keys. The user has to authenticate for whatever replaces a key that is there, unless an administrator
        has waived that.

        Raises: BadKey, InvalidSignature, UiaRequired; MissingParam: there is no master key; Forbidden: a key has
        the name of a device.
        """
        keys = {
            usage: parse_cross_signing_key(document, requester.user_id, usage)
            for usage, document in upload.documents().items()
        }
        if not keys:
            raise MissingParam("There is no key to upload.")
        is_authorized = requester.appservice_id is not None
        if not is_authorized and await self._db.read(_is_new, requester.user_nid, keys):
            if not await self._db.read(table.is_reset_allowed, requester.user_nid, self._clock.now_ms()):
                await self._authorize(requester, upload.auth)
            is_authorized = True
        await self._db.write(_store, requester, keys, is_authorized=is_authorized)

    async def _authorize(self, requester: Requester, auth: JsonObject | None) -> None:
        if requester.is_oauth:
            await self._uia.authorize_by_approval(requester, CROSS_SIGNING_UPLOAD, auth)
        else:
            await self._uia.authorize_owner(requester, CROSS_SIGNING_UPLOAD, auth)


def _is_new(txn: ReadTxn, user_nid: int, keys: Keys) -> bool:
    """Whether the user must authenticate: there is a master key, and some key is not what is stored.

    Spec: client-server API, POST /keys/device_signing/upload.
    """
    stored = table.list_cross_signing_keys(txn, [user_nid])[user_nid]
    return MASTER in stored and any(
        usage not in stored or stored[usage].public_key != key.public_key for usage, key in keys.items()
    )


def _store(txn: WriteTxn, requester: Requester, keys: Keys, *, is_authorized: bool) -> None:
    user_nid, user_id = requester.user_nid, requester.user_id
    if not is_authorized and _is_new(txn, user_nid, keys):
        raise Conflict("somebody else uploaded a master key at this very moment")
    device_keys = {device.device_id: device.keys for device in list_devices(txn, user_nid)}
    for key in keys.values():
        if key.public_key in device_keys:
            raise Forbidden("One of the keys is named like a device.")
    stored = table.list_cross_signing_keys(txn, [user_nid])[user_nid]
    master = keys.get(MASTER) or _stored_master(stored, user_id)
    if master is None:
        raise MissingParam("There is no master key.")
    for usage, key in keys.items():
        try:
            if usage == MASTER:
                _check_device_signatures(key, user_id, device_keys)
            else:
                check_signed_by(key, user_id, master)
        except BadSignature as error:
            raise InvalidSignature(f"The {usage} key: {error}.") from error
    if is_authorized:
        table.end_reset(txn, user_nid)
    table.set_cross_signing_keys(
        txn,
        user_nid,
        [table.CrossSigningKey(usage, key.public_key, key.encode()) for usage, key in keys.items()],
    )


def _stored_master(stored: Mapping[str, table.CrossSigningKey], user_id: UserID) -> CrossSigningKey | None:
    if MASTER not in stored:
        return None
    return parse_cross_signing_key(orjson.loads(stored[MASTER].json), user_id, MASTER)


def _check_device_signatures(
    master: CrossSigningKey, user_id: UserID, device_keys: Mapping[DeviceID, bytes | None]
) -> None:
    """Raises: BadSignature when a device of the user has not signed what it is said to have signed."""
    signatures = master.document.get("signatures")
    own = signatures.get(user_id) if isinstance(signatures, dict) else None
    for key_id in own if isinstance(own, dict) else ():
        device_id = DeviceID(key_id.partition(":")[2])
        keys = device_keys.get(device_id)
        verify_key = None if keys is None else find_device_verify_key(keys, device_id)
        if verify_key is not None:
            verify_json(master.document, user_id, key_id, verify_key)
