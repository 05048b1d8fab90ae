"""Creating rooms. Spec: client-server API, POST /createRoom."""

from collections.abc import Mapping, Sequence
from typing import Final

from ranvier.core.errors import (
    AuthRejected,
    BadJsonValue,
    InvalidParam,
    InvalidRoomState,
    RoomInUse,
    ServerNotTrusted,
    UnsupportedRoomVersion,
    UserSuspended,
)
from ranvier.core.identifiers import RoomAlias, RoomID, UserID, parse_room_alias, parse_user_id
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.aliases import AliasOwners
from ranvier.services.rooms.inviting import Inviting
from ranvier.services.rooms.member_content import member_content
from ranvier.services.rooms.new_room import Founder, NewRoom, build_drafts
from ranvier.services.rooms.timeline import Draft, Timeline
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import aliases, directory, profiles
from ranvier.store.tables.interned import Interner

NO_IDENTITY_SERVER: Final = (
    "Nobody can be invited by a third-party identifier: this server trusts no identity server."
)


class Creating:
    """Creates rooms."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        timeline: Timeline,
        inviting: Inviting,
        clock: Clock,
        default_version: RoomVersion,
        owners: AliasOwners,
        versions: Mapping[str, RoomVersion] = ROOM_VERSIONS,
    ) -> None:
        """`versions`: those that a user may choose."""
        self._db = db
        self._interner = interner
        self._timeline = timeline
        self._inviting = inviting
        self._clock = clock
        self._default_version = default_version
        self._owners = owners
        self._versions = versions

    async def create(self, requester: Requester, wish: NewRoom) -> RoomID:
        """Make the room, its alias and its entry in the directory at once; then invite.

        Raises: UserSuspended; UnsupportedRoomVersion; InvalidRoomState when the room's own rules forbid one of
        the events; RoomInUse; ExclusiveNamespace; ServerNotTrusted (invite_3pid); InvalidParam, BadJsonValue;
        BadIdentifier; InviteBlocked and what else `Inviting.check` raises, before the room is made; BadEvent, BadJson.
        """
        if requester.is_suspended:
            raise UserSuspended("This account is suspended: it may not create rooms.")
        if wish.invite_3pid:
            raise ServerNotTrusted(NO_IDENTITY_SERVER)
        version = self.choose_version(wish.room_version)
        alias = None if wish.room_alias_name is None else self._alias(wish.room_alias_name)
        if alias is not None:
            self._owners.check_alias(requester, alias)
        invitees = _parse_invitees(wish, requester.user_id)
        await self._inviting.check(requester, invitees)
        founder = await self.founder(requester)
        drafts = build_drafts(wish, founder, version, invitees, alias)
        room_id = await self.make(requester, version, drafts, alias, is_published=wish.visibility == "public")
        if invitees:
            extra = {"is_direct": True} if wish.is_direct else {}
            await self._inviting.invite_all(requester, room_id, invitees, extra)
        return room_id

    def choose_version(self, name: str | None) -> RoomVersion:
        """The version that a user asks for; None: whichever. Raises: UnsupportedRoomVersion."""
        if name is None:
            return self._default_version
        if name not in self._versions:
            raise UnsupportedRoomVersion(f"rooms of version {name[:100]!r} are not made here")
        return self._versions[name]

    async def founder(self, requester: Requester) -> Founder:
        """The creator with what the others get to see of them."""
        profile = await self._db.read(profiles.find_profile, requester.user_nid)
        return Founder(requester.user_id, member_content("join", profile))

    async def make(
        self,
        requester: Requester,
        version: RoomVersion,
        drafts: Sequence[Draft],
        alias: RoomAlias | None = None,
        *,
        is_published: bool = False,
    ) -> RoomID:
        """Store a room with its first events, all or nothing.

        Raises: InvalidRoomState, RoomInUse; what `Timeline.create` raises besides.
        """
        now_ms = self._clock.now_ms()

        def also(txn: WriteTxn, room_nid: int) -> None:
            if alias is not None and not aliases.insert_alias(
                txn, alias, room_nid, requester.user_nid, now_ms
            ):
                raise RoomInUse(f"{alias} names another room already.")
            if is_published:
                directory.publish_room(txn, room_nid)

        try:
            return await self._timeline.create(version, drafts, also)
        except (AuthRejected, BadJsonValue) as error:
            raise InvalidRoomState(f"The room's own rules forbid this: {error}.") from error

    def _alias(self, localpart: str) -> RoomAlias:
        if ":" in localpart or any(character.isspace() for character in localpart):
            raise InvalidParam("room_alias_name: an alias's local part has no colon and no white space.")
        return parse_room_alias(f"#{localpart}:{self._interner.own_server}")


def _parse_invitees(wish: NewRoom, creator: UserID) -> list[UserID]:
    """Each once, and without the creator, who is there anyway."""
    invitees = {parse_user_id(user): None for user in wish.invite}
    invitees.pop(creator, None)
    return list(invitees)
