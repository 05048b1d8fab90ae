"""Cutting long lists to what one statement takes."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from ranvier.store.dialect import MAX_LIST_VALUES

T = TypeVar("T")

BATCH: Final = MAX_LIST_VALUES // 4
"""Values a statement: far below the bound, also where each value is a row of up to four."""


def in_batches(values: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """`values` in parts of at most `size`; a short list comes as it is."""
    if len(values) <= size:
        if values:
            yield values
        return
    for start in range(0, len(values), size):
        yield values[start : start + size]
