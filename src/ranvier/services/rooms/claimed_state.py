"""The state before an event whose history is not here, as another server claims it.

Only events that pass the authorization rules on their own become part of it; and it is resolved with what is
known here, so that a server cannot talk a room out of its state.

Spec: server-server API, `GET /state_ids/{roomId}`.
"""

import logging
from collections.abc import Collection
from typing import Final

from ranvier.core.identifiers import EventID, ServerName, StateKey
from ranvier.io.ports import RemoteFault
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.missing import MAX_SINGLE, Missing
from ranvier.services.rooms.outliers import Outliers, find_rejected, list_stored_ids
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import events
from ranvier.store.tables.interned import Interner, list_state_keys
from ranvier.store.tables.state import build_state
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes

log = logging.getLogger(__name__)

CREATE: Final[StateKey] = ("m.room.create", "")


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

    async def fetch_before(self, server: ServerName, room: RoomRef, event_id: EventID) -> int | None:
        """The root of the state before an event; None if the server does not tell it whole.

        Cost: 1 request, and one for each event that is not here or, if these are many, one for all.
        """
        state = await self._fetch(server, room, event_id)
        return None if state is None else await self._keep(state)

    async def fetch_after(self, server: ServerName, room: RoomRef, event_id: EventID) -> int | None:
        """The root of the state after an event that is not here itself; None if the server does not tell it
        whole.

        Cost: that of `fetch_before`, and 1 request.
        """
        state = await self._fetch(server, room, event_id)
        if state is None:
            return None
        found = await self._missing.fetch_events(server, room, (event_id,))
        if not found:
            return None
        (event,) = found
        if event.is_state:
            await self._outliers.store(room, found)
            state |= await self._db.read(self._read_state, room, (event_id,))
        return await self._keep(state)

    async def _fetch(
        self, server: ServerName, room: RoomRef, event_id: EventID
    ) -> dict[StateKey, EventID] | None:
        try:
            ids = await self._missing.fetch_state_ids(server, room, event_id)
            wanted = {*ids.state, *ids.auth_chain}
            lacking = wanted - await self._db.read(list_stored_ids, room, wanted)
            if len(lacking) > MAX_SINGLE:
                pdus = await self._missing.fetch_state(server, room, event_id)
            else:
                pdus = await self._missing.fetch_events(server, room, lacking, must_answer=True)
        except RemoteFault as fault:
            log.info("%s does not tell the state before %s: %s", server, event_id, fault)
            return None
        await self._outliers.store_many(room, [pdu for pdu in pdus if pdu.event_id in wanted])
        state = await self._db.read(self._read_state, room, ids.state)
        if CREATE not in state:
            log.info("%s tells a state before %s without its create event", server, event_id)
            return None
        return state

    async def _keep(self, state: dict[StateKey, EventID]) -> int:
        root, touched = await self._db.write(self._store, state)
        self._nodes.remember(touched.touched)
        return root

    def _read_state(
        self, txn: ReadTxn, room: RoomRef, event_ids: Collection[EventID]
    ) -> dict[StateKey, EventID]:
        """Those events of the state that are here and were not rejected, by slot."""
        found = events.list_events_by_id(txn, event_ids).values()
        rejected = find_rejected(txn, found)
        usable = {
            record.event_id: record.state_key_nid
            for record in found
            if record.room_nid == room.nid
            and record.event_id not in rejected
            and record.state_key_nid is not None
        }
        names = list_state_keys(txn, self._interner, set(usable.values()))
        return {names[slot]: event_id for event_id, slot in usable.items()}

    def _store(self, txn: WriteTxn, state: dict[StateKey, EventID]) -> tuple[int, PendingNodes]:
        nodes = PendingNodes(txn, self._nodes)
        return build_state(txn, self._interner, nodes, state), nodes
