"""Room state: bytes for each change, speed of the map, and what it costs to resolve a fork.

Everything is in memory, so these are the figures of the algorithms.
"""

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from bench.figure import Figure
from ranvier.core import state_map
from ranvier.core.auth.select import CREATE, JOIN_RULES, POWER_LEVELS, auth_keys_for
from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, StateKey, UserID
from ranvier.core.room_versions import V11, V12, RoomVersion
from ranvier.core.state_map import EMPTY, Node
from ranvier.core.state_resolution import resolve
from ranvier.core.state_resolution.in_memory import InMemoryGraph

T = TypeVar("T")

_FIRST_NODE: Final = 100_000_000
_FIRST_EVENT: Final = 900_000_000
_SLOT_RANGE: Final = 20_000_000
_ADMIN: Final = "@admin:example.com"


class Nodes:
    """A store of nodes that holds them decoded, as a warm cache does, and counts encoded bytes."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.stored_bytes = 0
        self._nids: dict[bytes, int] = {}

    def load(self, nids: Collection[int]) -> Mapping[int, Node]:
        nodes = self.nodes
        return {nid: nodes[nid] for nid in nids}

    def save(self, nodes: Sequence[Node]) -> Sequence[int]:
        return [self._save(node) for node in nodes]

    def _save(self, node: Node) -> int:
        data = state_map.encode(node)
        nid = self._nids.setdefault(state_map.content_hash(data), _FIRST_NODE + len(self.nodes))
        if nid not in self.nodes:
            self.nodes[nid] = node
            self.stored_bytes += len(data)
        return nid


class MapFigures(msgspec.Struct, frozen=True):
    """Of a room with so many members. In a database a node also costs 16 bytes of hash and its row and index
    overhead, about 60 bytes in all."""

    bytes_per_change: float
    update_us: float
    get_us: float


class ForkFigures(msgspec.Struct, frozen=True):
    version: str
    entries: int
    fork_events: int
    difference_ms: float
    resolve_ms: float


def measure_map(members: int, changes: int = 300) -> MapFigures:
    """Slot numbers scattered over a server with 20 million slots, event numbers near 10^9."""
    rng = random.Random(members)
    keys = rng.sample(range(_SLOT_RANGE), members)
    entries = {key: _FIRST_EVENT + rng.randrange(10**8) for key in keys}
    nodes = Nodes()
    root = state_map.update(nodes, EMPTY, entries)
    bytes_of_build = nodes.stored_bytes

    updates = [{rng.choice(keys): _FIRST_EVENT + 10**8 + index} for index in range(changes)]
    started = time.perf_counter()
    for change in updates:
        root = state_map.update(nodes, root, change)
    update_s = (time.perf_counter() - started) / changes
    bytes_of_changes = nodes.stored_bytes

    hundred = rng.sample(keys, min(100, members))
    started = time.perf_counter()
    for key in hundred:
        state_map.get(nodes, root, key)
    get_s = (time.perf_counter() - started) / len(hundred)
    return MapFigures(
        bytes_per_change=(bytes_of_changes - bytes_of_build) / changes,
        update_us=update_s * 1e6,
        get_us=get_s * 1e6,
    )


class Room:
    """A room in which power levels change now and then while people join."""

    def __init__(self, version: RoomVersion, members: int) -> None:
        self.version = version
        self.graph = InMemoryGraph()
        self.nodes = Nodes()
        self.current: dict[StateKey, EventID] = {}
        self.sent: dict[int, int] = {}  # slot -> event, since the last `commit`
        self.count = 0
        self.send(_ADMIN, CREATE, {"room_version": version.name, "creator": _ADMIN})
        self.send(_ADMIN, ("m.room.member", _ADMIN), {"membership": "join"})
        self.send_power_levels(0)
        self.send(_ADMIN, JOIN_RULES, {"join_rule": "public"})
        for index in range(members):
            if index % 1_000 == 999:
                self.send_power_levels(index)
            if index % 7_000 == 6_999:
                self.send(_ADMIN, JOIN_RULES, {"join_rule": "public", "n": index})
            self.join(f"@member{index}:example.com")
        self.root = self.commit(EMPTY)

    def send(self, sender: str, key: StateKey, content: JsonObject) -> None:
        keys = auth_keys_for(key[0], sender, key[1], content, self.version)
        self.count += 1
        event = Pdu(
            event_id=EventID(f"${self.count:043}"),
            room_id=RoomID("!room"),
            sender=UserID(sender),
            type=key[0],
            state_key=key[1],
            content=content,
            origin_server_ts=self.count,
            depth=self.count,
            prev_events=(EventID(f"${self.count - 1:043}"),) if self.count > 1 else (),
            auth_events=tuple(self.current[one] for one in keys if one in self.current),
            signatures={},
            json=b"",
        )
        self.current[key] = event.event_id
        nid = self.graph.add(event)
        self.sent[self.graph.slot_of(nid)] = nid

    def send_power_levels(self, marker: int) -> None:
        users = {} if self.version.auth.privileged_creators else {_ADMIN: 100}
        self.send(_ADMIN, POWER_LEVELS, {"users": users, "n": marker})

    def join(self, user: str, name: str = "") -> None:
        self.send(user, ("m.room.member", user), {"membership": "join", "displayname": name})

    def commit(self, root: int) -> int:
        root = state_map.update(self.nodes, root, self.sent)
        self.sent = {}
        return root

    def fork(self, *branches: Callable[[], None]) -> list[int]:
        """The roots of branches that start from the same state."""
        base, roots = dict(self.current), []
        for branch in branches:
            self.current = dict(base)
            branch()
            roots.append(self.commit(self.root))
        self.current = base
        return roots


def measure_small_fork(version: RoomVersion, members: int = 30_000) -> ForkFigures:
    """Ten events: on one side people join, rename and are banned; on the other power levels and topic
    change."""
    room = Room(version, members)

    def one() -> None:
        room.join("@new1:example.com")
        room.join("@member5:example.com", "Five")
        room.join("@member20001:example.com", "Many")
        room.send(_ADMIN, ("m.room.topic", ""), {"topic": "one"})
        room.send(_ADMIN, ("m.room.member", "@member77:example.com"), {"membership": "ban"})

    def other() -> None:
        room.send_power_levels(-1)
        room.join("@new2:example.com")
        room.join("@member77:example.com", "Seventy-seven")
        room.send(_ADMIN, ("m.room.topic", ""), {"topic": "other"})
        room.join("@member5:example.com", "Fifth")

    return _measure_fork(room, room.fork(one, other), 10)


def measure_membership_fork(version: RoomVersion, events: int = 1_000, members: int = 30_000) -> ForkFigures:
    """One side's people join and rename, while those of the other leave."""
    room = Room(version, members)
    half = events // 2

    def joins() -> None:
        for index in range(half // 2):
            room.join(f"@new{index}:example.com")
            room.join(f"@member{index * 20}:example.com", "renamed")

    def leaves() -> None:
        for index in range(half):
            user = f"@member{index * 20}:example.com"
            room.send(user, ("m.room.member", user), {"membership": "leave"})

    return _measure_fork(room, room.fork(joins, leaves), events)


def _measure_fork(room: Room, roots: list[int], events: int) -> ForkFigures:
    difference_s, conflict = _time(lambda: state_map.difference(room.nodes, roots))
    state = partial(state_map.get_many, room.nodes, roots[0])
    resolve_s, _ = _time(lambda: resolve(conflict, state, room.version, room.graph))
    return ForkFigures(
        version=room.version.name,
        entries=len(room.current),
        fork_events=events,
        difference_ms=difference_s * 1e3,
        resolve_ms=resolve_s * 1e3,
    )


def _time(run: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def run() -> Sequence[Figure]:
    """The figures that have a target, and those that explain them."""
    figures: list[Figure] = []
    for members in (100, 10_000, 100_000):
        room = measure_map(members)
        figures += [
            Figure(f"state change in a room of {members:,} members", room.bytes_per_change, "bytes"),
            Figure(f"the same, time with nodes in memory, {members:,} members", room.update_us, "µs"),
            Figure(f"lookup with nodes in memory, {members:,} members", room.get_us, "µs"),
        ]
    for version in (V11, V12):
        for fork in (measure_small_fork(version), measure_membership_fork(version)):
            name = f"resolving a fork of {fork.fork_events:,} events, {fork.entries:,} entries, room v{fork.version}"
            figures.append(Figure(name, fork.difference_ms + fork.resolve_ms, "ms"))
    return figures
