"""Making a new version of a state map.

Three passes over drafts of the subtrees that change: downwards, loading old nodes a level at a time and
handing each change to its leaf; upwards, counting entries and folding branches that have become small;
upwards again, saving a level at a time, because a branch is written with the numbers of its children.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.core.state_map.nodes import (
    EMPTY,
    FANOUT,
    LEAF_ENTRIES,
    MAX_NUMBER,
    Branch,
    Leaf,
    Node,
    NodeReader,
    NodeStore,
    shift_at,
    split_entries,
)
from ranvier.core.state_map.read import to_dict

Changes = Mapping[int, int | None]
"""Key -> new value, or None: take the key out (nothing happens if it is not in)."""

_NO_CHILDREN: Final = (EMPTY,) * FANOUT


class _Draft(msgspec.Struct):
    """A subtree that may change. `entries` tells what a leaf will hold, `children` what a branch will."""

    nid: int  # the old node, and in the end the new one
    changed: bool = False
    size_before: int = 0
    size: int = 0
    entries: dict[int, int] | None = None
    children: "list[int | _Draft]" = []  # msgspec copies it for each draft
    absorbed: bool = False  # its entries went into the leaf that its parent became


def update(store: NodeStore, root: int, changes: Changes) -> int:
    """The root of the map that is `root` with `changes` made. `update(store, EMPTY, entries)` builds one.

    Cost: each node on the way to a change is loaded and written once; one load and one save a level.
    Raises: ValueError for a key or value that is not from 0 to MAX_NUMBER.
    """
    for key, value in changes.items():
        if not 0 <= key <= MAX_NUMBER or (value is not None and not 0 <= value <= MAX_NUMBER):
            raise ValueError(f"{key} -> {value}: keys and values are from 0 to {MAX_NUMBER}")
    if not changes:
        return root
    top = _Draft(root)
    levels = _plan(store, top, changes)
    for level in reversed(levels):
        for draft in level:
            _settle(store, draft)
    for level in reversed(levels):
        _save_level(store, level)
    return top.nid


def _plan(reader: NodeReader, top: _Draft, changes: Changes) -> list[list[_Draft]]:
    """Every draft, by depth."""
    levels: list[list[_Draft]] = []
    work: list[tuple[_Draft, Changes]] = [(top, changes)]
    while work:
        nids = {draft.nid for draft, _ in work if draft.nid}
        nodes = reader.load(nids) if nids else {}
        shift = shift_at(len(levels))
        below: list[tuple[_Draft, Changes]] = []
        for draft, wanted in work:
            _plan_one(draft, nodes[draft.nid] if draft.nid else None, wanted, shift, below)
        levels.append([draft for draft, _ in work])
        work = below
    return levels


def _plan_one(
    draft: _Draft, node: Node | None, changes: Changes, shift: int, below: list[tuple[_Draft, Changes]]
) -> None:
    if isinstance(node, Branch):
        draft.size_before = draft.size = node.size
        draft.children = list(node.children)
    else:
        old = node.entries if node is not None else {}
        entries = _apply(old, changes)
        draft.size_before = len(old)
        if len(entries) <= LEAF_ENTRIES:
            draft.size = len(entries)
            draft.entries = entries
            draft.changed = entries != old
            return
        # Too many for a leaf: a branch that holds nothing yet gets them all.
        draft.changed = True
        draft.children = list(_NO_CHILDREN)
        changes = entries
    for digit, part in enumerate(split_entries(changes, shift)):
        if part:
            child = _Draft(_nid_of(draft.children[digit]))
            draft.children[digit] = child
            below.append((child, part))


def _apply(entries: dict[int, int], changes: Changes) -> dict[int, int]:
    result = dict(entries)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def _settle(reader: NodeReader, draft: _Draft) -> None:
    """Count what `draft` will hold; its drafts below are settled. Fold it into a leaf if that is little."""
    if draft.entries is not None:
        return
    drafts = [child for child in draft.children if isinstance(child, _Draft)]
    draft.size += sum(child.size - child.size_before for child in drafts)
    draft.changed = draft.changed or any(child.changed for child in drafts)
    if draft.size > LEAF_ENTRIES:
        return
    entries: dict[int, int] = {}
    for child in draft.children:
        if isinstance(child, _Draft):
            assert child.entries is not None, "a child is no greater than its parent, so it was folded"
            entries.update(child.entries)
            child.absorbed = True
        elif child:
            entries.update(to_dict(reader, child))
    draft.entries = entries
    draft.children = []


def _save_level(store: NodeStore, level: list[_Draft]) -> None:
    changed: list[_Draft] = []
    nodes: list[Node] = []
    for draft in level:
        if not draft.changed or draft.absorbed:
            continue
        if draft.entries is None:
            nodes.append(Branch(draft.size, tuple(_nid_of(child) for child in draft.children)))
        elif draft.entries:
            nodes.append(Leaf(draft.entries))
        else:
            draft.nid = EMPTY
            continue
        changed.append(draft)
    if nodes:
        for draft, nid in zip(changed, store.save(nodes), strict=True):
            draft.nid = nid


def _nid_of(child: int | _Draft) -> int:
    return child.nid if isinstance(child, _Draft) else child
