"""What users of this server do and peers are told: what they write (as PDUs), and what passes (as EDUs).

One worker follows the hints of the database for both.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import ServerName, UserID, server_of
from ranvier.core.room_versions import BRIDGED_2014
from ranvier.historical.federation_2014.outgoing import Outgoing
from ranvier.historical.federation_2014.peers import Peers
from ranvier.historical.federation_2014.showing import Showing
from ranvier.io.clock import Clock
from ranvier.store.database import Database, Hint, Kind, ReadTxn
from ranvier.store.tables import historical_contexts as contexts
from ranvier.store.tables import presence, typing
from ranvier.store.tables.interned import Interner, find_user_nids, list_user_ids
from ranvier.store.tables.presence import Presence

MAX_SUBSCRIPTIONS: Final = 10_000
"""Users whom one peer may watch."""

MAX_ROOMS: Final = 100_000
"""Rooms of which it is remembered whether they are of this protocol."""

LEAST_INTERVAL_S: Final = 0.02


class _Typed(msgspec.Struct, frozen=True):
    context: str
    servers: Collection[ServerName]
    users: frozenset[UserID]


class _Seen(msgspec.Struct, frozen=True):
    user_id: UserID
    presence: Presence
    servers: Collection[ServerName]


class Subscriptions:
    """Which users of this server peers watch, by `poll`. Forgotten with the process: peers ask again."""

    def __init__(self, db: Database, interner: Interner, outgoing: Outgoing, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._outgoing = outgoing
        self._clock = clock
        self._users: dict[ServerName, set[UserID]] = {}

    def add(self, peer: ServerName, users: Iterable[UserID]) -> None:
        watched = self._users.setdefault(peer, set())
        for user_id in users:
            if len(watched) < MAX_SUBSCRIPTIONS:
                watched.add(user_id)

    def remove(self, peer: ServerName, users: Iterable[UserID]) -> None:
        self._users.get(peer, set()).difference_update(users)

    def list_watching(self, user_id: UserID) -> set[ServerName]:
        return {peer for peer, users in self._users.items() if user_id in users}

    async def tell_now(self, peer: ServerName, users: Collection[UserID]) -> None:
        """What these users do, to a peer that has just asked."""
        for user_id, one in await self._db.read(self._read, users):
            self.tell(peer, user_id, one)

    def tell(self, peer: ServerName, user_id: UserID, one: Presence) -> None:
        item: JsonObject = {
            "user_id": user_id,
            "state": one.state.value,
            "mtime_age": max(0, self._clock.now_ms() - one.last_active_ms),
        }
        if one.status_msg is not None:
            item["status_msg"] = msgspec.json.decode(one.status_msg)
        self._outgoing.add_edu(peer, "m.presence", {"push": [item]}, ("presence", user_id))

    def _read(self, txn: ReadTxn, users: Collection[UserID]) -> list[tuple[UserID, Presence]]:
        nids = find_user_nids(txn, self._interner, users)
        found = presence.list_presence(txn, nids.values())
        return [(user_id, found[nid]) for user_id, nid in nids.items() if nid in found]


class Passing:
    """The worker."""

    name = "federation-2014-passing"

    def __init__(
        self,
        db: Database,
        interner: Interner,
        showing: Showing,
        outgoing: Outgoing,
        subscriptions: Subscriptions,
        peers: Peers,
        clock: Clock,
    ) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._showing = showing
        self._outgoing = outgoing
        self._subscriptions = subscriptions
        self._peers = peers
        self._news = asyncio.Event()
        self._hinted: set[int] = set()
        self._must_search = True
        self._is_bridged: dict[int, bool] = {}
        self._typing: dict[int, frozenset[UserID]] = {}
        self._position = db.position()
        db.subscribe(self._hear)
        self._news.set()

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._look()
            await self._clock.sleep(LEAST_INTERVAL_S)

    def _hear(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            if hint.kind is Kind.ROOM:
                if self._is_bridged.get(hint.key) is not False:
                    self._hinted.add(hint.key)
                    self._news.set()
            elif hint.kind is Kind.PRESENCE:
                self._news.set()
            elif hint.kind is Kind.GAP:
                self._must_search = True
                self._news.set()

    async def _look(self) -> None:
        # Every hint up to this position has been heard. A read sees more by now; that is for the next time.
        upto = self._db.position()
        hinted, self._hinted = self._hinted, set()
        if self._must_search:
            self._must_search = False
            hinted |= set(await self._db.read(contexts.list_rooms_of_version, BRIDGED_2014.name))
        room_nids = await self._choose(hinted)
        for room_nid in room_nids:
            await self._showing.convert(room_nid)
        if room_nids:
            self._outgoing.look()
        typed, seen = await self._db.read(self._read, self._position, upto, room_nids)
        for room_nid, one in typed.items():
            self._tell_typing(room_nid, one)
        for change in seen:
            for peer in change.servers:
                self._subscriptions.tell(peer, change.user_id, change.presence)
        self._position = upto

    async def _choose(self, hinted: set[int]) -> list[int]:
        """Those of the rooms that are of this protocol."""
        unknown = [nid for nid in hinted if nid not in self._is_bridged]
        if unknown:
            bridged = await self._db.read(contexts.choose_rooms_of_version, unknown, BRIDGED_2014.name)
            if len(self._is_bridged) > MAX_ROOMS:
                self._is_bridged.clear()
            self._is_bridged |= dict.fromkeys(unknown, False) | dict.fromkeys(bridged, True)
        return [nid for nid in hinted if self._is_bridged.get(nid)]

    def _tell_typing(self, room_nid: int, one: _Typed) -> None:
        before = self._typing.pop(room_nid, frozenset())
        if one.users:
            self._typing[room_nid] = one.users
        for user_id in one.users ^ before:
            content: JsonObject = {
                "room_id": one.context,
                "user_id": user_id,
                "typing": user_id in one.users,
            }
            for peer in one.servers:
                self._outgoing.add_edu(peer, "m.typing", content, ("typing", one.context, user_id))

    def _read(
        self, txn: ReadTxn, after: int, upto: int, room_nids: Collection[int]
    ) -> tuple[dict[int, _Typed], list[_Seen]]:
        changed = typing.list_rooms_typing_changed(txn, room_nids, after, upto) if room_nids else []
        now = typing.list_typing(txn, changed) if changed else {}
        names = list_user_ids(txn, self._interner, {nid for nids in now.values() for nid in nids})
        typed: dict[int, _Typed] = {}
        for room_nid, user_nids in now.items():
            context = contexts.find_context_of_room(txn, room_nid)
            if context is None:
                continue
            users = frozenset(names[nid] for nid in user_nids if self._is_own(names[nid]))
            servers = self._choose_peers(contexts.list_servers(txn, room_nid))
            typed[room_nid] = _Typed(context.context, servers, users)
        return typed, self._read_presence(txn, after, upto)

    def _read_presence(self, txn: ReadTxn, after: int, upto: int) -> list[_Seen]:
        changed = [one for one in presence.list_presence_changes(txn, after, upto) if one.is_local]
        names = list_user_ids(txn, self._interner, {one.user_nid for one in changed})
        seen: list[_Seen] = []
        for one in changed:
            user_id = names[one.user_nid]
            servers = self._choose_peers(contexts.list_servers_of_user(txn, one.user_nid))
            servers |= self._subscriptions.list_watching(user_id)
            if servers:
                seen.append(_Seen(user_id, one, servers))
        return seen

    def _choose_peers(self, servers: Iterable[ServerName]) -> set[ServerName]:
        return {server for server in servers if self._peers.is_peer(server)}

    def _is_own(self, user_id: UserID) -> bool:
        return server_of(user_id) == self._interner.own_server
