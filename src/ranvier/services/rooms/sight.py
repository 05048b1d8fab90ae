"""Which events of a room a user may see: the rules of `core.visibility`, on what is stored.

A page of events costs one look into each distinct state that its events have behind them, for two slots: the
room's history visibility and the user's own membership. What a stored state event says never changes (neither
of the two is touched by a redaction), so it is kept in memory by event number.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import product
from threading import Lock
from typing import Final, Protocol, TypeVar

import msgspec

from ranvier.core import state_map
from ranvier.core.identifiers import RoomID, StateKey, UserID
from ranvier.core.visibility import (
    JOINED_NOW,
    NEVER_JOINED,
    EventSight,
    HistoryVisibility,
    can_user_see,
    needs_memberships,
    parse_history_visibility,
)
from ranvier.services.requester import Requester
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, memberships
from ranvier.store.tables.account_data import list_ignored
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import Interner, find_state_key_nids
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes
from ranvier.store.tables.timeline import live_order

MAX_CONTENTS: Final = 50_000
"""What so many state events, and states, say is kept; the oldest entries go first."""

_VISIBILITY: Final[StateKey] = ("m.room.history_visibility", "")


class _Content(msgspec.Struct, gc=False):
    membership: object = None
    history_visibility: object = None


class _Stored(msgspec.Struct, gc=False):
    content: _Content


_STORED: Final = msgspec.json.Decoder(_Stored)
_Said = tuple[str, HistoryVisibility]
"""What a state event says of membership and history visibility: only that of its own type means anything."""

_Fact = TypeVar("_Fact")


class Standpoint(msgspec.Struct, frozen=True):
    """From where a user looks at a room."""

    membership: str  # now; `leave` if there never was one
    joined_until: int  # see `core.visibility.can_user_see`
    is_forgotten: bool = False

    @property
    def is_joined(self) -> bool:
        return self.joined_until == JOINED_NOW

    @property
    def may_look_back(self) -> bool:
        """Whether the user left, and has not forgotten the room."""
        return self.joined_until not in (NEVER_JOINED, JOINED_NOW) and not self.is_forgotten


class Viewer(msgspec.Struct, frozen=True):
    """Who looks at which room."""

    requester: Requester
    room_nid: int
    room_id: RoomID
    standpoint: Standpoint
    ignored: AbstractSet[int] = frozenset()  # user_nids
    is_passer_by: bool = False  # not joined, but the room is world-readable now

    @property
    def sees_until(self) -> int:
        """The room_order behind which there is nothing to see: where who left did so."""
        return JOINED_NOW if self.is_passer_by else self.standpoint.joined_until

    def hides(self, record: EventRecord) -> bool:
        """Whether the event is hidden because its sender is ignored: state is not.

        Spec: client-server API, "Ignoring Users".
        """
        return record.state_key_nid is None and record.sender_nid in self.ignored


def find_viewer(txn: ReadTxn, requester: Requester, room_nid: int, room_id: RoomID) -> Viewer:
    """Cost: 2 queries for who is joined, else 3."""
    return Viewer(
        requester,
        room_nid,
        room_id,
        find_standpoint(txn, requester.user_nid, room_nid),
        list_ignored(txn, requester.user_nid),
    )


def list_viewers(txn: ReadTxn, requester: Requester, room_ids: Mapping[int, RoomID]) -> dict[int, Viewer]:
    """The same for several rooms: room_nid -> viewer. Cost: 2 queries, and 2 for each room that the user left."""
    now = memberships.list_memberships_of_user(txn, requester.user_nid, room_ids)
    joined = {room_nid for room_nid, one in now.items() if one.membership == memberships.JOIN}
    ignored = list_ignored(txn, requester.user_nid)
    return {
        room_nid: Viewer(
            requester,
            room_nid,
            room_id,
            Standpoint(memberships.JOIN, JOINED_NOW)
            if room_nid in joined
            else find_standpoint(txn, requester.user_nid, room_nid),
            ignored,
        )
        for room_nid, room_id in room_ids.items()
    }


def find_standpoint(txn: ReadTxn, user_nid: int, room_nid: int) -> Standpoint:
    """Where a local user stands. Cost: 1 query for who is joined, else 2."""
    now = memberships.find_membership(txn, room_nid, user_nid)
    if now is None:
        return Standpoint("leave", NEVER_JOINED)
    if now.membership == memberships.JOIN:
        return Standpoint(now.membership, JOINED_NOW)
    ends = [
        change.position
        for change in memberships.list_room_membership_changes(txn, user_nid, room_nid)
        if change.previous == memberships.JOIN
    ]
    return Standpoint(now.membership, live_order(ends[-1]) if ends else NEVER_JOINED, now.is_forgotten)


class Seeing(Protocol):
    """Knows which events of a room somebody may see. Its functions run in read transactions, on any thread."""

    def visible(self, txn: ReadTxn, viewer: "Viewer", records: Collection[EventRecord]) -> dict[int, str]:
        """Those events that the viewer may see: event_nid -> `unsigned.membership`."""

    def is_world_readable(self, txn: ReadTxn, state_root: int) -> bool:
        """Whether everybody may see what comes after a state."""


class Sight:
    """What users see. Its functions run in read transactions, on any thread."""

    def __init__(self, interner: Interner, nodes: NodeCache, max_contents: int = MAX_CONTENTS) -> None:
        self._interner = interner
        self._nodes = nodes
        self._max_contents = max_contents
        self._said: dict[int, _Said] = {}
        self._guarded: dict[int, bool] = {}  # by state root
        self._lock = Lock()  # of those who change these

    def visible(
        self,
        txn: ReadTxn,
        viewer: Viewer,
        records: Collection[EventRecord],
    ) -> dict[int, str]:
        """Those events of the room's timeline that the viewer may see: event_nid -> `unsigned.membership`.

        Events outside of the timeline (outliers, rejected and soft-failed ones) are never visible.
        Cost: at most 2 queries besides state nodes that are not in memory; none for slots that were seen.
        """
        return self.visible_in_rooms(txn, viewer.requester.user_id, ((viewer.standpoint, records),))

    def visible_in_rooms(
        self, txn: ReadTxn, user_id: UserID, rooms: Collection[tuple[Standpoint, Collection[EventRecord]]]
    ) -> dict[int, str]:
        """The same for one user's events of many rooms, at the same cost."""
        own: StateKey = ("m.room.member", user_id)
        slots = find_state_key_nids(txn, self._interner, (_VISIBILITY, own))
        self._interner.state_keys.remember(slots)  # which a snapshot showed
        own_slot, visibility_slot = slots.get(own, -1), slots.get(_VISIBILITY, -1)
        everything = [record for _, records in rooms for record in records]
        states = self._list_states(txn, everything, list(slots.values()))
        said = self._list_said(txn, everything, states.values(), (own_slot, visibility_slot))
        seen: dict[int, str] = {}
        for standpoint, records in rooms:
            for record in records:
                if record.room_order is None or record.state_root is None:
                    continue
                state = states[record.state_root]
                before = said[state[own_slot]][0] if own_slot in state else None
                shown = said[state[visibility_slot]][1] if visibility_slot in state else _DEFAULT
                is_own = record.state_key_nid == own_slot
                membership = before or "leave"
                if record.state_key_nid == visibility_slot:
                    event = EventSight(
                        record.room_order, said[record.event_nid][1], membership, visibility_before=shown
                    )
                else:
                    event = EventSight(record.room_order, shown, membership, is_own_membership=is_own)
                if can_user_see(event, standpoint.joined_until):
                    seen[record.event_nid] = said[record.event_nid][0] if is_own else membership
        return seen

    def is_world_readable(self, txn: ReadTxn, state_root: int) -> bool:
        """Whether the history visibility in a state lets everybody see what comes after it."""
        slot = self._find_slot(txn, _VISIBILITY)
        state = state_map.get_many(SnapshotNodes(txn, self._nodes), state_root, (slot,))
        said = self._list_said(txn, (), (state,), (slot, slot))
        return slot in state and said[state[slot]][1] is HistoryVisibility.WORLD_READABLE

    def list_guarded(self, txn: ReadTxn, roots: Collection[int]) -> set[int]:
        """Those of the states in which memberships decide who sees what comes after, even among members of today.

        Cost: nothing for states that were asked about before; for others state nodes, and at most 2 queries.
        """
        guarded = {root: known for root in roots if (known := self._guarded.get(root)) is not None}
        missing = [root for root in roots if root not in guarded]
        if missing:
            slot = self._find_slot(txn, _VISIBILITY)
            reader = SnapshotNodes(txn, self._nodes)
            states = {root: state_map.get_many(reader, root, (slot,)) for root in missing}
            said = self._list_said(txn, (), states.values(), (slot, slot))
            found = {
                root: slot in state and needs_memberships((said[state[slot]][1],))
                for root, state in states.items()
            }
            with self._lock:
                _remember(self._guarded, found, self._max_contents)
            guarded |= found
        return {root for root, is_guarded in guarded.items() if is_guarded}

    def was_joined(self, txn: ReadTxn, user_id: UserID, roots: Collection[int]) -> bool:
        """Whether the user is joined in all of these states. Cost: state nodes, and at most 2 queries."""
        slot = self._find_slot(txn, ("m.room.member", user_id))
        reader = SnapshotNodes(txn, self._nodes)
        states = [state_map.get_many(reader, root, (slot,)) for root in roots]
        said = self._list_said(txn, (), states, (slot, slot))
        return all(slot in state and said[state[slot]][0] == memberships.JOIN for state in states)

    def _find_slot(self, txn: ReadTxn, slot: StateKey) -> int:
        """The number of a state slot, or one that no slot has. Cost: 1 query if it is not in memory."""
        found = find_state_key_nids(txn, self._interner, (slot,))
        self._interner.state_keys.remember(found)  # which a snapshot showed
        return found.get(slot, -1)

    def _list_states(
        self, txn: ReadTxn, records: Iterable[EventRecord], slots: Sequence[int]
    ) -> dict[int, dict[int, int]]:
        """State root -> what fills those slots there."""
        reader = SnapshotNodes(txn, self._nodes)
        states: dict[int, dict[int, int]] = {}
        for record in records:
            root = record.state_root
            if root is not None and root not in states:
                states[root] = state_map.get_many(reader, root, slots)
        return states

    def _list_said(
        self,
        txn: ReadTxn,
        records: Iterable[EventRecord],
        states: Iterable[Mapping[int, int]],
        slots: tuple[int, int],
    ) -> dict[int, _Said]:
        """What the events that fill the slots say, and those of `records` that are for these slots."""
        said: dict[int, _Said] = {}
        missing: set[int] = set()
        for state in states:
            for nid in state.values():
                known = self._said.get(nid)
                if known is None:
                    missing.add(nid)
                else:
                    said[nid] = known
        found = [record for record in records if record.state_key_nid in slots]
        if missing:
            found += events.list_events(txn, missing).values()
        for record in found:
            said[record.event_nid] = _said_by(record)
        with self._lock:
            _remember(self._said, said, self._max_contents)
        return said


_DEFAULT: Final = parse_history_visibility(None)

_SAYINGS: Final[Mapping[_Said, _Said]] = {
    pair: pair for pair in product(sorted(memberships.MEMBERSHIPS), HistoryVisibility)
}
"""All that can be said. What is kept by the thousand is one of these, and never a text from an event."""


def _remember(kept: dict[int, _Fact], more: Mapping[int, _Fact], most: int) -> None:
    kept.update(more)
    while len(kept) > most:
        del kept[next(iter(kept))]


def _said_by(record: EventRecord) -> _Said:
    content = _STORED.decode(record.json).content
    said = content.membership
    membership = said if isinstance(said, str) and said in memberships.MEMBERSHIPS else "leave"
    return _SAYINGS[membership, parse_history_visibility({"history_visibility": content.history_visibility})]
