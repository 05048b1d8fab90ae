"""Rooms that ask a policy server about every event: what it does not recommend is not sent by us, and soft-failed
where others sent it.

Spec: server-server API, "Policy Servers".
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import (
    BadGateway,
    BadIdentifier,
    BadJson,
    BadSignature,
    Forbidden,
    LimitExceeded,
    MatrixError,
    PolicyRefusal,
    TooLarge,
)
from ranvier.core.events.build import with_signatures
from ranvier.core.events.parse import signed_bytes
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, parse_server_name
from ranvier.core.room_versions import RoomVersion
from ranvier.core.signing import VerifyKey, find_signature, parse_signature, parse_verify_key
from ranvier.io.ports import RemoteFault
from ranvier.services.remote.requests import Ask, Refused, Requests
from ranvier.services.rooms.live import POLICY, LiveRooms
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships
from ranvier.store.tables.interned import Interner, find_server_nids

log = logging.getLogger(__name__)

KEY_ID: Final = "ed25519:policy_server"
TIMEOUT_S: Final = 10.0
MAX_AT_A_TIME: Final = 10
MAX_WORDS: Final = 500
"""Characters of a policy server's error that a client is told."""

_PATH: Final = "/_matrix/policy/v1/sign"
_NOT_RECOMMENDED: Final = "the room's policy server does not recommend it"
_DEFAULT_PAUSE_MS: Final = 1_000


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

    async def sign(self, room_id: RoomID, version: RoomVersion, pdus: Sequence[Pdu]) -> Sequence[Pdu]:
        """Events that are about to be sent, with the signatures that the room's policy server has to give them.

        Cost: a request for each event, all at once; nothing in a room without policy server.
        Raises: PolicyRefusal, LimitExceeded (its words); Forbidden (its signature is not good); BadGateway.
        """
        policy = await self.find(room_id)
        if policy is None:
            return pdus
        slots = asyncio.Semaphore(MAX_AT_A_TIME)
        return await asyncio.gather(*(self._sign(slots, policy, version, pdu) for pdu in pdus))

    async def list_refused(
        self, room_id: RoomID, version: RoomVersion, pdus: Collection[Pdu]
    ) -> dict[EventID, str]:
        """Those of the events that the room's policy server does not recommend, and why.

        Cost: a verification for each event that it has signed, a request for each other one.
        """
        policy = await self.find(room_id)
        if policy is None:
            return {}
        slots = asyncio.Semaphore(MAX_AT_A_TIME)
        answers = await asyncio.gather(*(self._recommends(slots, policy, version, pdu) for pdu in pdus))
        return {
            pdu.event_id: _NOT_RECOMMENDED
            for pdu, is_recommended in zip(pdus, answers, strict=True)
            if not is_recommended
        }

    async def _recommends(
        self, slots: asyncio.Semaphore, policy: PolicyServer, version: RoomVersion, pdu: Pdu
    ) -> bool:
        if _is_recommended(pdu, version, policy, pdu.signatures):
            return True
        try:
            signatures = await self._ask(slots, policy, pdu)
        except RemoteFault as fault:
            log.info("the policy server %s does not sign %s: %s", policy.server, pdu.event_id, fault)
            return False
        return _is_recommended(pdu, version, policy, signatures)

    async def _sign(
        self, slots: asyncio.Semaphore, policy: PolicyServer, version: RoomVersion, pdu: Pdu
    ) -> Pdu:
        if _is_recommended(pdu, version, policy, pdu.signatures):
            return pdu
        try:
            # A user waits for it, and nothing can be sent without it: it is asked even if it failed lately.
            signatures = await self._ask(slots, policy, pdu, despite_standing=True)
        except RemoteFault as fault:
            raise _explain(fault) from fault
        if not _is_recommended(pdu, version, policy, signatures):
            raise Forbidden("The room's policy server does not recommend this event.")
        try:
            given = str(find_signature(signatures, policy.server, KEY_ID))
            return with_signatures(pdu, {policy.server: {KEY_ID: given}})
        except (BadJson, TooLarge) as error:
            raise BadGateway("The signature of the room's policy server does not fit the event.") from error

    async def _ask(
        self, slots: asyncio.Semaphore, policy: PolicyServer, pdu: Pdu, *, despite_standing: bool = False
    ) -> JsonObject:
        """The signatures that it answers with. Raises: RemoteFault."""
        ask = Ask(
            method="POST",
            path=_PATH,
            content=pdu.json,
            timeout_s=TIMEOUT_S,
            despite_standing=despite_standing,
        )
        async with slots:
            return await self._requests.ask(policy.server, ask)

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


def _explain(fault: RemoteFault) -> MatrixError:
    """What a user is told. Spec: "If the Policy Server returned an error, that error SHOULD be provided to the
    client verbatim"."""
    if not isinstance(fault, Refused) or fault.errcode is None or not 400 <= fault.status < 500:
        return BadGateway("The room's policy server cannot be reached.")
    words = fault.body.get("error")
    text = words[:MAX_WORDS] if isinstance(words, str) else "The room's policy server refuses this event."
    if fault.status == 429:
        pause_ms = fault.body.get("retry_after_ms")
        is_usable = type(pause_ms) is int and 0 < pause_ms < 2**31
        return LimitExceeded(text, retry_after_ms=pause_ms if is_usable else _DEFAULT_PAUSE_MS)
    return PolicyRefusal(fault.errcode[:MAX_WORDS], text)
