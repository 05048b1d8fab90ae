"""Inviting users: whether they let themselves be invited, and what the invite shows of them.

Spec: client-server API, "Room membership", "Invite permission" (v1.18).
"""

from collections.abc import Collection, Mapping, Sequence

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadGateway, InviteBlocked, UserSuspended
from ranvier.core.identifiers import EventID, RoomID, UserID, server_of
from ranvier.core.invite_permission import ALLOW_ALL, Verdict
from ranvier.services.accounts.creation import SummonUsers
from ranvier.services.requester import Requester
from ranvier.services.rooms.member_content import member_content, member_draft
from ranvier.services.rooms.permissions import read_invite_permissions
from ranvier.services.rooms.remote import RemoteRooms
from ranvier.services.rooms.timeline import Timeline
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import profiles
from ranvier.store.tables.interned import Interner, find_user_nids


class Inviting:
    """Invites users, those of other servers through these."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        timeline: Timeline,
        remote: RemoteRooms,
        summon: SummonUsers,
    ) -> None:
        self._summon = summon
        self._db = db
        self._interner = interner
        self._timeline = timeline
        self._remote = remote

    async def check(self, requester: Requester, invitees: Collection[UserID]) -> Mapping[UserID, JsonObject]:
        """Make sure that all of them may be invited; the content of the invite for each.

        Raises: UserSuspended, InviteBlocked.
        """
        if requester.is_suspended:
            raise UserSuspended("This account is suspended: it may not invite anybody.")
        if not invitees:
            return {}
        if requester.appservice_id is None:
            # A service knows its users, and may not be able to answer while it waits for us.
            await self._summon(invitees)
        return await self._db.read(_read_invitees, self._interner, requester.user_id, invitees)

    async def invite(
        self,
        requester: Requester,
        room_id: RoomID,
        user_id: UserID,
        extra: JsonObject,
        origin_server_ts: int | None = None,
    ) -> EventID:
        """Invite one user; `extra` goes into the content, too.

        Raises: what `check` raises; Forbidden, AuthRejected; InviteBlocked, BadGateway (users of other servers).
        """
        content = {**(await self.check(requester, [user_id]))[user_id], **extra}
        if server_of(user_id) != self._interner.own_server:
            return await self._remote.invite(requester.user_id, room_id, user_id, content)
        draft = member_draft(requester.user_id, user_id, content, origin_server_ts)
        (event_id,) = await self._timeline.send(room_id, [draft])
        return event_id

    async def invite_all(
        self, requester: Requester, room_id: RoomID, user_ids: Sequence[UserID], extra: JsonObject
    ) -> None:
        """Invite all of this server's users among them or nobody; then those of other servers, one after
        another. A server that does not answer keeps nobody else from being invited, and is not told of.

        Raises: what `check` raises; Forbidden, AuthRejected; InviteBlocked, when all others are invited.
        """
        contents = await self.check(requester, user_ids)
        own = [user_id for user_id in user_ids if server_of(user_id) == self._interner.own_server]
        if own:
            await self._invite_own(requester, room_id, {user_id: contents[user_id] for user_id in own}, extra)
        blocked: InviteBlocked | None = None
        for user_id in user_ids:
            if user_id in own:
                continue
            try:
                content = {**contents[user_id], **extra}
                await self._remote.invite(requester.user_id, room_id, user_id, content)
            except BadGateway:
                continue
            except InviteBlocked as error:
                blocked = error
        if blocked is not None:
            raise blocked

    async def _invite_own(
        self,
        requester: Requester,
        room_id: RoomID,
        contents: Mapping[UserID, JsonObject],
        extra: JsonObject,
    ) -> None:
        drafts = [
            member_draft(requester.user_id, user_id, {**content, **extra})
            for user_id, content in contents.items()
        ]
        await self._timeline.send(room_id, drafts)


def _read_invitees(
    txn: ReadTxn, interner: Interner, sender: UserID, invitees: Collection[UserID]
) -> dict[UserID, JsonObject]:
    nids = find_user_nids(txn, interner, invitees)
    permissions = read_invite_permissions(txn, nids.values())
    shown = profiles.list_profiles(txn, nids.values())
    contents: dict[UserID, JsonObject] = {}
    for user_id in invitees:
        nid = nids.get(user_id, 0)
        if permissions.get(nid, ALLOW_ALL).decide(sender) is Verdict.BLOCK:
            raise InviteBlocked(f"{user_id} does not want to be invited.")
        contents[user_id] = member_content("invite", shown.get(nid))
    return contents
