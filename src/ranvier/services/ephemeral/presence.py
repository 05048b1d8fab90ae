"""Who is online: what the devices of users show, brought to one state for each user.

Everything that a request does here happens in memory. A worker writes what others are to see, about once a
second, and only where it changed. Where several processes serve one user, each tells what its own devices show
and says it again every minute, so that the last device to go decides within a minute.

Spec: client-server API, "Presence".
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

import msgspec

from ranvier.core.errors import BadJsonValue, Forbidden, InvalidParam
from ranvier.core.identifiers import UserID
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import memberships
from ranvier.store.tables.interned import Interner, find_user_nids
from ranvier.store.tables.presence import (
    Presence,
    PresenceState,
    list_idle,
    list_presence,
    set_presence,
    touch_presence,
)

IDLE_AFTER_MS: Final = 300_000
"""Without activity, an online user becomes unavailable."""

OFFLINE_AFTER_MS: Final = 30_000
"""Without a sync under way, a device counts as gone."""

MAX_STATUS_BYTES: Final = 4_096
"""Our own bound: a status message goes to everybody who shares a room."""

WRITE_EVERY_S: Final = 1.0
SWEEP_EVERY_MS: Final = 10_000
REASSERT_EVERY_MS: Final = 60_000
MAX_LEFT_OVER: Final = 100_000

_RANK: Final[Mapping[PresenceState, int]] = {
    PresenceState.OFFLINE: 0,
    PresenceState.UNAVAILABLE: 1,
    PresenceState.ONLINE: 2,
}


class PresenceShown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What GET /presence/{userId}/status answers."""

    presence: str
    last_active_ago: int | None = None  # ms
    status_msg: str | None = None
    currently_active: bool | None = None


class _Device:
    __slots__ = ("seen_ms", "state", "syncs")

    def __init__(self) -> None:
        self.state = PresenceState.OFFLINE
        self.seen_ms = 0
        self.syncs = 0  # under way


class _Syncing:
    """Inside it, a device syncs."""

    __slots__ = ("_clock", "_device")

    def __init__(self, device: _Device, clock: Clock) -> None:
        self._device = device
        self._clock = clock

    def __enter__(self) -> None:
        self._device.syncs += 1

    def __exit__(self, *_raised: object) -> None:
        self._device.syncs -= 1
        self._device.seen_ms = self._clock.now_ms()


_UNSEEN: Final = nullcontext()


class _Standing:
    """What is known of one user here."""

    __slots__ = ("active_ms", "devices", "shown", "status_msg", "user_nid")

    def __init__(self, user_nid: int, now_ms: int) -> None:
        self.user_nid = user_nid
        self.devices: dict[str, _Device] = {}
        self.active_ms = now_ms
        self.status_msg: bytes | None = None
        self.shown: Presence | None = None  # as it was last written; None: not read yet

    def state(self, now_ms: int) -> PresenceState:
        state = PresenceState.OFFLINE
        for name, device in list(self.devices.items()):
            if not device.syncs and device.seen_ms + OFFLINE_AFTER_MS <= now_ms:
                del self.devices[name]
            elif _RANK[device.state] > _RANK[state]:
                state = device.state
        if state is PresenceState.ONLINE and self.active_ms + IDLE_AFTER_MS <= now_ms:
            return PresenceState.UNAVAILABLE
        return state

    def presence(self, now_ms: int) -> Presence:
        state = self.state(now_ms)
        return Presence(
            self.user_nid, state, self.status_msg, state is PresenceState.ONLINE, self.active_ms, True
        )


_STATES: Final = {state.value: state for state in PresenceState}


def parse_state(text: str) -> PresenceState:
    """Raises: InvalidParam."""
    state = _STATES.get(text)
    if state is None:
        raise InvalidParam("presence is one of: online, unavailable, offline.")
    return state


class PresenceTracker:
    """The presence of local users, and what may be seen of anybody's."""

    def __init__(self, db: Database, interner: Interner, clock: Clock, *, enabled: bool) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._is_enabled = enabled
        self._standings: dict[int, _Standing] = {}
        self._dirty: set[int] = set()  # whose state may have changed
        self._swept_ms = 0
        self._reasserted_ms = 0
        self._changed = asyncio.Event()

    def syncing(self, requester: Requester, state: PresenceState) -> AbstractContextManager[None]:
        """A sync of the requester's device is under way; `state` is what it asked to be shown as.

        Cost: a few dictionary operations.
        """
        if not self._is_enabled or state is PresenceState.OFFLINE:
            return _UNSEEN
        standing = self._standing(requester)
        device = standing.devices.setdefault(requester.device_id or "", _Device())
        if device.state is not state:
            if state is PresenceState.ONLINE:
                standing.active_ms = self._clock.now_ms()
            device.state = state
            self._note_change(requester.user_nid)
        return _Syncing(device, self._clock)

    def note_activity(self, requester: Requester) -> None:
        """The user did something that others can see. Makes an idle user online again."""
        standing = self._standings.get(requester.user_nid)
        if standing is not None:
            standing.active_ms = self._clock.now_ms()
            if standing.shown is not None and standing.shown.state is PresenceState.UNAVAILABLE:
                self._note_change(requester.user_nid)

    async def set_presence(
        self, requester: Requester, user_id: str, state: PresenceState, status_msg: str | None
    ) -> None:
        """What the user wants to be shown as. Without `status_msg`, an earlier one goes.

        Raises: Forbidden (another user); BadJsonValue (a status that is too long or no Unicode).
        """
        if user_id != requester.user_id:
            raise Forbidden("You cannot set the presence of another user.")
        status = _encode_status(status_msg)
        if not self._is_enabled:
            return
        standing = self._standing(requester)
        device = standing.devices.setdefault(requester.device_id or "", _Device())
        now_ms = self._clock.now_ms()
        device.state, device.seen_ms = state, now_ms
        if state is PresenceState.ONLINE:
            standing.active_ms = now_ms
        standing.status_msg = status
        standing.shown = standing.presence(now_ms)
        await self._db.write(_store, [standing.shown], [])

    async def find_presence(self, requester: Requester, user_id: UserID) -> PresenceShown:
        """What the requester may see of a user.

        Raises: Forbidden when they share no room, whether or not there is such a user.
        """
        user_nid, presence = await self._db.read(_find, self._interner, requester.user_nid, user_id)
        now_ms = self._clock.now_ms()
        standing = self._standings.get(user_nid)
        if standing is not None and standing.shown is not None:
            presence = standing.presence(now_ms)
        if presence is None:
            return PresenceShown(presence=PresenceState.OFFLINE.value)
        return PresenceShown(
            presence=presence.state.value,
            last_active_ago=max(0, now_ms - presence.last_active_ms),
            status_msg=None if presence.status_msg is None else msgspec.json.decode(presence.status_msg),
            currently_active=presence.currently_active,
        )

    async def keep(self) -> None:
        """Write what changes, for ever: the loop of the worker."""
        left_over_ms: int | None = self._clock.now_ms() + REASSERT_EVERY_MS
        while self._is_enabled:
            # That somebody went away is seen in the next sweep: nobody does anything then.
            with suppress(TimeoutError):
                async with self._clock.timeout(SWEEP_EVERY_MS / 1000):
                    await self._changed.wait()
            self._changed.clear()
            await self.write_changes()
            if left_over_ms is not None and self._clock.now_ms() >= left_over_ms:
                left_over_ms = None
                await self._end_left_over()
            await self._clock.sleep(WRITE_EVERY_S)

    async def _end_left_over(self) -> None:
        """Users that a process which is gone left online, and who did not come back here within a minute.

        Those of another process, which lives, it says again.
        """
        present = await self._db.read(list_idle, self._clock.now_ms(), MAX_LEFT_OVER)
        left = [
            msgspec.structs.replace(one, state=PresenceState.OFFLINE, currently_active=False)
            for one in present
            if one.is_local and one.user_nid not in self._standings
        ]
        if left:
            await self._db.write(_store, left, [])

    async def write_changes(self) -> None:
        """Bring what others see to what is true now.

        Cost: the users whose devices did something; now and then, everybody who is here.
        """
        await self._read_shown()
        now_ms = self._clock.now_ms()
        concerned, self._dirty = self._dirty, set()
        if now_ms >= self._swept_ms + SWEEP_EVERY_MS:
            self._swept_ms = now_ms
            concerned = set(self._standings)
        stored: Mapping[int, Presence] = {}
        is_time = now_ms >= self._reasserted_ms + REASSERT_EVERY_MS
        if is_time:
            self._reasserted_ms = now_ms
            concerned = set(self._standings)
            stored = await self._db.read(list_presence, concerned)
        changed = [
            presence
            for user_nid in concerned
            if (presence := self._news_of(user_nid, stored.get(user_nid), now_ms)) is not None
        ]
        active = [one for one in self._list_shown(concerned) if one not in changed] if is_time else []
        if changed or active:
            await self._db.write(_store, changed, active)

    def _news_of(self, user_nid: int, stored: Presence | None, now_ms: int) -> Presence | None:
        """What others are to see of a user, if they see something else now."""
        standing = self._standings.get(user_nid)
        if standing is None:
            return None
        presence = standing.presence(now_ms)
        if not standing.devices:
            del self._standings[user_nid]
        before = stored or standing.shown
        standing.shown = presence
        return presence if before is None or _differs(before, presence) else None

    def _list_shown(self, users: Collection[int]) -> list[Presence]:
        standings = [self._standings[nid] for nid in users if nid in self._standings]
        return [standing.shown for standing in standings if standing.shown is not None]

    async def _read_shown(self) -> None:
        """The status messages of users who were not here before."""
        new = [nid for nid in self._dirty if nid in self._standings and self._standings[nid].shown is None]
        if not new:
            return
        stored = await self._db.read(list_presence, new)
        for user_nid in new:
            standing, presence = self._standings.get(user_nid), stored.get(user_nid)
            if standing is not None and standing.shown is None:
                offline = Presence(user_nid, PresenceState.OFFLINE, None, False, standing.active_ms, True)
                standing.shown = presence or offline
                standing.status_msg = standing.shown.status_msg

    def _note_change(self, user_nid: int) -> None:
        self._dirty.add(user_nid)
        self._changed.set()

    def _standing(self, requester: Requester) -> _Standing:
        standing = self._standings.get(requester.user_nid)
        if standing is None:
            standing = _Standing(requester.user_nid, self._clock.now_ms())
            self._standings[requester.user_nid] = standing
        return standing


class PresenceKeeper:
    """The worker."""

    name = "presence"

    def __init__(self, tracker: PresenceTracker) -> None:
        self._tracker = tracker

    async def run(self) -> None:
        await self._tracker.keep()


def _differs(before: Presence, after: Presence) -> bool:
    return before.state is not after.state or before.status_msg != after.status_msg


def _store(txn: WriteTxn, changed: list[Presence], active: list[Presence]) -> None:
    for presence in changed:
        set_presence(txn, presence)
    for presence in active:
        touch_presence(txn, presence.user_nid, presence.last_active_ms)


def _find(txn: ReadTxn, interner: Interner, viewer_nid: int, user_id: UserID) -> tuple[int, Presence | None]:
    """The user's number and presence. Raises: Forbidden."""
    user_nid = find_user_nids(txn, interner, (user_id,)).get(user_id)
    if user_nid is None or (
        user_nid != viewer_nid and not memberships.list_shared_rooms(txn, viewer_nid, user_nid, 1)
    ):
        raise Forbidden("You are not allowed to see their presence.")
    return user_nid, list_presence(txn, (user_nid,)).get(user_nid)


def _encode_status(status_msg: str | None) -> bytes | None:
    if status_msg is None:
        return None
    try:
        encoded = msgspec.json.encode(status_msg)
    except UnicodeEncodeError as error:
        raise BadJsonValue("status_msg: not Unicode.") from error
    if len(encoded) > MAX_STATUS_BYTES:
        raise BadJsonValue(f"status_msg: at most {MAX_STATUS_BYTES} bytes.")
    return encoded
