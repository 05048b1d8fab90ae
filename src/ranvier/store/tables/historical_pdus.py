"""PDUs of 2014, the graph that they form, and the state of their contexts.

Tables: historical_pdus, historical_edges, historical_forward, historical_backward, historical_state. Owner:
historical.federation_2014. Growth: one row a PDU, one an edge.
Index -> query: (origin, pdu_id) -> one; reverse edges -> who cites it; (context, pdu_nid) -> all of a context.

A PDU's name is the pair (origin, pdu_id), in this order everywhere.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches

Name = tuple[str, str]
"""(origin, pdu_id)."""


class StoredPdu(msgspec.Struct, frozen=True):
    """A PDU that is held."""

    pdu_nid: int
    name: Name
    context: str
    depth: int
    is_outlier: bool
    json: bytes


_COLUMNS: Final = "p.pdu_nid, p.origin, p.pdu_id, p.context, p.depth, p.is_outlier, p.json"
_ONE: Final = f"SELECT {_COLUMNS} FROM historical_pdus p WHERE p.origin = :origin AND p.pdu_id = :pdu_id"  # noqa: S608
_OF_CONTEXT: Final = f"""
    SELECT {_COLUMNS} FROM historical_pdus p WHERE p.context = :context ORDER BY p.pdu_nid LIMIT :limit
"""  # noqa: S608
_INSERT: Final = """
    INSERT INTO historical_pdus (origin, pdu_id, context, depth, state_type, is_outlier, json)
    VALUES (:origin, :pdu_id, :context, :depth, :state_type, :is_outlier, :json)
"""
_PUT_IN_LINE: Final = "UPDATE historical_pdus SET is_outlier = 0 WHERE pdu_nid = :pdu_nid"
_INSERT_EDGE: Final = """
    INSERT INTO historical_edges (pdu_nid, prev_origin, prev_pdu_id)
    VALUES (:pdu_nid, :prev_origin, :prev_pdu_id) ON CONFLICT (pdu_nid, prev_origin, prev_pdu_id) DO NOTHING
"""
_PARENTS: Final = f"""
    SELECT {_COLUMNS} FROM historical_edges e
    JOIN historical_pdus p ON p.origin = e.prev_origin AND p.pdu_id = e.prev_pdu_id
    WHERE e.pdu_nid IN (:nids[]) AND p.context = :context AND p.is_outlier = 0
"""  # noqa: S608
_IS_CITED: Final = """
    SELECT 1 FROM historical_edges e JOIN historical_pdus p ON p.pdu_nid = e.pdu_nid
    WHERE e.prev_origin = :origin AND e.prev_pdu_id = :pdu_id AND p.context = :context AND p.is_outlier = 0
"""
_ADD_FORWARD: Final = """
    INSERT INTO historical_forward (context, pdu_nid) VALUES (:context, :pdu_nid)
    ON CONFLICT (context, pdu_nid) DO NOTHING
"""
_DROP_FORWARD: Final = "DELETE FROM historical_forward WHERE context = :context AND pdu_nid = :pdu_nid"
_FORWARD: Final = f"""
    SELECT {_COLUMNS} FROM historical_forward f JOIN historical_pdus p ON p.pdu_nid = f.pdu_nid
    WHERE f.context = :context ORDER BY p.depth DESC, p.pdu_nid DESC LIMIT :limit
"""  # noqa: S608
_ADD_BACKWARD: Final = """
    INSERT INTO historical_backward (context, origin, pdu_id) VALUES (:context, :origin, :pdu_id)
    ON CONFLICT (context, origin, pdu_id) DO NOTHING
"""
_DROP_BACKWARD: Final = """
    DELETE FROM historical_backward WHERE context = :context AND origin = :origin AND pdu_id = :pdu_id
"""
_BACKWARD: Final = """
    SELECT origin, pdu_id FROM historical_backward WHERE context = :context ORDER BY origin, pdu_id LIMIT :limit
"""
_LOWEST_AT_GAP: Final = """
    SELECT MIN(p.depth) FROM historical_backward b
    JOIN historical_edges e ON e.prev_origin = b.origin AND e.prev_pdu_id = b.pdu_id
    JOIN historical_pdus p ON p.pdu_nid = e.pdu_nid
    WHERE b.context = :context AND p.context = :context AND p.is_outlier = 0
"""
_HOLDER: Final = f"""
    SELECT {_COLUMNS} FROM historical_state s JOIN historical_pdus p ON p.pdu_nid = s.pdu_nid
    WHERE s.context = :context AND s.pdu_type = :pdu_type AND s.state_key = :state_key
"""  # noqa: S608
_STATE: Final = f"""
    SELECT {_COLUMNS} FROM historical_state s JOIN historical_pdus p ON p.pdu_nid = s.pdu_nid
    WHERE s.context = :context ORDER BY p.depth, p.pdu_nid
"""  # noqa: S608
_SET_HOLDER: Final = """
    INSERT INTO historical_state (context, pdu_type, state_key, pdu_nid)
    VALUES (:context, :pdu_type, :state_key, :pdu_nid)
    ON CONFLICT (context, pdu_type, state_key) DO UPDATE SET pdu_nid = excluded.pdu_nid
"""


def find_pdu(txn: ReadTxn, name: Name) -> StoredPdu | None:
    row = txn.first(_ONE, origin=name[0], pdu_id=name[1])
    return None if row is None else _pdu_of(row)


def list_pdus(txn: ReadTxn, names: Collection[Name]) -> dict[Name, StoredPdu]:
    """PDUs by name; those that are not held are left out. Cost: 1 query each: names come in handfuls."""
    found = (find_pdu(txn, name) for name in dict.fromkeys(names))
    return {pdu.name: pdu for pdu in found if pdu is not None}


def list_context(txn: ReadTxn, context: str, limit: int) -> list[StoredPdu]:
    """The PDUs of a context, in the order in which they came."""
    return [_pdu_of(row) for row in txn.all(_OF_CONTEXT, context=context, limit=limit)]


def insert_pdu(
    txn: WriteTxn, name: Name, context: str, depth: int, state_type: str | None, json: bytes
) -> int:
    """Hold a PDU as an outlier; its number."""
    txn.execute(
        _INSERT,
        origin=name[0],
        pdu_id=name[1],
        context=context,
        depth=depth,
        state_type=state_type,
        is_outlier=1,
        json=json,
    )
    pdu = find_pdu(txn, name)
    assert pdu is not None, "it was inserted"
    return pdu.pdu_nid


def put_in_line(txn: WriteTxn, pdu_nid: int, name: Name, context: str, prev: Sequence[Name]) -> None:
    """Give a PDU its place in its context's history: edges, and both kinds of extremities."""
    txn.execute(_PUT_IN_LINE, pdu_nid=pdu_nid)
    for origin, pdu_id in prev:
        txn.execute(_INSERT_EDGE, pdu_nid=pdu_nid, prev_origin=origin, prev_pdu_id=pdu_id)
    for held in list_pdus(txn, prev).values():
        txn.execute(_DROP_FORWARD, context=context, pdu_nid=held.pdu_nid)
    if txn.first(_IS_CITED, origin=name[0], pdu_id=name[1], context=context) is None:
        txn.execute(_ADD_FORWARD, context=context, pdu_nid=pdu_nid)
    for missing in list_missing(txn, context, prev):
        txn.execute(_ADD_BACKWARD, context=context, origin=missing[0], pdu_id=missing[1])
    txn.execute(_DROP_BACKWARD, context=context, origin=name[0], pdu_id=name[1])


def list_missing(txn: ReadTxn, context: str, names: Sequence[Name]) -> list[Name]:
    """Those of the names that are not held in line in the context."""
    held = list_pdus(txn, names)
    return [
        name
        for name in dict.fromkeys(names)
        if name not in held or held[name].is_outlier or held[name].context != context
    ]


def list_parents(txn: ReadTxn, context: str, pdu_nids: Collection[int]) -> list[StoredPdu]:
    """What PDUs cite and is held in line in the same context; each once for each citing PDU."""
    return [
        _pdu_of(row)
        for batch in in_batches(list(pdu_nids))
        for row in txn.all(_PARENTS, nids=batch, context=context)
    ]


def list_forward(txn: ReadTxn, context: str, limit: int) -> list[StoredPdu]:
    """The forward extremities, deepest first."""
    return [_pdu_of(row) for row in txn.all(_FORWARD, context=context, limit=limit)]


def list_backward(txn: ReadTxn, context: str, limit: int) -> list[Name]:
    return [(origin, pdu_id) for origin, pdu_id in txn.all(_BACKWARD, context=context, limit=limit)]


def find_lowest_at_gap(txn: ReadTxn, context: str) -> int | None:
    """The least depth of a PDU in line that cites one which is not; None: nothing is missing."""
    depth: int | None = txn.value(_LOWEST_AT_GAP, context=context)
    return depth


def find_holder(txn: ReadTxn, context: str, pdu_type: str, state_key: str) -> StoredPdu | None:
    """What fills a slot of the context's state now."""
    row = txn.first(_HOLDER, context=context, pdu_type=pdu_type, state_key=state_key)
    return None if row is None else _pdu_of(row)


def list_state(txn: ReadTxn, context: str) -> list[StoredPdu]:
    """The context's state now, the least deep first."""
    return [_pdu_of(row) for row in txn.all(_STATE, context=context)]


def set_holder(txn: WriteTxn, context: str, pdu_type: str, state_key: str, pdu_nid: int) -> None:
    txn.execute(_SET_HOLDER, context=context, pdu_type=pdu_type, state_key=state_key, pdu_nid=pdu_nid)


def _pdu_of(row: Row) -> StoredPdu:
    nid, origin, pdu_id, context, depth, is_outlier, json = row
    return StoredPdu(nid, (origin, pdu_id), context, depth, is_outlier == 1, json)
