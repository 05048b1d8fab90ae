"""Federation beside Synapse, in one run, over TLS: events taken from another server, a large room joined, and one
message sent to many servers.

Each server under test runs alone on one core. The other servers are played here, on the other cores: they have keys
of their own and sign what they send.
"""

import asyncio
import os
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import aiohttp
import orjson
from tests.federation.test_synapse import Person, Server, start_ranvier, start_synapse
from tests.unit.certificates import Authority
from yarl import URL

from bench.figure import Figure, compare
from bench.peers import SERVER_CORE, SYNAPSE_ENVIRONMENT, Name, use_other_cores
from ranvier.core.auth.select import auth_keys_for
from ranvier.core.canonical_json import encode
from ranvier.core.events.build import EventTemplate, Placement, build_event
from ranvier.core.events.parse import pdu_of_object
from ranvier.core.events.pdu import Pdu
from ranvier.core.events.template import parse_template
from ranvier.core.federation.server_keys import build_key_document
from ranvier.core.federation.transactions import build_transaction
from ranvier.core.federation.xmatrix import bytes_to_sign, sign_request
from ranvier.core.identifiers import RoomID, ServerName, StateKey, UserID
from ranvier.core.room_versions import V11
from ranvier.core.signing import SigningKey

SECONDS: Final = 5.0
TRANSACTIONS: Final = 300
SERVERS: Final = 200
MEMBERS: Final = 1_000
MESSAGES: Final = 10

_C: Final = "/_matrix/client/v3"
_F: Final = "/_matrix/federation"
_UNLIMITED: Final = """
rc_federation: {window_size: 1000, sleep_limit: 1000000, sleep_delay: 1, reject_limit: 1000000, concurrent: 100}
rc_room_creation: {per_second: 100000, burst_count: 100000}
"""


def run() -> Sequence[Figure]:
    """Both servers, one after the other, and how many times better than Synapse Ranvier is."""
    if not SYNAPSE_ENVIRONMENT.exists():
        raise RuntimeError("Synapse is not installed: `make bench` does that")
    synapse = asyncio.run(measure("synapse"))
    ranvier = asyncio.run(measure("ranvier"))
    figures = []
    for name, value in ranvier.items():
        figures += compare(synapse, {name: value}, is_rate=name.endswith("/s"))
    return figures


async def measure(name: Name) -> dict[str, float]:
    """Every figure of one server."""
    use_other_cores()
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        authority = Authority(Path(folder))
        async with _running(name, Path(folder) / name, authority) as alice, _playing(authority) as sinks:
            figures = await _push(alice, sinks[0])
            small = Room(sinks[0], sinks)
            await _join(alice, small)  # whose keys are fetched is not what is measured
            figures |= await _send(alice, small, sinks)
            large = Room(sinks[0], sinks, MEMBERS // SERVERS)
            cpu_s = _cpu_s(_pid(alice.server))
            figures[f"a room of {MEMBERS} members joined, s"] = await _join(alice, large)
            figures[f"a room of {MEMBERS} members joined, CPU, s"] = _cpu_s(_pid(alice.server)) - cpu_s
            figures |= await _join_quickly(
                alice, Room(sinks[0], sinks, MEMBERS // SERVERS, omits_members=True)
            )
        return figures


@asynccontextmanager
async def _running(name: Name, directory: Path, authority: Authority) -> AsyncIterator[Person]:
    """A user of the server under test."""
    if name == "ranvier":
        server = start_ranvier(directory, authority)
    else:
        server = await asyncio.to_thread(start_synapse, directory, authority, None, _UNLIMITED)
    os.sched_setaffinity(_pid(server), {SERVER_CORE})
    try:
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(connector=connector) as session:
            await server.wait(session)
            alice = Person(session, server)
            await alice.register("alice")
            yield alice
    finally:
        await asyncio.to_thread(server.stop)


def _pid(server: Server) -> int:
    assert server.process is not None, "it was started"
    return server.process.pid


class Sink:
    """A server that is played here: it tells its keys, lets into its rooms, and takes what it is sent."""

    def __init__(self, number: int) -> None:
        self.key = SigningKey(f"sink {number}".encode().ljust(32, b"."), "k")
        self.name = ServerName("")
        self.rooms: dict[str, Room] = {}
        self.heard = 0  # messages
        self.news = asyncio.Event()

    async def open(self, tls: ssl.SSLContext) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls, backlog=1_000)
        self.name = ServerName(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """HTTP/1.1, as far as it is needed: one request after the other, with a length."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, _ = head.split(b" ", 2)
                lower = head.lower()
                start = lower.find(b"content-length:")
                length = int(lower[start + 15 : lower.index(b"\r", start)]) if start >= 0 else 0
                body = await reader.readexactly(length)
                answer = self._answer(method.decode(), target.decode(), body)
                status = b"404 Not Found" if answer is None else b"200 OK"
                answer = b'{"errcode":"M_NOT_FOUND"}' if answer is None else answer
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (status, len(answer), answer)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, method: str, target: str, body: bytes) -> bytes | None:
        target, _, query = target.partition("?")
        path = [unquote(part) for part in target.split("/")[1:]]
        match path:
            case ["_matrix", "key", "v2", "server", *_]:
                valid_until_ms = _now_ms() + 86_400_000
                return encode(build_key_document(self.name, [self.key], {}, valid_until_ms))
            case ["_matrix", "federation", "v1", "send", _]:
                self.heard += body.count(b'"m.room.message"')
                self.news.set()
                return b'{"pdus":{}}'
            case ["_matrix", "federation", "v1", "make_join", room_id, user_id]:
                return self.rooms[room_id].offer(user_id)
            case ["_matrix", "federation", "v2", "send_join", room_id, _]:
                return self.rooms[room_id].let_in(body, asks_for_less="omit_members=true" in query)
            case ["_matrix", "federation", "v1", "state_ids", room_id]:
                return self.rooms[room_id].tell_state_ids()
            case ["_matrix", "federation", "v1", "state", room_id]:
                return self.rooms[room_id].tell_state()
            case ["_matrix", "federation", "v1", "event", event_id]:
                return next((told for room in self.rooms.values() if (told := room.tell(event_id))), None)
        return None

    async def ask(self, person: Person, method: str, path: str, body: bytes | None = None) -> Any:
        """A signed request to the server under test. Raises: RuntimeError."""
        destination = ServerName(person.server.name)
        message = bytes_to_sign(
            method=method, uri=path, origin=self.name, destination=destination, content=body
        )
        headers = {"Authorization": sign_request(self.key, message, self.name, destination)}
        url = URL(f"https://{destination}{path}", encoded=True)
        async with person.session.request(method, url, data=body, headers=headers) as response:
            answer = await response.json()
            if response.status != 200:
                raise RuntimeError(f"{method} {path}: {response.status} {answer}")
            return answer


@asynccontextmanager
async def _playing(authority: Authority) -> AsyncIterator[list[Sink]]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue("IP:127.0.0.1"))
    sinks = [Sink(number) for number in range(SERVERS)]
    servers = [await sink.open(tls) for sink in sinks]
    try:
        yield sinks
    finally:
        for server in servers:
            server.close()


class Room:
    """A room of some servers, with as many members of each, that a server under test is let into."""

    def __init__(
        self, owner: Sink, sinks: Sequence[Sink], members_each: int = 1, *, omits_members: bool = False
    ) -> None:
        """`omits_members`: who asks for that is let in with a state that lacks the members."""
        self.owner = owner
        self.room_id = RoomID(f"!{members_each}of{len(sinks)}{'quickly' * omits_members}:{owner.name}")
        self._omits_members = omits_members
        self.state: dict[StateKey, Pdu] = {}
        self._servers = [sink.name for sink in sinks]
        self._depth = 0
        self._last: Pdu | None = None
        creator = f"@user0:{owner.name}"
        self._add(owner, creator, "m.room.create", {"room_version": "11"}, "")
        self._enter(owner, creator)
        self._add(owner, creator, "m.room.power_levels", {"users": {creator: 100}}, "")
        self._add(owner, creator, "m.room.join_rules", {"join_rule": "public"}, "")
        for number in range(members_each):
            for sink in sinks:
                if number or sink is not owner:
                    self._enter(sink, f"@user{number}:{sink.name}")
        owner.rooms[self.room_id] = self
        self._state_json = b"[" + b",".join(pdu.json for pdu in self.state.values()) + b"]"

    def _enter(self, sink: Sink, user_id: str) -> None:
        self._add(sink, user_id, "m.room.member", {"membership": "join"}, user_id)

    def _add(self, sink: Sink, sender: str, type_: str, content: dict[str, Any], key: str) -> None:
        self._depth += 1
        template = EventTemplate(
            room_id=self.room_id, type=type_, state_key=key, sender=UserID(sender), content=content
        )
        placement = Placement(
            prev_events=[] if self._last is None else [self._last.event_id],
            auth_events=[pdu.event_id for pdu in self._authorizers(type_, sender, key, content)],
            depth=self._depth,
            origin_server_ts=_now_ms(),
        )
        self._last = build_event(template, placement, V11, sink.name, sink.key)
        self.state[self._last.slot] = self._last

    def _authorizers(self, type_: str, sender: str, key: str, content: dict[str, Any]) -> list[Pdu]:
        slots = auth_keys_for(type_, sender, key, content, V11)
        return [self.state[slot] for slot in slots if slot in self.state]

    def offer(self, user_id: str) -> bytes:
        """The answer to make_join."""
        assert self._last is not None, "a room has events"
        content = {"membership": "join"}
        auth = self._authorizers("m.room.member", user_id, user_id, content)
        event = {
            "type": "m.room.member",
            "room_id": self.room_id,
            "sender": user_id,
            "state_key": user_id,
            "content": content,
            "prev_events": [self._last.event_id],
            "auth_events": [pdu.event_id for pdu in auth],
            "depth": self._depth + 1,
            "origin_server_ts": _now_ms(),
        }
        return orjson.dumps({"room_version": "11", "event": event})

    def let_in(self, event: bytes, *, asks_for_less: bool) -> bytes:
        """The answer to send_join: all of the room, or all but the members besides its creator."""
        omits = asks_for_less and self._omits_members
        rest = orjson.dumps(
            {"members_omitted": omits, "servers_in_room": self._servers, "origin": self.owner.name}
        )
        state = self._state_json
        if omits:
            kept = [pdu.json for pdu in self.state.values() if not self._is_mere_member(pdu)]
            state = b"[" + b",".join(kept) + b"]"
        return b'{"event":%b,"state":%b,"auth_chain":%b,%b' % (event, state, state, rest[1:])

    def _is_mere_member(self, pdu: Pdu) -> bool:
        return pdu.type == "m.room.member" and pdu.state_key != f"@user0:{self.owner.name}"

    def tell_state_ids(self) -> bytes:
        ids = [pdu.event_id for pdu in self.state.values()]
        return orjson.dumps({"pdu_ids": ids, "auth_chain_ids": ids})

    def tell_state(self) -> bytes:
        return b'{"pdus":%b,"auth_chain":%b}' % (self._state_json, self._state_json)

    def tell(self, event_id: str) -> bytes | None:
        """The answer to a request for one event."""
        found = next((pdu.json for pdu in self.state.values() if pdu.event_id == event_id), None)
        if found is None:
            return None
        return b'{"origin":"%b","origin_server_ts":0,"pdus":[%b]}' % (self.owner.name.encode(), found)


async def _push(alice: Person, sink: Sink) -> dict[str, float]:
    """A user of another server says much; how many of the events are taken in a second, and what each costs."""
    answer = await alice.call("POST", f"{_C}/createRoom", {"preset": "public_chat", "room_version": "11"})
    room_id, user_id = RoomID(answer["room_id"]), UserID(f"@talker:{sink.name}")
    path = f"{_F}/v1/make_join/{quote(room_id, safe='')}/{quote(user_id, safe='')}?ver=11"
    offered = (await sink.ask(alice, "GET", path))["event"]
    join = build_event(*parse_template(offered, V11, _now_ms()), V11, sink.name, sink.key)
    path = f"{_F}/v2/send_join/{quote(room_id, safe='')}/{quote(join.event_id, safe='')}"
    told = await sink.ask(alice, "PUT", path, join.json)
    state = {pdu.slot: pdu for pdu in (pdu_of_object(event, V11) for event in told["state"])} | {
        join.slot: join
    }
    auth = [
        state[slot].event_id
        for slot in auth_keys_for("m.room.message", user_id, None, {}, V11)
        if slot in state
    ]
    bodies = await asyncio.to_thread(_talk, sink, room_id, user_id, join, auth)
    taken = 0
    cpu_s = _cpu_s(_pid(alice.server))
    started = time.perf_counter()
    for number, body in enumerate(bodies):
        results = (await sink.ask(alice, "PUT", f"{_F}/v1/send/push{number}", body))["pdus"]
        taken += sum(not result for result in results.values())
        if time.perf_counter() - started > SECONDS:
            break
    elapsed = time.perf_counter() - started
    if taken != 50 * (number + 1):
        raise RuntimeError(f"of {50 * (number + 1)} events {taken} were taken")
    return {
        "events taken in transactions of 50, 1/s": taken / elapsed,
        "events taken in transactions of 50, CPU for each, ms": (_cpu_s(_pid(alice.server)) - cpu_s)
        / taken
        * 1000,
    }


def _talk(sink: Sink, room_id: RoomID, user_id: UserID, join: Pdu, auth: Sequence[Any]) -> list[bytes]:
    """Transactions of 50 messages, each behind the one before."""
    last, depth, bodies = join.event_id, join.depth, []
    for _ in range(TRANSACTIONS):
        pdus: list[bytes] = []
        for _ in range(50):
            depth += 1
            template = EventTemplate(
                room_id=room_id,
                type="m.room.message",
                sender=user_id,
                content={"msgtype": "m.text", "body": f"message {depth}, and what else there is to say"},
            )
            placement = Placement(
                prev_events=[last], auth_events=auth, depth=depth, origin_server_ts=_now_ms()
            )
            pdu = build_event(template, placement, V11, sink.name, sink.key)
            last = pdu.event_id
            pdus.append(pdu.json)
        bodies.append(build_transaction(sink.name, _now_ms(), pdus, ()))
    return bodies


async def _join(alice: Person, room: Room) -> float:
    started = time.perf_counter()
    path = f"{_C}/join/{quote(room.room_id, safe='')}?server_name={room.owner.name}"
    await alice.call("POST", path, {})
    return time.perf_counter() - started


async def _join_quickly(alice: Person, room: Room) -> dict[str, float]:
    """Enter a room of which the members may come later; when one may speak there, and when all are known."""
    cpu_s, started = _cpu_s(_pid(alice.server)), time.perf_counter()
    await _join(alice, room)
    await alice.say(room.room_id, "hello")
    usable_s = time.perf_counter() - started
    path = f"{_C}/rooms/{quote(room.room_id, safe='')}/joined_members"
    answer = await alice.call("GET", path)
    if len(answer["joined"]) != MEMBERS + 1:
        raise RuntimeError(f"{len(answer['joined'])} members are known")
    return {
        f"a room of {MEMBERS} members usable before all are known, s": usable_s,
        f"a room of {MEMBERS} members known afterwards, s": time.perf_counter() - started,
        f"a room of {MEMBERS} members known afterwards, CPU, s": _cpu_s(_pid(alice.server)) - cpu_s,
    }


async def _send(alice: Person, room: Room, sinks: Sequence[Sink]) -> dict[str, float]:
    """One message after the other to all the servers in a room."""
    await _say(alice, room, sinks)  # with which connections are opened
    pid = _pid(alice.server)
    cpu_s, memory = _cpu_s(pid), _memory_mib(pid)
    started = time.perf_counter()
    for _ in range(MESSAGES):
        await _say(alice, room, sinks)
    elapsed = time.perf_counter() - started
    return {
        f"one message to {SERVERS} servers, until the last has it, ms": elapsed / MESSAGES * 1000,
        f"one message to {SERVERS} servers, CPU, ms": (_cpu_s(pid) - cpu_s) / MESSAGES * 1000,
        f"memory after messages to {SERVERS} servers, MiB": memory,
    }


async def _say(alice: Person, room: Room, sinks: Sequence[Sink]) -> None:
    wanted = max(sink.heard for sink in sinks) + 1
    await alice.say(room.room_id, "hello")
    async with asyncio.timeout(60):
        for sink in sinks:
            while sink.heard < wanted:
                sink.news.clear()
                await sink.news.wait()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
