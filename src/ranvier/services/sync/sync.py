"""Answers /sync: at once if there is something to tell, else as soon as there is.

How a message comes out: docs/adr/0002-main-job.md. Requests that are awake at the same time are read together.
"""

import msgspec

from ranvier.io.clock import Clock
from ranvier.services.changes import NOTHING, Waiters, wait_for_news
from ranvier.services.requester import Requester
from ranvier.services.sync.batches import Batches
from ranvier.services.sync.clients import Client, Standings
from ranvier.services.sync.members_sent import Member, MembersSent
from ranvier.services.sync.reading import Job, Result
from ranvier.services.sync.request import SyncRequest
from ranvier.services.sync.slice_cache import SliceCache
from ranvier.services.sync.slices import Slice
from ranvier.services.sync.standing import Standing
from ranvier.store.database import Database


class Sync:
    """The service behind GET /sync."""

    def __init__(
        self,
        db: Database,
        standings: Standings,
        waiters: Waiters,
        batches: Batches[Job, Result],
        cache: SliceCache,
        clock: Clock,
    ) -> None:
        self._db = db
        self._standings = standings
        self._waiters = waiters
        self._batches = batches
        self._cache = cache
        self._clock = clock
        self._members = MembersSent()

    async def sync(self, requester: Requester, request: SyncRequest) -> bytes:
        """The response (JSON). Waits up to the request's timeout if there is nothing to tell."""
        if request.since is not None and not await self._standings.has_reached(request.since):
            # A token of a database that is no more: what the client knows may never have been.
            request = msgspec.structs.replace(request, since=None)
        known_members = self._known_members(requester, request)
        client = self._standings.client(requester)
        # Who begins anew has got nothing yet.
        client.acknowledge(request.since or 0)
        if request.since is None or request.full_state:
            standing = await self._standings.read(client)
            result = await self._read_first(requester, request, standing, known_members)
        else:
            result = await self._wait(client, request, request.since, known_members)
        if request.profile.lazy:
            device_id = requester.device_id or ""
            self._members.sent(
                requester.user_nid, device_id, request.profile, request.since, result.now, result.members
            )
        return client.answered(result)

    async def _read_first(
        self, requester: Requester, request: SyncRequest, standing: Standing, known_members: frozenset[Member]
    ) -> Result:
        """Everything, or all state: what is answered in any case."""
        cached: dict[int, Slice] = {}
        if request.since is None:
            cached = self._cache.find(request.profile, standing.rooms, standing.position, requester.user_nid)
        job = Job(requester, request, standing, None, known_members, None, cached)
        result = await self._batches.run_alone(job)
        self._cache.keep(request.profile, result.read, self._db.position())
        return result

    async def _wait(
        self, client: Client, request: SyncRequest, since: int, known_members: frozenset[Member]
    ) -> Result:
        """The first result with something to tell, or at the end one without."""
        deadline = self._clock.monotonic() + request.timeout_ms / 1000
        seen = since
        while True:
            standing = await self._standings.read(client)
            result = Result(standing, None)
            changed = self._standings.changed(client, seen)
            if changed != NOTHING:
                if seen != since:
                    changed = self._standings.changed(client, since)
                job = Job(client.requester, request, standing, changed, known_members, client.keys_told)
                result = await self._batches.run(job)
            remaining = deadline - self._clock.monotonic()
            if result.body is not None or remaining <= 0 or self._waiters.is_closed:
                return result
            if changed != NOTHING:
                # Of all that happened nothing is for this client. More may have happened meanwhile.
                seen = standing.position
                continue
            # RACE: no await since it was seen that nothing changed.
            with self._standings.subscription(client).wakeup() as woken:
                await wait_for_news(woken, self._clock, remaining)

    def _known_members(self, requester: Requester, request: SyncRequest) -> frozenset[Member]:
        if not request.profile.lazy:
            return frozenset()
        return self._members.known_at(
            requester.user_nid, requester.device_id or "", request.profile, request.since
        )
