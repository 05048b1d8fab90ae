"""Finds what was said, in all rooms that the searcher is in or was in.

The newest events that hold all words are looked at, up to a bound; of them those count that the searcher may see
and that the filter lets pass. They come newest first, or those first in which the words weigh most.

Spec: client-server API, "Server Side Search".
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import parse_object
from ranvier.core.filters import EventFilter, EventSelector, FilterableEvent, compile_event_filter
from ranvier.core.identifiers import RoomID, UserID
from ranvier.io.clock import Clock
from ranvier.services.message_search.indexing import SearchIndexer
from ranvier.services.message_search.surroundings import Around, ContextSize, Surroundings, read_around
from ranvier.services.message_search.words import TYPE_OF_KEY, searched_words, words_of
from ranvier.services.requester import Requester
from ranvier.services.rooms.pages import Pages
from ranvier.services.rooms.showing import Frame, Showing, VisibleEvent
from ranvier.services.rooms.sight import Viewer, list_viewers
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, state
from ranvier.store.tables.interned import Interner, list_user_ids
from ranvier.store.tables.message_search import list_searched_rooms, search_events
from ranvier.store.tables.timeline import ORDER_BITS

MAX_CANDIDATES: Final = 500
"""Events with the words that one search looks at, the newest."""
MAX_ROOMS: Final = 10_000
MAX_RESULTS: Final = 50
"""In one answer."""
DEFAULT_RESULTS: Final = 10
MAX_TERM_CHARS: Final = 1_024


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What is searched for."""

    term: str
    keys: Collection[str] = tuple(TYPE_OF_KEY)
    filter: EventFilter
    by_rank: bool = True
    context: ContextSize | None = None
    with_state: bool = False


class Place(msgspec.Struct, frozen=True):
    """Where a further page begins: the results of the first page's moment, without so many of them."""

    upto: int  # position
    offset: int
    group: tuple[str, str] | None = None  # only those of this room or sender: ("room_id", …), ("sender", …)


class Result(msgspec.Struct, frozen=True):
    event_id: str
    room_id: RoomID
    sender: str
    rank: float
    event: bytes  # a client event as JSON
    surroundings: Surroundings | None


class Group(msgspec.Struct, frozen=True):
    """How far one room or one sender is dealt with."""

    shown: int  # results on this page and those before
    total: int


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """`count` and `upto` are of all that was found, whatever the page."""

    count: int
    upto: int
    words: Sequence[str]
    results: Sequence[Result]
    has_more: bool
    by_room: Mapping[str, Group]
    by_sender: Mapping[str, Group]
    state: Mapping[RoomID, Sequence[bytes]]  # empty unless asked for


class _Hit(msgspec.Struct, frozen=True):
    viewer: Viewer
    event: VisibleEvent
    sender: str
    rank: float


class MessageSearch:
    """Searches events."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        interner: Interner,
        indexer: SearchIndexer,
        showing: Showing,
        pages: Pages,
    ) -> None:
        self._db = db
        self._clock = clock
        self._indexer = indexer
        self._interner = interner
        self._showing = showing
        self._pages = pages

    async def search(self, requester: Requester, search: Search, place: Place | None) -> Results:
        """A page of the results; `place` for a further one."""
        words = searched_words(search.term[:MAX_TERM_CHARS])
        if place is None:
            await self._indexer.refresh()
        return await self._db.read(self._read, requester, search, words, place, self._clock.now_ms())

    def _read(
        self,
        txn: ReadTxn,
        requester: Requester,
        search: Search,
        words: Sequence[str],
        place: Place | None,
        now_ms: int,
    ) -> Results:
        begin = place or Place(txn.position, 0)
        hits = self._find_hits(txn, requester, search, words, begin)
        if search.by_rank:
            hits.sort(key=lambda hit: -hit.rank)
        limit = min(DEFAULT_RESULTS if search.filter.limit is None else search.filter.limit, MAX_RESULTS)
        end = begin.offset + limit
        page = hits[begin.offset : end]
        return Results(
            count=len(hits),
            upto=begin.upto,
            words=words,
            results=self._results(txn, page, search.context, now_ms),
            # COMPAT: a full page is followed by another one, be it empty: clients (and Complement) expect it.
            has_more=bool(page) and len(page) == limit,
            by_room=_groups([hit.viewer.room_id for hit in hits], end),
            by_sender=_groups([hit.sender for hit in hits], end),
            state=self._read_states(txn, page, now_ms) if search.with_state else {},
        )

    def _find_hits(
        self, txn: ReadTxn, requester: Requester, search: Search, words: Sequence[str], place: Place
    ) -> list[_Hit]:
        """All that counts, newest first."""
        if not words:
            return []
        selector = compile_event_filter(search.filter)
        room_ids = _list_rooms(txn, requester, selector, place.group)
        nids = search_events(txn, room_ids.keys(), words, upto=place.upto, limit=MAX_CANDIDATES)
        types = {TYPE_OF_KEY[key] for key in search.keys}
        by_room: defaultdict[int, list[events.EventRecord]] = defaultdict(list)
        for record in events.list_events(txn, nids).values():
            if record.type in types and record.redacted_by is None:
                by_room[record.room_nid].append(record)
        senders = list_user_ids(
            txn, self._interner, {record.sender_nid for found in by_room.values() for record in found}
        )
        viewers = list_viewers(txn, requester, {nid: room_ids[nid] for nid in by_room})
        hits: list[_Hit] = []
        for room_nid, records in by_room.items():
            viewer = viewers[room_nid]
            for event in self._showing.visible(txn, viewer, records).values():
                hit = _hit(viewer, event, senders[event[0].sender_nid], words, selector)
                if hit is not None and _is_in_group(hit, place.group):
                    hits.append(hit)
        return sorted(hits, key=lambda hit: -hit.event[0].event_nid)

    def _results(
        self, txn: ReadTxn, page: Sequence[_Hit], size: ContextSize | None, now_ms: int
    ) -> list[Result]:
        """Cost: 3 queries for each room, and 3 for each result that is to be shown with what stands around it."""
        arounds = [
            Around(hit.event) if size is None else read_around(txn, self._pages, hit.viewer, hit.event, size)
            for hit in page
        ]
        shown: dict[int, bytes] = {}
        for viewer in {hit.viewer.room_nid: hit.viewer for hit in page}.values():
            wanted = {
                event[0].event_nid: event
                for hit, around in zip(page, arounds, strict=True)
                if hit.viewer.room_nid == viewer.room_nid
                for event in around.events
            }
            frame = Frame(now_ms, viewer.room_id)
            encoded = self._pages.encode(txn, viewer, list(wanted.values()), frame)
            shown.update(zip(wanted, encoded, strict=True))
        return [
            Result(
                hit.event[0].event_id,
                hit.viewer.room_id,
                hit.sender,
                hit.rank,
                shown[hit.event[0].event_nid],
                None if size is None else around.encoded(shown),
            )
            for hit, around in zip(page, arounds, strict=True)
        ]

    def _read_states(self, txn: ReadTxn, page: Sequence[_Hit], now_ms: int) -> dict[RoomID, Sequence[bytes]]:
        """The state of each room in the page: of now, or when the searcher left."""
        viewers = {hit.viewer.room_nid: hit.viewer for hit in page}
        found: dict[RoomID, Sequence[bytes]] = {}
        for room_nid, viewer in viewers.items():
            until = txn.position
            if not viewer.standpoint.is_joined:
                until = viewer.standpoint.joined_until >> ORDER_BITS
            root = state.find_root_at(txn, room_nid, until)
            found[viewer.room_id] = self._pages.encode_root(txn, root, Frame(now_ms, viewer.room_id))
        return found


def _list_rooms(
    txn: ReadTxn, requester: Requester, selector: EventSelector, group: tuple[str, str] | None
) -> dict[int, RoomID]:
    """The rooms to search: those in which the requester is or was, and that are not encrypted."""
    only = group[1] if group is not None and group[0] == "room_id" else None
    return {
        nid: room_id
        for nid, room_id in list_searched_rooms(txn, requester.user_nid, MAX_ROOMS).items()
        if room_id in selector.rooms and only in (None, room_id)
    }


def _hit(
    viewer: Viewer, event: VisibleEvent, sender: UserID, words: Sequence[str], selector: EventSelector
) -> _Hit | None:
    """The event, if the filter lets it pass, and how much of it the searched words are."""
    record = event[0]
    content = parse_object(record.json)["content"]
    if not selector.matches(FilterableEvent(record.type, sender, viewer.room_id, content)):
        return None
    held = words_of(record.type, content)
    wanted = frozenset(words)
    return _Hit(viewer, event, sender, sum(word in wanted for word in held) / max(len(held), 1))


def _groups(values: Sequence[str], end: int) -> dict[str, Group]:
    totals, shown = Counter(values), Counter(values[:end])
    return {value: Group(count, totals[value]) for value, count in shown.items()}


def _is_in_group(hit: _Hit, group: tuple[str, str] | None) -> bool:
    return group is None or group[0] != "sender" or group[1] == hit.sender
