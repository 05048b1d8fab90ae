"""The graph of auth events as one resolution sees it: nodes loaded in batches, and which of them stand in the
unconflicted state.
"""

from collections.abc import Collection, Iterable, Mapping

from ranvier.core.auth.select import CREATE, JOIN_RULES, POWER_LEVELS
from ranvier.core.identifiers import StateKey
from ranvier.core.state_resolution.port import AuthGraph, AuthNode, Slots


class Walk:
    """What was loaded so far. Lives for one resolution."""

    def __init__(self, graph: AuthGraph, conflicted_slots: Collection[int], state: Slots) -> None:
        """`state`: any of the states to resolve; it is asked for slots on which all of them agree."""
        self.graph = graph
        self.nodes: dict[int, AuthNode] = {}
        self.unconflicted: set[int] = set()  # those of `nodes` that are entries of the unconflicted state
        self._conflicted_slots = frozenset(conflicted_slots)
        self._state = state
        self._slots = dict(graph.slots([CREATE, POWER_LEVELS, JOIN_RULES]))

    def load(self, nids: Iterable[int]) -> None:
        """Have these in `nodes`. Cost: at most one query for nodes and one look into the state."""
        missing = {nid for nid in nids if nid not in self.nodes}
        if not missing:
            return
        loaded = self.graph.auth_nodes(missing)
        new = {nid: node for nid, node in loaded.items() if nid not in self.nodes}
        self.nodes.update(new)
        present = self.unconflicted_in({node.slot for node in new.values() if node.slot is not None})
        self.unconflicted.update(
            nid for nid, node in new.items() if node.slot is not None and present.get(node.slot) == nid
        )

    def load_cited(self, nids: Iterable[int]) -> None:
        """Have the auth events of these (loaded) events in `nodes`."""
        self.load([cited for nid in nids for cited in self.nodes[nid].auth])

    def unconflicted_in(self, slots: Collection[int]) -> Mapping[int, int]:
        """Slot -> event of the unconflicted state, for those of `slots` that it fills."""
        asked = set(slots) - self._conflicted_slots
        return self._state(asked) if asked else {}

    def unconflicted_by_key(self, keys: Collection[StateKey]) -> dict[StateKey, int]:
        """The same by name."""
        slots = self.graph.slots(keys) if keys else {}
        present = self.unconflicted_in(slots.values())
        return {key: present[slot] for key, slot in slots.items() if slot in present}

    def unconflicted_cornerstones(self) -> set[int]:
        """The create event, power levels and join rules, where all states agree on them. Loaded."""
        nids = set(self.unconflicted_in(self._slots.values()).values())
        self.load(nids)
        return nids

    def cited_power_levels(self, nid: int) -> int | None:
        """The m.room.power_levels event among the auth events of a loaded event (there is at most one, else
        it would have been rejected). The cited events are loaded."""
        slot = self._slots.get(POWER_LEVELS)
        auth = self.nodes[nid].auth
        self.load(auth)
        return next((cited for cited in auth if slot is not None and self.nodes[cited].slot == slot), None)
