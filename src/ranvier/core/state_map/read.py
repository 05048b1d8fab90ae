"""Questions to a state map. Each walks level by level and loads a level's nodes at once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from ranvier.core.state_map.nodes import (
    DIGIT_BITS,
    DIGIT_MASK,
    EMPTY,
    FANOUT,
    KEY_BITS,
    Branch,
    Leaf,
    Node,
    NodeReader,
    shift_at,
    split_entries,
    spread,
)

_TOP_SHIFT: Final = KEY_BITS - DIGIT_BITS

_Subtree = int | Leaf
"""One map's part of the trie below some path: a node's number, or entries of a leaf that sits higher up."""

_NOTHING: Final[Mapping[int, int]] = {}


def get(reader: NodeReader, root: int, key: int) -> int | None:
    """The value of `key` in the map `root`, or None.

    Cost: one load a level, at most 16 levels; 3 in a map of 10,000 entries.
    """
    nid = root
    spread_key = spread(key)
    shift = _TOP_SHIFT
    while nid:
        node = reader.load((nid,))[nid]
        if isinstance(node, Leaf):
            return node.entries.get(key)
        nid = node.children[spread_key >> shift & DIGIT_MASK]
        shift -= DIGIT_BITS
    return None


def get_many(reader: NodeReader, root: int, keys: Iterable[int]) -> dict[int, int]:
    """The values of those `keys` that the map `root` holds.

    Cost: one load a level, whatever the number of keys.
    """
    found: dict[int, int] = {}
    wanted = {root: set(keys)} if root else {}
    depth = 0
    while wanted:
        nodes = reader.load(wanted)
        shift = shift_at(depth)
        below: dict[int, set[int]] = {}
        for nid, keys_here in wanted.items():
            node = nodes[nid]
            if isinstance(node, Leaf):
                entries = node.entries
                found.update((key, entries[key]) for key in keys_here if key in entries)
                continue
            for key in keys_here:
                child = node.children[spread(key) >> shift & DIGIT_MASK]
                if child:
                    below.setdefault(child, set()).add(key)
        wanted = below
        depth += 1
    return found


def size(reader: NodeReader, root: int) -> int:
    """How many entries the map `root` has. Cost: one load."""
    if not root:
        return 0
    node = reader.load((root,))[root]
    return len(node.entries) if isinstance(node, Leaf) else node.size


def to_dict(reader: NodeReader, root: int) -> dict[int, int]:
    """All entries of the map `root`, in no particular order. Cost: one load a level."""
    return to_dicts(reader, (root,))[root]


def to_dicts(reader: NodeReader, roots: Collection[int]) -> dict[int, dict[int, int]]:
    """The same for many maps, by root. Cost: one load a level for all of them."""
    found: dict[int, dict[int, int]] = {root: {} for root in roots}
    level = [(root, root) for root in found if root]
    while level:
        nodes = reader.load({nid for _, nid in level})
        below: list[tuple[int, int]] = []
        for root, nid in level:
            node = nodes[nid]
            if isinstance(node, Leaf):
                found[root].update(node.entries)
            else:
                below.extend((root, child) for child in node.children if child)
        level = below
    return found


def difference(reader: NodeReader, roots: Sequence[int]) -> dict[int, tuple[int | None, ...]]:
    """The keys that the maps do not all hold with one value, each with its value in every map of `roots`, in
    their order (None: not there).

    Cost: one load a level; only nodes that differ between the maps are loaded.
    """
    found: dict[int, tuple[int | None, ...]] = {}
    level: list[tuple[_Subtree, ...]] = [tuple(roots)]
    depth = 0
    while level:
        level = [subtrees for subtrees in level if _differ(subtrees)]
        nids = {subtree for subtrees in level for subtree in subtrees if isinstance(subtree, int) and subtree}
        nodes = reader.load(nids) if nids else {}
        shift = shift_at(depth)
        below: list[tuple[_Subtree, ...]] = []
        for subtrees in level:
            resolved = [_node_of(subtree, nodes) for subtree in subtrees]
            if any(isinstance(node, Branch) for node in resolved):
                below.extend(zip(*(_split(node, shift) for node in resolved), strict=True))
            else:
                _compare([node.entries if isinstance(node, Leaf) else _NOTHING for node in resolved], found)
        level = below
        depth += 1
    return found


def _differ(subtrees: Sequence[_Subtree]) -> bool:
    first = subtrees[0] if subtrees else EMPTY
    return any(subtree != first for subtree in subtrees)


def _node_of(subtree: _Subtree, nodes: Mapping[int, Node]) -> Node | None:
    if isinstance(subtree, Leaf):
        return subtree
    return nodes[subtree] if subtree else None


def _split(node: Node | None, shift: int) -> Sequence[_Subtree]:
    """The FANOUT subtrees of `node`, as if a leaf were a branch."""
    if node is None:
        return (EMPTY,) * FANOUT
    if isinstance(node, Branch):
        return node.children
    return [Leaf(part) if part else EMPTY for part in split_entries(node.entries, shift)]


def _compare(maps: Sequence[Mapping[int, int]], found: dict[int, tuple[int | None, ...]]) -> None:
    for key in set().union(*maps):
        values = tuple(entries.get(key) for entries in maps)
        first = values[0]
        if any(value != first for value in values):
            found[key] = values
