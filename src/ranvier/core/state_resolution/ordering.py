"""The two orders in which version 2 applies events.

Spec: rooms/v2.md, "Reverse topological power ordering" and "Mainline ordering".
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from math import inf

from ranvier.core.events.pdu import Pdu
from ranvier.core.state_resolution.walk import Walk


def reverse_topological_power_ordering(
    events: Mapping[int, Pdu], walk: Walk, sender_level: Callable[[int], int]
) -> list[int]:
    """`events` from the earliest to the latest: what an event cites comes before it; among those that could
    come next, the one whose sender has the greatest level, then the oldest timestamp, then the least event
    id.

    An event that cites itself by way of others has no place in any such order, and is left out.
    """
    waits_for = {nid: {cited for cited in walk.nodes[nid].auth if cited in events} for nid in events}
    cited_by: dict[int, list[int]] = {}
    for nid, cited_ones in waits_for.items():
        for cited in cited_ones:
            cited_by.setdefault(cited, []).append(nid)

    def rank(nid: int) -> tuple[int, int, str, int]:
        event = events[nid]
        return -sender_level(nid), event.origin_server_ts, event.event_id, nid

    ready = [rank(nid) for nid, cited_ones in waits_for.items() if not cited_ones]
    heapify(ready)
    ordered: list[int] = []
    while ready:
        nid = heappop(ready)[-1]
        ordered.append(nid)
        for citing in cited_by.get(nid, ()):
            waits_for[citing].discard(nid)
            if not waits_for[citing]:
                heappush(ready, rank(citing))
    return ordered


def mainline_ordering(events: Mapping[int, Pdu], power_levels: int | None, walk: Walk) -> list[int]:
    """`events` in the mainline ordering based on the m.room.power_levels event `power_levels`."""
    walk.load(events)
    walk.load_cited(events)
    mainline = _Mainline(power_levels, walk)

    def rank(nid: int) -> tuple[float, int, str]:
        event = events[nid]
        return -mainline.position(nid), event.origin_server_ts, event.event_id

    return sorted(events, key=rank)


class _Mainline:
    """The chain of power levels events below one, read no further down than it is asked for."""

    def __init__(self, power_levels: int | None, walk: Walk) -> None:
        self._walk = walk
        self._next = power_levels
        self._mainline: dict[int, int] = {}  # event -> its index
        self._positions: dict[int, float] = {}  # power levels event -> mainline position of what cites it
        if power_levels is not None:
            walk.load([power_levels])

    def position(self, nid: int) -> float:
        """The index of the first mainline event on the event's own chain; infinity without any."""
        passed: list[int] = []
        found = inf
        cited = self._walk.cited_power_levels(nid)
        while cited is not None:
            self._extend(self._walk.nodes[cited].auth_depth)
            if cited in self._mainline:
                found = self._mainline[cited]
                break
            if cited in self._positions:
                found = self._positions[cited]
                break
            self._positions[cited] = inf  # until it is known; also ends the walk of a circle
            passed.append(cited)
            cited = self._walk.cited_power_levels(cited)
        self._positions.update(dict.fromkeys(passed, found))
        return found

    def _extend(self, auth_depth: int) -> None:
        """Read the mainline down to `auth_depth`: an event that is not on it by then is not on it at all."""
        while self._next is not None and self._walk.nodes[self._next].auth_depth >= auth_depth:
            self._mainline[self._next] = len(self._mainline)
            cited = self._walk.cited_power_levels(self._next)
            self._next = cited if cited not in self._mainline else None
