"""Connections on disk: written behind, so that no answer waits for it, and read when a client comes back.

What is stored is knowledge that the client has shown, so it never says more than the client knows. Several processes
may store one connection, one after the other: whoever finds another's hand in it stores all of it anew.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ranvier.io.clock import Clock
from ranvier.services.recent import Recent
from ranvier.services.sliding.handover import name_of
from ranvier.services.sliding.required_state import Pattern, RequiredState, Rule
from ranvier.services.sliding.told import NO_EXTENSION, NOTHING_KNOWN, TYPING, Knowledge, Told
from ranvier.store.database import Database, Kind, WriteTxn
from ranvier.store.tables import sliding_connections
from ranvier.store.tables.sliding_connections import ConnectionChange, StoredConnection, StoredRoom

DELAY_S: Final = 1.0
"""So long changes are gathered: what a crash may lose costs clients a few rooms told anew."""
MAX_AGE_MS: Final = 7 * 24 * 3600 * 1000
"""Connections that were not used for so long are dropped."""
SWEEP_S: Final = 3600.0
MAX_ROOMS: Final = 400_000
"""Of connections of which is remembered how they are stored: mostly what `connections` has in memory, too. Others are
stored whole the next time."""
_CONNECTION_WEIGHT: Final = 10
"""A connection takes as much as so many rooms."""
MAX_BATCH: Final = 50
MAX_REQUIRED_STATES: Final = 200
"""Different ones that a stored connection may hold; whoever asks for more is not stored any more."""


class Kept(msgspec.Struct, frozen=True):
    """A connection as it is stored."""

    life: int
    knowledge: Knowledge
    required_states: tuple[RequiredState, ...]  # those of its rooms, as they are numbered
    encoded: bytes  # the same as JSON


class Note(msgspec.Struct, frozen=True):
    """What is to be stored."""

    device_nid: int
    conn_id: str
    knowledge: Knowledge
    is_wanted: bool  # another process waits for it


class _WireRule(msgspec.Struct, frozen=True):
    include: list[Pattern]
    exclude: list[Pattern]
    lazy: bool


class Keeper:
    """A worker that stores what is noted."""

    name = "sliding sync connections"

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._noted: dict[int, Note] = {}  # by life
        self._stored: Recent[int, Kept] = Recent(MAX_ROOMS)  # by life
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()

    def note(
        self,
        life: int,
        device_nid: int | None,
        conn_id: str,
        knowledge: Knowledge,
        *,
        is_wanted: bool = False,
    ) -> None:
        """The client showed that it knows this. Who has no device is not remembered beyond memory.

        `is_wanted`: to another process, which waits until it is told that this is stored.
        """
        if device_nid is None:
            return
        self._noted[life] = Note(device_nid, conn_id, knowledge, is_wanted)
        self._some.set()
        if is_wanted:
            self._hurry.set()

    async def find_shown(self, device_nid: int, conn_id: str, life: int) -> int | None:
        """The answer that the client showed last, as it is stored. Cost: 1 query."""
        return await self._db.read(sliding_connections.find_shown, device_nid, conn_id, life)

    async def find(self, device_nid: int, conn_id: str, life: int) -> Knowledge | None:
        """What is stored of a connection. Cost: 2 queries."""
        row = await self._db.read(sliding_connections.find_connection, device_nid, conn_id, life)
        if row is None:
            return None
        connection, rooms = row
        states = _decode_states(connection.required_states)
        known = [room for room in rooms if room.required_state < len(states)]
        knowledge = Knowledge(
            connection.answer,
            connection.position,
            {room.room_nid: _told(room, states) for room in known},
            connection.account_data_upto,
            connection.device_lists_upto,
            in_scope=frozenset([room.room_nid for room in known if room.extensions & TYPING]),
            subscriptions_upto=connection.subscriptions_upto,
        )
        self._remember(Kept(life, knowledge, states, connection.required_states))
        return knowledge

    async def run(self) -> None:
        """Store, for ever; in the end, what is noted still."""
        swept_s = self._clock.monotonic()
        try:
            while True:
                await self._some.wait()
                timer = self._clock.call_later(DELAY_S, self._hurry.set)
                try:
                    await self._hurry.wait()
                finally:
                    timer.cancel()
                self._some.clear()
                self._hurry.clear()
                await self._store()
                if self._clock.monotonic() - swept_s > SWEEP_S:
                    swept_s = self._clock.monotonic()
                    await self._db.write(sliding_connections.delete_unused, self._clock.now_ms() - MAX_AGE_MS)
        finally:
            await self._store()

    async def _store(self) -> None:
        noted, self._noted = self._noted, {}
        items = list(noted.items())
        for start in range(0, len(items), MAX_BATCH):
            batch = items[start : start + MAX_BATCH]
            foreign = await self._store_batch(batch)
            if foreign:
                for life, _ in foreign:
                    self._stored.forget(life)
                await self._store_batch(foreign)

    async def _store_batch(self, batch: Sequence[tuple[int, Note]]) -> list[tuple[int, Note]]:
        """Returns: those that are stored in another way than this process believed."""
        changes = [self._change(life, note) for life, note in batch]
        wanted = [name_of(life, note.knowledge.answer) if note.is_wanted else None for life, note in batch]
        done = await self._db.write(_write, [change for _, change in changes], wanted)
        foreign = []
        for item, (kept, change), is_stored in zip(batch, changes, done, strict=True):
            if is_stored:
                self._remember(kept)
            elif change.before is not None:
                foreign.append(item)
        return foreign

    def _change(self, life: int, note: Note) -> tuple[Kept, ConnectionChange]:
        knowledge, before = note.knowledge, self._stored.get(life)
        old = NOTHING_KNOWN if before is None else before.knowledge
        numbers = {} if before is None else {one: n for n, one in enumerate(before.required_states)}
        changed: list[StoredRoom] = []
        gone: list[int] = []
        moved = _scope(knowledge) ^ _scope(old)
        if moved or old.rooms is not knowledge.rooms:
            for room_nid, told in knowledge.rooms.items():
                was = old.rooms.get(room_nid)
                if was is told and room_nid not in moved:
                    continue
                room = _stored(room_nid, told, knowledge, numbers)
                if was is None or room != _stored(room_nid, was, old, numbers):
                    changed.append(room)
            gone = [nid for nid in old.rooms if nid not in knowledge.rooms]
        states = tuple(numbers)
        is_same = before is not None and before.required_states == states
        encoded = before.encoded if before is not None and is_same else _encode_states(states)
        row = StoredConnection(
            life,
            note.device_nid,
            note.conn_id,
            knowledge.answer,
            knowledge.position,
            knowledge.account_data_upto,
            knowledge.device_lists_upto,
            knowledge.subscriptions_upto,
            encoded,
            self._clock.now_ms(),
        )
        is_kept = len(states) <= MAX_REQUIRED_STATES
        change = ConnectionChange(row, None if before is None else old.answer, changed, gone, is_kept)
        # What was shown is of use to whoever asks next, not to what is stored.
        return Kept(life, msgspec.structs.replace(knowledge, shown=None), states, encoded), change

    def _remember(self, kept: Kept) -> None:
        if len(kept.required_states) > MAX_REQUIRED_STATES:
            self._stored.forget(kept.life)
        else:
            self._stored.keep(kept.life, kept, _CONNECTION_WEIGHT + len(kept.knowledge.rooms))


def _write(txn: WriteTxn, changes: Iterable[ConnectionChange], wanted: Iterable[int | None]) -> list[bool]:
    """Returns: which were stored. `wanted`: the names of answers that other processes wait for."""
    done = []
    for change, name in zip(changes, wanted, strict=True):
        is_stored = sliding_connections.store_connection(txn, change)
        # If it was stored in another way than was believed, it is stored once more.
        if name is not None and (is_stored or change.before is None):
            txn.hint(Kind.ANSWER_STORED, name)
        done.append(is_stored)
    return done


def _scope(knowledge: Knowledge) -> frozenset[int]:
    return knowledge.in_scope or frozenset()


def _stored(room_nid: int, told: Told, knowledge: Knowledge, numbers: dict[RequiredState, int]) -> StoredRoom:
    """Effects: `numbers` gets what the room's required state has none of."""
    return StoredRoom(
        room_nid,
        told.upto,
        told.depth,
        numbers.setdefault(told.required_state, len(numbers)),
        told.extensions | (TYPING if room_nid in _scope(knowledge) else NO_EXTENSION),
        told.membership,
        told.is_direct,
        *(told.counts or (None, None)),
    )


def _told(room: StoredRoom, states: tuple[RequiredState, ...]) -> Told:
    counts = None
    if room.notifications is not None and room.highlights is not None:
        counts = (room.notifications, room.highlights)
    return Told(
        room.upto,
        room.depth,
        states[room.required_state],
        room.extensions & ~TYPING,
        room.membership,
        room.is_direct,
        counts,
    )


def _encode_states(states: Iterable[RequiredState]) -> bytes:
    return msgspec.json.encode(
        [
            [_WireRule(_sorted(rule.include), _sorted(rule.exclude), rule.lazy) for rule in state.rules]
            for state in states
        ]
    )


def _sorted(patterns: Iterable[Pattern]) -> list[Pattern]:
    return sorted(patterns, key=lambda pattern: (pattern[0] or "", pattern[1] or ""))


def _decode_states(json: bytes) -> tuple[RequiredState, ...]:
    return tuple(
        RequiredState(
            frozenset(Rule(frozenset(rule.include), frozenset(rule.exclude), rule.lazy) for rule in rules)
        )
        for rules in msgspec.json.decode(json, type=list[list[_WireRule]])
    )
