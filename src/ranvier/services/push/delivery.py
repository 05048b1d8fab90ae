"""The worker that tells push gateways, and by mail. It follows the rooms of users who have pushers.

Each pusher has at most one delivery under way, so its notifications go out in order; a claim in its row keeps
other processes away meanwhile. What was delivered is noted after each few notifications: after a crash some go
out twice, which gateways notice by the event id.

Spec: client-server API, "Push Notifications"; push gateway API, "Homeserver behaviour".
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ranvier.io.clock import Clock
from ranvier.services.push.notices import Notices, read_notices
from ranvier.services.push.pushers import HTTP
from ranvier.services.push.telling import Teller
from ranvier.services.turns import Turns
from ranvier.store.database import Database, Hint, Kind, WriteTxn
from ranvier.store.tables import pushers
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.pushers import Pusher

log = logging.getLogger(__name__)

GATHER_S: Final = 0.1
"""Between a change and looking for what it means: a busy room is looked at ten times a second."""

CLAIM_MS: Final = 600_000
"""Longer than delivering one batch can take."""

MIN_RETRY_MS: Final = 5_000
MAX_RETRY_MS: Final = 3_600_000

MAX_DELIVERIES: Final = 50
"""Under way at a time."""
DELIVERIES_OF_USER: Final = 4
DELIVERIES_TO_PLACE: Final = 25
"""Of these: neither one user's pushers nor one slow gateway is in the way of the others."""

PAGE: Final = 1_000


class PushDelivery:
    """Delivers to all pushers of this server."""

    name = "push-delivery"

    def __init__(
        self,
        db: Database,
        interner: Interner,
        clock: Clock,
        tellers: Mapping[str, Teller],
    ) -> None:
        """`tellers`: by kind of pusher. Pushers of other kinds wait until there is one."""
        self._db = db
        self._interner = interner
        self._clock = clock
        self._tellers = tellers
        self._news = _News()
        self._pushers: defaultdict[int, set[int]] = defaultdict(set)  # user_nid -> pusher_nids
        self._places: dict[int, tuple[int, str]] = {}  # pusher_nid -> user_nid, and where it delivers
        self._retries: dict[int, int] = {}  # pusher_nid -> when to try again, ms
        self._waiting: set[int] = set()  # those of _retries for which more news changes nothing
        self._under_way: set[int] = set()
        self._again: set[int] = set()  # something came while a delivery was under way
        self._slots = asyncio.Semaphore(MAX_DELIVERIES)
        self._of_user: Turns[int] = Turns(DELIVERIES_OF_USER)
        self._to_place: Turns[str] = Turns(DELIVERIES_TO_PLACE)
        db.subscribe(self._news.hear)

    async def run(self) -> None:
        # After a failure no task of the earlier run is left, though some may never have begun.
        self._under_way.clear()
        self._again.clear()
        async with asyncio.TaskGroup() as tasks:
            self._news.is_gap = True  # what was not delivered before
            while True:
                for pusher_nid in await self._find_due():
                    if pusher_nid in self._under_way:
                        self._again.add(pusher_nid)
                    else:
                        self._under_way.add(pusher_nid)
                        tasks.create_task(self._deliver_all(pusher_nid))
                await self._wait()

    async def _wait(self) -> None:
        """Until something may be due."""
        if not self._news.came.is_set():
            left = min(self._retries.values(), default=None)
            seconds = None if left is None else max(0, left - self._clock.now_ms()) / 1000
            try:
                async with self._clock.timeout(seconds):
                    await self._news.came.wait()
            except TimeoutError:
                return
        await self._clock.sleep(GATHER_S)

    async def _find_due(self) -> set[int]:
        news = self._news.take()
        if news.is_gap:
            await self._read_all()
            return {nid for nids in self._pushers.values() for nid in nids}
        due: set[int] = set()
        if news.users:
            due |= await self._read_changed(news.users)
        if self._pushers:
            if news.rooms:
                due |= await self._db.read(pushers.list_pushers_in_rooms, news.rooms) - self._waiting
            due.update(nid for user in news.readers for nid in self._pushers.get(user, ()))
        now_ms = self._clock.now_ms()
        for pusher_nid in [nid for nid, retry_ms in self._retries.items() if retry_ms <= now_ms]:
            del self._retries[pusher_nid]
            due.add(pusher_nid)
        return due

    async def _read_all(self) -> None:
        self._pushers.clear()
        self._places.clear()
        after = 0
        while page := await self._db.read(pushers.list_all_pushers, after, PAGE):
            self._keep(page)
            after = page[-1].pusher_nid

    async def _read_changed(self, users: Collection[int]) -> set[int]:
        found = await self._db.read(pushers.list_pushers_of_users, users)
        for user_nid in users:
            for pusher_nid in self._pushers.pop(user_nid, ()):
                del self._places[pusher_nid]
        self._keep(found)
        return {pusher.pusher_nid for pusher in found}

    def _keep(self, found: Sequence[Pusher]) -> None:
        for pusher in found:
            self._pushers[pusher.user_nid].add(pusher.pusher_nid)
            self._places[pusher.pusher_nid] = pusher.user_nid, _place_of(pusher)
        self._news.users_with_pushers = self._pushers.keys()

    async def _deliver_all(self, pusher_nid: int) -> None:
        """Deliver until there is nothing left to tell now, or it fails."""
        user_nid, place = self._places.get(pusher_nid, (-pusher_nid, ""))
        try:
            # In this order: who waits holds up nobody but those who share what is waited for.
            async with self._of_user.take(user_nid), self._to_place.take(place), self._slots:
                while await self._deliver_some(pusher_nid) or pusher_nid in self._again:
                    self._again.discard(pusher_nid)
        finally:
            self._under_way.discard(pusher_nid)
            self._again.discard(pusher_nid)

    async def _deliver_some(self, pusher_nid: int) -> bool:
        """Deliver a batch; whether there may be more."""
        self._waiting.discard(pusher_nid)
        now_ms = self._clock.now_ms()
        found = await self._db.read(read_notices, self._interner, pusher_nid, now_ms)
        teller = None if found is None else self._tellers.get(found.pusher.keys.kind)
        if found is None or teller is None:
            return False
        due_ms = teller.when(found, now_ms)
        if due_ms is None:
            return await self._skip(found)
        if due_ms > now_ms:
            await self._put_off(found.pusher, due_ms)
            return False
        pusher = found.pusher
        if not await self._db.write(pushers.claim_pusher, pusher, now_ms, now_ms + CLAIM_MS):
            self._try_at(pusher_nid, max(pusher.retry_ms, now_ms + MIN_RETRY_MS))
            return False
        told = await teller.tell(found)
        if told.is_rejected:
            keys = pusher.keys
            await self._db.write(pushers.delete_pusher, pusher.user_nid, keys.app_id, keys.pushkey)
            return False
        if told.fault is not None:
            await self._note_failure(pusher, told.pushed_nid, told.fault)
            return False
        await self._db.write(
            pushers.note_told, pusher_nid, told.pushed_nid, self._clock.now_ms(), told.gap_ms
        )
        return found.is_cut

    async def _skip(self, found: Notices) -> bool:
        """Nothing here is worth telling; whether there may be more behind it."""
        pusher = found.pusher
        if found.is_cut or pusher.due_ms is not None:
            await self._db.write(pushers.note_pushed, pusher.pusher_nid, found.up_to)
        return found.is_cut

    async def _put_off(self, pusher: Pusher, due_ms: int) -> None:
        """Noted in the database, so that a restart changes nothing."""
        if pusher.due_ms is None:
            await self._db.write(pushers.schedule_push, pusher.pusher_nid, due_ms)
        self._try_at(pusher.pusher_nid, due_ms)
        self._waiting.add(pusher.pusher_nid)

    def _try_at(self, pusher_nid: int, at_ms: int) -> None:
        self._retries[pusher_nid] = at_ms
        self._news.came.set()  # who waits does not know of it yet

    async def _note_failure(self, pusher: Pusher, pushed_nid: int, reason: str) -> None:
        """Wait as long again as the gateway has been failing: twice as long each time."""
        now_ms = self._clock.now_ms()
        failing_ms = 0
        if pusher.failing_since_ms is not None and pushed_nid == pusher.pushed_nid:
            failing_ms = now_ms - pusher.failing_since_ms
        retry_ms = now_ms + min(MAX_RETRY_MS, max(MIN_RETRY_MS, failing_ms))
        log.info("pusher %d failed: %s", pusher.pusher_nid, reason)
        await self._db.write(_note_failed, pusher, pushed_nid, now_ms, retry_ms)
        self._try_at(pusher.pusher_nid, retry_ms)


def _place_of(pusher: Pusher) -> str:
    """Whose slowness it shares: that of the host of its gateway, or of the way that its kind goes."""
    if pusher.keys.kind != HTTP:
        return pusher.keys.kind
    return urlsplit(str(msgspec.json.decode(pusher.keys.data)["url"])).hostname or ""


class _News:
    """What hints told since it was last taken."""

    def __init__(self) -> None:
        self.rooms: set[int] = set()
        self.users: set[int] = set()  # whose pushers changed
        self.readers: set[int] = set()  # who may have read something
        self.is_gap = False
        self.users_with_pushers: Collection[int] = ()
        self.came = asyncio.Event()

    def hear(self, hints: Sequence[Hint]) -> None:
        """A subscriber of the database. Costs next to nothing while nobody has a pusher."""
        for hint in hints:
            if hint.kind is Kind.PUSH:
                self.users.add(hint.key)
            elif hint.kind is Kind.GAP:
                self.is_gap = True
            elif not self.users_with_pushers:
                continue
            elif hint.kind is Kind.ROOM:
                self.rooms.add(hint.key)
            elif hint.kind is Kind.USER and hint.key in self.users_with_pushers:
                self.readers.add(hint.key)
        if self.rooms or self.users or self.readers or self.is_gap:
            self.came.set()

    def take(self) -> "_News":
        taken = _News()
        taken.rooms, taken.users, taken.readers = self.rooms, self.users, self.readers
        taken.is_gap = self.is_gap
        self.rooms, self.users, self.readers, self.is_gap = set(), set(), set(), False
        self.came.clear()
        return taken


def _note_failed(txn: WriteTxn, pusher: Pusher, pushed_nid: int, now_ms: int, retry_ms: int) -> None:
    if pushed_nid != pusher.pushed_nid:
        pushers.note_pushed(txn, pusher.pusher_nid, pushed_nid)
    pushers.note_push_failed(txn, pusher.pusher_nid, now_ms, retry_ms)
