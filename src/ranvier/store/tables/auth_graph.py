"""The auth graph of a room, as state resolution asks for it.

Tables: events, auth_edges (read only).
Index -> query: edges by citing event -> `auth_nodes`; by cited event, citing one descending -> `citing`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey
from ranvier.core.state_resolution import AuthNode
from ranvier.store.database import ReadTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.edges import list_auth_nids
from ranvier.store.tables.events import EventRecord, Status, list_events, list_known
from ranvier.store.tables.interned import Interner, find_state_key_nids
from ranvier.store.tables.rooms import Room

_NODES: Final = "SELECT event_nid, state_key_nid, auth_depth FROM events WHERE event_nid IN (:nids[])"
# Pairs are compared for the reason that `timeline` gives.
_CITING: Final = """
    WITH wanted(nid, below) AS (:wanted[2]),
    bounds AS MATERIALIZED (
        SELECT w.nid AS nid, w.below AS below, COALESCE((
            SELECT a.event_nid FROM auth_edges a WHERE a.auth_nid = w.nid AND a.event_nid < w.below
            ORDER BY a.event_nid DESC LIMIT 1 OFFSET :skip
        ), 0) AS lowest
        FROM wanted w
    )
    SELECT b.nid, a.event_nid FROM bounds b JOIN auth_edges a
        ON (a.auth_nid, a.event_nid) >= (b.nid, b.lowest) AND (a.auth_nid, a.event_nid) < (b.nid, b.below)
    ORDER BY b.nid, a.event_nid DESC
"""
_REJECTED: Final = f"""
    SELECT event_nid FROM events
    WHERE event_nid IN (:nids[]) AND status IN ({int(Status.REJECTED)}, {int(Status.REJECTED_OUTLIER)})
"""  # noqa: S608


class StoredAuthGraph:
    """One room's events in one transaction. Implements `state_resolution.AuthGraph`.

    `read_pdu` makes the Pdu of a stored event (a cache of them may sit in it). `filter_rejected` tells which of some
    events count as rejected, given those of which that is stored.
    """

    def __init__(
        self,
        txn: ReadTxn,
        interner: Interner,
        room: Room,
        read_pdu: Callable[[EventRecord], Pdu],
        filter_rejected: Callable[[AbstractSet[int], Collection[int]], Collection[int]] = lambda stored, _: (
            stored
        ),
    ) -> None:
        self._txn = txn
        self._interner = interner
        self._room = room
        self._read_pdu = read_pdu
        self._filter_rejected = filter_rejected

    def auth_nodes(self, nids: Collection[int]) -> Mapping[int, AuthNode]:
        cited = list_auth_nids(self._txn, nids)
        return {
            nid: AuthNode(slot, auth_depth or 0, tuple(cited.get(nid, ())))
            for batch in in_batches(list(nids))
            for nid, slot, auth_depth in self._txn.all(_NODES, nids=batch)
        }

    def citing(self, before: Mapping[int, int], limit: int) -> Mapping[int, Sequence[int]]:
        found: dict[int, list[int]] = {}
        for batch in in_batches(list(before.items())):
            for nid, above in self._txn.all(_CITING, wanted=batch, skip=limit - 1):
                found.setdefault(nid, []).append(above)
        return found

    def events(self, nids: Collection[int]) -> Mapping[int, Pdu]:
        return {nid: self._read_pdu(record) for nid, record in list_events(self._txn, nids).items()}

    def rejected(self, nids: Collection[int]) -> Collection[int]:
        stored = {row[0] for batch in in_batches(list(nids)) for row in self._txn.all(_REJECTED, nids=batch)}
        return self._filter_rejected(stored, nids)

    def slots(self, keys: Collection[StateKey]) -> Mapping[StateKey, int]:
        return find_state_key_nids(self._txn, self._interner, keys)

    def create_event(self) -> int:
        """Spec: rooms/v12.md, the room id is the id of the create event with another sigil."""
        event_id = EventID("$" + self._room.room_id[1:])
        return list_known(self._txn, (event_id,))[event_id].event_nid
