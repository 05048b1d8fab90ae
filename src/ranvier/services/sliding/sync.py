"""Answers sliding sync: at once if there is something to tell, else as soon as there is.

Requests that are awake at the same time are read together.
"""

import msgspec

from ranvier.io.clock import Clock
from ranvier.services.changes import Changed, Waiters, wait_for_news
from ranvier.services.requester import Requester
from ranvier.services.sliding.connections import Connection, Connections
from ranvier.services.sliding.reading import Draft, Job, Result
from ranvier.services.sliding.request import SlidingRequest
from ranvier.services.sliding.results import (
    AccountDataAnswer,
    Answer,
    Encryption,
    ExtensionsAnswer,
    StickyAnswer,
    ToDevice,
)
from ranvier.services.sliding.rosters import Rosters
from ranvier.services.sliding.told import Knowledge
from ranvier.services.sliding.warm_rooms import WarmRooms
from ranvier.services.sync.batches import Batches
from ranvier.services.sync.clients import Client, Standings
from ranvier.services.sync.standing import Standing
from ranvier.services.thread_subscriptions.listing import SubscriptionsPage
from ranvier.store.database import Database


class SlidingSync:
    """The service behind both forms of the endpoint."""

    def __init__(
        self,
        db: Database,
        standings: Standings,
        waiters: Waiters,
        batches: Batches[Job, Result],
        connections: Connections,
        rosters: Rosters,
        warm: WarmRooms,
        clock: Clock,
    ) -> None:
        self._db = db
        self._standings = standings
        self._waiters = waiters
        self._batches = batches
        self._connections = connections
        self._rosters = rosters
        self._warm = warm
        self._clock = clock

    async def sync(self, requester: Requester, request: SlidingRequest) -> Answer:
        """The answer. Waits up to the request's timeout if there is nothing to tell a client that knows something.

        Raises: UnknownPosition.
        """
        connection, knowledge = await self._connections.find(requester, request)
        client = self._standings.client(requester)
        self._acknowledge(connection, requester, request)
        deadline = self._clock.monotonic() + request.timeout_ms / 1000
        while True:
            standing = await self._standings.read(client)
            with self._standings.subscription(client).wakeup() as woken:
                changed = None if knowledge is None else self._standings.changed(client, knowledge.position)
                if knowledge is not None and _is_quiet(knowledge, request, changed, standing):
                    draft = _quiet_draft(knowledge, request, standing)
                else:
                    draft = await self._read(client, request, knowledge, changed)
                remaining = deadline - self._clock.monotonic()
                if draft.is_news or knowledge is None or remaining <= 0 or self._waiters.is_closed:
                    return self._answer(connection, knowledge, draft)
                await wait_for_news(woken, self._clock, remaining)

    async def _read(
        self,
        client: Client,
        request: SlidingRequest,
        knowledge: Knowledge | None,
        changed: Changed | None,
    ) -> Draft:
        requester, standing = client.requester, client.standing
        assert standing is not None, "it was read just now"
        roster, roster_changed = self._rosters.find(requester.user_nid, standing)
        is_new_view = knowledge is None or knowledge.shown is None or not knowledge.shown.asks_same(request)
        cached = self._warm.find(request, roster, standing) if is_new_view else {}
        job = Job(requester, request, knowledge, standing, changed, roster, roster_changed, cached)
        # A new view may take long to read: nobody else should wait for it.
        result = await (self._batches.run_alone(job) if is_new_view else self._batches.run(job))
        self._rosters.keep(requester.user_nid, result.roster)
        if is_new_view:
            self._warm.keep(result.slices, standing.position)
        return result.draft

    def _answer(self, connection: Connection, knowledge: Knowledge | None, draft: Draft) -> Answer:
        pos = self._connections.answered(connection, knowledge, draft.knowledge)
        shown = draft.shown
        return Answer(pos, shown.windows, shown.room_ids, draft.rooms, draft.extensions)

    def _acknowledge(self, connection: Connection, requester: Requester, request: SlidingRequest) -> None:
        """What a client shows as its position among messages has arrived there."""
        asked = request.extensions.to_device
        if asked is None or asked.since is None or requester.device_nid is None:
            return
        if connection.acknowledged < asked.since <= self._db.position():
            connection.acknowledged = asked.since
            self._standings.acknowledged.note(requester.device_nid, asked.since)


def _quiet_draft(knowledge: Knowledge, request: SlidingRequest, standing: Standing) -> Draft:
    """What is told when nothing changed."""
    wanted, shown = request.extensions, knowledge.shown
    assert shown is not None, "it is quiet only where this is known"
    extensions = ExtensionsAnswer(
        to_device=None if wanted.to_device is None else ToDevice(wanted.to_device.since or 0, ()),
        encryption=Encryption(standing.keys, None) if wanted.encryption else None,
        account_data=None if wanted.account_data is None else AccountDataAnswer((), {}),
        receipts=None if wanted.receipts is None else {},
        typing=None if wanted.typing is None else {},
        thread_subscriptions=None if wanted.thread_subscriptions is None else SubscriptionsPage((), None),
        sticky=None if wanted.sticky is None else StickyAnswer(standing.position, {}),
    )

    def later(upto: int | None) -> int | None:
        return standing.position if upto == knowledge.position else upto

    after = msgspec.structs.replace(
        knowledge,
        position=standing.position,
        account_data_upto=later(knowledge.account_data_upto),
        device_lists_upto=later(knowledge.device_lists_upto),
        subscriptions_upto=later(knowledge.subscriptions_upto),
    )
    return Draft((), extensions, after, shown, False)


def _is_quiet(
    knowledge: Knowledge, request: SlidingRequest, changed: Changed | None, standing: Standing
) -> bool:
    """Whether there certainly is nothing to tell, so that nothing has to be read."""
    shown, wanted = knowledge.shown, request.extensions
    if shown is None or changed is None or changed.user or not changed.rooms.isdisjoint(standing.rooms):
        return False
    if wanted.encryption and changed.device_lists:
        return False
    if wanted.to_device is not None and (wanted.to_device.since or 0) != knowledge.to_device_upto:
        return False
    if wanted.sticky is not None and (wanted.sticky.since or 0) < knowledge.position:
        return False
    same = msgspec.structs.replace(
        wanted, to_device=knowledge.extensions.to_device, sticky=knowledge.extensions.sticky
    )
    return shown.asks_same(request) and same == knowledge.extensions
