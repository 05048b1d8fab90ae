"""The nodes of a state map: their two kinds, their stored form, and the port that keeps them.

Rules for this file: a node's shape and bytes depend on what the map holds and on nothing else, so that equal
maps are equal bytes; and nothing here loads or saves.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Final, Protocol, TypeVar

import msgspec

_V = TypeVar("_V")

EMPTY: Final = 0
"""The root of the map that holds nothing. No node is ever numbered 0."""

MAX_NUMBER: Final = 2**63 - 1
"""The greatest key, value and node number: what a database calls an integer."""

LEAF_ENTRIES: Final = 48
"""A subtree of up to this many entries is one leaf, a greater one is a branch."""

DIGIT_BITS: Final = 4
FANOUT: Final = 1 << DIGIT_BITS
DIGIT_MASK: Final = FANOUT - 1
KEY_BITS: Final = 64

# Keys are handed out in order, and one room's keys cluster. Multiplying by an odd number permutes the 64-bit
# integers; the golden ratio's spreads runs of neighbors evenly, so the trie is balanced without rotations.
_SPREAD: Final = 0x9E3779B97F4A7C15
_KEY_MASK: Final = (1 << KEY_BITS) - 1

_LEAF_TAG: Final = 0x10
_BRANCH_TAG: Final = 0x20
_WIDE_KEYS: Final = 1
_WIDE_VALUES: Final = 2
_BRANCH_HEAD: Final = struct.Struct("<BQH")
_NARROW_LIMIT: Final = 1 << 32


class CorruptNode(Exception):
    """Stored bytes that `encode` cannot have written: the database is damaged."""


class Leaf(msgspec.Struct, frozen=True, gc=False):
    """All entries of a small subtree. Nobody may change `entries`: nodes are shared."""

    entries: dict[int, int]  # key -> value, never empty in a stored leaf


class Branch(msgspec.Struct, frozen=True, gc=False):
    """A subtree of more than LEAF_ENTRIES entries, split by the next digit of the spread key."""

    size: int  # entries below, so that a branch which shrinks knows when to become a leaf
    children: tuple[int, ...]  # FANOUT node numbers; EMPTY where nothing is


Node = Leaf | Branch


class NodeReader(Protocol):
    """Reads nodes by their numbers. A node never changes, so a cache in front never needs to forget one; but
    it must not keep those that a transaction saved which was then rolled back."""

    def load(self, nids: Collection[int]) -> Mapping[int, Node]:
        """Every node of `nids` (distinct, never EMPTY), `decode`d; the mapping may hold more. Called once for
        each level of a walk, so that a database answers one query a level."""


class NodeStore(NodeReader, Protocol):
    """Also keeps new nodes."""

    def save(self, nodes: Sequence[Node]) -> Sequence[int]:
        """The numbers of `nodes`, in their order: for each the number under which equal bytes are already
        kept (`encode`, found by `content_hash`), or else a new one from 1 to MAX_NUMBER.

        That equal bytes never have two numbers is what makes equal maps have equal roots.
        """


def spread(key: int) -> int:
    """The permuted key whose digits, from the top, are the path to it."""
    return key * _SPREAD & _KEY_MASK


def shift_at(depth: int) -> int:
    """How far a spread key is shifted right to read the digit that branches of `depth` (root: 0) split by."""
    return KEY_BITS - DIGIT_BITS * (depth + 1)


def content_hash(data: bytes) -> bytes:
    """16 bytes that stand for a node's encoded form."""
    return blake2b(data, digest_size=16).digest()


def split_entries(entries: Mapping[int, _V], shift: int) -> list[dict[int, _V]]:
    """`entries` in FANOUT parts, by the digit of their spread keys that `shift` selects."""
    parts: list[dict[int, _V]] = [{} for _ in range(FANOUT)]
    for key, value in entries.items():
        parts[(key * _SPREAD & _KEY_MASK) >> shift & DIGIT_MASK][key] = value
    return parts


def encode(node: Node) -> bytes:
    """The one stored form of a node: a tag that tells the widths, then little-endian arrays.

    Leaf: tag, keys ascending, values in the same order. Branch: tag, size (8 bytes), which children there are
    (16 bits), their numbers. An array takes 4 bytes a number if all of its numbers fit, else 8.

    Fixed widths cost what varints of real numbers would (8 bytes an entry), and one call reads them all.
    """
    if isinstance(node, Leaf):
        keys = sorted(node.entries)
        values = [node.entries[key] for key in keys]
        wide_keys = keys[-1] >= _NARROW_LIMIT
        wide_values = max(values) >= _NARROW_LIMIT
        tag = _LEAF_TAG | wide_keys * _WIDE_KEYS | wide_values * _WIDE_VALUES
        form = f"<B{len(keys)}{_code(wide_keys)}{len(values)}{_code(wide_values)}"
        return struct.pack(form, tag, *keys, *values)
    present = [child for child in node.children if child]
    bitmap = sum(1 << digit for digit, child in enumerate(node.children) if child)
    wide = max(present) >= _NARROW_LIMIT
    head = _BRANCH_HEAD.pack(_BRANCH_TAG | wide * _WIDE_VALUES, node.size, bitmap)
    return head + struct.pack(f"<{len(present)}{_code(wide)}", *present)


def decode(data: bytes) -> Node:
    """The node that `encode` wrote.

    Raises: CorruptNode.
    """
    if not data:
        raise CorruptNode("a node without bytes")
    tag = data[0]
    wide_keys, wide_values = bool(tag & _WIDE_KEYS), bool(tag & _WIDE_VALUES)
    try:
        if tag & ~3 == _LEAF_TAG:
            count, rest = divmod(len(data) - 1, (4 << wide_keys) + (4 << wide_values))
            numbers = struct.unpack_from(f"<{count}{_code(wide_keys)}{count}{_code(wide_values)}", data, 1)
            entries = dict(zip(numbers[:count], numbers[count:], strict=True))
            if rest == 0 and 0 < len(entries) == count:
                return Leaf(entries)
        elif tag & ~_WIDE_VALUES == _BRANCH_TAG:
            _, size, bitmap = _BRANCH_HEAD.unpack_from(data)
            present = iter(
                struct.unpack(f"<{bitmap.bit_count()}{_code(wide_values)}", data[_BRANCH_HEAD.size :])
            )
            return Branch(
                size, tuple(next(present) if bitmap >> digit & 1 else EMPTY for digit in range(FANOUT))
            )
    except struct.error as error:
        raise CorruptNode(f"a node of {len(data)} bytes, cut short") from error
    raise CorruptNode(f"a node of {len(data)} bytes with tag {tag:#x} that nothing here wrote")


def memory_cost(node: Node) -> int:
    """About how many bytes of memory a decoded node takes: what a cache should count."""
    if isinstance(node, Leaf):
        return 200 + 110 * len(node.entries)
    return 250 + 32 * FANOUT


def _code(wide: bool) -> str:
    return "Q" if wide else "I"
