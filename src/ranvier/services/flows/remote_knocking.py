"""Knocking at a room that this server is not in. Spec: server-server API, "Knocking upon a room"."""

import logging
from collections.abc import Sequence
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.io.ports import RemoteFault
from ranvier.services.flows.handshake import Handshake, Made, explain, is_final
from ranvier.services.remote.requests import Ask
from ranvier.services.rooms.checking import Checking, RoomRef
from ranvier.services.rooms.elsewhere import Elsewhere, read_shown

log = logging.getLogger(__name__)

_BOUNDS: Final = Ask(method="PUT", path="", despite_standing=True)


class RemoteKnocking:
    """Knocks."""

    def __init__(self, handshake: Handshake, elsewhere: Elsewhere, checking: Checking) -> None:
        self._handshake = handshake
        self._elsewhere = elsewhere
        self._checking = checking

    async def knock(
        self, user_id: UserID, room_id: RoomID, servers: Sequence[ServerName], content: JsonObject
    ) -> EventID:
        """Knock through one of `servers`.

        Raises: Forbidden, NotFound, IncompatibleRoomVersion, BadGateway.
        """
        faults: list[RemoteFault] = []
        for server in self._handshake.candidates(servers):
            try:
                made = await self._handshake.make(server, room_id, user_id, content)
                await self._hand_in(server, made)
                return made.pdu.event_id
            except RemoteFault as fault:
                log.info("cannot knock at %s through %s: %s", room_id, server, fault)
                faults.append(fault)
                if is_final(fault):
                    break
        raise explain(faults)

    async def _hand_in(self, server: ServerName, made: Made) -> None:
        answer = await self._handshake.hand_in(server, "v1/send_knock", made.pdu, _BOUNDS)
        entries = answer.get("knock_room_state")
        ref = RoomRef(0, made.pdu.room_id, made.version)
        shown = await read_shown(self._checking, ref, entries if isinstance(entries, list) else [])
        await self._elsewhere.record(made.pdu, made.version, shown.stripped)
