"""The state before an event whose history is not here, as another server claims it.

Only events that pass the authorization rules on their own become part of it; and it is resolved with what is
known here, so that a server cannot talk a room out of its state.

Spec: server-server API, `GET /state_ids/{roomId}`.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.identifiers import EventID, ServerName, StateKey
from ranvier.io.ports import RemoteFault
from ranvier.services.remote.keyring import KeyWanted
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.missing import MAX_SINGLE, Missing
from ranvier.services.rooms.outliers import Outliers, list_stored_ids
from ranvier.services.rooms.rechecks import ask_for_recheck, list_wanted
from ranvier.services.rooms.standings import AS_STORED
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import events, unchecked_states
from ranvier.store.tables.interned import Interner, find_state_key_nids
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes
from ranvier.store.tables.unchecked_states import AskedState, WantedKey

log = logging.getLogger(__name__)

AT_ONCE: Final = 5_000
"""Entries of a state that are stored in one transaction."""

CREATE: Final[StateKey] = ("m.room.create", "")


class _Told(msgspec.Struct, frozen=True):
    state: dict[int, int]  # state_key_nid -> event_nid
    unchecked: Collection[KeyWanted]


class Claim(msgspec.Struct, frozen=True):
    """A state as a server claims it."""

    root: int
    unchecked: Collection[KeyWanted] = ()  # of events that are left out of it since they could not be checked


class ClaimedStates:
    """Fetches and stores such states."""

    def __init__(
        self, db: Database, interner: Interner, nodes: NodeCache, missing: Missing, outliers: Outliers
    ) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._missing = missing
        self._outliers = outliers

    async def claim_before(self, server: ServerName, room: RoomRef, event_id: EventID) -> Claim | None:
        """The state before an event; None if the server does not tell it whole.

        Cost: 1 request, and one for each event that is not here or, if these are many, one for all.
        """
        told = await self._fetch(server, room, event_id)
        return None if told is None else await self._keep(told)

    async def claim_after(self, server: ServerName, room: RoomRef, event_id: EventID) -> Claim | None:
        """The state after an event that is not here itself; None if the server does not tell it whole.

        Cost: that of `claim_before`, and 1 request.
        """
        told = await self._fetch(server, room, event_id)
        if told is None:
            return None
        found = await self._missing.fetch_events(server, room, (event_id,))
        if not found.pdus:
            return None
        (event,) = found.pdus
        if event.is_state:
            await self._outliers.store(room, found.pdus)
            told.state.update(await self._db.read(self._read_state, room, (event_id,)))
        return await self._keep(told)

    async def note_unchecked(
        self,
        room: RoomRef,
        claims: Mapping[AskedState, Claim],
        history: Collection[EventID],
        now_ms: int,
    ) -> None:
        """States are about to be taken at gaps of which some events could not be checked: what comes from now on, and
        `history`, is decided again when the keys are here. Cost: nothing where all could be checked."""
        wanted = {want: None for claim in claims.values() for want in claim.unchecked}
        if wanted:
            asked = [one for one, claim in claims.items() if claim.unchecked]
            await self._db.write(_note_unchecked, room, asked, list_wanted(wanted), history, now_ms)

    async def _fetch(self, server: ServerName, room: RoomRef, event_id: EventID) -> _Told | None:
        try:
            ids = await self._missing.fetch_state_ids(server, room, event_id)
            wanted = {*ids.state, *ids.auth_chain}
            lacking = wanted - await self._db.read(list_stored_ids, room, wanted)
            if len(lacking) > MAX_SINGLE:
                fetched = await self._missing.fetch_state(server, room, event_id)
            else:
                fetched = await self._missing.fetch_events(server, room, lacking, must_answer=True)
        except RemoteFault as fault:
            log.info("%s does not tell the state before %s: %s", server, event_id, fault)
            return None
        await self._outliers.store_many(room, [pdu for pdu in fetched.pdus if pdu.event_id in wanted])
        state = await self._db.read(self._read_state, room, ids.state)
        if not await self._db.read(self._has_create, state):
            log.info("%s tells a state before %s without its create event", server, event_id)
            return None
        return _Told(state, fetched.unchecked)

    async def _keep(self, told: _Told) -> Claim:
        """Store it, piece by piece: of a large state, each takes its own part of the map."""
        entries = sorted(told.state.items(), key=lambda entry: state_map.spread(entry[0]))
        root = state_map.EMPTY
        for start in range(0, len(entries), AT_ONCE):
            root, nodes = await self._db.write(self._store, root, dict(entries[start : start + AT_ONCE]))
            self._nodes.remember(nodes.touched)
        return Claim(root, told.unchecked)

    def _read_state(self, txn: ReadTxn, room: RoomRef, event_ids: Collection[EventID]) -> dict[int, int]:
        """Those events of the state that are here and were not rejected, by slot."""
        found = events.list_events_by_id(txn, event_ids).values()
        rejected = AS_STORED.find_rejected(txn, found)
        return {
            record.state_key_nid: record.event_nid
            for record in found
            if record.room_nid == room.nid
            and record.event_id not in rejected
            and record.state_key_nid is not None
        }

    def _has_create(self, txn: ReadTxn, state: dict[int, int]) -> bool:
        return any(slot in state for slot in find_state_key_nids(txn, self._interner, (CREATE,)).values())

    def _store(self, txn: WriteTxn, root: int, entries: dict[int, int]) -> tuple[int, PendingNodes]:
        nodes = PendingNodes(txn, self._nodes)
        return state_map.update(nodes, root, entries), nodes


def _note_unchecked(
    txn: WriteTxn,
    room: RoomRef,
    asked: list[AskedState],
    wanted: list[WantedKey],
    history: Collection[EventID],
    now_ms: int,
) -> None:
    if unchecked_states.add(txn, room.nid, asked, wanted, now_ms):
        unchecked_states.add_history(txn, room.nid, history)
        ask_for_recheck(txn, room.room_id, now_ms)
