"""Signatures that say "I know this key": uploaded apart from what they sign, after a verification.

A user signs their own devices with the self-signing key, their own master key with a device, and other users' master
keys with the user-signing key. Nothing else is taken.

Spec: client-server API, POST /keys/signatures/upload, "Key and signature security".
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.encryption_keys import (
    ED25519,
    find_device_verify_key,
    is_name,
    is_same_document,
    parse_cross_signing_key,
)
from ranvier.core.errors import BadKey, BadSignature, InvalidParam, InvalidSignature, MatrixError, NotFound
from ranvier.core.identifiers import DeviceID, UserID
from ranvier.core.signing import VerifyKey, parse_verify_key, verify_json
from ranvier.io.clock import Clock
from ranvier.services.devices.remote import (
    DEFAULT_TIMEOUT_MS,
    RemoteKeyServers,
    ask_all,
    group_by_server,
)
from ranvier.services.requester import Requester
from ranvier.store.database import Conflict, Database, ReadTxn, WriteTxn
from ranvier.store.tables.cross_signing import (
    MASTER,
    SELF_SIGNING,
    USER_SIGNING,
    CrossSigningKey,
    Signature,
    insert_signatures,
    list_cross_signing_keys,
)
from ranvier.store.tables.devices import list_devices
from ranvier.store.tables.interned import Interner, find_user_nids

MAX_SIGNATURES: Final = 1000
"""Of one request: each costs a tenth of a millisecond."""
ATTEMPTS: Final = 3

SignedKeys = Mapping[UserID, Mapping[str, JsonObject]]
"""user id -> device id or public key -> the signed key."""

SignatureFailures = dict[str, dict[str, dict[str, object]]]
"""user id -> device id or public key -> errcode and error."""


class _Known(msgspec.Struct, frozen=True):
    """The keys that may be signed and may sign."""

    user_nids: Mapping[UserID, int]
    cross_signing: Mapping[int, Mapping[str, CrossSigningKey]]  # by user_nid and usage
    devices: Mapping[DeviceID, bytes]  # keys of the requester's devices, JSON
    masters: Mapping[UserID, JsonObject] = {}  # of users of other servers


class KeySignatures:
    """Takes signatures from users."""

    def __init__(self, db: Database, interner: Interner, clock: Clock, remote: RemoteKeyServers) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._remote = remote

    async def upload(self, requester: Requester, signed: SignedKeys) -> SignatureFailures:
        """Store the signatures that are right; why the others are not.

        Raises: InvalidParam: too many.
        """
        if sum(len(keys) for keys in signed.values()) > MAX_SIGNATURES:
            raise InvalidParam(f"At most {MAX_SIGNATURES} keys can be signed at once.")
        users = {requester.user_id, *signed}
        masters = await self._fetch_masters(signed)
        for _ in range(ATTEMPTS):
            known = await self._db.read(_read, self._interner, requester, users, masters)
            # Between the transactions: signatures take long to check.
            signatures, failures = _check_all(requester, signed, known)
            if not signatures or await self._db.write(
                _store, self._interner, requester, users, known, signatures
            ):
                return failures
        raise Conflict("the keys that are signed change all the time")

    async def _fetch_masters(self, signed: SignedKeys) -> dict[UserID, JsonObject]:
        """The master keys of users of other servers; none of those that do not answer."""
        groups = group_by_server(dict.fromkeys(signed, ()))
        groups.pop(self._interner.own_server, None)
        answers, _ = await ask_all(self._clock, DEFAULT_TIMEOUT_MS, groups, self._remote.query_keys)
        return {
            user_id: answer.master_keys[user_id]
            for server, answer in answers.items()
            for user_id in groups[server]
            if user_id in answer.master_keys
        }


def _read(
    txn: ReadTxn,
    interner: Interner,
    requester: Requester,
    users: set[UserID],
    masters: Mapping[UserID, JsonObject],
) -> _Known:
    nids = find_user_nids(txn, interner, users)
    devices = list_devices(txn, requester.user_nid)
    return _Known(
        nids,
        list_cross_signing_keys(txn, nids.values()),
        {device.device_id: device.keys for device in devices if device.keys is not None},
        masters,
    )


def _store(  # the parts of one decision
    txn: WriteTxn,
    interner: Interner,
    requester: Requester,
    users: set[UserID],
    known: _Known,
    signatures: list[Signature],
) -> bool:
    """False, and nothing done, if the keys are not any more what was signed."""
    if _read(txn, interner, requester, users, known.masters) != known:
        return False
    insert_signatures(txn, requester.user_nid, signatures)
    return True


def _check_all(
    requester: Requester, signed: SignedKeys, known: _Known
) -> tuple[list[Signature], SignatureFailures]:
    signatures: list[Signature] = []
    failures: SignatureFailures = {}
    for user_id, keys in signed.items():
        for target_id, document in keys.items():
            try:
                signatures += _check(requester, user_id, target_id, document, known)
            except MatrixError as error:
                failures.setdefault(user_id, {})[target_id] = error.body()
    return signatures, failures


def _check(
    requester: Requester, user_id: UserID, target_id: str, document: JsonObject, known: _Known
) -> list[Signature]:
    """The signatures that the requester made on one key. Raises: NotFound, InvalidSignature."""
    target = _target(requester, user_id, target_id, known)
    if target is None:
        raise NotFound("There is no such key, or it is not yours to sign.")
    if not is_same_document(document, target):
        raise InvalidSignature("This is not the key that is known here.")
    made = document.get("signatures")
    by_key = made.get(requester.user_id) if isinstance(made, dict) else None
    found = []
    for key_id, verify_key in _signers(requester, user_id, target_id, known):
        if not isinstance(by_key, dict) or key_id not in by_key:
            continue
        try:
            verify_json(document, requester.user_id, key_id, verify_key)
        except BadSignature as error:
            raise InvalidSignature(f"{key_id[:300]}: {error}.") from error
        nid = known.user_nids[user_id]
        found.append(Signature(nid, target_id, requester.user_nid, key_id, by_key[key_id]))
    if not found:
        raise InvalidSignature("None of your keys that may sign it has signed it.")
    return found


def _target(requester: Requester, user_id: UserID, target_id: str, known: _Known) -> JsonObject | None:
    """The key that is signed, as it is known."""
    if user_id == requester.user_id and target_id in known.devices:
        found: JsonObject = orjson.loads(known.devices[DeviceID(target_id)])
        return found
    nid = known.user_nids.get(user_id)
    if nid is None:
        return None
    stored = known.cross_signing[nid].get(MASTER)
    # What was just asked for is newer than what is kept of users of other servers.
    document = known.masters.get(user_id)
    if document is None and stored is not None:
        document = orjson.loads(stored.json)
    try:
        master = None if document is None else parse_cross_signing_key(document, user_id, MASTER)
    except BadKey:
        return None
    return None if master is None or master.public_key != target_id else master.document


def _signers(
    requester: Requester, user_id: UserID, target_id: str, known: _Known
) -> Iterator[tuple[str, VerifyKey]]:
    """Key id and key of all that may sign the target for the requester."""
    own = known.cross_signing.get(requester.user_nid, {})
    if user_id == requester.user_id and target_id not in known.devices:
        for device_id, keys in known.devices.items():
            verify_key = find_device_verify_key(keys, device_id)
            if verify_key is not None and is_name(device_id):
                yield f"{ED25519}:{device_id}", verify_key
        return
    usage = SELF_SIGNING if user_id == requester.user_id else USER_SIGNING
    if usage in own:
        yield f"{ED25519}:{own[usage].public_key}", parse_verify_key(own[usage].public_key)
