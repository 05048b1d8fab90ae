"""The state map against a plain dict: the same answers after any history, and one root for one content."""

import struct
from collections.abc import Collection, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core import state_map
from ranvier.core.state_map import EMPTY, Branch, CorruptNode, Leaf, Node
from ranvier.core.state_map.nodes import KEY_BITS, LEAF_ENTRIES, MAX_NUMBER, spread


class Nodes:
    """A store in memory that keeps bytes only, so that every load decodes; counts what it is asked."""

    def __init__(self, first_nid: int = 1) -> None:
        self.data: dict[int, bytes] = {}
        self.nids: dict[bytes, int] = {}
        self.loads = self.saves = self.loaded = 0
        self.first_nid = first_nid

    def load(self, nids: Collection[int]) -> Mapping[int, Node]:
        assert nids, "an empty load is a wasted query"
        assert len(set(nids)) == len(nids)
        self.loads += 1
        self.loaded += len(nids)
        return {nid: state_map.decode(self.data[nid]) for nid in nids}

    def save(self, nodes: Sequence[Node]) -> Sequence[int]:
        assert nodes
        self.saves += 1
        return [self._save(state_map.encode(node)) for node in nodes]

    def _save(self, data: bytes) -> int:
        nid = self.nids.setdefault(state_map.content_hash(data), self.first_nid + len(self.data))
        assert self.data.setdefault(nid, data) == data
        return nid


def colliding_keys(count: int) -> list[int]:
    """Keys whose spread keys agree in their first 48 bits: what an adversary would choose."""
    inverse = pow(0x9E3779B97F4A7C15, -1, 1 << KEY_BITS)
    keys = [low * inverse % (1 << KEY_BITS) for low in range(4 * count)]
    chosen = [key for key in keys if key <= MAX_NUMBER][:count]
    assert len(chosen) == count
    assert {spread(key) >> 16 for key in chosen} == {0}
    return chosen


KEYS = st.one_of(st.integers(0, 150), st.integers(0, MAX_NUMBER), st.sampled_from(colliding_keys(120)))
VALUES = st.one_of(st.integers(0, 5), st.integers(0, MAX_NUMBER))
MAPS = st.dictionaries(KEYS, VALUES, max_size=160)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=120)


def apply(entries: Mapping[int, int], changes: state_map.Changes) -> dict[int, int]:
    merged = {**entries, **changes}
    return {key: value for key, value in merged.items() if value is not None}


@settings(max_examples=60, deadline=None)
@given(st.lists(CHANGES, max_size=5), st.sampled_from([1, 2**32 - 3, 2**40]))
def test_any_history_gives_what_a_dict_gives(history: list[dict[int, int | None]], first_nid: int) -> None:
    nodes, root, model = Nodes(first_nid), EMPTY, {}
    for changes in history:
        old_root, old_model = root, model
        root, model = state_map.update(nodes, root, changes), apply(model, changes)
        assert state_map.to_dict(nodes, root) == model
        assert state_map.to_dict(nodes, old_root) == old_model, "an old version changed"
        assert state_map.size(nodes, root) == len(model)
        assert state_map.get_many(nodes, root, changes) == {k: model[k] for k in changes if k in model}
        assert all(state_map.get(nodes, root, key) == model.get(key) for key in list(changes)[:20])
        assert root == state_map.update(nodes, EMPTY, model), "the root depends on the history"


@settings(max_examples=60, deadline=None)
@given(MAPS, st.lists(CHANGES, min_size=1, max_size=3))
def test_difference_is_what_comparing_dicts_gives(
    base: dict[int, int], forks: list[dict[int, int | None]]
) -> None:
    nodes = Nodes()
    root = state_map.update(nodes, EMPTY, base)
    models = [base, *(apply(base, changes) for changes in forks)]
    roots = [root, *(state_map.update(nodes, root, changes) for changes in forks)]
    expected = {
        key: values
        for key in set().union(*models)
        if len(set(values := tuple(model.get(key) for model in models))) > 1
    }
    assert state_map.difference(nodes, roots) == expected
    assert state_map.difference(nodes, [root]) == state_map.difference(nodes, []) == {}


def test_the_work_follows_the_change_and_not_the_size() -> None:
    nodes = Nodes()
    entries = {key * 37: key + 10**9 for key in range(30_000)}
    root = state_map.update(nodes, EMPTY, entries)

    nodes.loads = nodes.saves = nodes.loaded = 0
    stored = len(nodes.data)
    other = state_map.update(nodes, root, {37: 1, 10**8: 2})
    assert nodes.loads <= 4
    assert nodes.saves <= 4
    assert len(nodes.data) - stored <= 2 * 4 - 1  # two paths that share the root

    nodes.loads = nodes.loaded = 0
    assert state_map.difference(nodes, [root, other]) == {37: (10**9 + 1, 1), 10**8: (None, 2)}
    assert nodes.loads <= 4
    assert nodes.loaded <= 2 * 7

    nodes.loads = 0
    assert state_map.get_many(nodes, root, entries) == entries
    assert nodes.loads <= 5

    nodes.saves = 0
    assert state_map.update(nodes, root, {37: entries[37], 10**9: None}) == root
    assert nodes.saves == 0, "nothing changed, so nothing is written"


def test_a_map_that_shrinks_folds_its_branches() -> None:
    nodes = Nodes()
    entries = {key: key for key in range(LEAF_ENTRIES + 1)}
    root = state_map.update(nodes, EMPTY, entries)
    assert isinstance(nodes.load([root])[root], Branch)
    stored = len(nodes.data)
    root = state_map.update(nodes, root, {0: None})
    assert isinstance(nodes.load([root])[root], Leaf)
    assert len(nodes.data) == stored + 1, "what a fold absorbs is not written"
    assert state_map.update(nodes, root, dict.fromkeys(entries)) == EMPTY


def test_colliding_keys_cost_depth_and_nothing_else() -> None:
    nodes = Nodes()
    entries = dict.fromkeys(colliding_keys(500), 1)
    root = state_map.update(nodes, EMPTY, entries)
    assert state_map.to_dict(nodes, root) == entries
    nodes.loads = 0
    assert state_map.get(nodes, root, next(iter(entries))) == 1
    assert nodes.loads <= 16


@pytest.mark.parametrize("changes", [{-1: 1}, {MAX_NUMBER + 1: 1}, {1: -1}, {1: MAX_NUMBER + 1}, {-1: None}])
def test_numbers_that_no_database_holds_are_refused(changes: dict[int, int | None]) -> None:
    with pytest.raises(ValueError, match="keys and values are from 0"):
        state_map.update(Nodes(), EMPTY, changes)


def test_stored_forms_are_compact_and_stable() -> None:
    leaf = state_map.encode(Leaf({7: 1_000_000_000, 3: 5}))
    assert leaf == b"\x10" + struct.pack("<4I", 3, 7, 5, 1_000_000_000)
    wide = state_map.encode(Leaf({7: 2**32}))
    assert wide == b"\x12" + struct.pack("<IQ", 7, 2**32)
    branch = state_map.encode(Branch(99, (0, 8, *[0] * 13, 9)))
    assert branch == b"\x20" + struct.pack("<QHII", 99, 0x8002, 8, 9)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b"\x10" + tail))
def test_damaged_bytes_are_reported_or_read_as_a_node(data: bytes) -> None:
    try:
        node = state_map.decode(data)
    except CorruptNode:
        return
    assert state_map.memory_cost(node) > 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x10",
        b"\x10abc",
        b"\x14" + bytes(8),
        b"\x10" + struct.pack("<4I", 1, 1, 2, 3),  # one key twice
        b"\x20\x01",
        b"\x20" + struct.pack("<QHI", 9, 0x8002, 8),
        b"\x21" + struct.pack("<QHI", 9, 2, 8),
    ],
)
def test_bytes_that_cannot_be_a_node_are_reported(data: bytes) -> None:
    with pytest.raises(CorruptNode):
        state_map.decode(data)
