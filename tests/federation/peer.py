"""A server that a test plays itself: it signs what it is told to, keeps its own copy of a room, and answers from
that what a real server would.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from ranvier.core.auth.select import auth_keys_for
from ranvier.core.canonical_json import encode, parse_object
from ranvier.core.events.build import EventTemplate, Placement, build_event
from ranvier.core.events.pdu import Pdu
from ranvier.core.federation.server_keys import build_key_document
from ranvier.core.federation.transactions import build_transaction
from ranvier.core.federation.xmatrix import bytes_to_sign, sign_request
from ranvier.core.hashes import reference_hash, signed_form
from ranvier.core.identifiers import EventID, RoomID, ServerName, StateKey, UserID
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.core.signing import SigningKey
from ranvier.core.unpadded_base64 import encode_base64
from ranvier.services.rooms.live import pdu_of
from ranvier.store.tables import rooms, timeline

from ..http.client import Answer, Client, segment
from ..http.homeserver import Homeserver
from .network import Network

State = Mapping[StateKey, Pdu]


class RoomCopy:
    """A room as the peer knows it: its events, and the state after each as the peer computed it."""

    def __init__(self, room_id: RoomID, version: RoomVersion) -> None:
        self.room_id = room_id
        self.version = version
        self.pdus: dict[EventID, Pdu] = {}
        self.after: dict[EventID, dict[StateKey, Pdu]] = {}
        self.before: dict[EventID, dict[StateKey, Pdu]] = {}

    def add(self, pdu: Pdu, before: State | None = None) -> Pdu:
        """`before`: the state before it, if not that after its first parent."""
        if before is None:
            before = self.after[pdu.prev_events[0]] if pdu.prev_events else {}
        self.pdus[pdu.event_id] = pdu
        self.before[pdu.event_id] = dict(before)
        self.after[pdu.event_id] = {**before, **({pdu.slot: pdu} if pdu.is_state else {})}
        return pdu

    def auth_chain(self, event_ids: Iterable[EventID]) -> dict[EventID, Pdu]:
        chain: dict[EventID, Pdu] = {}
        waiting = list(event_ids)
        while waiting:
            pdu = self.pdus[waiting.pop()]
            for event_id in pdu.auth_events:
                if event_id not in chain:
                    chain[event_id] = self.pdus[event_id]
                    waiting.append(event_id)
        if self.version.auth.room_id_is_create_hash:
            create = EventID("$" + self.room_id[1:])
            chain[create] = self.pdus[create]
        return chain


class Peer:
    """The server `{name}.test`, reachable on the network."""

    def __init__(self, network: Network, name: str = "peer") -> None:
        self.name = ServerName(f"{name}.test")
        self.key = SigningKey(name.encode().ljust(32, b"."), "k1")
        self.policy_key = SigningKey(b"policy".ljust(32, b"."), "policy_server")
        self.clock = network.clock
        self._network = network
        self.asked: list[tuple[str, str]] = []  # method and path of what others asked of it
        self.rooms: dict[RoomID, RoomCopy] = {}
        self.hidden: set[EventID] = set()  # events that it does not tell of
        self.valid_ms = 3_600_000
        self.recommends = False  # as a policy server
        self.refusal: dict[str, Any] | None = None  # what it says then
        self._count = 0
        network.add(self.name, self)

    def user(self, localpart: str) -> UserID:
        return UserID(f"@{localpart}:{self.name}")

    async def copy(self, server: Homeserver, room_id: str) -> RoomCopy:
        """The room as a homeserver has it, which must not have forks."""
        read = server.foundation.ports.db.read
        row = await read(rooms.find_room, RoomID(room_id))
        assert row is not None
        copy = RoomCopy(row.room_id, get_room_version(row.version))
        page = await read(timeline.list_page, row.room_nid, backwards=False, limit=1000)
        for record in page:
            copy.add(pdu_of(record, copy.room_id, copy.version))
        self.rooms[copy.room_id] = copy
        return copy

    def event(
        self,
        room: RoomCopy,
        sender: str,
        type_: str,
        content: dict[str, Any],
        *,
        prev: Sequence[Pdu],
        state_key: str | None = None,
        state: State | None = None,
        redacts: str | None = None,
        depth: int | None = None,
        ts: int | None = None,
        auth: Sequence[Pdu] | None = None,
        is_kept: bool = True,
    ) -> Pdu:
        """An event of the peer's own, signed, behind `prev`; authorized by `state` (that after the first)."""
        before = room.after[prev[0].event_id] if state is None else state
        slots = auth_keys_for(type_, sender, state_key, content, room.version)
        cited = [before[slot] for slot in slots if slot in before] if auth is None else auth
        self._count += 1
        template = EventTemplate(
            room_id=room.room_id,
            type=type_,
            state_key=state_key,
            sender=UserID(sender),
            content=content,
            redacts=None if redacts is None else EventID(redacts),
        )
        hashed = () if room.version.hash_event_ids else (*prev, *cited)
        placement = Placement(
            prev_events=[pdu.event_id for pdu in prev],
            auth_events=[pdu.event_id for pdu in cited],
            depth=max((pdu.depth for pdu in prev), default=0) + 1 if depth is None else depth,
            origin_server_ts=self.clock.now_ms() if ts is None else ts,
            event_id=None if room.version.hash_event_ids else EventID(f"$peer{self._count}:{self.name}"),
            reference_hashes={
                pdu.event_id: reference_hash(parse_object(pdu.json), room.version) for pdu in hashed
            },
        )
        pdu = build_event(template, placement, room.version, self.name, self.key)
        return room.add(pdu, before) if is_kept else pdu

    def join(self, room: RoomCopy, localpart: str, prev: Pdu) -> Pdu:
        user = self.user(localpart)
        return self.event(room, user, "m.room.member", {"membership": "join"}, prev=[prev], state_key=user)

    def message(self, room: RoomCopy, sender: str, text: str, *prev: Pdu, **more: Any) -> Pdu:
        content = {"msgtype": "m.text", "body": text}
        return self.event(room, sender, "m.room.message", content, prev=prev, **more)

    async def send(
        self,
        server: Homeserver,
        pdus: Sequence[Pdu | bytes] = (),
        edus: Sequence[dict[str, Any]] = (),
        *,
        txn_id: str | None = None,
    ) -> Answer:
        """Send a transaction."""
        self._count += 1
        body = build_transaction(
            self.name,
            self.clock.now_ms(),
            [pdu.json if isinstance(pdu, Pdu) else pdu for pdu in pdus],
            [encode(edu) for edu in edus],
        )
        path = f"/_matrix/federation/v1/send/{segment(txn_id or f't{self._count}')}"
        return await self.request(server, "PUT", path, body)

    async def request(self, server: Homeserver, method: str, path: str, body: bytes | None = None) -> Answer:
        """A signed request."""
        destination = ServerName(server.server_name)
        message = bytes_to_sign(
            method=method, uri=path, origin=self.name, destination=destination, content=body
        )
        authorization = sign_request(self.key, message, self.name, destination)
        return await Client(self._network.app_of(server)).request(
            method, path, body=body or b"", headers={"Authorization": authorization}
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application: what others ask."""
        path = scope["raw_path"].decode()
        self.asked.append((scope["method"], unquote(path)))
        body = (await receive())["body"]
        query = parse_qs(scope["query_string"].decode())
        value = self._answer([unquote(part) for part in path.split("/")[3:]], query, body)
        status = 404 if value is None else 200
        told = {"errcode": "M_NOT_FOUND", "error": "no"} if value is None else value
        answer = json.dumps(told, separators=(",", ":")).encode()  # orjson cannot write every number
        if path == "/_matrix/policy/v1/sign" and not self.recommends and self.refusal is not None:
            status, answer = 400, orjson.dumps(self.refusal)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, path: Sequence[str], query: Mapping[str, list[str]], body: bytes) -> Any:
        match path:
            case ["v2", "server"]:
                valid_until = self.clock.now_ms() + self.valid_ms
                return build_key_document(self.name, [self.key], {}, valid_until)
            case ["v1", "sign"] if self.recommends:
                event = parse_object(body)
                version = self.rooms[RoomID(event["room_id"])].version
                signature = encode_base64(self.policy_key.sign(signed_form(event, version)))
                return {self.name: {"ed25519:policy_server": signature}}
            case ["v1", "event", event_id]:
                found = [room.pdus.get(EventID(event_id)) for room in self.rooms.values()]
                return {"pdus": self._shown(pdu for pdu in found if pdu)} if any(found) else None
            case ["v1", "event_auth", room_id, event_id]:
                chain = self.rooms[RoomID(room_id)].auth_chain([EventID(event_id)])
                return {"auth_chain": self._shown(chain.values())}
            case ["v1", "state_ids", room_id]:
                room = self.rooms[RoomID(room_id)]
                state = room.before.get(EventID(query["event_id"][0]))
                if state is None:
                    return None
                ids = [pdu.event_id for pdu in state.values()]
                return {"pdu_ids": ids, "auth_chain_ids": list(room.auth_chain(ids))}
            case ["v1", "get_missing_events", room_id]:
                return {"events": self._missing(self.rooms[RoomID(room_id)], orjson.loads(body))}
            case ["v1", "backfill", room_id]:
                return {"pdus": self._backfill(self.rooms[RoomID(room_id)], query)}
        return None

    def _missing(self, room: RoomCopy, asked: dict[str, Any]) -> list[Any]:
        stops = {*asked["earliest_events"], *asked["latest_events"]}
        found = self._walk(room, asked["latest_events"], stops, asked["limit"])
        return self._shown(reversed(found))

    def _backfill(self, room: RoomCopy, query: Mapping[str, list[str]]) -> list[Any]:
        starts = [room.pdus[EventID(event_id)] for event_id in query["v"]]
        limit = int(query["limit"][0])
        return self._shown((starts + self._walk(room, query["v"], set(query["v"]), limit))[:limit])

    def _walk(self, room: RoomCopy, starts: Sequence[str], stops: set[str], limit: int) -> list[Pdu]:
        found: list[Pdu] = []
        waiting = list(starts)
        seen = set(stops)
        while waiting and len(found) < limit:
            for event_id in room.pdus[EventID(waiting.pop(0))].prev_events:
                if event_id not in seen and event_id in room.pdus:
                    seen.add(event_id)
                    found.append(room.pdus[event_id])
                    waiting.append(event_id)
        return found[:limit]

    def _shown(self, pdus: Iterable[Pdu]) -> list[Any]:
        return [orjson.loads(pdu.json) for pdu in pdus if pdu.event_id not in self.hidden]
