"""What can be told of another server's event by itself: its format, its signatures, its content hash.

Spec: server-server API, "Checks performed on receipt of a PDU", steps 1 to 3.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadEvent, BadSignature, ProtocolFault
from ranvier.core.events.parse import (
    pdu_of_object,
    required_signers,
    signed_bytes,
    verify_event_signature,
)
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID, ServerName
from ranvier.core.room_versions import RoomVersion
from ranvier.core.signing import VerifyKey, signing_key_ids
from ranvier.services.remote.keyring import Keyring, KeyWanted

CHUNK: Final = 50
"""Events checked in one go. More of them are checked on another thread, so that others get their turn."""

MAX_KEYS_PER_SIGNER: Final = 5
"""Signatures of one server on one event that are looked at."""


class RoomRef(msgspec.Struct, frozen=True):
    """A room that events are to be of."""

    nid: int
    room_id: RoomID
    version: RoomVersion


class Unchecked(BadSignature):
    """Nothing is known against the event: the keys of its signers could not be had."""

    def __init__(self, wanted: Sequence[KeyWanted]) -> None:
        super().__init__(f"the keys of {wanted[0].server} are not known")
        self.wanted = wanted


def list_unchecked(checked: Iterable[Pdu | ProtocolFault]) -> set[KeyWanted]:
    """The keys that were not to be had, one of which each of the unchecked events needs."""
    return {want for one in checked if isinstance(one, Unchecked) for want in one.wanted}


class _Parsed(msgspec.Struct, frozen=True):
    """An event and the keys with which its signers may have signed it: one of each will do."""

    pdu: Pdu
    signers: Sequence[Sequence[KeyWanted]]


class Checking:
    """Checks events with the keys of the servers that signed them."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def check(
        self,
        room: RoomRef,
        events: Sequence[JsonObject],
        source: ServerName | None = None,
        *,
        limit_parents: bool = True,
    ) -> list[Pdu | ProtocolFault]:
        """For each event, in order, what it is, or why it is to be dropped (Unchecked: for now). An event whose
        content hash does not match is the redacted form of what came. `source`: the server that told of them.

        Cost: about 0.3 ms of work for an event; requests for keys, for all events at once.
        """
        checked: list[Pdu | ProtocolFault] = []
        for start in range(0, len(events), CHUNK):
            chunk = events[start : start + CHUNK]
            is_small = len(events) <= CHUNK
            if is_small:
                parsed = _parse_all(room, chunk, limit_parents)
            else:
                parsed = await asyncio.to_thread(_parse_all, room, chunk, limit_parents)
            keys = await self._keyring.find_keys(_list_wanted(parsed), source)
            if is_small:
                checked += _verify_all(room.version, parsed, keys)
            else:
                checked += await asyncio.to_thread(_verify_all, room.version, parsed, keys)
        return checked


def _list_wanted(parsed: Iterable[_Parsed | ProtocolFault]) -> set[KeyWanted]:
    return {want for one in parsed if isinstance(one, _Parsed) for signer in one.signers for want in signer}


def _parse_all(
    room: RoomRef, events: Sequence[JsonObject], limit_parents: bool
) -> list[_Parsed | ProtocolFault]:
    parsed: list[_Parsed | ProtocolFault] = []
    for event in events:
        try:
            parsed.append(_parse(room, event, limit_parents))
        except ProtocolFault as fault:
            parsed.append(fault)
    return parsed


def _parse(room: RoomRef, event: JsonObject, limit_parents: bool) -> _Parsed:
    pdu = pdu_of_object(event, room.version, limit_parents=limit_parents)
    if pdu.room_id != room.room_id:
        raise BadEvent("the event is of another room")
    valid_at_ms = pdu.origin_server_ts if room.version.enforce_key_validity else None
    signers = []
    for server in required_signers(pdu, room.version):
        key_ids = signing_key_ids(pdu.signatures, server)[:MAX_KEYS_PER_SIGNER]
        if not key_ids:
            raise BadSignature(f"not signed by {server}")
        signers.append([KeyWanted(server, key_id, valid_at_ms) for key_id in key_ids])
    return _Parsed(pdu, signers)


def _verify_all(
    version: RoomVersion,
    parsed: Sequence[_Parsed | ProtocolFault],
    keys: Mapping[KeyWanted, VerifyKey],
) -> list[Pdu | ProtocolFault]:
    verified: list[Pdu | ProtocolFault] = []
    for one in parsed:
        try:
            verified.append(_verify(version, one, keys) if isinstance(one, _Parsed) else one)
        except ProtocolFault as fault:
            verified.append(fault)
    return verified


def _verify(version: RoomVersion, one: _Parsed, keys: Mapping[KeyWanted, VerifyKey]) -> Pdu:
    """Raises: BadSignature unless each of the signers has a good signature."""
    signed = signed_bytes(one.pdu, version)
    for wanted in one.signers:
        fault: BadSignature = Unchecked(wanted)
        for want in wanted:
            key = keys.get(want)
            if key is None:
                continue
            try:
                verify_event_signature(one.pdu, signed, want.server, want.key_id, key)
                break
            except BadSignature as error:
                fault = error
        else:
            raise fault
    return one.pdu
