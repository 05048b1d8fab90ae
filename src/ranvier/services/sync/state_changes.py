"""Which state a response tells of a room, so that a client which applies it has the room's state.

A client that asked for `state_after` takes its state from there alone. Any other applies `state` and then the
state events of the timeline, in their order; so `state` is what the room's state was where the timeline
begins, corrected by what the timeline will not set right: events that a filter left out, and what state
resolution chose on another branch.

Spec: client-server API, "Syncing"; GET /sync, `state` and `state_after`.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.identifiers import StateKey, UserID
from ranvier.services.recent import Recent
from ranvier.services.sync.request import Profile
from ranvier.services.sync.timelines import Stretch, Window
from ranvier.store.database import ReadTxn
from ranvier.store.tables.interned import Interner, find_state_key_nids, list_state_keys, list_user_ids
from ranvier.store.tables.state import list_roots_at
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes

MAX_ENTRIES: Final = 200_000
"""Of states without their members that are kept, all together: some 20 MB."""

ROOTS_AT_ONCE: Final = 50
"""States that are read together; each may have the members of a large room."""

MEMBER: Final = "m.room.member"

_NOTHING: Final[Mapping[int, tuple[int | None, ...]]] = {}


class StateChange(msgspec.Struct, frozen=True):
    """What one room's part of a response has to tell. Events by number."""

    state: Mapping[int, int]  # slot -> event
    members: Mapping[int, int]  # the same for members that the timeline shows; a client may have them
    changed: Mapping[int, tuple[int | None, ...]]  # slot -> (event at `since`, event at `until`)

    def only(self, event_nids: Container[int]) -> "StateChange":
        """What of it consists of these events."""
        return StateChange({slot: nid for slot, nid in self.state.items() if nid in event_nids}, {}, {})


class _Roots(msgspec.Struct, frozen=True):
    """The states of a window: where the client is, where the state that it is told begins to hold, the end."""

    base: int
    start: int
    end: int


class StateChanges:
    """Reads them in read transactions, on any thread."""

    def __init__(self, interner: Interner, nodes: NodeCache) -> None:
        self._interner = interner
        self._nodes = nodes
        self._few: Recent[int, Mapping[int, int]] = Recent(MAX_ENTRIES)  # root -> entries without members

    def read(
        self, txn: ReadTxn, stretches: Mapping[Window, Stretch], profile: Profile, own: UserID | None = None
    ) -> dict[Window, StateChange]:
        """The state for each window. `own`: whose member event belongs to a full state in any case.

        Cost: two queries for each group of windows with equal bounds, and state nodes.
        """
        nodes = SnapshotNodes(txn, self._nodes)
        ends = _roots(txn, ((window.room_nid, window.until) for window in stretches))
        bases = _roots(
            txn, ((window.room_nid, window.since) for window in stretches if window.since is not None)
        )
        planned: dict[Window, _Roots] = {}
        for window, stretch in stretches.items():
            end = ends[(window.room_nid, window.until)]
            base = state_map.EMPTY if window.since is None else bases[(window.room_nid, window.since)]
            start = end if profile.state_after else _start_root(window, stretch, profile, base, end)
            planned[window] = _Roots(base, start, end)
        wanted = {roots.start for window, roots in planned.items() if window.full_state}
        full = self._full_states(txn, nodes, wanted, without_members=profile.lazy)
        found: dict[Window, StateChange] = {}
        shown = self._shown_slots(txn, stretches, own) if profile.lazy else {}
        for window, stretch in stretches.items():
            roots = planned[window]
            told = dict(full[roots.start]) if window.full_state else _changed_state(nodes, roots)
            if not profile.state_after and roots.start != roots.end:
                told |= _corrections(state_map.difference(nodes, (roots.start, roots.end)), stretch)
            members = state_map.get_many(nodes, roots.start, shown[window]) if shown.get(window) else {}
            changed = _NOTHING
            if window.since is not None and roots.base != roots.end:
                changed = state_map.difference(nodes, (roots.base, roots.end))
            found[window] = StateChange(
                told, {slot: nid for slot, nid in members.items() if slot not in told}, changed
            )
        return found

    def _full_states(
        self, txn: ReadTxn, nodes: SnapshotNodes, roots: Collection[int], *, without_members: bool
    ) -> Mapping[int, Mapping[int, int]]:
        """The entries of states, by root. Cost: some queries for every ROOTS_AT_ONCE that are not in memory."""
        if not without_members:
            return {root: state_map.to_dict(nodes, root) for root in roots}
        found = {root: few for root in roots if (few := self._few.get(root)) is not None}
        missing = [root for root in roots if root not in found]
        for start in range(0, len(missing), ROOTS_AT_ONCE):
            states = state_map.to_dicts(nodes, missing[start : start + ROOTS_AT_ONCE])
            names = list_state_keys(txn, self._interner, set().union(*states.values()))
            for root, entries in states.items():
                few = {slot: nid for slot, nid in entries.items() if names[slot][0] != MEMBER}
                found[root] = few
                self._few.keep(root, few, 1 + len(few))
        return found

    def _shown_slots(
        self, txn: ReadTxn, stretches: Mapping[Window, Stretch], own: UserID | None
    ) -> dict[Window, list[int]]:
        """The member slots of those who sent something in each stretch, and of `own`."""
        senders = {record.sender_nid for stretch in stretches.values() for record in stretch.records}
        names = list_user_ids(txn, self._interner, senders)
        slots = member_slots(txn, self._interner, {*names.values(), *([own] if own is not None else [])})
        shown = {}
        for window, stretch in stretches.items():
            users = {names[record.sender_nid] for record in stretch.records}
            if own is not None and window.full_state:
                users.add(own)
            shown[window] = [slots[user] for user in users if user in slots]
        return shown


def member_slots(txn: ReadTxn, interner: Interner, users: Iterable[UserID]) -> dict[UserID, int]:
    """The numbers of users' member slots."""
    slots: list[StateKey] = [(MEMBER, user) for user in users]
    return {UserID(key): nid for (_, key), nid in find_state_key_nids(txn, interner, slots).items()}


def _roots(txn: ReadTxn, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """(room_nid, position) -> the root of the room's state there."""
    by_position: dict[int, list[int]] = {}
    for room_nid, position in wanted:
        by_position.setdefault(position, []).append(room_nid)
    return {
        (room_nid, position): root
        for position, room_nids in by_position.items()
        for room_nid, root in list_roots_at(txn, room_nids, position).items()
    }


def _changed_state(nodes: SnapshotNodes, roots: _Roots) -> dict[int, int]:
    """What changed up to where the state that is told begins to hold: slot -> event."""
    if roots.start == roots.base:
        return {}
    pairs = state_map.difference(nodes, (roots.base, roots.start))
    return {slot: new for slot, (_, new) in pairs.items() if new is not None}


def _start_root(window: Window, stretch: Stretch, profile: Profile, base: int, end: int) -> int:
    """The state where the timeline begins."""
    if not stretch.records:
        return end
    if window.since is not None and not stretch.limited and profile.timeline.is_everything:
        return base
    root = stretch.records[0].state_root
    return base if root is None else root


def _corrections(differences: Mapping[int, tuple[int | None, ...]], stretch: Stretch) -> dict[int, int]:
    """What changes between the start of the timeline and its end without an event of the timeline."""
    in_timeline = {record.state_key_nid for record in stretch.records}
    return {
        slot: new for slot, (_, new) in differences.items() if new is not None and slot not in in_timeline
    }
