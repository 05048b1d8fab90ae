"""`AuthGraph` over events in memory: for tests, and to say exactly what the port means."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey
from ranvier.core.state_resolution.port import AuthNode


class InMemoryGraph:
    """Numbers events and slots from 1 in the order of their coming."""

    def __init__(self, events: Iterable[Pdu] = ()) -> None:
        self.nids: dict[EventID, int] = {}
        self.rejections: set[int] = set()
        self._events: dict[int, Pdu] = {}
        self._nodes: dict[int, AuthNode] = {}
        self._citing: dict[int, list[int]] = {}
        self._slots: dict[StateKey, int] = {}
        for event in events:
            self.add(event)

    def add(self, event: Pdu) -> int:
        """Store an event whose auth events are stored; those that are not are left out. Its number."""
        if event.event_id in self.nids:
            return self.nids[event.event_id]
        nid = self.nids[event.event_id] = len(self.nids) + 1
        auth = tuple(dict.fromkeys(self.nids[cited] for cited in event.auth_events if cited in self.nids))
        auth_depth = max((self._nodes[cited].auth_depth + 1 for cited in auth), default=0)
        slot = self._slots.setdefault(event.slot, len(self._slots) + 1) if event.is_state else None
        self._nodes[nid] = AuthNode(slot, auth_depth, auth)
        self._events[nid] = event
        if slot is not None:
            for cited in auth:
                self._citing.setdefault(cited, []).append(nid)
        return nid

    def slot_of(self, nid: int) -> int:
        """The slot that a state event fills."""
        slot = self._nodes[nid].slot
        assert slot is not None
        return slot

    def auth_nodes(self, nids: Collection[int]) -> Mapping[int, AuthNode]:
        return {nid: self._nodes[nid] for nid in nids}

    def citing(self, before: Mapping[int, int], limit: int) -> Mapping[int, Sequence[int]]:
        pages = {
            nid: [above for above in reversed(self._citing.get(nid, ())) if above < newest][:limit]
            for nid, newest in before.items()
        }
        return {nid: page for nid, page in pages.items() if page}

    def events(self, nids: Collection[int]) -> Mapping[int, Pdu]:
        return {nid: self._events[nid] for nid in nids}

    def rejected(self, nids: Collection[int]) -> Collection[int]:
        return self.rejections.intersection(nids)

    def slots(self, keys: Collection[StateKey]) -> Mapping[StateKey, int]:
        return {key: self._slots[key] for key in keys if key in self._slots}

    def create_event(self) -> int:
        slot = self._slots["m.room.create", ""]
        return next(nid for nid, node in self._nodes.items() if node.slot == slot)
