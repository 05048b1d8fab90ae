"""Asking another server for an event by which one of our users joins, knocks at or leaves its room; signing it,
and handing it in.

Spec: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)".
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import (
    BadGateway,
    Forbidden,
    IncompatibleRoomVersion,
    MatrixError,
    NotFound,
    ProtocolFault,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
)
from ranvier.core.events.build import build_event
from ranvier.core.events.pdu import Pdu
from ranvier.core.events.template import parse_template
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion, get_federated_version
from ranvier.io.ports import Misbehaved, RemoteFault
from ranvier.services.remote.requests import Ask, Refused, Requests, path_of
from ranvier.services.rooms.timeline import Author

MAX_SERVERS: Final = 8
"""Servers that are tried, one after another."""

_V1: Final = "/_matrix/federation/v1"
_AUTHORISED_VIA: Final = "join_authorised_via_users_server"
_MAKE: Final[Mapping[str, str]] = {"join": "make_join", "knock": "make_knock", "leave": "make_leave"}


class Made(msgspec.Struct, frozen=True):
    """An event of ours on the other server's graph."""

    pdu: Pdu
    version: RoomVersion


class Handshake:
    """Makes events on rooms of other servers."""

    def __init__(self, requests: Requests, author: Author) -> None:
        self._requests = requests
        self._author = author

    @property
    def server(self) -> ServerName:
        """This one."""
        return self._author.server

    def candidates(self, servers: Iterable[ServerName]) -> list[ServerName]:
        """The servers to try, each once, without this one."""
        return [server for server in dict.fromkeys(servers) if server != self.server][:MAX_SERVERS]

    async def make(self, server: ServerName, room_id: RoomID, user_id: UserID, content: JsonObject) -> Made:
        """The signed member event; `content` is what we want it to say.

        Raises: RemoteFault.
        """
        membership = str(content["membership"])
        ask = Ask(
            method="GET",
            path=path_of(f"{_V1}/{_MAKE[membership]}", room_id, user_id),
            query=() if membership == "leave" else [("ver", name) for name in ROOM_VERSIONS],
            despite_standing=True,
        )
        answer = await self._requests.ask(server, ask)
        try:
            return self._sign(answer, room_id, user_id, content)
        except ProtocolFault as fault:
            raise Misbehaved(f"{server} offered what cannot be an event: {fault}") from fault

    async def hand_in(self, server: ServerName, operation: str, pdu: Pdu, bounds: Ask) -> JsonObject:
        """What the server answers. `bounds` gives time and size. Raises: RemoteFault."""
        path = path_of(f"/_matrix/federation/{operation}", pdu.room_id, pdu.event_id)
        ask = msgspec.structs.replace(bounds, method="PUT", path=path, content=pdu.json)
        return await self._requests.ask(server, ask)

    def _sign(self, answer: JsonObject, room_id: RoomID, user_id: UserID, content: JsonObject) -> Made:
        """Raises: ProtocolFault, Misbehaved."""
        version = get_federated_version(answer.get("room_version", "1"))
        offered = answer.get("event")
        if not isinstance(offered, dict):
            raise Misbehaved("no event was offered")
        author = self._author
        event_id = None
        if not version.hash_event_ids:
            event_id = EventID(f"${author.randomness.text(18)}:{author.server}")
        template, placement = parse_template(offered, version, author.clock.now_ms(), event_id)
        if (
            template.room_id != room_id
            or template.sender != user_id
            or template.state_key != user_id
            or template.type != "m.room.member"
            or template.content.get("membership") != content["membership"]
        ):
            raise Misbehaved("another event was offered than the one that was asked for")
        vouching = template.content.get(_AUTHORISED_VIA)
        if isinstance(vouching, str) and version.auth.restricted:
            content = {**content, _AUTHORISED_VIA: vouching}
        template = msgspec.structs.replace(template, content=content)
        return Made(build_event(template, placement, version, author.server, author.key), version)


_PASSED_ON: Final[Mapping[str, type[MatrixError]]] = {
    "M_FORBIDDEN": Forbidden,
    "M_NOT_FOUND": NotFound,
    "M_INCOMPATIBLE_ROOM_VERSION": IncompatibleRoomVersion,
    "M_UNABLE_TO_AUTHORISE_JOIN": UnableToAuthoriseJoin,
    "M_UNABLE_TO_GRANT_JOIN": UnableToGrantJoin,
}
_WORDS: Final[Mapping[str, str]] = {
    "M_FORBIDDEN": "The room does not let you in.",
    "M_NOT_FOUND": "The room was not found.",
    "M_INCOMPATIBLE_ROOM_VERSION": "This server does not know the version of the room.",
    "M_UNABLE_TO_AUTHORISE_JOIN": "No server that was asked can tell whether you may join.",
    "M_UNABLE_TO_GRANT_JOIN": "No server that was asked can let you in.",
}


def is_final(fault: RemoteFault) -> bool:
    """Whether the next server would say the same."""
    return isinstance(fault, Refused) and fault.errcode in ("M_FORBIDDEN", "M_INCOMPATIBLE_ROOM_VERSION")


def explain(faults: Iterable[RemoteFault]) -> MatrixError:
    """What the user is told when no server helped: what the rules say, if any server got that far. The text is
    ours: nothing of another server's words goes on to a client."""
    found: dict[str, Refused] = {}
    is_asked = False
    for fault in faults:
        is_asked = True
        if isinstance(fault, Refused) and fault.errcode in _PASSED_ON:
            found.setdefault(fault.errcode or "", fault)
    for errcode, kind in _PASSED_ON.items():
        if errcode in found:
            version = found[errcode].body.get("room_version")
            extra = {"room_version": version[:64]} if isinstance(version, str) else {}
            return kind(_WORDS[errcode], **(extra if kind is IncompatibleRoomVersion else {}))
    if not is_asked:
        return NotFound("No server is known that is in this room.")
    return BadGateway("No server that is in the room can be reached.")
