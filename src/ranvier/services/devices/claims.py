"""One-time keys are given out: each once, the oldest first.

Spec: client-server API, POST /keys/claim; MSC4225.
"""

from collections.abc import Mapping

import msgspec

from ranvier.core.canonical_json import encode
from ranvier.core.encryption_keys import is_name
from ranvier.core.identifiers import DeviceID, ServerName, UserID
from ranvier.io.clock import Clock
from ranvier.services.devices.remote import (
    DEFAULT_TIMEOUT_MS,
    MAX_ANSWER_BYTES,
    Allowance,
    ClaimedRemotely,
    Failures,
    RemoteKeyServers,
    ask_all,
    group_by_server,
)
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.devices import find_device_nids
from ranvier.store.tables.interned import Interner, find_user_nids
from ranvier.store.tables.one_time_keys import Holder, claim_keys

Claims = Mapping[UserID, Mapping[DeviceID, str]]
"""user id -> device id -> algorithm."""

Claimed = dict[str, dict[str, dict[str, msgspec.Raw]]]
"""user id -> device id -> algorithm:key_id -> key. What there is no key for is left out."""


class ClaimAnswer(msgspec.Struct, frozen=True):
    """The response: the fields of the specification."""

    one_time_keys: Claimed
    failures: Failures


class KeyClaims:
    """Hands out keys, of this server's users and of others'."""

    def __init__(self, db: Database, interner: Interner, clock: Clock, remote: RemoteKeyServers) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._remote = remote

    async def claim(self, claims: Claims, timeout_ms: int = DEFAULT_TIMEOUT_MS) -> ClaimAnswer:
        """A key for each device, for a client of this server."""
        groups = group_by_server(claims)
        local = groups.pop(self._interner.own_server, {})
        found = await self.claim_local(local)
        allowance = Allowance(MAX_ANSWER_BYTES)

        async def ask(server: ServerName, asked: Claims) -> Claimed:
            part = _told(asked, await self._remote.claim_keys(server, asked))
            allowance.spend(server, _size(part))
            return part

        answers, failures = await ask_all(self._clock, timeout_ms, groups, ask)
        for part in answers.values():
            found |= part
        return ClaimAnswer(found, failures)

    async def claim_local(self, claims: Claims) -> Claimed:
        """A key for each device of users of this server, for its clients and for other servers.

        Cost: nothing for no claims; else one write.
        """
        return await self._db.write(_claim, self._interner, claims) if claims else {}


def _claim(txn: WriteTxn, interner: Interner, claims: Claims) -> Claimed:
    nids = find_user_nids(txn, interner, claims)
    wanted = {
        (nids[user_id], device_id): (user_id, algorithm)
        for user_id, devices in claims.items()
        if user_id in nids
        for device_id, algorithm in devices.items()
        if is_name(device_id) and is_name(algorithm)
    }
    device_nids = find_device_nids(txn, wanted)
    asked = {
        (Holder(user_nid, device_nid), wanted[user_nid, device_id][1]): (user_nid, device_id)
        for (user_nid, device_id), device_nid in device_nids.items()
    }
    found: Claimed = {}
    for claim, key in claim_keys(txn, asked).items():
        user_nid, device_id = asked[claim]
        user_id = wanted[user_nid, device_id][0]
        found.setdefault(user_id, {})[device_id] = {f"{key.algorithm}:{key.key_id}": msgspec.Raw(key.json)}
    return found


def _told(asked: Claims, answer: ClaimedRemotely) -> Claimed:
    """What a server gave for devices that were asked for: a key for each."""
    told: Claimed = {}
    for user_id, devices in answer.one_time_keys.items():
        wanted = asked.get(UserID(user_id), {})
        for device_id, keys in devices.items():
            algorithm = wanted.get(DeviceID(device_id))
            for name, key in keys.items():
                if algorithm is not None and name.partition(":")[0] == algorithm:
                    told.setdefault(user_id, {})[device_id] = {name: msgspec.Raw(encode(key))}
                    break
    return told


def _size(part: Claimed) -> int:
    return sum(
        len(name) + len(bytes(key))
        for devices in part.values()
        for keys in devices.values()
        for name, key in keys.items()
    )
