"""Rooms in use, in memory: what the next event is built on. A cache with a version, never the truth.

Rules for this file: a `LiveRoom` changes only without an await between reading and writing it, and it tells
when something is not loaded instead of guessing. Who appends compares revisions; a room that fell behind is
dropped here and read again.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.select import CREATE, JOIN_RULES, POWER_LEVELS
from ranvier.core.events.parse import parse_stored
from ranvier.core.events.pdu import Pdu
from ranvier.core.events.redact import redact_content
from ranvier.core.identifiers import RoomID, StateKey
from ranvier.core.limits import MAX_PREV_EVENTS
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, rooms, state
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import Interner, find_state_key_nids
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes

MAX_ROOMS: Final = 5_000
"""Rooms kept; the one not used for longest goes first."""

MAX_SLOTS: Final = 20_000
"""State slots kept of one room, absent ones included; beyond that the room starts anew with the core ones."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""What the slots of all rooms may take, about; beyond that, rooms go until half of it is left."""

COUNT_EVERY: Final = 100
"""So many times a room is looked for until it is looked what all of them take."""

_SLOT_BYTES: Final = 300

POLICY: Final[StateKey] = ("m.room.policy", "")
"""Names the room's policy server, if it has one."""

CORE_SLOTS: Final[tuple[StateKey, ...]] = (CREATE, POWER_LEVELS, JOIN_RULES, POLICY)
"""What nearly every event needs."""


class LiveRoom:
    """One room: its pending head (with what is queued but not yet committed), and part of the state there."""

    __slots__ = (
        "_pending",
        "_power",
        "_slots",
        "bytes",
        "effects",
        "heads",
        "is_stale",
        "is_wide",
        "nid",
        "queued_count",
        "revision",
        "room_id",
        "version",
    )

    def __init__(self, nid: int, room_id: RoomID, version: RoomVersion, revision: int) -> None:
        self.nid = nid
        self.room_id = room_id
        self.version = version
        self.revision = revision  # of the committed head
        self.heads: tuple[Pdu, ...] = ()  # the forward extremities that the next event cites
        self.is_wide = False  # there are more extremities than an event may cite: `heads` are some of them
        self.is_stale = False  # someone else changed the room: nothing may be built on this any more
        self.queued_count = 0  # appends that are not on disk yet
        self.effects: object = None  # what `Effects` knows at the pending head: replaced, never changed
        self.bytes = 0  # that the slots take, about
        self._slots: dict[StateKey, Pdu | None] = {}
        self._pending: dict[StateKey, Pdu] = {}  # state that is not on disk yet: nobody can read it again
        self._power: PowerLevels | None = None

    def missing(self, slots: Collection[StateKey]) -> list[StateKey]:
        """Those of `slots` that are not loaded."""
        return [slot for slot in slots if slot not in self._slots]

    def state(self, event_type: str, state_key: str) -> Pdu | None:
        """What fills a slot at the pending head.

        Raises: KeyError when it is not loaded: a mistake of the caller.
        """
        return self._slots[(event_type, state_key)]

    @property
    def power(self) -> PowerLevels:
        """The power levels at the pending head."""
        if self._power is None:
            self._power = PowerLevels.from_events(
                self.state(*CREATE), self.state(*POWER_LEVELS), self.version
            )
        return self._power

    def membership(self, user_id: str) -> str | None:
        """The membership of a user whose member slot is loaded; None without a member event."""
        member = self.state("m.room.member", user_id)
        membership = member.content.get("membership") if member is not None else None
        return membership if isinstance(membership, str) else None

    def learn(self, loaded: dict[StateKey, Pdu | None]) -> None:
        """Take in slots as they were committed; what is pending here is newer and stays."""
        if len(self._slots) + len(loaded) > MAX_SLOTS:
            self._slots = {slot: self._slots[slot] for slot in CORE_SLOTS if slot in self._slots}
            self._slots.update(self._pending)
            self.bytes = sum(map(_bytes_of, self._slots.values()))
        for slot, pdu in loaded.items():
            if slot not in self._slots:
                self._slots[slot] = pdu
                self.bytes += _bytes_of(pdu)

    def fork(self) -> "LiveRoom":
        """A copy to build several events on, of which all or none count."""
        copy = LiveRoom(self.nid, self.room_id, self.version, self.revision)
        copy.heads = self.heads
        copy.bytes = self.bytes
        copy._slots = dict(self._slots)
        copy._pending = dict(self._pending)
        copy.effects = self.effects
        return copy

    def join(self, fork: "LiveRoom") -> None:
        """Move the pending head to that of a fork: its events are about to be appended."""
        self.heads = fork.heads
        self.bytes = fork.bytes
        self._slots = fork._slots
        self._pending = fork._pending
        self.effects = fork.effects
        self._power = None

    def advance(self, pdu: Pdu) -> None:
        """Move the pending head: `pdu` was built on it and is about to be appended."""
        self.heads = (pdu,)
        if pdu.is_state:
            self.bytes += _bytes_of(pdu) - _bytes_of(self._slots.get(pdu.slot))
            self._slots[pdu.slot] = self._pending[pdu.slot] = pdu
            if pdu.slot in (CREATE, POWER_LEVELS):
                self._power = None

    def redact(self, target: Pdu) -> None:
        """Take away what a redaction leaves not of `target`, if that is state here."""
        if target.is_state and self._slots.get(target.slot) == target:
            self._slots[target.slot] = redacted(target, self.version)
            self._power = None

    def settle(self, pdus: Iterable[Pdu]) -> None:
        """These events are on disk now."""
        for pdu in pdus:
            if pdu.is_state and self._pending.get(pdu.slot) == pdu:
                del self._pending[pdu.slot]


class LiveRooms:
    """The rooms in use."""

    def __init__(self, db: Database, interner: Interner, max_bytes: int = MAX_BYTES) -> None:
        self._db = db
        self._interner = interner
        self._max_bytes = max_bytes
        self._finds = 0
        self._rooms: OrderedDict[RoomID, LiveRoom] = OrderedDict()

    async def find(self, room_id: RoomID, slots: Collection[StateKey] = ()) -> LiveRoom | None:
        """The room with `slots` and the core slots loaded, or None if it is not known here.

        From the return on, until the caller awaits, nothing else changes the room.
        Cost: no query for a room in use; else 3 at most.
        """
        wanted = {*CORE_SLOTS, *slots}
        while True:
            room = self._rooms.get(room_id)
            if room is None:
                loaded = await self._db.read(_read_room, self._interner, room_id, wanted)
                if loaded is None:
                    return None
                # Another task may have loaded it meanwhile, and built on it.
                room = self._rooms.setdefault(room_id, loaded)
                self._rooms.move_to_end(room_id)  # else it may be the one to go
                self._evict()
            missing = room.missing(wanted)
            if not missing:
                self._rooms.move_to_end(room_id)
                self._finds += 1
                if self._finds >= COUNT_EVERY:
                    self._finds = 0
                    self._make_room()
                return room
            learned = await self._db.read(
                read_slots, self._interner, room.nid, room.room_id, room.version, missing
            )
            if not room.is_stale:
                room.learn(learned)

    def add(self, room: LiveRoom) -> None:
        """Keep a room that was just made."""
        self._rooms.setdefault(room.room_id, room)
        self._evict()

    def drop(self, room: LiveRoom) -> None:
        """Forget a room whose head is no longer what the database has."""
        room.is_stale = True
        if self._rooms.get(room.room_id) is room:
            del self._rooms[room.room_id]

    def forget(self, room_id: RoomID, *, below: int | None = None) -> None:
        """Drop the room if it is in memory (and of a revision before `below`)."""
        room = self._rooms.get(room_id)
        if room is not None and (below is None or room.revision < below):
            self.drop(room)

    def _evict(self) -> None:
        """Let the room go that was not used for longest. One with queued appends must stay: its pending head
        is known nowhere else, and two that build on one room would only be in each other's way."""
        for room_id in list(islice(self._rooms, max(0, len(self._rooms) - MAX_ROOMS))):
            room = self._rooms[room_id]
            if room.queued_count:
                self._rooms.move_to_end(room_id)
            else:
                self.drop(room)

    def _make_room(self) -> None:
        """If all rooms together take too much, let those go that were not used for longest; never the last one."""
        taken = sum(room.bytes for room in self._rooms.values())
        if taken <= self._max_bytes:
            return
        for room_id in list(self._rooms)[:-1]:
            room = self._rooms[room_id]
            if not room.queued_count:
                self.drop(room)
                taken -= room.bytes
            if taken <= self._max_bytes // 2:
                break


def _bytes_of(pdu: Pdu | None) -> int:
    """What a slot takes in memory, about: the event is there as a text and parsed."""
    return _SLOT_BYTES if pdu is None else 3 * _SLOT_BYTES + 3 * len(pdu.json)


def pdu_of(record: EventRecord, room_id: RoomID, version: RoomVersion) -> Pdu:
    """The event of a stored row; if it was redacted, with what that left of its content."""
    pdu = parse_stored(record.json, record.event_id, room_id, version)
    return pdu if record.redacted_by is None else redacted(pdu, version)


def redacted(pdu: Pdu, version: RoomVersion) -> Pdu:
    """The event as whoever has its redaction knows it. Its `json` stays whole: ids and hashes are of that."""
    return msgspec.structs.replace(pdu, content=redact_content(pdu.type, pdu.content, version))


def read_slots(
    txn: ReadTxn,
    interner: Interner,
    room_nid: int,
    room_id: RoomID,
    version: RoomVersion,
    slots: Sequence[StateKey],
) -> dict[StateKey, Pdu | None]:
    """What fills these slots of a room's state now; None where nothing does. Cost: 2 or 3 queries."""
    found: dict[StateKey, Pdu | None] = dict.fromkeys(slots)
    slot_nids = find_state_key_nids(txn, interner, slots)
    event_nids = state.list_current_slots(txn, room_nid, slot_nids.values())
    records = events.list_events(txn, event_nids.values())
    for slot, slot_nid in slot_nids.items():
        if slot_nid in event_nids:
            found[slot] = pdu_of(records[event_nids[slot_nid]], room_id, version)
    return found


def _sorted_by_agreement(txn: ReadTxn, now: int, heads: Sequence[EventRecord]) -> list[EventRecord]:
    """Extremities, those first that agree most with the room's state now. What this state allows, those do, mostly;
    and nobody can come first by making up branches, or depths."""
    reader = SnapshotNodes(txn, NodeCache())

    def distance(head: EventRecord) -> tuple[int, int]:
        before = now if head.state_root is None else head.state_root
        return len(state_map.difference(reader, (now, before))), head.event_nid

    return sorted(heads, key=distance)


def _read_room(
    txn: ReadTxn, interner: Interner, room_id: RoomID, slots: Collection[StateKey]
) -> LiveRoom | None:
    row = rooms.find_room(txn, room_id)
    if row is None:
        return None
    version = get_room_version(row.version)
    room = LiveRoom(row.room_nid, room_id, version, row.revision)
    heads = list(events.list_events(txn, row.extremities).values())
    if len(heads) > MAX_PREV_EVENTS:
        room.is_wide = True
        heads = _sorted_by_agreement(txn, row.state_root, heads)[:MAX_PREV_EVENTS]
    room.heads = tuple(pdu_of(head, room_id, version) for head in heads)
    room.learn(read_slots(txn, interner, row.room_nid, room_id, version, list(slots)))
    return room
