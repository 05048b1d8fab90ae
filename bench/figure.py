"""What a benchmark hands over."""

from collections.abc import Mapping

import msgspec


class Figure(msgspec.Struct, frozen=True):
    name: str  # what was done, and under which circumstances
    value: float
    unit: str  # e.g. "1/s", "ms", "bytes"


def compare(
    synapse: Mapping[str, float], ranvier: Mapping[str, float], unit: str = "", *, is_rate: bool
) -> list[Figure]:
    """The figures of both servers, and how many times better Ranvier's are: greater ones of rates, else smaller."""
    figures = []
    for name, value in ranvier.items():
        ratio = value / synapse[name] if is_rate else synapse[name] / max(value, 0.001)
        figures += [
            Figure(f"{name}: Synapse", synapse[name], unit),
            Figure(f"{name}: Ranvier", value, unit),
            Figure(f"{name}: ratio", ratio, "x"),
        ]
    return figures
