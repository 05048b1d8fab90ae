"""Bringing users into rooms, giving them power there, and mending rooms, in the name of whoever may do it.

An administrator of the server has no power in a room. What is done here is done by users of this server who have it.
"""

from typing import Final

import msgspec

from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.select import CREATE, JOIN_RULES, POWER_LEVELS
from ranvier.core.errors import AuthRejected, Forbidden, InvalidParam, MatrixError
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID, ServerName, UserID
from ranvier.core.room_versions import get_room_version
from ranvier.services.administration.people import act_as, check_local, get_account, get_room
from ranvier.services.requester import Requester
from ranvier.services.rooms.joining import Joining
from ranvier.services.rooms.live import read_slots
from ranvier.services.rooms.membership import Membership
from ranvier.services.rooms.timeline import Draft, Timeline
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships
from ranvier.store.tables.interned import Interner, list_user_ids

MAX_MERGES: Final = 50
"""Events that one request sends to bring a room's branches together, each of up to twenty."""
_MERGING_TYPE: Final = "org.matrix.dummy_event"
_ADMIN_LEVEL: Final = 100


class _Helper(msgspec.Struct, frozen=True):
    """A user of this server with power in a room, and what the room looks like."""

    user_id: UserID
    level: int
    power_levels: Pdu | None
    join_rule: object
    target_membership: str | None


class Entering:
    """Acts in rooms."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        timeline: Timeline,
        joining: Joining,
        membership: Membership,
    ) -> None:
        self._db = db
        self._interner = interner
        self._timeline = timeline
        self._joining = joining
        self._membership = membership

    async def join(
        self, requester: Requester, user_id: UserID, room_id: RoomID, servers: list[ServerName]
    ) -> None:
        """Let a user of this server join. Where an invite is needed, the administrator invites, who must be able to.

        Raises: InvalidParam (a user of another server); NotFound; what joining and inviting raise.
        """
        check_local(user_id, self._interner.own_server)
        user = act_as(await self._db.read(get_account, user_id))
        try:
            await self._joining.join(user, room_id, None, servers)
        except (Forbidden, AuthRejected):
            await self._membership.invite(requester, room_id, user_id)
            await self._joining.join(user, room_id, None, servers)

    async def make_room_admin(self, room_id: RoomID, user_id: UserID) -> None:
        """Give a user as much power as a user of this server in the room can give; invite who is not in it and cannot
        enter otherwise.

        Raises: NotFound; InvalidParam: nobody of this server in the room has the power.
        """
        helper = await self._db.read(self._find_helper, room_id, user_id)
        if helper.target_membership != memberships.JOIN and helper.join_rule != "public":
            invitee = act_as(await self._db.read(get_account, helper.user_id))
            if helper.target_membership != memberships.INVITE:
                await self._membership.invite(invitee, room_id, user_id)
        content = {} if helper.power_levels is None else dict(helper.power_levels.content)
        users = content.get("users")
        content["users"] = {**(users if isinstance(users, dict) else {}), user_id: helper.level}
        draft = Draft(sender=helper.user_id, type="m.room.power_levels", state_key="", content=content)
        await self._timeline.send(room_id, [draft])

    async def merge_heads(self, room_id: RoomID) -> int:
        """Bring the branches of a room's history together, by events that no client shows; how many forward
        extremities there are fewer now. To forget extremities instead would tear our view of the room from others'.

        Raises: NotFound; InvalidParam: nobody of this server in the room may send anything.
        """
        before = len((await self._db.read(get_room, room_id)).extremities)
        for _ in range(MAX_MERGES):
            if len((await self._db.read(get_room, room_id)).extremities) <= 1:
                break
            await self._merge_some(room_id)
        return max(0, before - len((await self._db.read(get_room, room_id)).extremities))

    async def _merge_some(self, room_id: RoomID) -> None:
        for user_id in await self._db.read(self._list_joined, room_id):
            try:
                await self._timeline.send(room_id, [Draft(sender=user_id, type=_MERGING_TYPE, content={})])
            except (MatrixError, AuthRejected):
                continue  # another one may be allowed to
            return
        raise InvalidParam("Nobody of this server in the room may send events there.")

    def _list_joined(self, txn: ReadTxn, room_id: RoomID) -> list[UserID]:
        nids = memberships.list_local_members(txn, get_room(txn, room_id).room_nid)
        names = list_user_ids(txn, self._interner, nids)
        return [names[nid] for nid in sorted(nids)]

    def _find_helper(self, txn: ReadTxn, room_id: RoomID, target: UserID) -> _Helper:
        """The most powerful user of this server in the room. Raises: NotFound; InvalidParam."""
        room = get_room(txn, room_id)
        version = get_room_version(room.version)
        member = ("m.room.member", target)
        slots = (CREATE, POWER_LEVELS, JOIN_RULES, member)
        state = read_slots(txn, self._interner, room.room_nid, room_id, version, slots)
        power = PowerLevels.from_events(state[CREATE], state[POWER_LEVELS], version)
        candidates = self._list_joined(txn, room_id)
        best = max(candidates, key=power.user_level, default=None)
        needed = power.event_level("m.room.power_levels", is_state=True)
        if best is None or power.user_level(best) < needed:
            raise InvalidParam("Nobody of this server in the room may change who has power there.")
        level = power.user_level(best)
        if target in power.creators and version.auth.privileged_creators:
            raise InvalidParam("The creators of this room have all power already.")
        if version.auth.privileged_creators and best in power.creators:
            level = max(_ADMIN_LEVEL, needed)
        join_rules, current = state[JOIN_RULES], state[member]
        return _Helper(
            best,
            level,
            state[POWER_LEVELS],
            None if join_rules is None else join_rules.content.get("join_rule"),
            None if current is None else current.content.get("membership"),
        )
