"""One answer, read in one transaction: roster, windows, plans, rooms, extensions, and what the client knows then."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.io.clock import Clock
from ranvier.services.changes import Changed
from ranvier.services.requester import Requester
from ranvier.services.sliding.extensions import Circumstances, ExtensionsReader, Touched
from ranvier.services.sliding.lists import cut, newest_first, read_children, select
from ranvier.services.sliding.making import ReadRoom
from ranvier.services.sliding.planning import PENDING, Since, doubtful, plan_rooms
from ranvier.services.sliding.progress import next_knowledge
from ranvier.services.sliding.request import RoomConfig, SlidingRequest
from ranvier.services.sliding.results import ExtensionsAnswer, RoomResult
from ranvier.services.sliding.rooms import Asked, CachedSlices, RoomsReader, SharedSlices
from ranvier.services.sliding.roster import Content, Roster, read_roster
from ranvier.services.sliding.told import NOTHING_KNOWN, Knowledge
from ranvier.services.sliding.windows import Shown, WindowedList
from ranvier.services.sync.slices import Slices
from ranvier.services.sync.standing import Standing
from ranvier.store.database import ReadTxn
from ranvier.store.tables.account_data import GLOBAL, list_account_data_changes
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.memberships import list_membership_changes
from ranvier.store.tables.sliding import find_room_nids, list_changed_since, list_rooms_read

_NONE: Final[AbstractSet[int]] = frozenset()


class Job(msgspec.Struct, frozen=True):
    """One request, and what is known before anything is read."""

    requester: Requester
    request: SlidingRequest
    knowledge: Knowledge | None  # None: the client knows nothing
    standing: Standing
    changed: Changed | None  # since the knowledge; None: it cannot be told from memory
    roster: Roster | None
    roster_changed: Changed | None  # since the roster, likewise
    cached: CachedSlices


class Draft(msgspec.Struct, frozen=True):
    """An answer that nobody has got yet."""

    rooms: Sequence[RoomResult]
    extensions: ExtensionsAnswer
    knowledge: Knowledge  # that it leads to
    shown: Shown
    is_news: bool  # whether a client that waits is to get it


class Result(msgspec.Struct, frozen=True):
    draft: Draft
    roster: Roster
    slices: SharedSlices  # whole rooms among them are worth keeping


class SlidingReader:
    """Runs jobs in read transactions, on any thread."""

    def __init__(
        self,
        interner: Interner,
        slices: Slices,
        rooms: RoomsReader,
        extensions: ExtensionsReader,
        clock: Clock,
    ) -> None:
        self._interner = interner
        self._slices = slices
        self._rooms = rooms
        self._extensions = extensions
        self._clock = clock

    def read_all(self, txn: ReadTxn, jobs: Sequence[Job]) -> list[Result]:
        """Every job, in one transaction. What several of them ask is read once."""
        shared: SharedSlices = {}
        return [self._read(txn, job, shared) for job in jobs]

    def _read(self, txn: ReadTxn, job: Job, shared: SharedSlices) -> Result:
        standing, request = job.standing, job.request
        roster = read_roster(
            txn, self._interner, job.requester.user_nid, standing, job.roster, job.roster_changed
        )
        touched = self._touched(txn, job)
        if job.knowledge is not None and job.knowledge.is_stale:
            known = doubtful(job.knowledge, touched.every, roster.content)
            job = msgspec.structs.replace(job, knowledge=known)
        knowledge = job.knowledge or NOTHING_KNOWN
        shown = self._show(txn, job, roster.content, knowledge)
        since = Since(knowledge, standing.position, touched.rooms, touched.read)
        plans = plan_rooms(roster.content, shown.wanted, since)
        asked = Asked(
            job.requester,
            standing,
            None if job.knowledge is None else knowledge.position,
            self._clock.now_ms(),
            roster.content,
            request.tells_counts,
            job.cached,
        )
        read = self._rooms.read(txn, asked, plans, shared)
        at = Circumstances(job.requester, standing, job.knowledge, touched, shown, read)
        extensions, progress = self._extensions.read(txn, request.extensions, at)
        results = _name_lists(read, shown)
        is_other_view = knowledge.shown is not None and knowledge.shown.lists is not shown.lists
        is_news = bool(results) or extensions.is_news or is_other_view
        after = next_knowledge(at, progress, request.extensions)
        return Result(Draft(results, extensions, after, shown, is_news), roster, shared)

    def _show(self, txn: ReadTxn, job: Job, content: Content, knowledge: Knowledge) -> Shown:
        """What the windows show; that of before, if nothing is different."""
        request, before = job.request, knowledge.shown
        is_same_request = before is not None and before.asks_same(request)
        if before is not None and is_same_request and before.content is content and not content.left:
            return before
        order = newest_first(content, knowledge)
        spaces = {space for one in request.lists.values() for space in one.filters.spaces or frozenset()}
        children = read_children(txn, self._interner, content, spaces) if spaces else {}
        windows: dict[str, WindowedList] = {}
        wanted: dict[int, RoomConfig] = {}
        for name, one in request.lists.items():
            windows[name] = cut(select(content, order, one.filters, children), one.ranges)
            for nid in windows[name].shows():
                wanted[nid] = wanted[nid] | one.config if nid in wanted else one.config
        subscribed = self._subscribed(txn, request, content, knowledge)
        for room_id, nid in subscribed.items():
            config = request.subscriptions[room_id]
            wanted[nid] = wanted[nid] | config if nid in wanted else config
        same = before if is_same_request else None
        return Shown(
            request.lists if same is None else same.lists,
            request.subscriptions if same is None else same.subscriptions,
            content,
            windows,
            wanted,
            subscribed,
            self._slices.room_ids(txn, wanted),
        )

    def _subscribed(
        self, txn: ReadTxn, request: SlidingRequest, content: Content, knowledge: Knowledge
    ) -> dict[RoomID, int]:
        """The subscriptions to rooms that the user may see something of. Spec: MSC4186, "Subscriptions"."""
        if not request.subscriptions:
            return {}
        return {
            room_id: nid
            for room_id, nid in find_room_nids(txn, list(request.subscriptions)).items()
            if (place := content.places.get(nid)) is not None
            and (place.was_joined or place.membership in PENDING or nid in knowledge.rooms)
        }

    def _touched(self, txn: ReadTxn, job: Job) -> Touched:
        """What changed after the client's knowledge."""
        if job.knowledge is None:
            return Touched(_NONE, _NONE, _NONE, _NONE, True, None)
        user_nid, position, now = job.requester.user_nid, job.knowledge.position, job.standing.position
        if job.changed is None:
            known = job.standing.rooms & job.knowledge.rooms.keys()
            rooms: AbstractSet[int] = list_changed_since(txn, known, position)
        else:
            rooms = job.changed.rooms & job.standing.rooms
            if not job.changed.user:
                return Touched(rooms, _NONE, _NONE, _NONE, False, job.changed)
        own = {
            one.room_nid
            for one in list_account_data_changes(txn, user_nid, position, now)
            if one.room_nid != GLOBAL
        }
        moved = {one.room_nid for one in list_membership_changes(txn, user_nid, position, now)}
        return Touched(rooms, list_rooms_read(txn, user_nid, position, now), own, moved, True, job.changed)


def _name_lists(read: Mapping[int, ReadRoom], shown: Shown) -> list[RoomResult]:
    """The results, each with the names of the lists that show the room."""
    names: dict[int, list[str]] = {nid: [] for nid, one in read.items() if one.result is not None}
    if names:
        for name, one in shown.windows.items():
            for nid in {nid for nid in one.shows() if nid in names}:
                names[nid].append(name)
    return [
        msgspec.structs.replace(one.result, lists=names[nid])
        for nid, one in read.items()
        if one.result is not None
    ]
