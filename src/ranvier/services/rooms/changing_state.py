"""State events that clients write themselves: each goes to the service that knows what has to hold for it.

Spec: client-server API, PUT /rooms/{roomId}/state/{eventType}/{stateKey}.
"""

from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import UserSuspended
from ranvier.core.identifiers import EventID, RoomID, UserID, parse_user_id
from ranvier.services.requester import Requester
from ranvier.services.rooms.canonical_alias import CanonicalAliases
from ranvier.services.rooms.inviting import Inviting
from ranvier.services.rooms.joining import Joining
from ranvier.services.rooms.member_content import member_draft
from ranvier.services.rooms.membership import Membership
from ranvier.services.rooms.succession import Successions
from ranvier.services.rooms.timeline import Draft, Timeline

_MEMBER: Final = "m.room.member"
_CANONICAL_ALIAS: Final = "m.room.canonical_alias"
_GUEST_ACCESS: Final = "m.room.guest_access"
_TOMBSTONE: Final = "m.room.tombstone"


class ChangingState:
    """Sends state events on behalf of users."""

    def __init__(
        self,
        timeline: Timeline,
        membership: Membership,
        inviting: Inviting,
        joining: Joining,
        canonical_aliases: CanonicalAliases,
        successions: Successions,
    ) -> None:
        self._timeline = timeline
        self._membership = membership
        self._inviting = inviting
        self._joining = joining
        self._canonical_aliases = canonical_aliases
        self._successions = successions

    async def set(
        self,
        requester: Requester,
        room_id: RoomID,
        event_type: str,
        state_key: str,
        content: JsonObject,
        origin_server_ts: int | None = None,
        sticky_ms: int | None = None,
    ) -> EventID:
        """Send the event, sticky for so long (MSC4354) or not; one that changes nothing is not sent again.

        Raises: Forbidden, AuthRejected; UserSuspended; BadAlias, InvalidParam (m.room.canonical_alias);
        BadIdentifier, InviteBlocked and what else entering a room raises (m.room.member); what
        `Timeline.send` raises.
        """
        if event_type == _MEMBER:
            return await self._set_member(
                requester, room_id, parse_user_id(state_key), content, origin_server_ts
            )
        if requester.is_suspended:
            raise UserSuspended("This account is suspended: it may not change a room.")
        if event_type == _CANONICAL_ALIAS:
            await self._canonical_aliases.check(room_id, content)
        draft = Draft(
            sender=requester.user_id,
            type=event_type,
            state_key=state_key,
            content=content,
            origin_server_ts=origin_server_ts,
            sticky_ms=sticky_ms,
        )
        drafts = [draft]
        if event_type == _GUEST_ACCESS and content.get("guest_access") != "can_join":
            drafts += [_leave(guest) for guest in await self._joining.list_guests(room_id)]
        event_id, *_ = await self._timeline.send(room_id, drafts)
        if event_type == _TOMBSTONE:
            await self._successions.close(room_id, content)
        return event_id

    async def _set_member(
        self,
        requester: Requester,
        room_id: RoomID,
        user_id: UserID,
        content: JsonObject,
        origin_server_ts: int | None,
    ) -> EventID:
        membership = content.get("membership")
        if membership == "invite":
            return await self._inviting.invite(requester, room_id, user_id, content, origin_server_ts)
        if membership == "join" and user_id == requester.user_id:
            return await self._joining.join_as(requester, room_id, content, origin_server_ts)
        if membership == "knock" and user_id == requester.user_id:
            return await self._joining.knock_as(requester, room_id, content, origin_server_ts)
        return await self._membership.set(requester, room_id, user_id, content, origin_server_ts)


def _leave(guest: UserID) -> Draft:
    """Spec: "Guest access": where guests may not join any more, those who are there have to leave."""
    return member_draft(guest, guest, {"membership": "leave"})
