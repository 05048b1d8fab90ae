"""What a benchmark hands over."""

import msgspec


class Figure(msgspec.Struct, frozen=True):
    name: str  # what was done, and under which circumstances
    value: float
    unit: str  # e.g. "1/s", "ms", "bytes"
