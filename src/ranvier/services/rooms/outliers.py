"""Events that are known only for what they authorize: their place in the room's history is not known.

Spec: server-server API, "Checks performed on receipt of a PDU", step 4: each is held against the events that
it cites itself, and rejected if these do not allow it.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from ranvier.core.auth.check import check_state_dependent, check_state_independent, create_event_id
from ranvier.core.errors import AuthRejected
from ranvier.core.events.parse import parse_stored
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey
from ranvier.core.limits import MAX_EVENT_FIELD_BYTES
from ranvier.core.room_versions import RoomVersion
from ranvier.io.clock import Clock
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.standings import AS_STORED, Standings
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.events import list_known
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.prepared import Appended, Batch, Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import NodeCache

AT_ONCE: Final = 300
"""Stored in one transaction: while a large state comes in, others write in between."""

FEW: Final = 100
"""Fewer are judged without another thread."""


class Authorizers(msgspec.Struct, frozen=True):
    """Stored events that others cite in auth_events, whole whatever was redacted since."""

    pdus: Mapping[EventID, Pdu]
    rejected: AbstractSet[EventID]


class Outliers:
    """Stores them."""

    def __init__(self, db: Database, interner: Interner, nodes: NodeCache, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._clock = clock

    async def store(self, room: RoomRef, pdus: Collection[Pdu]) -> None:
        """Store checked events, each after those that it cites. What cites events that are neither among them
        nor stored is left out; what is stored stays as it is.

        Cost: 1 read and 1 write.
        """
        if not pdus:
            return
        cited = {event_id for pdu in pdus for event_id in cited_by(pdu, room.version)}
        known = await self._db.read(read_authorizers, room, cited)
        judged = (
            list(_judge(room, pdus, known))
            if len(pdus) < FEW
            else await asyncio.to_thread(lambda: list(_judge(room, pdus, known)))
        )
        prepared = [PreparedEvent(pdu=pdu, outcome=outcome) for pdu, outcome in judged]
        if prepared:
            appended = await self._db.write(self._append, room, prepared)
            remember_appended(self._interner, self._nodes, appended)

    async def store_many(self, room: RoomRef, pdus: Collection[Pdu]) -> None:
        """The same for the events of a large state: others write in between, and judging runs on another thread.

        Cost: 1 read and 1 write for each AT_ONCE events.
        """
        if len(pdus) <= AT_ONCE:
            return await self.store(room, pdus)
        ordered = await asyncio.to_thread(sorted_by_auth, pdus)
        for start in range(0, len(ordered), AT_ONCE):
            await self.store(room, ordered[start : start + AT_ONCE])

    def _append(self, txn: WriteTxn, room: RoomRef, prepared: Collection[PreparedEvent]) -> Appended:
        batch = Batch(room_nid=room.nid, events=tuple(prepared), now_ms=self._clock.now_ms())
        return append(txn, self._interner, self._nodes, batch)


def _judge(room: RoomRef, pdus: Collection[Pdu], known: Authorizers) -> Iterable[tuple[Pdu, Outcome]]:
    pdus_by_id = dict(known.pdus)
    rejected = set(known.rejected)
    for pdu in sorted_by_auth(pdus):
        if pdu.event_id in pdus_by_id or not pdu.is_state:
            continue
        try:
            check_by_own_citations(pdu, Authorizers(pdus_by_id, rejected), room.version)
            outcome = Outcome.OUTLIER
        except KeyError:
            continue
        except AuthRejected:
            outcome = Outcome.REJECTED_OUTLIER
            rejected.add(pdu.event_id)
        pdus_by_id[pdu.event_id] = pdu
        yield pdu, outcome


def check_by_own_citations(pdu: Pdu, known: Authorizers, version: RoomVersion) -> None:
    """Step 4: hold an event against the events that it cites itself.

    Raises: AuthRejected; KeyError when `known` lacks one of them.
    """
    if version.has_long_fields:
        _check_sizes(pdu)
    cited = {event_id: known.pdus[event_id] for event_id in cited_by(pdu, version)}
    check_state_independent(pdu, cited, version, rejected=known.rejected)
    state: dict[StateKey, Pdu] = {one.slot: one for one in cited.values() if one.is_state}
    check_state_dependent(pdu, lambda event_type, state_key: state.get((event_type, state_key)), version)


def _check_sizes(pdu: Pdu) -> None:
    """Events with long fields are in old rooms, so they are read; but they do nothing there.

    COMPAT(Synapse): it takes them as rejected.
    """
    for field in (pdu.type, pdu.state_key or ""):
        if len(field.encode()) > MAX_EVENT_FIELD_BYTES:
            raise AuthRejected("-", f"type or state_key has more than {MAX_EVENT_FIELD_BYTES} bytes")


def cited_by(pdu: Pdu, version: RoomVersion) -> tuple[EventID, ...]:
    """The events that authorize `pdu`: also the create event that the room id stands for (since v12)."""
    if version.auth.room_id_is_create_hash and pdu.type != "m.room.create":
        return (*pdu.auth_events, create_event_id(pdu.room_id))
    return pdu.auth_events


def read_authorizers(
    txn: ReadTxn, room: RoomRef, event_ids: Collection[EventID], standings: Standings = AS_STORED
) -> Authorizers:
    """Those of the events that are stored. Cost: 1 query."""
    found = standings.list_events_by_id(txn, event_ids)
    return Authorizers(
        {
            event_id: parse_stored(record.json, event_id, room.room_id, room.version)
            for event_id, record in found.items()
            # An event of another room is none that could be cited; ids of rooms v1 and v2 can be made equal.
            if record.room_nid == room.nid
        },
        standings.find_rejected(txn, found.values()),
    )


def list_stored_ids(txn: ReadTxn, room: RoomRef, event_ids: Collection[EventID]) -> set[EventID]:
    """Those of the events that are stored, in whatever way. Cost: 1 query."""
    return {event_id for event_id, one in list_known(txn, event_ids).items() if one.room_nid == room.nid}


def sorted_by_auth(pdus: Iterable[Pdu]) -> list[Pdu]:
    """Each event after those of them that it cites in auth_events. What cites itself in a circle, which only
    ids of rooms v1 and v2 can, comes in some order."""
    return _sorted(pdus, lambda pdu: pdu.auth_events)


def sorted_by_history(pdus: Iterable[Pdu]) -> list[Pdu]:
    """Each event after those of them that it cites in prev_events or auth_events."""
    return _sorted(pdus, lambda pdu: (*pdu.prev_events, *pdu.auth_events))


def _sorted(pdus: Iterable[Pdu], parents: Callable[[Pdu], Sequence[EventID]]) -> list[Pdu]:
    by_id = {pdu.event_id: pdu for pdu in pdus}
    ordered: dict[EventID, Pdu] = {}
    # The create event authorizes all others, also where the room id stands for it.
    for start in sorted(by_id.values(), key=lambda pdu: pdu.type != "m.room.create"):
        # Depth first without recursion: a chain may be as long as the list.
        path = [(start, iter(parents(start)))]
        entered = {start.event_id}
        while path:
            pdu, rest = path[-1]
            for event_id in rest:
                parent = by_id.get(event_id)
                if parent is not None and event_id not in ordered and event_id not in entered:
                    entered.add(event_id)
                    path.append((parent, iter(parents(parent))))
                    break
            else:
                ordered.setdefault(pdu.event_id, pdu)
                path.pop()
    return list(ordered.values())
