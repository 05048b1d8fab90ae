"""A server that lies: it knows every room as the honest ones do, and sends what no honest one would.

It withholds events for a while, but when asked for the state somewhere it tells the truth: who believes a false
one must disagree with who asked somebody else, and no server can help that.
"""

import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import orjson

from ranvier.core import state_map
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, StateKey
from ranvier.core.room_versions import get_room_version
from ranvier.services.rooms.live import pdu_of
from ranvier.store.database import ReadTxn, Unavailable
from ranvier.store.tables import events, rooms, unchecked_states
from ranvier.store.tables.events import Status, record_of
from ranvier.store.tables.interned import list_state_keys
from ranvier.store.tables.state_nodes import SnapshotNodes

from ..federation.peer import Peer, RoomCopy
from ..http.client import segment
from .actors import Room
from .clients import FORGED
from .loop import ConnectionLost
from .network import SimNetwork
from .server import SimServer, Watcher

NAME = "forger"
HIGHEST_DEPTH = 2**53 - 1
MEMBER = "m.room.member"
LEVELS = ("m.room.power_levels", "")

_ALL = f"SELECT {events.COLUMNS} FROM events e WHERE e.room_nid = :room_nid ORDER BY e.event_nid"


class Forger:
    """The server forger.test and its user."""

    def __init__(self, network: SimNetwork, rng: random.Random, watcher: Watcher) -> None:
        self._peer = Peer(network, NAME)  # type: ignore[arg-type]  # has all of a Network that it asks for
        network.add(self._peer.name, self)
        self.user_id = self._peer.user("mallory")
        self._rng = rng
        self._watcher = watcher
        self._heads: dict[str, list[Pdu]] = {}
        self._now: dict[str, dict[StateKey, Pdu]] = {}
        self._made: dict[str, list[Pdu]] = {}  # by room, as they were meant to be
        self._founding: dict[str, int] = {}  # how many events there were when everybody had come in
        self._count = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application: takes all that it is sent, and answers questions as a `Peer`."""
        path = scope["raw_path"].decode()
        if path.startswith("/_matrix/federation/v1/send/"):
            await _send(send, 200, b'{"pdus":{}}')
            return
        if self._hides_state(path, scope["query_string"].decode()):
            await _send(send, 404, b'{"errcode":"M_NOT_FOUND","error":"no"}')
            return
        started: list[Any] = []

        async def note(message: Any) -> None:
            started.append(message)
            await send(message)

        try:
            await self._peer(scope, receive, note)
        except (KeyError, IndexError):  # a room or an event that it has never heard of
            if started:
                raise
            await _send(send, 404, b'{"errcode":"M_NOT_FOUND","error":"no"}')

    def _hides_state(self, path: str, query: str) -> bool:
        """Whether a state is asked for that holds what it hides: without that it would be a false one."""
        if not path.startswith("/_matrix/federation/v1/state_ids/"):
            return False
        event_id = EventID(parse_qs(query).get("event_id", [""])[0])
        befores = (copy.before.get(event_id, {}) for copy in self._peer.rooms.values())
        return any(pdu.event_id in self._peer.hidden for before in befores for pdu in before.values())

    async def enter(self, server: SimServer, room: Room) -> None:
        """Join as any server does."""
        copy = await self._learn(server, room)
        content = {"membership": "join"}
        pdu = self._make(copy, MEMBER, content, state_key=self.user_id)
        path = f"/_matrix/federation/v2/send_join/{segment(room.room_id)}/{segment(pdu.event_id)}"
        answer = await self._peer.request(server, "PUT", path, pdu.json)  # type: ignore[arg-type]
        assert answer.status == 200, answer.body

    async def note_founding(self, server: SimServer, room: Room) -> None:
        """Everybody is in the room: what it does from here on is built on that."""
        copy = await self._learn(server, room)
        self._founding[copy.room_id] = len(copy.after) - 1

    async def act(
        self, kind: str, rng: random.Random, servers: Sequence[SimServer], all_rooms: Sequence[Room]
    ) -> None:
        """Send one kind of forgery to some of the servers."""
        if not servers:
            return
        room = rng.choice([one for one in all_rooms if one.is_founding])
        some = rng.sample(servers, rng.randrange(1, len(servers) + 1))
        try:
            copy = await self._learn(rng.choice(servers), room)
            await getattr(self, f"_{kind}")(copy, rng, some, servers)
        except ConnectionLost:
            return

    async def reveal(self, servers: Sequence[SimServer]) -> None:
        """Tell everybody everything that was ever made."""
        self._peer.hidden.clear()
        for pdus in self._made.values():
            for start in range(0, len(pdus), 50):
                for server in servers:
                    await self._send(server, pdus[start : start + 50])

    # What it does.

    async def _forge_valid(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        await self._send_all(some, [self._message(copy)])

    async def _forge_state(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        await self._send_all(some, [self._state(copy, rng)])

    async def _forge_equivocation(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        """Different events in one place of the graph, to different servers."""
        for server in servers:
            await self._send(server, [self._state(copy, rng)])

    async def _forge_withheld(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        """An event behind one that nobody gets to see yet."""
        first = self._state(copy, rng) if rng.random() < 0.7 else self._message(copy)
        self._peer.hidden.add(first.event_id)
        behind = self._message(copy, prev=[first], state=copy.after[first.event_id])
        await self._send_all(some, [behind])

    async def _forge_reveal(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        """Some of what was withheld."""
        hidden = [pdu for pdu in self._made.get(copy.room_id, ()) if pdu.event_id in self._peer.hidden]
        if hidden:
            pdu = rng.choice(hidden)
            self._peer.hidden.discard(pdu.event_id)
            await self._send_all(some, [pdu])

    async def _forge_sender(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        """In the name of somebody else."""
        members = [key for type_, key in self._now[copy.room_id] if type_ == MEMBER and key != self.user_id]
        sender = rng.choice(members)
        pdu = self._message(copy, sender=sender, is_kept=False)
        await self._send_all(some, [pdu])

    async def _forge_hash(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        """With another content than was hashed: it counts in its redacted form, to those who saw only that."""
        pdu = self._state(copy, rng) if rng.random() < 0.5 else self._message(copy)
        event = orjson.loads(pdu.json)
        event["content"]["added"] = "later"
        await self._send_all(some, [orjson.dumps(event)])

    async def _forge_signature(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        pdu = self._message(copy, is_kept=False)
        event = orjson.loads(pdu.json)
        event["signatures"][self._peer.name][self._peer.key.key_id] = "A" * 86
        await self._send_all(some, [orjson.dumps(event)])

    async def _forge_rejected(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        """More power than it may give itself; and what relies on that."""
        content = self._levels(copy, rng)
        content.setdefault("users", {})[self.user_id] = 100
        bad = self._make(copy, *LEVELS[:1], content, state_key="")
        after = dict(copy.after[bad.event_id])
        copy.after[bad.event_id] = dict(copy.before[bad.event_id])
        relying = self._make(copy, "m.room.topic", {"topic": "stolen"}, state_key="", prev=[bad], state=after)
        copy.after[relying.event_id] = dict(copy.before[bad.event_id])
        copy.before[relying.event_id] = dict(copy.before[bad.event_id])
        behind = self._message(copy, prev=[bad], state=copy.before[bad.event_id])
        await self._send_all(some, rng.sample([bad, relying, behind], 3))

    async def _forge_old_levels(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        """A state reset: what was allowed long ago, behind what was there long ago."""
        old = self._old(copy, rng)
        before = copy.after[old.event_id]
        if LEVELS in before:
            pdu = self._make(
                copy,
                "m.room.power_levels",
                self._levels(copy, rng, before),
                state_key="",
                prev=[old],
                state=before,
            )
            await self._send_all(some, [pdu])

    async def _forge_old_join(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        old = self._old(copy, rng)
        membership = rng.choice(("join", "leave"))
        before = copy.after[old.event_id]
        pdu = self._make(
            copy, MEMBER, {"membership": membership}, state_key=self.user_id, prev=[old], state=before
        )
        await self._send_all(some, [pdu])

    async def _forge_deep(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        await self._send_all(some, [self._message(copy, depth=HIGHEST_DEPTH)])

    async def _forge_unknown_parent(
        self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any
    ) -> None:
        """Behind an event that does not exist."""
        nowhere = self._message(
            copy, prev=[self._message(copy, is_kept=False)], state=self._now[copy.room_id]
        )
        await self._send_all(some, [nowhere])

    async def _forge_replay(self, copy: RoomCopy, rng: random.Random, some: Any, servers: Any) -> None:
        """What is known since long, in another order."""
        pdus = list(copy.pdus.values())
        await self._send_all(some, rng.sample(pdus, min(len(pdus), 20)))

    # How it does it.

    def _old(self, copy: RoomCopy, rng: random.Random) -> Pdu:
        """An event from the past. Before all servers were in the room, a branch with other join rules could resolve
        to a state without them, up to room version 11: then nobody would be left to agree."""
        return copy.pdus[rng.choice(list(copy.after)[self._founding[copy.room_id] :])]

    def _message(self, copy: RoomCopy, *, sender: str | None = None, **more: Any) -> Pdu:
        return self._make(
            copy, "m.room.message", {"msgtype": "m.text", "body": FORGED}, sender=sender, **more
        )

    def _state(self, copy: RoomCopy, rng: random.Random) -> Pdu:
        match rng.randrange(4):
            case 0:
                return self._make(copy, "m.room.power_levels", self._levels(copy, rng), state_key="")
            case 1:
                rule = rng.choice(("public", "invite"))
                return self._make(copy, "m.room.join_rules", {"join_rule": rule}, state_key="")
            case 2:
                members = [key for type_, key in self._now[copy.room_id] if type_ == MEMBER]
                content = {"membership": rng.choice(("ban", "leave"))}
                return self._make(copy, MEMBER, content, state_key=rng.choice(members))
            case _:
                return self._make(copy, "m.room.topic", {"topic": f"forged {rng.random()}"}, state_key="")

    def _levels(
        self, copy: RoomCopy, rng: random.Random, state: dict[StateKey, Pdu] | None = None
    ) -> dict[str, Any]:
        state = self._now[copy.room_id] if state is None else state
        content: dict[str, Any] = orjson.loads(orjson.dumps(state[LEVELS].content))
        content["events"]["m.room.topic"] = rng.choice((0, 25, 50))
        for user, level in content["users"].items():
            if level < 50 and rng.random() < 0.3:
                content["users"][user] = 50
        return content

    def _make(
        self,
        copy: RoomCopy,
        type_: str,
        content: dict[str, Any],
        *,
        sender: str | None = None,
        prev: Sequence[Pdu] | None = None,
        state: dict[StateKey, Pdu] | None = None,
        **more: Any,
    ) -> Pdu:
        state = self._now[copy.room_id] if state is None else state
        prev = self._heads[copy.room_id][:10] if prev is None else prev
        if copy.version.hash_event_ids:
            content = {**content, "number": self._count} if type_ == "m.room.message" else content
        self._count += 1
        pdu = self._peer.event(copy, sender or self.user_id, type_, content, prev=prev, state=state, **more)
        if more.get("is_kept", True):
            self._made.setdefault(copy.room_id, []).append(pdu)
        return pdu

    async def _send_all(self, servers: Sequence[SimServer], pdus: Sequence[Pdu | bytes]) -> None:
        for server in servers:
            await self._send(server, pdus)

    async def _send(self, server: SimServer, pdus: Sequence[Pdu | bytes]) -> None:
        names = [pdu.event_id if isinstance(pdu, Pdu) else "altered" for pdu in pdus]
        self._watcher.told("forger sends", server.name, names)
        try:
            answer = await self._peer.send(server, pdus)  # type: ignore[arg-type]
        except ConnectionLost:
            return
        self._watcher.told("forger is told", server.name, answer.status, answer.body)
        if answer.status >= 500 and answer.status != 503:
            self._watcher.blame(f"{server.name} answers the forger with {answer.status} {answer.body!r}")

    async def _learn(self, server: SimServer, room: Room) -> RoomCopy:
        """Look into a server's database for what it knows of a room."""
        copy = self._peer.rooms.setdefault(
            RoomID(room.room_id), RoomCopy(RoomID(room.room_id), get_room_version(room.version))
        )
        if not server.is_up:
            raise ConnectionLost
        try:
            await server.foundation.ports.db.read(self._copy, server, copy)
        except Unavailable as error:
            raise ConnectionLost from error
        return copy

    def _copy(self, txn: ReadTxn, server: SimServer, copy: RoomCopy) -> None:
        foundation = server.foundation
        row = rooms.find_room(txn, copy.room_id)
        if row is None or not row.extremities:
            raise ConnectionLost  # it has never been in the room
        if row.is_partial or unchecked_states.find(txn, row.room_nid) is not None:
            raise ConnectionLost  # what is stored of it now is not what all will agree on
        records = [record_of(found) for found in txn.all(_ALL, room_nid=row.room_nid)]
        ids = {record.event_nid: record.event_id for record in records}
        for record in records:
            if record.event_id not in copy.pdus:
                copy.pdus[record.event_id] = pdu_of(record, copy.room_id, copy.version)

        def read_state(root: int) -> dict[StateKey, Pdu]:
            nids = state_map.to_dict(SnapshotNodes(txn, foundation.nodes), root)
            slots = list_state_keys(txn, foundation.interner, nids)
            return {slots[slot]: copy.pdus[ids[nid]] for slot, nid in nids.items()}

        for record in records:
            if record.state_root is not None and record.event_id not in copy.before:
                before = read_state(record.state_root)
                pdu = copy.pdus[record.event_id]
                copy.add(pdu, before)
                if record.status is Status.REJECTED:
                    copy.after[pdu.event_id] = before
        self._heads[copy.room_id] = [copy.pdus[EventID(ids[nid])] for nid in row.extremities]
        self._now[copy.room_id] = read_state(row.state_root)


async def _send(send: Any, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})
