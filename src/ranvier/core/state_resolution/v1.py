"""State resolution version 1.

Where the text leaves something open, this does what all servers of such rooms do (Synapse's, for they began
there): member events compete for one user's slot at a time, and do not see each other's outcomes.
Spec: rooms/v1.md, "State resolution".
"""

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha1

from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.select import POWER_LEVELS, auth_keys_for
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import StateKey
from ranvier.core.room_versions import RoomVersion
from ranvier.core.state_resolution.walk import Walk


def resolve_v1(conflict: Mapping[int, Collection[int]], version: RoomVersion, walk: Walk) -> dict[int, int]:
    """Slot -> event of what the resolution fills: every slot of `conflict`.

    `conflict`: slot -> the different events that states have there, one at least. If it is one, states that
    lack it do not make a conflict in this version.
    """
    events = walk.graph.events({nid for nids in conflict.values() for nid in nids})
    numbers = {event.event_id: nid for nid, event in events.items()}
    contested: dict[StateKey, list[Pdu]] = {}
    slots: dict[StateKey, int] = {}
    state: dict[StateKey, Pdu] = {}  # R of the text, as far as rules look at it
    for slot, nids in conflict.items():
        candidates = [events[nid] for nid in nids]
        key = candidates[0].slot
        slots[key] = slot
        if len(candidates) == 1:
            state[key] = candidates[0]
        else:
            contested[key] = candidates
    _add_unconflicted(state, contested, version, walk)

    for chosen in (
        [key for key in contested if key == POWER_LEVELS],
        [key for key in contested if key[0] == "m.room.join_rules"],
        [key for key in contested if key[0] == "m.room.member"],
    ):
        state.update({key: _resolve_auth_events(contested.pop(key), state, version) for key in chosen})
    state.update({key: _resolve_others(candidates, state, version) for key, candidates in contested.items()})
    return {slot: numbers[state[key].event_id] for key, slot in slots.items()}


def _add_unconflicted(
    state: dict[StateKey, Pdu], contested: Mapping[StateKey, Sequence[Pdu]], version: RoomVersion, walk: Walk
) -> None:
    keys = {
        key
        for candidates in contested.values()
        for event in candidates
        for key in auth_keys_for(event.type, event.sender, event.state_key, event.content, version)
    }
    standing = walk.unconflicted_by_key(keys - state.keys() - contested.keys())
    events = walk.graph.events(set(standing.values())) if standing else {}
    state.update({key: events[nid] for key, nid in standing.items()})


def _resolve_auth_events(
    candidates: Sequence[Pdu], state: Mapping[StateKey, Pdu], version: RoomVersion
) -> Pdu:
    """The last of the ascending list that every one before it allows."""
    ascending = _by_descending_depth(candidates)[::-1]
    chosen = ascending[0]
    for event in ascending[1:]:
        if not _is_allowed(event, state, version, chosen):
            break
        chosen = event
    return chosen


def _resolve_others(candidates: Sequence[Pdu], state: Mapping[StateKey, Pdu], version: RoomVersion) -> Pdu:
    """The deepest event that the state allows; if it allows none, the least deep, as Synapse has it."""
    descending = _by_descending_depth(candidates)
    return next((event for event in descending if _is_allowed(event, state, version)), descending[-1])


def _by_descending_depth(events: Sequence[Pdu]) -> list[Pdu]:
    return sorted(events, key=lambda event: (-event.depth, _sha1(event.event_id)))


def _sha1(event_id: str) -> str:
    return sha1(event_id.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()


def _is_allowed(
    event: Pdu, state: Mapping[StateKey, Pdu], version: RoomVersion, chosen: Pdu | None = None
) -> bool:
    """Whether `state`, with `chosen` in its slot, allows `event`."""

    def lookup(event_type: str, state_key: str) -> Pdu | None:
        key = (event_type, state_key)
        return chosen if chosen is not None and chosen.slot == key else state.get(key)

    try:
        check_state_dependent(event, lookup, version)
    except AuthRejected:
        return False
    return True
