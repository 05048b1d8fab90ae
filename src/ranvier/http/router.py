"""Which of many path templates a path fits: a tree of segments.

A segment that is written out wins over one that is a parameter. A template is not walked through for each other
one: finding costs as much as the path has segments, and nothing is compiled when the server starts.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    """What comes after the segments that lead here."""

    __slots__ = ("by_name", "parameter", "value")

    def __init__(self) -> None:
        self.by_name: dict[str, _Node[T]] = {}
        self.parameter: _Node[T] | None = None
        self.value: T | None = None  # of the template that ends here


class Router(Generic[T]):
    """Values by path templates such as `/rooms/{roomId}/state`. A parameter is a whole segment, which may be empty."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def at(self, template: str, make: Callable[[], T]) -> T:
        """The value of a template; a new one if there is none. What its parameters are called does not matter.

        Raises: ValueError for a parameter that is only a part of its segment.
        """
        node = self._root
        for segment in template.split("/"):
            if segment.startswith("{") and segment.endswith("}"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            elif "{" in segment:
                raise ValueError(f"{template}: a parameter is a whole segment")
            else:
                node = node.by_name.setdefault(segment, _Node())
        if node.value is None:
            node.value = make()
        return node.value

    def find(self, path: str) -> tuple[T, list[str]] | None:
        """The value of the template that a path fits, and the parameters in their order, as they stand there."""
        parameters: list[str] = []
        value = _walk(self._root, path.split("/"), 0, parameters)
        return None if value is None else (value, parameters)


def _walk(node: _Node[T], segments: list[str], depth: int, parameters: list[str]) -> T | None:
    """Written-out segments are followed as far as they lead; where they end, the last parameter is tried instead."""
    while depth < len(segments):
        segment = segments[depth]
        named, parameter = node.by_name.get(segment), node.parameter
        if named is not None and parameter is not None:
            so_far = len(parameters)
            value = _walk(named, segments, depth + 1, parameters)
            if value is not None:
                return value
            del parameters[so_far:]
            named = None
        if named is None:
            if parameter is None:
                return None
            parameters.append(segment)
            named = parameter
        node = named
        depth += 1
    return node.value
