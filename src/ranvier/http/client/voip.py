"""Calls. Spec: client-server API, "Voice over IP"; MSC4143; MSC4195."""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import ServerName, UserID, parse_room_id
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.rtc.livekit import (
    CALL_SLOT,
    LiveKitAccess,
    LiveKitTokens,
    OpenIdProofs,
    Participant,
)
from ranvier.services.rtc.relays import RelayAccess, Relays

LIVEKIT_SERVICE: Final = "/_ranvier/livekit"
"""Below it stands what clients of 2025 know as the LiveKit authorization service."""

_BODY_BYTES: Final = 16_384

Name = Annotated[str, Meta(min_length=1, max_length=255)]


class Voip:
    """GET /voip/turnServer."""

    def __init__(self, relays: Relays | None) -> None:
        """`relays` is None where the administrator names no TURN server."""
        self._relays = relays

    @endpoint("GET", "/_matrix/client/v3/voip/turnServer", operation="getTurnServer", guests=True)
    async def get_turn_server(self, request: Request) -> RelayAccess | dict[str, object]:
        # Without a TURN server there are no credentials: an empty object, which is what clients take for that.
        return {} if self._relays is None else self._relays.admit(request.requester.user_id)


class RtcTransports:
    """GET /rtc/transports."""

    def __init__(self, transports: Sequence[JsonObject]) -> None:
        self._transports = transports

    @endpoint(
        "GET",
        "/_matrix/client/v1/rtc/transports",
        "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
        operation="getRtcTransports",
        guests=True,
    )
    async def get_rtc_transports(self, _request: Request) -> JsonObject:
        return {"rtc_transports": self._transports}


class Member(msgspec.Struct, frozen=True):
    id: Name
    claimed_device_id: Name
    claimed_user_id: str | None = None


class TokenBody(msgspec.Struct, frozen=True):
    room_id: str
    slot_id: Name
    member: Member
    server_name: str | None = None


class OpenIdProof(msgspec.Struct, frozen=True):
    access_token: Name
    matrix_server_name: Name


class ServiceTokenBody(msgspec.Struct, frozen=True):
    room_id: str
    slot_id: Name
    member: Member
    openid_token: OpenIdProof


class SfuBody(msgspec.Struct, frozen=True):
    room: str
    openid_token: OpenIdProof
    device_id: Name


class LiveKit:
    """Where clients get tokens for the media server."""

    def __init__(self, own_server: ServerName, tokens: LiveKitTokens, proofs: OpenIdProofs) -> None:
        self._own_server = own_server
        self._tokens = tokens
        self._proofs = proofs

    @endpoint(
        "POST",
        "/_matrix/client/v1/rtc/livekit/get_token",
        operation="getLiveKitToken",
        rate=Rate.WRITE,
        guests=True,
        max_body_bytes=_BODY_BYTES,
    )
    async def get_token(self, request: Request) -> LiveKitAccess:
        body = request.body(TokenBody)
        if body.server_name not in (None, self._own_server):
            # The proposal does not say yet how the other server learns who asks.
            raise NotFound("For the media server of another homeserver its own service has to be asked.")
        participant = Participant(request.requester.user_id, body.member.claimed_device_id, body.member.id)
        return await self._tokens.issue(parse_room_id(body.room_id), body.slot_id, participant)

    @endpoint(
        "POST",
        LIVEKIT_SERVICE + "/get_token",
        operation="getLiveKitServiceToken",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
        max_body_bytes=_BODY_BYTES,
    )
    async def get_service_token(self, request: Request) -> LiveKitAccess:
        body = request.body(ServiceTokenBody)
        user_id = await self._find_user(body.openid_token)
        participant = Participant(user_id, body.member.claimed_device_id, body.member.id)
        return await self._tokens.issue(parse_room_id(body.room_id), body.slot_id, participant)

    @endpoint(
        "POST",
        LIVEKIT_SERVICE + "/sfu/get",
        operation="getLiveKitSfu",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
        max_body_bytes=_BODY_BYTES,
    )
    async def get_sfu(self, request: Request) -> LiveKitAccess:
        body = request.body(SfuBody)
        participant = Participant(await self._find_user(body.openid_token), body.device_id, None)
        return await self._tokens.issue(parse_room_id(body.room), CALL_SLOT, participant)

    async def _find_user(self, proof: OpenIdProof) -> UserID:
        return await self._proofs.find_user(proof.matrix_server_name, proof.access_token)
