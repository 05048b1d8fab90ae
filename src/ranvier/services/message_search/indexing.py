"""Keeps the words of events. A follower: it reads what is new, a little at a time, so that a busy server does
not wait for it.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.identifiers import EventID
from ranvier.io.clock import Clock
from ranvier.services.message_search.words import SEARCHED_TYPES, distinct, words_of
from ranvier.store.database import Conflict, Database, Hint, Kind, ReadTxn, WriteTxn
from ranvier.store.tables import events
from ranvier.store.tables.followers import find_follower, move_follower
from ranvier.store.tables.message_search import (
    REDACTION,
    SearchableEvent,
    Words,
    delete_words,
    insert_words,
    list_searchable,
)

NAME: Final = "message search"
PAUSE_S: Final = 0.5
"""Between two batches."""
BATCH: Final = 500
MAX_REFRESHED: Final = 10
"""Batches that a search waits for."""
MAX_BEHIND: Final = 10_000
"""Positions that are read again after a restart, though they held nothing that is searched."""

_TYPES: Final = (*sorted(SEARCHED_TYPES), REDACTION)


class SearchIndexer:
    """The follower."""

    name = NAME

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._came = asyncio.Event()
        self._turn = asyncio.Lock()
        db.subscribe(self._hear)

    async def run(self) -> None:
        self._came.set()
        while True:
            await self._came.wait()
            await self._clock.sleep(PAUSE_S)
            self._came.clear()
            try:
                has_more = await self.index_some()
            except Conflict:
                has_more = True  # another process was faster: look what is left
            if has_more:
                self._came.set()

    async def refresh(self) -> None:
        """Deal with what is new, within bounds: so that who searches finds what they have just said."""
        for _ in range(MAX_REFRESHED):
            try:
                if not await self.index_some():
                    return
            except Conflict:
                continue  # another process is at it

    async def index_some(self) -> bool:
        """Deal with the next events; whether there are more.

        Raises: Conflict when another process does the same.
        """
        async with self._turn:  # the worker, and all who search
            since, upto, found, gone, has_more = await self._db.read(_read_next)
            if found or gone or has_more or upto - since > MAX_BEHIND:
                await self._db.write(_store, found, gone, since, upto)
            return has_more

    def _hear(self, hints: Sequence[Hint]) -> None:
        if any(hint.kind in (Kind.ROOM, Kind.GAP) for hint in hints):
            self._came.set()


def _read_next(txn: ReadTxn) -> tuple[int, int, list[Words], list[Words], bool]:
    """From where to where, the words that come and those that go, and whether there are more."""
    since = find_follower(txn, NAME)
    new, upto = list_searchable(txn, since, txn.position, _TYPES, BATCH)
    found = [_words(one) for one in new if one.redacted_by is None and one.type != REDACTION]
    named = [_redacts(parse_object(one.json)) for one in new if one.type == REDACTION]
    targets = events.list_events_by_id(txn, [EventID(name) for name in named if isinstance(name, str)])
    gone = [
        Words(one.room_nid, one.event_nid, distinct(words_of(one.type, parse_object(one.json)["content"])))
        for one in targets.values()
        if one.redacted_by is not None and one.type in SEARCHED_TYPES
    ]
    return since, upto, [one for one in found if one.words], gone, upto < txn.position


def _store(txn: WriteTxn, found: Sequence[Words], gone: Sequence[Words], since: int, upto: int) -> None:
    insert_words(txn, found)
    for one in gone:
        delete_words(txn, one)
    move_follower(txn, NAME, since, upto)


def _words(event: SearchableEvent) -> Words:
    content = parse_object(event.json)["content"]
    return Words(event.room_nid, event.event_nid, distinct(words_of(event.type, content)))


def _redacts(redaction: JsonObject) -> object:
    """Whatever an m.room.redaction names, wherever: what was not redacted is told by the event itself."""
    return redaction.get("redacts") or redaction["content"].get("redacts")
