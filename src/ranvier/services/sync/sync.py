"""Answers /sync: at once if there is something to tell, else as soon as there is.

How a message comes out: docs/adr/0002-main-job.md. What is to be told is read for many requests together. One that
waits is woken with its answer.
"""

from collections.abc import Callable
from functools import partial

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
        since = request.since
        if since is not None and since > self._db.position() and not await self._standings.has_reached(since):
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
        job_at = partial(self._job_at, client, request, since, known_members)
        read_news = partial(self._batches.add, find=partial(self._find_job, client, job_at))
        seen = since
        while True:
            standing = self._standings.recall(client) or await self._standings.read(client)
            remaining = deadline - self._clock.monotonic()
            result: Result | None
            if self._standings.changed(client, seen) != NOTHING:
                result = await self._batches.run(job_at(standing))
            elif remaining <= 0 or self._waiters.is_closed:
                return Result(standing, None)
            else:
                # RACE: no await since it was seen that nothing changed.
                with self._standings.subscription(client).wakeup(read_news) as woken:
                    result = await wait_for_news(woken, self._clock, remaining)
            if result is not None:
                if result.body is not None or self._clock.monotonic() >= deadline:
                    return result
                # Of all that happened nothing is for this client. More may have happened meanwhile.
                seen = result.now

    def _job_at(
        self,
        client: Client,
        request: SyncRequest,
        since: int,
        known_members: frozenset[Member],
        standing: Standing,
    ) -> Job:
        changed = self._standings.changed(client, since)
        return Job(client.requester, request, standing, changed, known_members, client.keys_told)

    def _find_job(self, client: Client, job_at: Callable[[Standing], Job]) -> Job | None:
        """What a client that waits has to have read now; None: it has to look for itself, as it does when nothing
        changed, or something of its own."""
        standing = self._standings.recall(client)
        job = None if standing is None else job_at(standing)
        return None if job is None or job.changed == NOTHING else job

    def _known_members(self, requester: Requester, request: SyncRequest) -> frozenset[Member]:
        if not request.profile.lazy:
            return frozenset()
        return self._members.known_at(
            requester.user_nid, requester.device_id or "", request.profile, request.since
        )
