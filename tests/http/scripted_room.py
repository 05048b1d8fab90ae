"""Rooms for tests of what is read: made by the write path itself, without the endpoints that make rooms."""

from collections.abc import Sequence
from typing import Any

from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.core.room_versions import get_room_version
from ranvier.services.rooms.timeline import Draft

from .homeserver import Homeserver, User


class Room:
    """A room and what its members do."""

    def __init__(self, homeserver: Homeserver, room_id: RoomID) -> None:
        self._timeline = homeserver.foundation.timeline
        self.room_id = room_id

    @classmethod
    async def create(
        cls, homeserver: Homeserver, creator: User, *, visibility: str = "shared", version: str = "11"
    ) -> "Room":
        """A public room with one member."""

        def state(type_: str, content: dict[str, Any], state_key: str = "") -> Draft:
            return Draft(sender=UserID(creator.user_id), type=type_, content=content, state_key=state_key)

        drafts = [
            state("m.room.create", {"room_version": version}),
            state("m.room.member", {"membership": "join"}, creator.user_id),
            state("m.room.power_levels", {"users": {creator.user_id: 100}, "state_default": 0}),
            state("m.room.join_rules", {"join_rule": "public"}),
            state("m.room.history_visibility", {"history_visibility": visibility}),
        ]
        room_id = await homeserver.foundation.timeline.create(get_room_version(version), drafts)
        return cls(homeserver, room_id)

    @property
    def path(self) -> str:
        return f"/_matrix/client/v3/rooms/{self.room_id}"

    @property
    def path_v1(self) -> str:
        return f"/_matrix/client/v1/rooms/{self.room_id}"

    async def send(self, drafts: Sequence[Draft]) -> list[EventID]:
        return await self._timeline.send(self.room_id, drafts)

    async def say(self, user: User, body: str, **more: Any) -> EventID:
        return await self.post(user, "m.room.message", {"msgtype": "m.text", "body": body, **more})

    async def post(
        self, user: User, type_: str, content: dict[str, Any], *, ts: int | None = None
    ) -> EventID:
        draft = Draft(sender=UserID(user.user_id), type=type_, content=content, origin_server_ts=ts)
        return (await self.send([draft]))[0]

    async def relate(self, user: User, target: EventID, rel_type: str, **content: Any) -> EventID:
        relation = {"m.relates_to": {"rel_type": rel_type, "event_id": target}}
        return await self.post(user, "m.room.message", {"body": "related", **content, **relation})

    async def edit(self, user: User, target: EventID, body: str, *, ts: int | None = None) -> EventID:
        """Of two edits with one `ts` (as within a millisecond) it is not the later that counts."""
        relation = {"rel_type": "m.replace", "event_id": target}
        content = {"body": "edited", "m.new_content": {"body": body}, "m.relates_to": relation}
        return await self.post(user, "m.room.message", content, ts=ts)

    async def set_state(self, user: User, type_: str, content: dict[str, Any], key: str = "") -> EventID:
        draft = Draft(sender=UserID(user.user_id), type=type_, content=content, state_key=key)
        return (await self.send([draft]))[0]

    async def set_membership(self, user: User, target: User, membership: str, **more: Any) -> EventID:
        content = {"membership": membership, **more}
        return await self.set_state(user, "m.room.member", content, target.user_id)

    async def join(self, user: User) -> EventID:
        return await self.set_membership(user, user, "join")

    async def leave(self, user: User) -> EventID:
        return await self.set_membership(user, user, "leave")

    async def redact(self, user: User, target: EventID) -> EventID:
        draft = Draft(
            sender=UserID(user.user_id), type="m.room.redaction", content={"reason": "spam"}, redacts=target
        )
        return (await self.send([draft]))[0]
