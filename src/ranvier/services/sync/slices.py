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


ANYBODY: Final = 0
"""No user_nid: whoever was joined all through."""


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
    # What was joined from these before, to be used again: see `answers`.
    encoded: dict[object, tuple[int, bytes]]

    def has_member(self, event_nid: int) -> bool:
        """Whether a member event is among what is told."""
        return any(
            entry.record.event_nid == event_nid for entry in (*self.timeline, *self.state, *self.members)
        )

    @property
    def is_impersonal(self) -> bool:
        """Whether everybody is told the same: none is left out of heroes, and none learns of comings."""
        return self.summary is None and not self.has_relations and not (self.joined or self.left)

    @property
    def begins_at(self) -> int:
        """The order of the first event of the timeline."""
        return self.timeline[0].record.room_order or 0 if self.timeline else END_OF_TIMELINE

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

    def read(self, txn: ReadTxn, windows: Collection[Window], profile: Profile) -> dict[Window, Slice]:
        """The slices for users who are joined all through the windows.

        Cost: some ten queries for all windows together.
        """
        room_ids = self.room_ids(txn, {window.room_nid for window in windows})
        stretches = read_stretches(txn, self._interner, windows, room_ids, profile)
        changes = self._changes.read(txn, stretches, profile)
        return self._finish(txn, stretches, changes, room_ids, profile, {}, ANYBODY)

    def read_own(
        self, txn: ReadTxn, viewers: Mapping[Window, Viewer], profile: Profile
    ) -> dict[Window, Slice]:
        """The slices for one user, who was not joined all through the windows: with what that user may see.

        Cost: as `read`, and what `Sight.visible` costs a room.
        """
        room_ids = self.room_ids(txn, {window.room_nid for window in viewers})
        stretches = read_stretches(txn, self._interner, list(viewers), room_ids, profile)
        seen: dict[int, str] = {}
        for window, stretch in stretches.items():
            visible = self._sight.visible(txn, viewers[window], stretch.records)
            seen |= visible
            kept = [record for record in stretch.records if record.event_nid in visible]
            shown = tuple(self._presenting.without_erased(txn, kept, visible))
            stretches[window] = msgspec.structs.replace(stretch, records=shown)
        reader = next((viewer.requester for viewer in viewers.values()), None)
        changes = self._changes.read(txn, stretches, profile, None if reader is None else reader.user_id)
        for window, viewer in viewers.items():
            if viewer.standpoint.joined_until == NEVER_JOINED:
                # Who never was in the room sees nothing of its state but what they may see of its timeline.
                changes[window] = changes[window].only(seen)
        nid = ANYBODY if reader is None else reader.user_nid
        return self._finish(txn, stretches, changes, room_ids, profile, seen, nid)

    def sticky(self, txn: ReadTxn, asked: StickyQuestion) -> Sequence[ToldSticky]:
        """Sticky events of joined rooms, whoever showed them before. Cost: 1 or 2 queries."""
        return read_sticky(txn, self._presenting, asked)

    def with_own_member(
        self,
        txn: ReadTxn,
        parts: Sequence[Slice],
        requester: Requester,
        profile: Profile,
        memberships: Collection[str] = (JOIN,),
    ) -> list[Slice]:
        """The slices with the user's own member event of one of these memberships: which a full state has even
        if it is lazy, and which ended an invite to a room that this server is not in.

        Cost: 2 queries for all.
        """
        own = list_rooms_of_user(txn, requester.user_nid, memberships)
        nids = {one.room_nid: one.event_nid for one in own}
        wanted = {
            part.window.room_nid: nids[part.window.room_nid]
            for part in parts
            if part.window.room_nid in nids and not part.has_member(nids[part.window.room_nid])
        }
        records = list_events(txn, wanted.values())
        entries = {
            facts.record.room_nid: make_state_entry(facts, profile)
            for facts in self._presenting.facts(txn, list(records.values()), with_replaced=False)
        }
        return [
            _with_member(part, entries[part.window.room_nid], profile)
            if part.window.room_nid in entries
            else part
            for part in parts
        ]

    def _finish(
        self,
        txn: ReadTxn,
        stretches: Mapping[Window, Stretch],
        changes: Mapping[Window, StateChange],
        room_ids: Mapping[int, RoomID],
        profile: Profile,
        seen: Mapping[int, str],
        reader: int,
    ) -> dict[Window, Slice]:
        summaries, heroes = read_summaries(txn, self._interner, changes)
        timeline = self._timeline_entries(txn, stretches, profile, seen)
        state = self._state_entries(txn, changes, heroes, room_ids, profile)
        moved = self._moved(txn, changes)
        typing_events, read = read_ephemeral(txn, self._interner, stretches, room_ids, profile)
        related = _list_related(txn, stretches)
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
                state=[state[nid] for nid in change.state.values() if nid in state],
                members=[state[nid] for nid in members.values() if nid in state],
                removed=[slot for slot, (_, after) in change.changed.items() if after is None],
                summary=summaries.get(window),
                typing=typing_events.get(window),
                receipts=read.get(window, {}),
                joined=joined,
                left=left,
                has_relations=stretch.limited and window.room_nid in related,
                encoded={},
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


def _list_related(txn: ReadTxn, stretches: Mapping[Window, Stretch]) -> set[int]:
    """The rooms in which something relates to an event of a limited timeline."""
    event_ids = [
        record.event_id for stretch in stretches.values() if stretch.limited for record in stretch.records
    ]
    return list_rooms_related(txn, event_ids) if event_ids else set()


def _with_member(part: Slice, entry: Entry, profile: Profile) -> Slice:
    if profile.lazy:
        return msgspec.structs.replace(part, members=[*part.members, entry])
    return msgspec.structs.replace(part, state=[*part.state, entry])
