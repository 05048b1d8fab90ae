"""State resolution versions 2 and 2.1.

Spec: rooms/v2.md and rooms/v12.md, "State resolution" (MSC1442, MSC4297).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain

from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.select import CREATE, JOIN_RULES, POWER_LEVELS, auth_keys_for
from ranvier.core.auth.state import StateLookup
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import StateKey
from ranvier.core.room_versions import RoomVersion, StateResolution
from ranvier.core.state_resolution.auth_difference import auth_difference
from ranvier.core.state_resolution.conflicted_subgraph import conflicted_subgraph
from ranvier.core.state_resolution.ordering import mainline_ordering, reverse_topological_power_ordering
from ranvier.core.state_resolution.walk import Walk


def resolve_v2(sets: Sequence[Collection[int]], version: RoomVersion, walk: Walk) -> dict[int, int]:
    """Slot -> event of what the resolution fills. `sets`: for each state, its conflicted entries.

    Entries of the unconflicted state are not in the answer; neither is a slot that it fills.
    """
    conflicted = set(chain.from_iterable(sets))
    full_conflicted_set = conflicted | auth_difference(sets, walk)
    if version.state_resolution is StateResolution.V2_1:
        full_conflicted_set |= conflicted_subgraph(conflicted, walk)
    checks = _Checks(full_conflicted_set, version, walk)
    events = checks.conflicted

    # 1. and 2. The events that might take powers away, with what they rest on.
    power_events = _with_auth_chains(
        (nid for nid, event in events.items() if is_power_event(event)), events, walk
    )
    ordered = reverse_topological_power_ordering(
        {nid: events[nid] for nid in power_events}, walk, checks.sender_level
    )
    checks.apply(ordered)

    # 3. and 4. All others, along the power levels that came out of it.
    others = {nid: event for nid, event in events.items() if nid not in power_events}
    checks.apply(mainline_ordering(others, checks.power_levels(), walk))

    # 5. What all states agree on stays.
    resolved = {walk.nodes[nid].slot: nid for nid in checks.state.values()}
    filled = walk.unconflicted_in([slot for slot in resolved if slot is not None])
    return {slot: nid for slot, nid in resolved.items() if slot is not None and slot not in filled}


def is_power_event(event: Pdu) -> bool:
    """Whether the event might take away somebody's ability to do something in the room.

    SPEC: m.room.create is not in the definition, but in that of every implementation; it changes the order of
    events only if states do not agree on the create event.
    """
    if event.type == "m.room.member":
        return event.content.get("membership") in ("leave", "ban") and event.sender != event.state_key
    return (event.type, event.state_key) in (POWER_LEVELS, JOIN_RULES, CREATE)


def _with_auth_chains(power_events: Iterable[int], events: Mapping[int, Pdu], walk: Walk) -> set[int]:
    """Power events, and the events of the full conflicted set that a path within this set leads to.

    In 2.1 that is all of their auth chains within the set, since every path between its members is in it. In
    2.0 a path may leave the set and come back to a conflicted event; implementations do not follow it, nor
    does this.
    """
    chosen: set[int] = set()
    stack = list(power_events)
    while stack:
        nid = stack.pop()
        if nid not in chosen:
            chosen.add(nid)
            stack.extend(cited for cited in walk.nodes[nid].auth if cited in events)
    return chosen


class _Checks:
    """The iterative auth checks: the state that is being built, and the events that it takes."""

    def __init__(self, full_conflicted_set: Collection[int], version: RoomVersion, walk: Walk) -> None:
        """Loads all events that checks can need, in a few queries."""
        self._version = version
        self._walk = walk
        walk.load(full_conflicted_set)
        walk.load_cited(full_conflicted_set)
        state_events = {nid for nid in full_conflicted_set if walk.nodes[nid].slot is not None}
        cited = {nid for event in state_events for nid in walk.nodes[event].auth}
        create = walk.graph.create_event() if version.auth.room_id_is_create_hash else None
        needed = state_events | cited | ({create} if create is not None else set())
        self._events = dict(walk.graph.events(needed))
        self.conflicted = {nid: self._events[nid] for nid in state_events}
        self._create = self._events[create] if create is not None else None
        self._keys = {nid: self._auth_keys(event) for nid, event in self.conflicted.items()}
        # 2.1 starts from nothing, 2.0 from the unconflicted state, of which only this is ever looked at.
        self._base: dict[StateKey, int] = {}
        if version.state_resolution is StateResolution.V2:
            self._base = walk.unconflicted_by_key(set(chain.from_iterable(self._keys.values())))
            self._events.update(walk.graph.events(set(self._base.values()) - self._events.keys()))
        self._rejected = frozenset(walk.graph.rejected(self._events))
        self.state: dict[StateKey, int] = {}  # what was applied so far; goes before the base

    def apply(self, nids: Iterable[int]) -> None:
        """Put each event that the state allows into the state."""
        for nid in nids:
            event = self.conflicted[nid]
            try:
                check_state_dependent(event, self._lookup_for(nid), self._version)
            except AuthRejected:
                continue
            self.state[event.slot] = nid

    def power_levels(self) -> int | None:
        """The power levels event of the state. In 2.1 there is none if nothing but unconflicted state had
        it."""
        return self.state.get(POWER_LEVELS, self._base.get(POWER_LEVELS))

    def sender_level(self, nid: int) -> int:
        """The level of an event's sender, by the event's own auth events."""
        cited = self._cited(nid)
        power = PowerLevels.from_events(cited.get(CREATE), cited.get(POWER_LEVELS), self._version)
        return power.user_level(self.conflicted[nid].sender)

    def _lookup_for(self, nid: int) -> StateLookup:
        """What the rules see when they check an event: its auth events, and over them the state."""
        visible = self._cited(nid, without=self._rejected)
        for key in self._keys[nid]:
            standing = self.state.get(key, self._base.get(key))
            if standing is not None and standing not in self._rejected:
                visible[key] = self._events[standing]
        return lambda event_type, state_key: visible.get((event_type, state_key))

    def _cited(self, nid: int, without: Collection[int] = ()) -> dict[StateKey, Pdu]:
        events = (self._events[cited] for cited in self._walk.nodes[nid].auth if cited not in without)
        found = {event.slot: event for event in events if event.is_state}
        if self._create is not None:
            found[CREATE] = self._create
        return found

    def _auth_keys(self, event: Pdu) -> list[StateKey]:
        return auth_keys_for(event.type, event.sender, event.state_key, event.content, self._version)
