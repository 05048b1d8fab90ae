"""The rows of a room's state now, brought near another state before that takes effect.

A large state that took effect at once would hold up all other writes. So the members whom the room's state does not
name yet come before it, some at a time: who looks at the rows sees more members then, and none is authorized by that.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import ServerName, StateKey, parse_user_id, server_of
from ranvier.io.clock import Clock
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import rooms, state
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.interned import Interner, list_state_keys
from ranvier.store.tables.prepared import Appended, Batch
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes, SnapshotNodes

AT_ONCE: Final = 250
"""Rows that are written in one transaction."""


class Rows(msgspec.Struct, frozen=True):
    """How far the rows are."""

    now: int  # the root of the room's state, when that was looked at
    wanted: int  # the root of the state that they were brought near
    slots: Collection[int]  # where they may still differ from it


Check = Callable[[ReadTxn], rooms.Room]
"""The room, if its rows are to be changed. What it raises ends that."""


class Filling:
    """Writes such rows."""

    def __init__(self, db: Database, interner: Interner, nodes: NodeCache, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._clock = clock

    async def bring_near(self, check: Check, root: int) -> Rows:
        """Write the rows of those members of other servers that `root` names, and the room's state now does not;
        remove those that neither does.

        Cost: 1 read, and 1 write for each AT_ONCE rows.
        Raises: what `check` raises; StoreFault.
        """
        rows, members = await self._db.read(self._read, check, root)
        for start in range(0, len(members), AT_ONCE):
            appended = await self._db.write(self._write, check, root, members[start : start + AT_ONCE])
            remember_appended(self._interner, self._nodes, appended)
        return rows

    def _read(self, txn: ReadTxn, check: Check, root: int) -> tuple[Rows, Sequence[int]]:
        """What is not to be written before, and the slots that are."""
        room = check(txn)
        nodes = SnapshotNodes(txn, self._nodes)
        held = state.list_current_state(txn, room.room_nid)
        wanted = state_map.to_dict(nodes, root)
        differing = [slot for slot in held.keys() | wanted.keys() if held.get(slot) != wanted.get(slot)]
        set_now = state_map.get_many(nodes, room.state_root, differing)
        names = list_state_keys(txn, self._interner, differing)
        own = self._interner.own_server
        members = [slot for slot in differing if slot not in set_now and _is_member(names[slot], own)]
        return Rows(room.state_root, root, set(differing).difference(members)), members

    def _write(self, txn: WriteTxn, check: Check, root: int, slots: Sequence[int]) -> Appended:
        room = check(txn)
        nodes = PendingNodes(txn, self._nodes)
        # What came meanwhile knows better.
        set_now = state_map.get_many(nodes, room.state_root, slots)
        wanted = state_map.get_many(nodes, root, slots)
        rows = {slot: wanted.get(slot) for slot in slots if slot not in set_now}
        batch = Batch(room_nid=room.room_nid, events=(), now_ms=self._clock.now_ms(), replace_rows=rows)
        return append(txn, self._interner, self._nodes, batch)


def list_changed_rows(
    txn: ReadTxn, nodes: PendingNodes, rows: Rows, room: rooms.Room, root: int
) -> Mapping[int, int | None]:
    """What is to be changed in the rows, that they are those of `root`: slot -> event, or None.

    Cost: follows what changed since, and what was not written before.
    """
    slots = set(rows.slots)
    slots.update(state_map.difference(nodes, (rows.now, room.state_root)))
    slots.update(state_map.difference(nodes, (rows.wanted, root)))
    held = state.list_current_slots(txn, room.room_nid, slots)
    wanted = state_map.get_many(nodes, root, slots)
    return {slot: wanted.get(slot) for slot in slots if held.get(slot) != wanted.get(slot)}


def _is_member(slot: StateKey, own_server: ServerName) -> bool:
    """Whether the slot is that of a user of another server."""
    if slot[0] != "m.room.member":
        return False
    try:
        return server_of(parse_user_id(slot[1])) != own_server
    except BadIdentifier:
        return False
