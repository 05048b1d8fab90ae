"""The nodes of state maps: the port of `core.state_map` to the database.

Table: state_nodes. Growth: a few nodes of some hundred bytes for each state change of a room.
Index -> query: primary key -> load; hash -> save without duplicates.

Nodes never change, so a `NodeCache` in front never has to forget one. It takes nodes from read transactions
only; what a write transaction loaded or saved is told to it after the commit, because a number that was
rolled back is given to another node later.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import Final

from ranvier.core.state_map import Node, content_hash, decode, encode, memory_cost
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches

MAX_CACHED_BYTES: Final = 32 * 1024 * 1024

_FEW: Final = 8
"""Up to this many nodes are saved one statement each, more of them as a batch and one query."""

_LOAD: Final = "SELECT node_nid, data FROM state_nodes WHERE node_nid IN (:nids[])"
_SAVE_ONE: Final = """
    INSERT INTO state_nodes (hash, data) VALUES (:hash, :data)
    ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash RETURNING node_nid
"""
_SAVE_MANY: Final = "INSERT INTO state_nodes (hash, data) VALUES (:hash, :data) ON CONFLICT (hash) DO NOTHING"
_FIND: Final = "SELECT hash, node_nid FROM state_nodes WHERE hash IN (:hashes[])"


class NodeCache:
    """Decoded nodes by number, bounded by the memory they take; the least recently used go first. Any
    thread."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._nodes: OrderedDict[int, Node] = OrderedDict()
        self._lock = Lock()

    def find(self, nids: Collection[int]) -> dict[int, Node]:
        """Those of `nids` that are here."""
        found: dict[int, Node] = {}
        with self._lock:
            for nid in nids:
                node = self._nodes.get(nid)
                if node is not None:
                    self._nodes.move_to_end(nid)
                    found[nid] = node
        return found

    def remember(self, nodes: Mapping[int, Node]) -> None:
        """Keep nodes that a committed transaction wrote, or that a snapshot showed."""
        with self._lock:
            for nid, node in nodes.items():
                if nid not in self._nodes:
                    self._nodes[nid] = node
                    self._bytes += memory_cost(node)
            while self._bytes > self._max_bytes:
                _, node = self._nodes.popitem(last=False)
                self._bytes -= memory_cost(node)


class SnapshotNodes:
    """Reads nodes in a read transaction, through the cache. Implements `state_map.NodeReader`."""

    def __init__(self, txn: ReadTxn, cache: NodeCache) -> None:
        self._txn = txn
        self._cache = cache

    def load(self, nids: Collection[int]) -> Mapping[int, Node]:
        found = self._cache.find(nids)
        missing = [nid for nid in nids if nid not in found]
        if missing:
            loaded = _load(self._txn, missing)
            self._cache.remember(loaded)
            found.update(loaded)
        return found


class PendingNodes:
    """Reads and saves nodes in a write transaction. Implements `state_map.NodeStore`.

    `touched` is for `NodeCache.remember` when the transaction has committed.
    """

    def __init__(self, txn: WriteTxn, cache: NodeCache) -> None:
        self._txn = txn
        self._cache = cache
        self.touched: dict[int, Node] = {}

    def load(self, nids: Collection[int]) -> Mapping[int, Node]:
        found = self._cache.find(nids)
        missing: list[int] = []
        for nid in nids:
            if nid not in found:
                node = self.touched.get(nid)
                if node is None:
                    missing.append(nid)
                else:
                    found[nid] = node
        if missing:
            loaded = _load(self._txn, missing)
            self.touched.update(loaded)
            found.update(loaded)
        return found

    def save(self, nodes: Sequence[Node]) -> Sequence[int]:
        rows = [(content_hash(data), data) for data in map(encode, nodes)]
        if len(rows) <= _FEW:
            nids = [int(self._txn.value(_SAVE_ONE, hash=hash_, data=data)) for hash_, data in rows]
        else:
            nids = self._save_many(rows)
        self.touched.update(zip(nids, nodes, strict=True))
        return nids

    def _save_many(self, rows: Sequence[tuple[bytes, bytes]]) -> list[int]:
        self._txn.execute_many(_SAVE_MANY, [{"hash": hash_, "data": data} for hash_, data in rows])
        nids: dict[bytes, int] = {}
        for batch in in_batches([hash_ for hash_, _ in rows]):
            nids.update(self._txn.all(_FIND, hashes=batch))
        return [nids[hash_] for hash_, _ in rows]


def _load(txn: ReadTxn, nids: Sequence[int]) -> dict[int, Node]:
    return {nid: decode(data) for batch in in_batches(nids) for nid, data in txn.all(_LOAD, nids=batch)}
