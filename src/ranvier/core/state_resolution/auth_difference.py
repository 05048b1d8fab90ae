"""The auth difference, by walks that end where all chains meet.

The definition compares the full auth chains of whole room states, which would mean every event that ever
mattered. But each chain holds the unconflicted entries and everything below them, so the difference is what
the *conflicted* entries of some states reach and those of others do not, less what unconflicted entries
reach. The first is a walk down from the conflict; the second starts from the few events that are left and
looks up.

SPEC: the definition leaves an entry out of its own chain, so that an unconflicted entry which only some
states' events cite would be in the difference. Here a chain includes the entries it starts from, as in
Synapse, where what all states agree on is never in question; servers must agree on this to agree on a room.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from ranvier.core.state_resolution.walk import Walk

_NEWEST: Final = 2**63 - 1
_FIRST_PAGE: Final = 32
_GREATEST_PAGE: Final = 4096


def auth_difference(sets: Sequence[Collection[int]], walk: Walk) -> set[int]:
    """The events in the auth chain of some state but not of every state.

    `sets`: for each state, its conflicted entries. They themselves may or may not be in the answer: they are
    in the full conflicted set anyway.

    Cost: the auth events of the conflicted entries down to where their chains meet, one query a step; then
    for the events that remain, the state events above them until one is found that still stands.
    """
    conflicted = {nid for nids in sets for nid in nids}
    below = _Descent(sets, walk).run() - conflicted
    return _Ascent(below, walk).run()


class _Descent:
    """A walk from the greatest auth depth to the least. Each event carries which states' chains it is in, one
    bit each, and hands the bits on to what it cites; all that cite an event have a greater auth depth, so its
    bits are complete when its turn comes. When nothing waits that is not in every chain, all that lies below
    is in every chain too.
    """

    def __init__(self, sets: Sequence[Collection[int]], walk: Walk) -> None:
        self.walk = walk
        self.everywhere = (1 << len(sets)) - 1
        self.bits: dict[int, int] = {}
        for index, nids in enumerate(sets):
            for nid in nids:
                self.bits[nid] = self.bits.get(nid, 0) | 1 << index
        walk.load(self.bits)
        # Most of what conflicted entries cite is below these, which saves looking up from there.
        self.bits.update(dict.fromkeys(walk.unconflicted_cornerstones(), self.everywhere))
        self.queue = [(-walk.nodes[nid].auth_depth, nid) for nid in self.bits]
        self.queued = set(self.bits)
        self.unread = set(self.bits)  # queued, and what they cite may not be loaded
        self.partial = sum(bits != self.everywhere for bits in self.bits.values())
        heapify(self.queue)

    def run(self) -> set[int]:
        """The events that were met and are not known to be in every chain."""
        nodes = self.walk.nodes
        met: set[int] = set()
        while self.partial:
            _, nid = heappop(self.queue)
            self.queued.discard(nid)
            bits = self.bits[nid]
            if bits != self.everywhere:
                self.partial -= 1
            met.add(nid)
            if nid in self.unread:
                self.walk.load_cited(self.unread)  # also what the others will need, in the same query
                self.unread.clear()
            for cited in nodes[nid].auth:
                self._hand_down(cited, bits)
        return {nid for nid in met if self.bits[nid] != self.everywhere}

    def _hand_down(self, nid: int, bits: int) -> None:
        if nid in self.walk.unconflicted:
            bits = self.everywhere
        old = self.bits.get(nid, 0)
        new = old | bits
        if new == old:
            return
        self.bits[nid] = new
        if nid in self.queued:
            self.partial -= new == self.everywhere
            return
        # First met; or met before, which takes auth depths that are wrong. Bits only grow, so it
        # ends all the same.
        self.queued.add(nid)
        self.unread.add(nid)
        self.partial += new != self.everywhere
        heappush(self.queue, (-self.walk.nodes[nid].auth_depth, nid))


class _Ascent:
    """A search upwards for what stands: which candidates are below some entry of the unconflicted state?

    Looks from all of them at once, newest citing events first: mostly one of the first pages shows an entry
    that stands. An event that no entry reaches is found out when all that ever built on it has been read.
    """

    def __init__(self, candidates: set[int], walk: Walk) -> None:
        self.walk = walk
        self.open = set(candidates)
        self.reached: set[int] = set()
        self.cites: dict[int, set[int]] = {}
        self.cited_by: dict[int, set[int]] = {nid: set() for nid in candidates}

    def run(self) -> set[int]:
        """The candidates that no entry of the unconflicted state reaches."""
        reading = dict.fromkeys(self.open, _NEWEST)  # event -> its citing events below this are not read yet
        paused: dict[int, int] = {}
        limit = _FIRST_PAGE
        sorted_at = 0
        while self.open:
            # What is above decided candidates alone need not be read on, unless it turns out to be above
            # others too. To find out takes as long as the search so far, so it is done when that has doubled.
            if not reading or len(self.cited_by) >= 2 * sorted_at:
                sorted_at = len(self.cited_by)
                reading, paused = self._sort_out({**paused, **reading})
            if not reading:
                break
            reading = self._read(reading, limit)
            limit = min(2 * limit, _GREATEST_PAGE)
        return self.open

    def _sort_out(self, unread: Mapping[int, int]) -> tuple[dict[int, int], dict[int, int]]:
        above = set(self.open)
        _spread(self.open, self.cited_by, above)
        waiting = {nid: newest for nid, newest in unread.items() if nid not in self.reached}
        reading = {nid: newest for nid, newest in waiting.items() if nid in above}
        return reading, {nid: newest for nid, newest in waiting.items() if nid not in above}

    def _read(self, before: Mapping[int, int], limit: int) -> dict[int, int]:
        """Read a page for each event, and note what that shows. Returns where to read on."""
        found: set[int] = set()
        rest: dict[int, int] = {}
        for nid, page in self.walk.graph.citing(before, limit).items():
            for above in page:
                self.cites.setdefault(above, set()).add(nid)
            self.cited_by[nid].update(page)
            found.update(page)
            if len(page) == limit:
                rest[nid] = page[-1]
        for nid in found:
            if nid not in self.cited_by:
                self.cited_by[nid] = set()
                rest[nid] = _NEWEST
        self.walk.load(found)
        hits = {nid for nid in found if nid in self.walk.unconflicted or nid in self.reached}
        self.open -= _spread(hits, self.cites, self.reached)
        return {nid: newest for nid, newest in rest.items() if nid not in self.reached and nid not in hits}


def _spread(starts: Iterable[int], links: Mapping[int, set[int]], seen: set[int]) -> set[int]:
    """Add to `seen` all that can be reached from `starts` by one link or more, and return what is new. Does
    not pass through what has been seen."""
    new: set[int] = set()
    stack = list(starts)
    while stack:
        for nid in links.get(stack.pop(), ()):
            if nid not in seen:
                seen.add(nid)
                new.add(nid)
                stack.append(nid)
    return new
