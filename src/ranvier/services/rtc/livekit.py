"""Tokens for the LiveKit media server of this homeserver: for those who are in the Matrix room of a call.

Users of this server may make the call's room on the media server; those of others may only enter it. Who asks is
known by an access token, or, as clients of 2025 do it for every participant of a call, by an OpenID token.

Spec: MSC4195.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.errors import BadIdentifier, MatrixError, Unauthorized
from ranvier.core.identifiers import RoomID, ServerName, UserID, parse_server_name, parse_user_id
from ranvier.core.jwt import sign_jwt
from ranvier.core.unpadded_base64 import encode_base64
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.remote.requests import Requests
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships, rooms
from ranvier.store.tables.interned import Interner, find_user_nids

LIFETIME_S: Final = 3600
CALL_SLOT: Final = "m.call#ROOM"
"""The slot of a call that belongs to the whole room: the only one that clients of 2025 know."""

OwnUser = Callable[[str], Awaitable[UserID]]
"""Whose OpenID token of this server it is. Raises: MatrixError."""


class LiveKitServer(msgspec.Struct, frozen=True):
    """What the administrator says of the media server."""

    url: str  # ws:// or wss://
    key: str
    secret: str


class Participant(msgspec.Struct, frozen=True):
    """Who takes part in a call, as which session."""

    user_id: UserID
    device_id: str
    member_id: str | None  # None: a client of 2025

    @property
    def identity(self) -> str:
        """The name on the media server: it does not tell who it is, unless the client cannot do without."""
        if self.member_id is None:
            return f"{self.user_id}:{self.device_id}"
        return _pseudonym(self.user_id, self.device_id, self.member_id)


class LiveKitAccess(msgspec.Struct, frozen=True):
    url: str
    jwt: str


class LiveKitTokens:
    """Gives the tokens out."""

    def __init__(self, interner: Interner, db: Database, clock: Clock, livekit: LiveKitServer) -> None:
        self._interner = interner
        self._db = db
        self._clock = clock
        self._livekit = livekit

    async def issue(self, room_id: RoomID, slot_id: str, participant: Participant) -> LiveKitAccess:
        """Raises: Unauthorized: they are not in the room, as far as this server knows."""
        if not await self._db.read(_is_joined, self._interner, room_id, participant.user_id):
            raise Unauthorized("The user is not in this room.")
        now_s = self._clock.now_ms() // 1000
        claims: JsonObject = {
            "iss": self._livekit.key,
            "sub": participant.identity,
            "nbf": now_s,
            "exp": now_s + LIFETIME_S,
            "video": {
                "room": _pseudonym(room_id, slot_id),
                "roomJoin": True,
                "roomCreate": participant.user_id.partition(":")[2] == self._interner.own_server,
                "canPublish": True,
                "canSubscribe": True,
            },
        }
        return LiveKitAccess(self._livekit.url, sign_jwt(claims, self._livekit.secret))


class OpenIdProofs:
    """Knows whose OpenID token it is, of this server or another one."""

    def __init__(self, own_server: ServerName, own_user: OwnUser, requests: Requests | None) -> None:
        """`requests` is None where there is no federation."""
        self._own_server = own_server
        self._own_user = own_user
        self._requests = requests

    async def find_user(self, server: str, token: str) -> UserID:
        """Raises: Unauthorized, whatever the reason is."""
        try:
            if server == self._own_server:
                return await self._own_user(token)
            name = parse_server_name(server)
            user_id = parse_user_id(await self._ask(name, token))
        except (MatrixError, BadIdentifier, RemoteFault) as error:
            raise Unauthorized("The OpenID token proves nothing.") from error
        if user_id.partition(":")[2] != name:
            raise Unauthorized("The OpenID token proves nothing.")
        return user_id

    async def _ask(self, server: ServerName, token: str) -> object:
        if self._requests is None:
            raise Unauthorized("This server speaks with no other ones.")
        query = (("access_token", token),)
        answer = await self._requests.get(server, "/_matrix/federation/v1/openid/userinfo", query)
        return answer.get("sub")


def _pseudonym(*parts: str) -> str:
    return encode_base64(hashlib.sha256(encode(list(parts))).digest())


def _is_joined(txn: ReadTxn, interner: Interner, room_id: RoomID, user_id: UserID) -> bool:
    room = rooms.find_room(txn, room_id)
    user_nid = find_user_nids(txn, interner, (user_id,)).get(user_id)
    if room is None or user_nid is None:
        return False
    membership = memberships.find_membership(txn, room.room_nid, user_nid)
    return membership is not None and membership.membership == memberships.JOIN
