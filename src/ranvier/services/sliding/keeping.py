"""Connections on disk: written behind, so that no answer waits for it, and read when a client comes back.

What is stored is knowledge that the client has shown, so it never says more than the client knows.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ranvier.io.clock import Clock
from ranvier.services.sliding.required_state import Pattern, RequiredState, Rule
from ranvier.services.sliding.told import Knowledge, Told
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import sliding_connections
from ranvier.store.tables.sliding_connections import StoredConnection, StoredRoom

DELAY_S: Final = 1.0
"""So long changes are gathered: what a crash may lose costs clients a few rooms told anew."""
MAX_AGE_MS: Final = 7 * 24 * 3600 * 1000
"""Connections that were not used for so long are dropped."""
SWEEP_S: Final = 3600.0
MAX_KEPT: Final = 20_000
"""Connections of which is remembered how they are stored; others are stored whole the next time."""
MAX_BATCH: Final = 50
MAX_REQUIRED_STATES: Final = 200
"""Different ones that a stored connection may hold; whoever asks for more is not stored any more."""


class Kept(msgspec.Struct, frozen=True):
    """A connection as it is stored."""

    life: int
    device_nid: int
    conn_id: str
    knowledge: Knowledge
    required_states: tuple[RequiredState, ...]  # those of its rooms, as they are numbered


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
        self._noted: dict[int, tuple[int, str, Knowledge]] = {}  # life -> device, conn_id, knowledge
        self._stored: dict[int, Kept] = {}  # by life
        self._some = asyncio.Event()

    def note(self, life: int, device_nid: int | None, conn_id: str, knowledge: Knowledge) -> None:
        """The client showed that it knows this. Who has no device is not remembered beyond memory."""
        if device_nid is not None:
            self._noted[life] = (device_nid, conn_id, knowledge)
            self._some.set()

    async def find(self, device_nid: int, conn_id: str) -> Kept | None:
        """The stored connection. Cost: 2 queries."""
        row = await self._db.read(sliding_connections.find_connection, device_nid, conn_id)
        if row is None:
            return None
        connection, rooms = row
        states = _decode_states(connection.required_states)
        told = {room.room_nid: _told(room, states) for room in rooms if room.required_state < len(states)}
        knowledge = Knowledge(
            connection.answer,
            connection.position,
            told,
            connection.account_data_upto,
            connection.device_lists_upto,
        )
        kept = Kept(connection.life, device_nid, conn_id, knowledge, states)
        self._remember(kept)
        return kept

    async def run(self) -> None:
        """Store, for ever; in the end, what is noted still."""
        swept_s = self._clock.monotonic()
        try:
            while True:
                await self._some.wait()
                await self._clock.sleep(DELAY_S)
                self._some.clear()
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
            batch = [
                self._change(life, device_nid, conn_id, knowledge)
                for life, (device_nid, conn_id, knowledge) in items[start : start + MAX_BATCH]
            ]
            await self._db.write(_write, [change for _, change in batch])
            for kept, _ in batch:
                self._remember(kept)

    def _change(
        self, life: int, device_nid: int, conn_id: str, knowledge: Knowledge
    ) -> tuple[Kept, sliding_connections.ConnectionChange]:
        before = self._stored.get(life)
        old: Mapping[int, Told] = {} if before is None else before.knowledge.rooms
        numbers = {} if before is None else {one: n for n, one in enumerate(before.required_states)}
        changed: list[StoredRoom] = []
        if old is not knowledge.rooms:
            for room_nid, told in knowledge.rooms.items():
                if (was := old.get(room_nid)) is told:
                    continue
                number = numbers.setdefault(told.required_state, len(numbers))
                room = _room(room_nid, told, number)
                if (
                    was is None
                    or was.required_state not in numbers
                    or room != _room(room_nid, was, numbers[was.required_state])
                ):
                    changed.append(room)
        gone = [nid for nid in old if nid not in knowledge.rooms] if old is not knowledge.rooms else []
        states = tuple(numbers)
        row = StoredConnection(
            life,
            device_nid,
            conn_id,
            knowledge.answer,
            knowledge.position,
            knowledge.account_data_upto,
            knowledge.device_lists_upto,
            _encode_states(states),
            self._clock.now_ms(),
        )
        is_kept = len(states) <= MAX_REQUIRED_STATES
        change = sliding_connections.ConnectionChange(row, before is None, changed, gone, is_kept)
        # What was shown is of use to whoever asks next, not to what is stored.
        kept = Kept(life, device_nid, conn_id, msgspec.structs.replace(knowledge, shown=None), states)
        return kept, change

    def _remember(self, kept: Kept) -> None:
        if len(kept.required_states) > MAX_REQUIRED_STATES:
            self._stored.pop(kept.life, None)
            return
        self._stored.pop(kept.life, None)
        self._stored[kept.life] = kept
        while len(self._stored) > MAX_KEPT:
            del self._stored[next(iter(self._stored))]


def _write(txn: WriteTxn, changes: Iterable[sliding_connections.ConnectionChange]) -> None:
    for change in changes:
        sliding_connections.store_connection(txn, change)


def _room(room_nid: int, told: Told, number: int) -> StoredRoom:
    return StoredRoom(
        room_nid, told.upto, told.depth, number, told.extensions, told.membership, told.is_direct
    )


def _told(room: StoredRoom, states: tuple[RequiredState, ...]) -> Told:
    return Told(
        room.upto,
        room.depth,
        states[room.required_state],
        room.extensions,
        room.membership,
        room.is_direct,
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
