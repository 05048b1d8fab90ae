"""Spec: server-server API, "Third-party invites"."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier, InvalidParam
from ranvier.core.identifiers import parse_room_id, parse_user_id
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.third_party_invites import Bound, ThirdPartyInvites


class Signed(msgspec.Struct, frozen=True):
    """What the identity server signed, as far as it is looked at before the signature is."""

    signed: JsonObject
    display_name: str | None = None


class ExchangedContent(msgspec.Struct, frozen=True):
    membership: str
    third_party_invite: Signed


class ExchangeBody(msgspec.Struct, frozen=True):
    """An m.room.member event that is not one yet."""

    type: str
    room_id: str
    sender: str
    state_key: str
    content: ExchangedContent


class PendingInvite(msgspec.Struct, frozen=True):
    room_id: str
    sender: str
    mxid: str
    signed: JsonObject


class OnBindBody(msgspec.Struct, frozen=True):
    medium: str
    address: str
    mxid: str
    invites: list[PendingInvite]


class ThirdPartyInvitesOfServers:
    """Invites to those of whom only an email address was known."""

    def __init__(self, invites: ThirdPartyInvites) -> None:
        self._invites = invites

    @server_endpoint(
        "PUT",
        "/_matrix/federation/v1/exchange_third_party_invite/{roomId}",
        operation="exchangeThirdPartyInvite",
    )
    async def exchange_third_party_invite(self, request: Request) -> dict[str, object]:
        body = request.body(ExchangeBody)
        room_id = request.room_id
        is_invite = body.type == "m.room.member" and body.content.membership == "invite"
        if body.room_id != room_id or not is_invite:
            raise InvalidParam("This is no invite to the room that the path names.")
        await self._invites.exchange(
            origin_of(request),
            Bound(
                room_id,
                parse_user_id(body.sender),
                parse_user_id(body.state_key),
                body.content.third_party_invite.signed,
            ),
        )
        return {}

    @endpoint(
        "PUT",
        "/_matrix/federation/v1/3pid/onbind",
        operation="onBindThirdPartyIdentifier",
        auth=Auth.NONE,
        api=Api.FEDERATION,
        # Anybody may ask, and each request can make this server ask a hundred others.
        rate=Rate.JOIN,
    )
    async def on_bind_third_party_identifier(self, request: Request) -> dict[str, object]:
        body = request.body(OnBindBody)
        parse_user_id(body.mxid)
        await self._invites.bind(
            [bound for one in body.invites if (bound := _bound(one, body.mxid)) is not None]
        )
        return {}


def _bound(invite: PendingInvite, mxid: str) -> Bound | None:
    """None for what is no invite of this user."""
    try:
        bound = Bound(
            parse_room_id(invite.room_id),
            parse_user_id(invite.sender),
            parse_user_id(invite.mxid),
            invite.signed,
        )
    except BadIdentifier:
        return None
    return bound if bound.invitee == mxid == invite.signed.get("mxid") else None
