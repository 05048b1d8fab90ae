"""Room state as a persistent map: slot number -> event number (`state_key_nid` -> `event_nid`).

A map is named by one number, its root; EMPTY is the map without entries. A new version shares all nodes but
the few that a change touches, whatever the room's size; every node is written once, and two maps are equal if
and only if their roots are. So a map costs a few hundred bytes for each change, and comparing two costs what
differs.

The trie splits by the digits of the permuted key (`nodes.spread`). A subtree is a leaf if and only if it has
at most LEAF_ENTRIES entries: its shape follows from its entries, not from the order in which they came.
Whoever chooses slot numbers to collide gains a path of 16 nodes and no more.

`nodes`: what is stored, and the port of the store. `read`: questions. `update`: new versions.
"""

from ranvier.core.state_map.nodes import (
    EMPTY,
    Branch,
    CorruptNode,
    Leaf,
    Node,
    NodeReader,
    NodeStore,
    content_hash,
    decode,
    encode,
    memory_cost,
    spread,
)
from ranvier.core.state_map.read import difference, get, get_many, size, to_dict, to_dicts
from ranvier.core.state_map.update import Changes, update

__all__ = [
    "EMPTY",
    "Branch",
    "Changes",
    "CorruptNode",
    "Leaf",
    "Node",
    "NodeReader",
    "NodeStore",
    "content_hash",
    "decode",
    "difference",
    "encode",
    "get",
    "get_many",
    "memory_cost",
    "size",
    "spread",
    "to_dict",
    "to_dicts",
    "update",
]
