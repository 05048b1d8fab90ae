"""What state resolution asks of the store.

Events and slots (type, state_key) are numbers here, as the store knows them. The resolver sees state events
alone: a message is never an auth event of anything that was accepted.

What the store keeps for it:

- of each state event, whatever became of it (accepted, rejected, outlier): its slot, its `auth_depth`, and
  one edge for each of its auth events, readable both ways. An event is stored after its auth events, so both
  are known by then and never change;
- indexes: edges by citing event (`auth_nodes`), and by cited event with the citing one descending (`citing`).

Edges of messages are not needed: so a message costs nothing here, a state event about four short rows.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import StateKey

Slots = Callable[[Collection[int]], Mapping[int, int]]
"""Slot numbers -> the events in those of them that are filled: one version of a room's state, such as
`partial(state_map.get_many, reader, root)`."""


class AuthNode(msgspec.Struct, frozen=True, gc=False):
    """An event's place in the graph of auth events. Immutable, so it can be cached without end."""

    slot: int | None  # None: not a state event, which only a rejected event can cite
    auth_depth: int  # 0 without auth events, else one more than the greatest of theirs
    auth: tuple[int, ...]  # those of its auth events that are stored, without repeats


class AuthGraph(Protocol):
    """A room's events by number. Each method is one query."""

    def auth_nodes(self, nids: Collection[int]) -> Mapping[int, AuthNode]:
        """The node of every event in `nids`, and of more events if they come cheaply (their auth events, say:
        walks go that way)."""

    def citing(self, before: Mapping[int, int], limit: int) -> Mapping[int, Sequence[int]]:
        """For each event x of `before`, the state events that have x among their auth events and whose number
        is below before[x]: the `limit` greatest, descending. An x without any may be left out."""

    def events(self, nids: Collection[int]) -> Mapping[int, Pdu]:
        """Every event in `nids`."""

    def rejected(self, nids: Collection[int]) -> Collection[int]:
        """Those of `nids` that were rejected (soft failure is no rejection)."""

    def slots(self, keys: Collection[StateKey]) -> Mapping[StateKey, int]:
        """The numbers of those `keys` that have one."""

    def create_event(self) -> int:
        """The room's m.room.create. Asked only where the room id is its hash (v12), for then nothing cites
        it."""
