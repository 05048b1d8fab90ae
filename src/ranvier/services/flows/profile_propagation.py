"""A changed name or picture into the member events of the user's rooms.

The change queues a job in its own transaction. Changes that follow each other quickly become one job, and a room
that shows the profile of now already gets no event.

Spec: client-server API, "Profiles", "Events on Change of Profile Information".
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.errors import MatrixError, ProtocolFault
from ranvier.core.identifiers import RoomID, UserID
from ranvier.services.rooms.live import LiveRoom
from ranvier.services.rooms.member_content import member_content, member_draft
from ranvier.services.rooms.timeline import Timeline
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.accounts import find_account_by_id
from ranvier.store.tables.jobs import Job
from ranvier.store.tables.memberships import list_rooms_of_user
from ranvier.store.tables.profiles import find_profile
from ranvier.store.tables.rooms import list_rooms

log = logging.getLogger(__name__)

AT_ONCE: Final = 16
"""Rooms under way at the same time: their events share commits."""
_SHOWN: Final = ("displayname", "avatar_url")


class _Settled(MatrixError):
    """The room needs no event."""


class _Shown(msgspec.Struct, frozen=True):
    user_id: UserID
    profile: Mapping[str, bytes]
    rooms: Sequence[RoomID]


class ProfilePropagation:
    """Does the jobs of kind `services.accounts.profiles.PROPAGATION`, whose key is the user id."""

    def __init__(self, db: Database, timeline: Timeline) -> None:
        self._db = db
        self._timeline = timeline

    async def run(self, job: Job) -> None:
        """Send the events that are missing. Raises: StoreFault; the job is done again then."""
        shown = await self._db.read(_read, UserID(job.key))
        for start in range(0, len(shown.rooms), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for room_id in shown.rooms[start : start + AT_ONCE]:
                    group.create_task(self._show(shown, room_id))

    async def _show(self, shown: _Shown, room_id: RoomID) -> None:
        content = member_content("join", shown.profile)

        def check(room: LiveRoom) -> None:
            current = room.state("m.room.member", shown.user_id)
            # Who has left must not be brought back by this.
            if current is None or current.content.get("membership") != "join":
                raise _Settled("The user is not in the room.")
            if all(current.content.get(field) == content.get(field) for field in _SHOWN):
                raise _Settled("The room shows this profile.")

        draft = member_draft(shown.user_id, shown.user_id, content)
        try:
            await self._timeline.send(room_id, [draft], check=check)
        except _Settled:
            return
        except (MatrixError, ProtocolFault) as error:
            # The room's own rules say no; asking again would not help.
            log.info("%s does not take the new profile of %s: %s", room_id, shown.user_id, error)


def _read(txn: ReadTxn, user_id: UserID) -> _Shown:
    account = find_account_by_id(txn, user_id)
    if account is None or account.deactivated_ms is not None:
        return _Shown(user_id, {}, ())
    joined = [one.room_nid for one in list_rooms_of_user(txn, account.user_nid)]
    room_ids = [room.room_id for room in list_rooms(txn, joined).values()]
    return _Shown(user_id, find_profile(txn, account.user_nid), room_ids)
