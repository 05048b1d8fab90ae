"""What there is to tell of rooms: read for many rooms together, and alike for everybody who was joined.

A `Slice` is made once for all who wait for the same (room, since, until). Only for a user who joined or left
within it is one made of their own.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID, UserID
from ranvier.core.visibility import NEVER_JOINED
from ranvier.services.requester import Requester
from ranvier.services.rooms.presenting import Presenting
from ranvier.services.rooms.sight import Sight, Viewer
from ranvier.services.sync.entries import Device, Entry, make_state_entry, make_timeline_entry
from ranvier.services.sync.ephemeral import Receipts, read_ephemeral
from ranvier.services.sync.members_sent import Member
from ranvier.services.sync.request import Profile
from ranvier.services.sync.state_changes import MEMBER, StateChange, StateChanges
from ranvier.services.sync.sticky import StickyQuestion, ToldSticky, read_sticky
from ranvier.services.sync.summaries import Summary, read_summaries
from ranvier.services.sync.timelines import Stretch, Window, read_stretches, select
from ranvier.store.database import ReadTxn
from ranvier.store.tables import rooms
from ranvier.store.tables.client_transactions import list_transactions
from ranvier.store.tables.events import EventRecord, list_events
from ranvier.store.tables.interned import Interner, list_state_keys
from ranvier.store.tables.memberships import JOIN, list_rooms_of_user, list_stored_memberships
from ranvier.store.tables.relations import list_rooms_related
from ranvier.store.tables.timeline import END_OF_TIMELINE

MAX_ROOM_IDS: Final = 100_000
"""Kept in memory; beyond that they are read anew."""


ENTRY_BYTES: Final = 1_500
"""What an event of a slice takes besides its text, about."""

ANYBODY: Final = 0
"""No user_nid: whoever was joined all through."""


class Encoded:
    """What was joined from the parts of a slice before, to be used again: see `answers`."""

    __slots__ = ("ephemeral", "state", "tails", "timelines")

    def __init__(self) -> None:
        # For one of its senders, or all others; and when (ms).
        self.timelines: dict[Device | None, tuple[int, bytes]] = {}
        # For who knows no members, and those that it brings.
        self.state: tuple[bytes, Sequence[Member]] | None = None
        self.ephemeral: bytes | None = None  # without what is private
        self.tails: dict[UserID | None, bytes] = {}  # for one of the heroes, or all others


class Slice(msgspec.Struct, frozen=True):
    """What a window has."""

    window: Window
    reader: int  # whose it is: a user_nid, or ANYBODY
    room_id: RoomID
    timeline: Sequence[Entry]
    senders: frozenset[Device]  # of the timeline
    limited: bool
    prev_order: int
    state: Sequence[Entry]
    members: Sequence[Entry]  # lazily loaded: of use to those who do not have them yet
    removed: Sequence[int]  # state slots that are empty now, and were not
    summary: Summary | None
    typing: bytes | None  # an event
    receipts: Receipts  # public ones
    joined: frozenset[UserID]  # since the window's beginning
    left: frozenset[UserID]
    has_relations: bool  # whether anything relates to the events of a limited timeline
    begins_at: int  # the order of the first event of the timeline
    guarded: Collection[int]  # states before events that only those may see who are joined there: their roots
    size: int  # bytes of memory that it takes, about
    encoded: "Encoded"

    def has_member(self, event_nid: int) -> bool:
        """Whether a member event is among what is told."""
        return any(
            entry.record.event_nid == event_nid for entry in (*self.timeline, *self.state, *self.members)
        )

    @property
    def is_impersonal(self) -> bool:
        """Whether everybody is told the same: none is left out of heroes, none learns of comings, all see all."""
        is_for_all = self.reader == ANYBODY and not self.guarded
        return is_for_all and self.summary is None and not (self.has_relations or self.joined or self.left)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell anybody."""
        return not (
            self.timeline
            or self.limited
            or self.state
            or self.summary
            or self.typing is not None
            or self.receipts
        )


class Slices:
    """Reads slices in read transactions, on any thread."""

    def __init__(
        self, interner: Interner, presenting: Presenting, sight: Sight, changes: StateChanges
    ) -> None:
        self._interner = interner
        self._presenting = presenting
        self._sight = sight
        self._changes = changes
        self._room_ids: dict[int, RoomID] = {}

    def room_ids(self, txn: ReadTxn, room_nids: Collection[int]) -> dict[int, RoomID]:
        """The ids of rooms; they are kept in memory."""
        known = self._room_ids
        found = {nid: known[nid] for nid in room_nids if nid in known}
        missing = [nid for nid in room_nids if nid not in found]
        if missing:
            read = {nid: room.room_id for nid, room in rooms.list_rooms(txn, missing).items()}
            found |= read
            # Another thread may be reading the old one.
            self._room_ids = read if len(known) > MAX_ROOM_IDS else known | read
        return found

    def stretches(self, txn: ReadTxn, windows: Collection[Window], profile: Profile) -> dict[Window, Stretch]:
        """Where the windows' timelines end up. Cost: see `timelines`."""
        room_ids = self.room_ids(txn, {window.room_nid for window in windows})
        return read_stretches(txn, self._interner, windows, room_ids, profile)

    def read(self, txn: ReadTxn, windows: Collection[Window], profile: Profile) -> dict[Window, Slice]:
        """The slices for users who are joined all through the windows, as far as `may_have`. Cost: see `make`."""
        return self.make(txn, self.stretches(txn, windows, profile), profile)

    def make(
        self, txn: ReadTxn, stretches: Mapping[Window, Stretch], profile: Profile
    ) -> dict[Window, Slice]:
        """The slices of these timelines, for users who are joined all through the windows, as far as `may_have`.

        Cost: some ten queries for all windows together.
        """
        if not stretches:
            return {}
        changes = self._changes.read(txn, stretches, profile)
        return self._finish(txn, stretches, changes, profile, {}, ANYBODY)

    def may_have(self, txn: ReadTxn, user_id: UserID, part: Slice) -> bool:
        """Whether a slice is for a user who is joined all through its window: on another branch of the room, the user
        may not have been. Cost: nothing for nearly all slices; else as `Sight.was_joined`.
        """
        return not part.guarded or self._sight.was_joined(txn, user_id, part.guarded)

    def read_own(
        self, txn: ReadTxn, viewers: Mapping[Window, Viewer], profile: Profile
    ) -> dict[Window, Slice]:
        """The slices for one user, who was not joined all through the windows. Cost: see `make_own`."""
        return self.make_own(txn, self.stretches(txn, viewers.keys(), profile), viewers, profile)

    def make_own(
        self,
        txn: ReadTxn,
        stretches: Mapping[Window, Stretch],
        viewers: Mapping[Window, Viewer],
        profile: Profile,
    ) -> dict[Window, Slice]:
        """The slices of these timelines for one user, who was not joined all through the windows: with what that user
        may see.

        Cost: as `make`, and what `Sight.visible_in_rooms` costs.
        """
        if not viewers:
            return {}
        requester = next(iter(viewers.values())).requester
        rooms = [(viewers[window].standpoint, stretch.records) for window, stretch in stretches.items()]
        seen = self._sight.visible_in_rooms(txn, requester.user_id, rooms)
        visible = [
            record for stretch in stretches.values() for record in stretch.records if record.event_nid in seen
        ]
        told = {record.event_nid: record for record in self._presenting.without_erased(txn, visible, seen)}
        shown = {
            window: msgspec.structs.replace(
                stretch,
                records=tuple(
                    [told[record.event_nid] for record in stretch.records if record.event_nid in told]
                ),
            )
            for window, stretch in stretches.items()
        }
        changes = self._changes.read(txn, shown, profile, requester.user_id)
        for window, viewer in viewers.items():
            if viewer.standpoint.joined_until == NEVER_JOINED:
                # Who never was in the room sees nothing of its state but what they may see of its timeline.
                changes[window] = changes[window].only(seen)
        return self._finish(txn, shown, changes, profile, seen, requester.user_nid)

    def sticky(self, txn: ReadTxn, asked: StickyQuestion) -> Sequence[ToldSticky]:
        """Sticky events of joined rooms, whoever showed them before. Cost: 1 or 2 queries."""
        return read_sticky(txn, self._presenting, asked)

    def own_members(
        self,
        txn: ReadTxn,
        requester: Requester,
        room_nids: Collection[int],
        memberships: Collection[str],
        profile: Profile,
    ) -> dict[int, Entry]:
        """The user's own member events of these memberships, by room. Cost: 2 queries."""
        own = list_rooms_of_user(txn, requester.user_nid, memberships)
        records = list_events(txn, [one.event_nid for one in own if one.room_nid in room_nids])
        return {
            facts.record.room_nid: make_state_entry(facts, profile)
            for facts in self._presenting.facts(txn, list(records.values()), with_replaced=False)
        }

    def _finish(
        self,
        txn: ReadTxn,
        stretches: Mapping[Window, Stretch],
        changes: Mapping[Window, StateChange],
        profile: Profile,
        seen: Mapping[int, str],
        reader: int,
    ) -> dict[Window, Slice]:
        room_ids = self.room_ids(txn, [window.room_nid for window in stretches])
        summaries, heroes = read_summaries(txn, self._interner, changes)
        timeline = self._timeline_entries(txn, stretches, profile, seen)
        state = self._state_entries(txn, changes, heroes, room_ids, profile)
        moved = self._moved(txn, changes)
        typing_events, read = read_ephemeral(txn, self._interner, stretches, room_ids, profile)
        related = _list_related(txn, stretches)
        guarded = self._list_guarded(txn, stretches) if reader == ANYBODY else {}
        nobody: frozenset[UserID] = frozenset()
        slices = {}
        for window, stretch in stretches.items():
            change = changes[window]
            members = {**change.members, **(heroes.get(window, {}) if profile.lazy else {})}
            joined, left = moved.get(window, (nobody, nobody))
            slices[window] = Slice(
                window=window,
                reader=reader,
                room_id=room_ids[window.room_nid],
                timeline=(entries := [timeline[record.event_nid] for record in stretch.records]),
                senders=frozenset([entry.sender for entry in entries if entry.sender is not None]),
                limited=stretch.limited,
                prev_order=stretch.prev_order,
                state=(before := [state[nid] for nid in change.state.values() if nid in state]),
                members=(some := [state[nid] for nid in members.values() if nid in state]),
                removed=[slot for slot, (_, after) in change.changed.items() if after is None],
                summary=summaries.get(window),
                typing=typing_events.get(window),
                receipts=read.get(window, {}),
                joined=joined,
                left=left,
                has_relations=stretch.limited and window.room_nid in related,
                begins_at=entries[0].record.room_order or 0 if entries else END_OF_TIMELINE,
                guarded=guarded.get(window, ()),
                size=_size(entries, before, some),
                encoded=Encoded(),
            )
        return slices

    def _timeline_entries(
        self, txn: ReadTxn, stretches: Mapping[Window, Stretch], profile: Profile, seen: Mapping[int, str]
    ) -> dict[int, Entry]:
        """The events of all timelines, by number. `seen`: memberships of one reader, if they are for one."""
        records = {record.event_nid: record for stretch in stretches.values() for record in stretch.records}
        local = [nid for nid, record in records.items() if record.is_local]
        transactions = list_transactions(txn, local)
        return {
            facts.record.event_nid: make_timeline_entry(
                facts,
                seen.get(facts.record.event_nid, JOIN),
                transactions.get(facts.record.event_nid),
                profile,
            )
            for facts in self._presenting.facts(txn, list(records.values()))
        }

    def _state_entries(
        self,
        txn: ReadTxn,
        changes: Mapping[Window, StateChange],
        heroes: Mapping[Window, Mapping[int, int]],
        room_ids: Mapping[int, RoomID],
        profile: Profile,
    ) -> dict[int, Entry]:
        """The state events that are told of, as far as the filter lets them pass."""
        nids = {
            nid for change in changes.values() for nid in (*change.state.values(), *change.members.values())
        }
        if profile.lazy:
            nids.update(nid for members in heroes.values() for nid in members.values())
        selector = profile.filter.state
        if not nids or selector.is_nothing:
            return {}
        records = list(list_events(txn, nids).values())
        if selector.checks:
            by_room: dict[int, list[EventRecord]] = {}
            for record in records:
                by_room.setdefault(record.room_nid, []).append(record)
            records = [
                record
                for room_nid, some in by_room.items()
                for record in select(txn, self._interner, some, room_ids[room_nid], selector)
            ]
        return {
            facts.record.event_nid: make_state_entry(facts, profile)
            for facts in self._presenting.facts(txn, records, with_replaced=False)
        }

    def _list_guarded(self, txn: ReadTxn, stretches: Mapping[Window, Stretch]) -> dict[Window, set[int]]:
        """The states before events, other than the room's state now, in which memberships decide who sees them."""
        states = {
            window: {record.state_root for record in stretch.records if record.state_root is not None}
            for window, stretch in stretches.items()
        }
        guarded = self._sight.list_guarded(txn, frozenset().union(*states.values()))
        if not guarded:
            return {}
        found = {window: roots & guarded for window, roots in states.items() if roots & guarded}
        now = rooms.list_rooms(txn, {window.room_nid for window in found})
        # Who is joined now is so in the state now.
        return {window: roots - {now[window.room_nid].state_root} for window, roots in found.items()}

    def _moved(
        self, txn: ReadTxn, changes: Mapping[Window, StateChange]
    ) -> dict[Window, tuple[frozenset[UserID], frozenset[UserID]]]:
        """Who came and who went, by the state before and after: for those who follow devices."""
        slots = {slot for change in changes.values() for slot in change.changed}
        if not slots:
            return {}
        names = {
            slot: UserID(key)
            for slot, (type_, key) in list_state_keys(txn, self._interner, slots).items()
            if type_ == MEMBER
        }
        nids = {
            nid
            for change in changes.values()
            for slot, pair in change.changed.items()
            if slot in names
            for nid in pair
            if nid is not None
        }
        joins = {nid for nid, said in list_stored_memberships(txn, nids).items() if said == JOIN}
        found = {}
        for window, change in changes.items():
            joined, left = set(), set()
            for slot, (before, after) in change.changed.items():
                if slot in names:
                    was, is_ = before in joins, after in joins
                    if is_ and not was:
                        joined.add(names[slot])
                    elif was and not is_:
                        left.add(names[slot])
            found[window] = (frozenset(joined), frozenset(left))
        return found


def _size(timeline: Sequence[Entry], state: Sequence[Entry], members: Sequence[Entry]) -> int:
    """With what is encoded from it later."""
    text = sum([len(entry.before) for entry in timeline]) + sum([len(entry.before) for entry in state])
    return 3 * text + ENTRY_BYTES * (len(timeline) + len(state) + len(members) + 1)


def _list_related(txn: ReadTxn, stretches: Mapping[Window, Stretch]) -> set[int]:
    """The rooms in which something relates to an event of a limited timeline."""
    event_ids = [
        record.event_id for stretch in stretches.values() if stretch.limited for record in stretch.records
    ]
    return list_rooms_related(txn, event_ids) if event_ids else set()
