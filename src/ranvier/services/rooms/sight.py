"""Which events of a room a user may see: the rules of `core.visibility`, on what is stored.

A page of events costs one look into each distinct state that its events have behind them, for two slots: the
room's history visibility and the user's own membership. What a stored state event says never changes (neither
of the two is touched by a redaction), so it is kept in memory by event number.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from threading import Lock
from typing import Final, Protocol

import msgspec

from ranvier.core import state_map
from ranvier.core.identifiers import RoomID, StateKey, UserID
from ranvier.core.visibility import (
    JOINED_NOW,
    NEVER_JOINED,
    EventSight,
    HistoryVisibility,
    can_user_see,
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
"""What so many state events say is kept; the oldest entries go first."""

_VISIBILITY: Final[StateKey] = ("m.room.history_visibility", "")


class _Content(msgspec.Struct, gc=False):
    membership: object = None
    history_visibility: object = None


class _Stored(msgspec.Struct, gc=False):
    content: _Content


_STORED: Final = msgspec.json.Decoder(_Stored)
_Said = tuple[str, HistoryVisibility]
"""What a state event says of membership and history visibility: only that of its own type means anything."""


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
    joined = memberships.list_joined_among(txn, requester.user_nid, room_ids.values())
    ignored = list_ignored(txn, requester.user_nid)
    return {
        room_nid: Viewer(
            requester,
            room_nid,
            room_id,
            Standpoint(memberships.JOIN, JOINED_NOW)
            if room_id in joined
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

    def __init__(self, interner: Interner, nodes: NodeCache) -> None:
        self._interner = interner
        self._nodes = nodes
        self._said: dict[int, _Said] = {}
        self._lock = Lock()  # of those who change `_said`

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
        slot = find_state_key_nids(txn, self._interner, (_VISIBILITY,)).get(_VISIBILITY)
        if slot is None:
            return False
        state = state_map.get_many(SnapshotNodes(txn, self._nodes), state_root, (slot,))
        said = self._list_said(txn, (), (state,), (slot, slot))
        return slot in state and said[state[slot]][1] is HistoryVisibility.WORLD_READABLE

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
        self._remember(said)
        return said

    def _remember(self, said: Mapping[int, _Said]) -> None:
        with self._lock:
            self._said.update(said)
            while len(self._said) > MAX_CONTENTS:
                del self._said[next(iter(self._said))]


_DEFAULT: Final = parse_history_visibility(None)


def _said_by(record: EventRecord) -> _Said:
    content = _STORED.decode(record.json).content
    membership = content.membership if isinstance(content.membership, str) else "leave"
    return membership, parse_history_visibility({"history_visibility": content.history_visibility})
