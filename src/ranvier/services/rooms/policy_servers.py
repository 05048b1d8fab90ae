"""Rooms that ask a policy server about every event: what it does not recommend is soft-failed.

Spec: server-server API, "Policy Servers".
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier, BadSignature
from ranvier.core.events.parse import signed_bytes
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, StateKey, parse_server_name
from ranvier.core.room_versions import RoomVersion
from ranvier.core.signing import VerifyKey, find_signature, parse_signature, parse_verify_key
from ranvier.io.ports import RemoteFault
from ranvier.services.remote.requests import Ask, Requests
from ranvier.services.rooms.live import LiveRooms
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships
from ranvier.store.tables.interned import Interner, find_server_nids

log = logging.getLogger(__name__)

POLICY: Final[StateKey] = ("m.room.policy", "")
KEY_ID: Final = "ed25519:policy_server"
TIMEOUT_S: Final = 10.0
MAX_AT_A_TIME: Final = 10

_PATH: Final = "/_matrix/policy/v1/sign"
_NOT_RECOMMENDED: Final = "the room's policy server does not recommend it"


class PolicyServer(msgspec.Struct, frozen=True):
    """Who recommends events, and the key with which it says so."""

    server: ServerName
    key: VerifyKey


class PolicyServers:
    """Asks those of rooms that have one."""

    def __init__(self, db: Database, interner: Interner, live: LiveRooms, requests: Requests) -> None:
        self._db = db
        self._interner = interner
        self._live = live
        self._requests = requests

    async def find(self, room_id: RoomID) -> PolicyServer | None:
        """The policy server that the room uses now. Cost: nothing for a room in use that has none."""
        room = await self._live.find(room_id, (POLICY,))
        event = None if room is None else room.state(*POLICY)
        policy = None if event is None else _parse(event.content)
        if room is None or policy is None:
            return None
        is_there = await self._db.read(self._is_in_room, room.nid, policy.server)
        return policy if is_there else None

    async def list_refused(
        self, room_id: RoomID, version: RoomVersion, pdus: Collection[Pdu]
    ) -> dict[EventID, str]:
        """Those of the events that the room's policy server does not recommend, and why.

        Cost: a verification for each event that it has signed, a request for each other one.
        """
        policy = await self.find(room_id)
        if policy is None:
            return {}
        unsigned = [pdu for pdu in pdus if not _is_recommended(pdu, version, policy, pdu.signatures)]
        slots = asyncio.Semaphore(MAX_AT_A_TIME)
        answers = await asyncio.gather(*(self._ask(slots, policy, version, pdu) for pdu in unsigned))
        return {
            pdu.event_id: _NOT_RECOMMENDED
            for pdu, is_recommended in zip(unsigned, answers, strict=True)
            if not is_recommended
        }

    async def _ask(
        self, slots: asyncio.Semaphore, policy: PolicyServer, version: RoomVersion, pdu: Pdu
    ) -> bool:
        ask = Ask(method="POST", path=_PATH, content=pdu.json, timeout_s=TIMEOUT_S)
        async with slots:
            try:
                signatures = await self._requests.ask(policy.server, ask)
            except RemoteFault as fault:
                log.info("the policy server %s does not sign %s: %s", policy.server, pdu.event_id, fault)
                return False
        return _is_recommended(pdu, version, policy, signatures)

    def _is_in_room(self, txn: ReadTxn, room_nid: int, server: ServerName) -> bool:
        nid = find_server_nids(txn, self._interner, (server,)).get(server)
        return nid is not None and memberships.is_server_in_room(txn, room_nid, nid)


def _parse(content: JsonObject) -> PolicyServer | None:
    """What a valid m.room.policy says; None where it is not valid, and the room so has no policy server."""
    keys = content.get("public_keys")
    if not isinstance(keys, dict):
        return None
    try:
        return PolicyServer(parse_server_name(content.get("via")), parse_verify_key(keys.get("ed25519")))
    except (BadIdentifier, BadSignature):
        return None


def _is_recommended(pdu: Pdu, version: RoomVersion, policy: PolicyServer, signatures: object) -> bool:
    # The server is never asked about the event that names it: so it can be dismissed.
    if pdu.is_state and pdu.slot == POLICY:
        return True
    try:
        signature = parse_signature(find_signature(signatures, policy.server, KEY_ID))
        policy.key.verify(signed_bytes(pdu, version), signature)
    except BadSignature:
        return False
    return True
