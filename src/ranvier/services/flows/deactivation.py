"""Closing an account for good.

The account, its sessions and its data go in one transaction; the rooms are left afterwards by a job of that very
transaction, so that no crash leaves a closed account in a room.

Spec: client-server API, "Account deactivation".
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import MatrixError, NotFound, ProtocolFault
from ranvier.core.identifiers import RoomID, UserID
from ranvier.io.clock import Clock
from ranvier.services.accounts.logout import end_all_sessions
from ranvier.services.accounts.password_change import proven_user
from ranvier.services.accounts.uia import UserInteractive
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.account_data import delete_account_data_of_user
from ranvier.store.tables.accounts import deactivate_account, find_account_by_id
from ranvier.store.tables.jobs import Job, enqueue_job
from ranvier.store.tables.key_backup import delete_version, find_current_version
from ranvier.store.tables.memberships import INVITE, JOIN, KNOCK, list_rooms_of_user
from ranvier.store.tables.profiles import replace_profile
from ranvier.store.tables.pushers import delete_pushers_of_user
from ranvier.store.tables.rooms import list_rooms
from ranvier.store.tables.threepids import delete_threepids_of_user

log = logging.getLogger(__name__)

LEAVING: Final = "leave rooms"
"""The kind of job; its key is the user id."""

Leave = Callable[[Requester, RoomID], Awaitable[None]]
"""Leave a room, reject an invite or take a knock back. Raises: MatrixError, ProtocolFault."""


class Deactivation:
    """Closes the account of whoever proves to be the owner."""

    def __init__(self, db: Database, clock: Clock, uia: UserInteractive) -> None:
        self._db = db
        self._clock = clock
        self._uia = uia

    async def deactivate(self, requester: Requester | None, auth: JsonObject | None, *, erase: bool) -> None:
        """Close the account. An application service need not authenticate again.

        Raises: UiaRequired.
        """
        if requester is not None and requester.appservice_id is not None:
            user_id = requester.user_id
        else:
            proofs = await self._uia.authorize_owner(requester, "deactivateAccount", auth)
            user_id = proven_user(proofs)
        await self._db.write(close_account, user_id, self._clock.now_ms(), erase=erase)


class Departure:
    """Does the jobs of kind LEAVING."""

    def __init__(self, db: Database, leave: Leave) -> None:
        self._db = db
        self._leave = leave

    async def run(self, job: Job) -> None:
        """Leave every room. Raises: StoreFault; the job is done again then."""
        leaver = await self._db.read(_read, UserID(job.key))
        for room_id in leaver.rooms:
            try:
                await self._leave(leaver.requester, room_id)
            except (MatrixError, ProtocolFault) as error:
                # Such as a room that cannot be reached any more: the others are left all the same.
                log.warning("%s cannot leave %s: %s", job.key, room_id, error)


class _Leaver(msgspec.Struct, frozen=True):
    requester: Requester
    rooms: Sequence[RoomID]


def close_account(txn: WriteTxn, user_id: UserID, now_ms: int, *, erase: bool) -> None:
    """Close an account: nobody can log in, nothing of its sessions stays, its rooms will be left.

    `erase`: profile, account data and key backups go, and newcomers see its messages redacted.
    Raises: NotFound.
    """
    account = find_account_by_id(txn, user_id)
    if account is None:
        raise NotFound("There is no such user.")
    user_nid = account.user_nid
    deactivate_account(txn, user_nid, now_ms, is_erased=erase)
    end_all_sessions(txn, user_nid)
    delete_pushers_of_user(txn, user_nid)
    delete_threepids_of_user(txn, user_nid)
    if erase:
        _erase(txn, user_nid)
    enqueue_job(txn, LEAVING, user_id, b"{}", now_ms)


def _erase(txn: WriteTxn, user_nid: int) -> None:
    """What the user kept here besides events."""
    replace_profile(txn, user_nid, {})
    delete_account_data_of_user(txn, user_nid)
    while (backup := find_current_version(txn, user_nid)) is not None:
        delete_version(txn, user_nid, backup.version)


def _read(txn: ReadTxn, user_id: UserID) -> _Leaver:
    account = find_account_by_id(txn, user_id)
    if account is None:
        raise NotFound("There is no such user.")
    present = list_rooms_of_user(txn, account.user_nid, (JOIN, INVITE, KNOCK))
    room_ids = [room.room_id for room in list_rooms(txn, [one.room_nid for one in present]).values()]
    return _Leaver(Requester(user_id=user_id, user_nid=account.user_nid, device_id=None), room_ids)
