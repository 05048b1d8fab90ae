"""Rooms as first syncs tell them, kept while nothing happens in them. Event loop only.

A slice of everything that a client needs who knows nothing of a room is the same for all who were joined when
its timeline began; who came later has an own one. It holds until a hint for the room comes.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from ranvier.services.changes import Changes
from ranvier.services.sync.request import Profile
from ranvier.services.sync.slices import ANYBODY, Slice
from ranvier.store.database import Hint, Kind

MAX_BYTES: Final = 48 * 1024 * 1024

_Key = tuple[Profile, int]
"""And whose it is."""


_MISSING: Final = (None, 0)


class SliceCache:
    """Slices by room and profile, bounded by the memory they take; the least recently used go first."""

    def __init__(self, changes: Changes, max_bytes: int = MAX_BYTES) -> None:
        self._changes = changes
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rooms: OrderedDict[int, dict[_Key, tuple[Slice, int]]] = OrderedDict()

    def hear(self, hints: Sequence[Hint]) -> None:
        """Forget the rooms in which something happened."""
        for hint in hints:
            if hint.kind is Kind.ROOM:
                self._drop(hint.key)
            elif hint.kind is Kind.GAP:
                self._rooms.clear()
                self._bytes = 0

    def find(
        self, profile: Profile, room_nids: Collection[int], now: int, reader: int = ANYBODY
    ) -> dict[int, Slice]:
        """Those that are here, as they are at `now`, which is not before what was heard last; by room.

        `reader`: a user whose own ones are preferred.
        """
        found: dict[int, Slice] = {}
        own, anybody = (profile, reader), (profile, ANYBODY)
        for nid in room_nids:
            kept = self._rooms.get(nid)
            part, _ = (kept.get(own) or kept.get(anybody) or _MISSING) if kept is not None else _MISSING
            if part is not None and part.window.until <= now:
                self._rooms.move_to_end(nid)
                found[nid] = part
        return found

    def keep(self, profile: Profile, slices: Iterable[Slice], position: int) -> None:
        """Keep slices that were read at one position, as far as nothing happened in their rooms since."""
        by_room = {(part.window.room_nid, part.reader): part for part in slices}
        if not by_room:
            return
        read_at = next(iter(by_room.values())).window.until
        changed = self._changes.since(read_at, position, 0, {nid for nid, _ in by_room})
        if changed is None:
            return
        for (nid, reader), part in by_room.items():
            if nid not in changed.rooms:
                size, key = part.size, (profile, reader)
                kept = self._rooms.setdefault(nid, {})
                self._bytes += size - (kept[key][1] if key in kept else 0)
                kept[key] = (part, size)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._rooms)))

    def _drop(self, room_nid: int) -> None:
        for _, size in self._rooms.pop(room_nid, {}).values():
            self._bytes -= size
