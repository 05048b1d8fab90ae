"""The way in: a conflict goes in, what to change comes out."""

from collections.abc import Mapping, Sequence

from ranvier.core.room_versions import RoomVersion, StateResolution
from ranvier.core.state_resolution.port import AuthGraph, Slots
from ranvier.core.state_resolution.v1 import resolve_v1
from ranvier.core.state_resolution.v2 import resolve_v2
from ranvier.core.state_resolution.walk import Walk

Conflict = Mapping[int, Sequence[int | None]]
"""Slot -> the event in it in each of the states, in one order of the states (None: not filled). Only slots in
which the states differ: what `state_map.difference` gives for their roots."""


def resolve(
    conflict: Conflict, state: Slots, version: RoomVersion, graph: AuthGraph
) -> dict[int, int | None]:
    """Resolve the states of a room's forks into one.

    Made to any of the states, the returned changes (slot -> event, or None: leave empty) give the resolved
    state: `state_map.update(store, root, changes)`. Every slot of `conflict` is in them, and perhaps slots
    that no state fills and events from auth chains do.

    `state`: any of the states, asked for slots outside of `conflict`. Events that failed the authorization
    rules against their own auth events must not be in any of the states.

    The answer depends neither on the order of the states nor on event and slot numbers.

    Cost: follows the conflict and the auth chains down to where they meet; not the size of the room.
    Spec: rooms/v1.md, rooms/v2.md, rooms/v12.md, "State resolution".
    """
    if not conflict:
        return {}
    walk = Walk(graph, conflict.keys(), state)
    changes: dict[int, int | None] = dict.fromkeys(conflict)
    if version.state_resolution is StateResolution.V1:
        candidates = {slot: {nid for nid in nids if nid is not None} for slot, nids in conflict.items()}
        changes.update(resolve_v1(candidates, version, walk))
    else:
        states = zip(*conflict.values(), strict=True)
        changes.update(
            resolve_v2([{nid for nid in nids if nid is not None} for nids in states], version, walk)
        )
    return changes
