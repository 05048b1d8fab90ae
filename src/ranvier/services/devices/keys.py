"""Public keys of devices: published by their devices, shown to whoever wants to encrypt for them.

Spec: client-server API, "Key Distribution".
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.encryption_keys import SignaturesByUser, show_key
from ranvier.core.identifiers import DeviceID, ServerName, UserID, server_of
from ranvier.io.clock import Clock
from ranvier.services.devices.list_requests import BringLists
from ranvier.services.devices.remote import (
    DEFAULT_TIMEOUT_MS,
    MAX_ANSWER_BYTES,
    TOO_MUCH,
    Allowance,
    Failures,
    RemoteKeys,
    RemoteKeyServers,
    ask_all,
    group_by_server,
)
from ranvier.services.devices.remote_keys import MAX_KEY_BYTES, MAX_LIST_BYTES
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.cross_signing import (
    MASTER,
    NOBODY_NID,
    SELF_SIGNING,
    USER_SIGNING,
    Signature,
    list_cross_signing_keys,
    list_signatures,
)
from ranvier.store.tables.device_lists import (
    follow,
    list_fresh,
    list_remote_devices,
    list_strangers,
    measure_keys,
)
from ranvier.store.tables.devices import list_devices_of_users
from ranvier.store.tables.interned import Interner, find_user_nids, list_user_ids

Wanted = Mapping[UserID, Sequence[DeviceID]]
"""user id -> devices; none named: all of them."""

_NO_SIGNATURES: Final[SignaturesByUser] = {}


class KeysFound(msgspec.Struct, frozen=True):
    """What is known of users' keys, as JSON that can be sent."""

    device_keys: dict[str, dict[str, msgspec.Raw]]
    master_keys: dict[str, msgspec.Raw]
    self_signing_keys: dict[str, msgspec.Raw]
    user_signing_keys: dict[str, msgspec.Raw]  # the reader's own at most


class KeyAnswer(KeysFound, frozen=True):
    """The response to a query: the fields of the specification."""

    failures: Failures


class _Device(msgspec.Struct, frozen=True):
    device_id: DeviceID
    display_name: str | None
    keys: bytes | None  # JSON


class Keys:
    """Answers queries of this server's clients."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        clock: Clock,
        remote: RemoteKeyServers,
        bring_lists: BringLists,
    ) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._remote = remote
        self._bring_lists = bring_lists

    async def query(
        self, requester: Requester, wanted: Wanted, timeout_ms: int = DEFAULT_TIMEOUT_MS
    ) -> KeyAnswer:
        """The keys of users, as far as the requester may see them and their servers can be reached.

        Cost: one read; a request to each server whose users' devices are not known here. Those who share a room
        with this server are known from then on: one write, and for few users of a server these are the requests.
        """
        wanted, spared, size = await self._db.read(_fit, self._interner, wanted)
        found, unknown, strangers = await self._db.read(_read, self._interner, wanted, requester)
        if strangers:
            await self._db.write(follow, strangers)
        allowance = Allowance(MAX_ANSWER_BYTES - size)

        async def ask(server: ServerName, asked: Wanted) -> KeysFound:
            part, left = KeysFound({}, {}, {}, {}), asked
            if await self._bring_lists(list(asked)):
                part, left = await self._db.read(read_keys, self._interner, asked, requester)
            if left:
                _add(part, _told(left, await self._remote.query_keys(server, left)))
            allowance.spend(server, _size(part))
            return part

        answers, failures = await ask_all(self._clock, timeout_ms, group_by_server(unknown), ask)
        for part in answers.values():
            _add(found, part)
        if answers:
            verified = await self._db.read(_read_verified, self._interner, list(unknown), requester)
            _add_verified(found, requester.user_id, verified)
        return KeyAnswer(
            **{name: getattr(found, name) for name in found.__struct_fields__},
            failures=dict.fromkeys(spared, TOO_MUCH) | dict(failures),
        )


def _fit(txn: ReadTxn, interner: Interner, wanted: Wanted) -> tuple[Wanted, set[ServerName], int]:
    """Of what is wanted as much as fits into one answer; the servers whose users are left out; how many bytes of
    others' keys that makes at most.

    Those with the most keys are left out, so that nobody can drive out others.
    Cost: nothing for few users; else 1 query.
    """
    own = interner.own_server
    nids = find_user_nids(txn, interner, [user_id for user_id in wanted if server_of(user_id) != own])
    if (len(nids) + 1) * MAX_LIST_BYTES <= MAX_ANSWER_BYTES:
        return wanted, set(), len(nids) * MAX_LIST_BYTES
    kept = measure_keys(txn, nids.values())
    sizes: dict[ServerName, int] = {}
    for user_id, nid in nids.items():
        sizes[server_of(user_id)] = sizes.get(server_of(user_id), 0) + kept.get(nid, 0)
    spared, total = set(), 0
    for server, size in sorted(sizes.items(), key=lambda one: one[1]):
        if total + size > MAX_ANSWER_BYTES:
            spared.add(server)
        else:
            total += size
    if spared:
        wanted = {user_id: ids for user_id, ids in wanted.items() if server_of(user_id) not in spared}
    return wanted, spared, total


def _read(
    txn: ReadTxn, interner: Interner, wanted: Wanted, requester: Requester
) -> tuple[KeysFound, Wanted, list[int]]:
    """What can be answered from here; whose servers have to be asked; who of these may be followed (user_nids)."""
    found, unknown = read_keys(txn, interner, wanted, requester)
    nids = find_user_nids(txn, interner, unknown)
    return found, unknown, list_strangers(txn, nids.values()) if nids else []


def read_keys(
    txn: ReadTxn, interner: Interner, wanted: Wanted, requester: Requester | None, *, names: bool = True
) -> tuple[KeysFound, Wanted]:
    """What can be answered from here, and the remote users whose servers have to be asked.

    `requester` None: what everybody may see, for other servers. `names`: with those of devices.
    Cost: at most 8 queries, whatever the number of users and devices.
    """
    nids = find_user_nids(txn, interner, wanted)
    own = interner.own_server
    local = {user_id: nid for user_id, nid in nids.items() if server_of(user_id) == own}
    followed = {user_id: nid for user_id, nid in nids.items() if user_id not in local}
    fresh = list_fresh(txn, list(followed.values())) if followed else set()
    followed = {user_id: nid for user_id, nid in followed.items() if nid in fresh}
    devices = _devices(txn, local.values(), followed.values())
    # Whether a local user exists is not told by leaving it out.
    found = KeysFound({user_id: {} for user_id in wanted if server_of(user_id) == own}, {}, {}, {})
    known = local | followed
    _show(txn, interner, known, requester, found, wanted, devices, names=names)
    unknown = {
        user_id: devices
        for user_id, devices in wanted.items()
        if user_id not in known and server_of(user_id) != own
    }
    return found, unknown


def _devices(txn: ReadTxn, local: Collection[int], followed: Collection[int]) -> dict[int, list[_Device]]:
    found: dict[int, list[_Device]] = {}
    if local:
        for nid, devices in list_devices_of_users(txn, local).items():
            found[nid] = [_Device(one.device_id, one.display_name, one.keys) for one in devices]
    if followed:
        for nid, remote in list_remote_devices(txn, followed).items():
            found[nid] = [_Device(one.device_id, one.display_name, one.keys) for one in remote]
    return found


def _show(
    txn: ReadTxn,
    interner: Interner,
    known: Mapping[UserID, int],
    requester: Requester | None,
    found: KeysFound,
    wanted: Wanted,
    devices: Mapping[int, Sequence[_Device]],
    *,
    names: bool,
) -> None:
    """Put the keys of `known` users into `found`."""
    reader_nid = NOBODY_NID if requester is None else requester.user_nid
    cross_signing = list_cross_signing_keys(txn, known.values())
    signatures = _signatures(txn, interner, known.values(), reader_nid)
    for user_id, nid in known.items():
        named = set(wanted[user_id])
        found.device_keys[user_id] = {
            device.device_id: _show_device(
                device, signatures.get((nid, device.device_id), _NO_SIGNATURES), named=names
            )
            for device in devices[nid]
            if device.keys is not None and (not named or device.device_id in named)
        }
        keys = cross_signing[nid]
        for usage, place in (
            (MASTER, found.master_keys),
            (SELF_SIGNING, found.self_signing_keys),
            (USER_SIGNING, found.user_signing_keys),
        ):
            if usage in keys and (usage != USER_SIGNING or nid == reader_nid):
                on_it = signatures.get((nid, keys[usage].public_key), _NO_SIGNATURES)
                place[user_id] = msgspec.Raw(show_key(keys[usage].json, on_it))


def _signatures(
    txn: ReadTxn, interner: Interner, user_nids: Collection[int], reader_nid: int
) -> dict[tuple[int, str], dict[str, dict[str, str]]]:
    """(user_nid, what is signed) -> who signed it."""
    stored = list_signatures(txn, user_nids, reader_nid)
    if not stored:
        return {}
    names = list_user_ids(txn, interner, {one.signer_user_nid for one in stored})
    found: dict[tuple[int, str], dict[str, dict[str, str]]] = {}
    for one in stored:
        on_it = found.setdefault((one.target_user_nid, one.target_id), {})
        on_it.setdefault(names[one.signer_user_nid], {})[one.key_id] = one.signature
    return found


def _show_device(device: _Device, signatures: SignaturesByUser, *, named: bool) -> msgspec.Raw:
    assert device.keys is not None, "only devices that have keys are shown"
    if not named:
        return msgspec.Raw(show_key(device.keys, signatures))
    unsigned = {} if device.display_name is None else {"device_display_name": device.display_name}
    return msgspec.Raw(show_key(device.keys, signatures, unsigned))


def _told(asked: Wanted, answer: RemoteKeys) -> KeysFound:
    """What a server told of those of its users, and their devices, that were asked for."""
    told = KeysFound({}, {}, {}, {})
    for user_id, wanted in asked.items():
        devices = answer.device_keys.get(user_id)
        if devices is not None:
            shown = {
                device_id: _raw(keys)
                for device_id, keys in devices.items()
                if (not wanted or device_id in wanted)
                and keys.get("user_id") == user_id
                and keys.get("device_id") == device_id
            }
            told.device_keys[user_id] = {
                device_id: keys for device_id, keys in shown.items() if len(bytes(keys)) <= MAX_KEY_BYTES
            }
        for keys_of_usage, place in (
            (answer.master_keys, told.master_keys),
            (answer.self_signing_keys, told.self_signing_keys),
        ):
            key = keys_of_usage.get(user_id)
            if key is not None and key.get("user_id") == user_id and isinstance(key.get("keys"), dict):
                place[user_id] = _raw(key)
    return told


def _size(part: KeysFound) -> int:
    devices = (len(bytes(keys)) for of_user in part.device_keys.values() for keys in of_user.values())
    places = (part.master_keys, part.self_signing_keys)
    return sum(devices) + sum(len(bytes(key)) for place in places for key in place.values())


def _add(found: KeysFound, part: KeysFound) -> None:
    found.device_keys.update(part.device_keys)
    found.master_keys.update(part.master_keys)
    found.self_signing_keys.update(part.self_signing_keys)


def _read_verified(
    txn: ReadTxn, interner: Interner, user_ids: Sequence[UserID], requester: Requester
) -> dict[UserID, list[Signature]]:
    """The signatures by which the requester verified users of other servers, who do not know of them."""
    nids = find_user_nids(txn, interner, user_ids)
    made: dict[int, list[Signature]] = {}
    for one in list_signatures(txn, nids.values(), requester.user_nid):
        if one.signer_user_nid == requester.user_nid:
            made.setdefault(one.target_user_nid, []).append(one)
    return {user_id: made[nid] for user_id, nid in nids.items() if nid in made}


def _add_verified(found: KeysFound, signer: UserID, verified: Mapping[UserID, Sequence[Signature]]) -> None:
    """Show the requester's signatures on the master keys that they are on."""
    for user_id, signatures in verified.items():
        key = found.master_keys.get(user_id)
        if key is None:
            continue
        names = orjson.loads(bytes(key))["keys"]
        on_it = {one.key_id: one.signature for one in signatures if f"ed25519:{one.target_id}" in names}
        if on_it:
            found.master_keys[user_id] = msgspec.Raw(show_key(bytes(key), {signer: on_it}))


def _raw(value: JsonObject) -> msgspec.Raw:
    # Canonical, for it takes every number that JSON has.
    return msgspec.Raw(encode(value))
