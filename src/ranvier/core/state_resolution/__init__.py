"""State resolution: one state out of several, over their conflict only.

`resolve` is the way in; `port` says what the store keeps for it. Versions 1, 2 and 2.1 are `v1` and `v2`;
these rest on two walks over the graph of auth events (`auth_difference`, `conflicted_subgraph`) and on two
orders of events (`ordering`). `in_memory` is the port over events in memory.
"""

from ranvier.core.state_resolution.port import AuthGraph, AuthNode, Slots
from ranvier.core.state_resolution.resolve import Conflict, resolve

__all__ = ["AuthGraph", "AuthNode", "Conflict", "Slots", "resolve"]
