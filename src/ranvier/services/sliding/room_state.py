"""The state of rooms that is told: what configs want of it, and the members that timelines show.

Read for many rooms together. State comes as slices of classic sync have it; only what they leave out (members
by name, members all together, those that a timeline speaks of) is looked up in the state itself.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from ranvier.core import state_map
from ranvier.core.identifiers import StateKey
from ranvier.services.rooms.presenting import Presenting
from ranvier.services.sliding.required_state import MEMBER, NO_STATE, RequiredState
from ranvier.services.sync.entries import Entry, make_state_entry
from ranvier.services.sync.request import Profile
from ranvier.services.sync.slices import Slice
from ranvier.store.database import ReadTxn
from ranvier.store.tables.events import list_events
from ranvier.store.tables.interned import Interner, find_state_key_nids, list_state_keys
from ranvier.store.tables.state import list_roots_at
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes

Names = Mapping[int, StateKey]
"""State slots by number."""


class Wish(msgspec.Struct, frozen=True):
    """What is wanted of the state of one slice."""

    part: Slice
    wanted: RequiredState
    except_for: RequiredState = NO_STATE  # what the client has already
    known_members: frozenset[int] = frozenset()  # member events that need not be told once more


class Granted(msgspec.Struct, frozen=True):
    """The state that a room's result tells."""

    entries: Sequence[Entry]
    removed: Sequence[StateKey]  # slots that are empty now
    members: frozenset[int]  # member events that came because the timeline shows them


class _Judge:
    """Which slots are wanted, remembered: many rooms have the same ones."""

    __slots__ = ("_known", "_wanted")

    def __init__(self, wanted: RequiredState) -> None:
        self._wanted = wanted
        self._known: dict[StateKey, bool] = {}

    def wants(self, slot: StateKey) -> bool:
        found = self._known.get(slot)
        if found is None:
            found = self._known[slot] = self._wanted.matches(*slot)
        return found


class RoomStates:
    """Reads them in read transactions, on any thread."""

    def __init__(self, interner: Interner, nodes: NodeCache, presenting: Presenting) -> None:
        self._interner = interner
        self._nodes = nodes
        self._presenting = presenting

    def read(self, txn: ReadTxn, wishes: Sequence[Wish], profile: Profile) -> list[Granted]:
        """What each wish comes to.

        Cost: names of slots, mostly from memory; 2 queries more for members that slices do not have, and state nodes.
        """
        names = self._names(txn, [wish.part for wish in wishes])
        missing = self._missing_members(txn, wishes, names)
        found = self.entries(txn, {nid for nids in missing for nid in nids.values()}, profile)
        judges = {one: _Judge(one) for wish in wishes for one in (wish.wanted, wish.except_for)}
        return [
            _grant(wish, judges, names, [(slot, found[nid]) for slot, nid in more.items() if nid in found])
            for wish, more in zip(wishes, missing, strict=True)
        ]

    def entries(self, txn: ReadTxn, event_nids: Collection[int], profile: Profile) -> dict[int, Entry]:
        """State events as clients get them, by number. Cost: 1 query, 1 more for redacted ones."""
        if not event_nids:
            return {}
        records = list(list_events(txn, event_nids).values())
        return {
            facts.record.event_nid: make_state_entry(facts, profile)
            for facts in self._presenting.facts(txn, records, with_replaced=False)
        }

    def _names(self, txn: ReadTxn, parts: Iterable[Slice]) -> Names:
        slots = {
            entry.record.state_key_nid
            for part in parts
            for entry in (*part.state, *part.members, *part.timeline)
            if entry.record.state_key_nid is not None
        }
        slots.update(slot for part in parts for slot in part.removed)
        return list_state_keys(txn, self._interner, slots)

    def _missing_members(
        self, txn: ReadTxn, wishes: Sequence[Wish], names: Names
    ) -> list[dict[StateKey, int]]:
        """For each wish, the members that its slice of a full state lacks: slot -> event."""
        slots = [_looked_up(wish, names) for wish in wishes]
        numbers = find_state_key_nids(txn, self._interner, set().union(*slots)) if any(slots) else {}
        roots: dict[int, dict[int, int]] = {}
        reader = SnapshotNodes(txn, self._nodes)
        found: list[dict[StateKey, int]] = []
        for wish, wanted in zip(wishes, slots, strict=True):
            window = wish.part.window
            everybody = window.full_state and _wants_everybody(wish)
            if not wanted and not everybody:
                found.append({})
                continue
            if window.until not in roots:
                rooms = {one.part.window.room_nid for one in wishes if one.part.window.until == window.until}
                roots[window.until] = list_roots_at(txn, rooms, window.until)
            root = roots[window.until][window.room_nid]
            if everybody:
                found.append(self._all_members(txn, reader, root))
                continue
            keys = {numbers[slot]: slot for slot in wanted if slot in numbers}
            entries = state_map.get_many(reader, root, keys)
            found.append({keys[number]: nid for number, nid in entries.items()})
        return found

    def _all_members(self, txn: ReadTxn, reader: SnapshotNodes, root: int) -> dict[StateKey, int]:
        entries = state_map.to_dict(reader, root)
        names = list_state_keys(txn, self._interner, entries)
        return {names[slot]: nid for slot, nid in entries.items() if names[slot][0] == MEMBER}


def _grant(
    wish: Wish,
    judges: Mapping[RequiredState, _Judge],
    names: Names,
    more: Iterable[tuple[StateKey, Entry]],
) -> Granted:
    part, is_lazy = wish.part, wish.wanted.is_lazy
    wanted, had = judges[wish.wanted], judges[wish.except_for]
    shown = _shown_members(part, names) if is_lazy else frozenset()
    entries: dict[int, Entry] = {}
    members: set[int] = set()

    def tell(slot: StateKey, entry: Entry, *, is_change: bool) -> None:
        nid = entry.record.event_nid
        if nid in entries:
            return
        if wanted.wants(slot):
            if not had.wants(slot):
                entries[nid] = entry
        elif is_lazy and slot[0] == MEMBER:
            # Spec: MSC4186, "Lazy loaded memberships": all changes, unless there is a gap.
            if is_change and not part.limited:
                entries[nid] = entry
            elif slot[1] in shown and (is_change or nid not in wish.known_members):
                entries[nid] = entry
                members.add(nid)

    is_change = not part.window.full_state
    for entry in part.state:
        tell(names[_slot(entry)], entry, is_change=is_change)
    for entry in part.members:
        tell(names[_slot(entry)], entry, is_change=False)
    for slot, entry in more:
        tell(slot, entry, is_change=False)
    removed = [names[slot] for slot in part.removed if wanted.wants(names[slot])]
    return Granted(list(entries.values()), removed, frozenset(members))


def _slot(entry: Entry) -> int:
    assert entry.record.state_key_nid is not None, "it is a state event"
    return entry.record.state_key_nid


def _wants_everybody(wish: Wish) -> bool:
    return wish.wanted.wants_all_members and not wish.except_for.wants_all_members


def _looked_up(wish: Wish, names: Names) -> set[StateKey]:
    """The member slots that have to be looked up: slices of a full state hold only members that sent something.

    In a slice of changes, all members that changed are there, whatever they did.
    """
    if not wish.part.window.full_state:
        return set()
    wanted = wish.wanted.named_members()
    if wish.wanted.is_lazy:
        wanted |= {(MEMBER, user) for user in _targets(wish.part, names)}
    return wanted.difference([names[_slot(entry)] for entry in wish.part.members])


def _targets(part: Slice, names: Names) -> set[str]:
    return {
        names[entry.record.state_key_nid][1]
        for entry in part.timeline
        if entry.record.type == MEMBER and entry.record.state_key_nid is not None
    }


def _shown_members(part: Slice, names: Names) -> frozenset[str]:
    """The users whom the timeline shows, or after whom the room may be named."""
    lazily = {names[_slot(entry)][1] for entry in part.members}
    return frozenset(lazily | _targets(part, names))
