"""The tree of a space: its rooms, and those of the spaces in it, also where these are on other servers.

How far the walk for a page came is remembered for a moment, and the next one goes on from there. Where it is not, since
another process serves that page or too much time has passed, the tree is walked from its root again. Who may see a room
is asked when the walk comes to it. What other servers tell is remembered for a while (`remote_spaces`).
Spec: client-server API, "Discovering rooms within spaces".
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.errors import BadIdentifier, Forbidden, InvalidParam
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID, ServerName, server_of
from ranvier.core.room_versions import get_room_version
from ranvier.core.state_map import EMPTY
from ranvier.core.tokens import encode_list_token, parse_list_token
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.access import may_preview
from ranvier.services.rooms.elsewhere import list_here, list_ways
from ranvier.services.rooms.live import pdu_of
from ranvier.services.rooms.remote_spaces import FetchSpace, RemoteSpace
from ranvier.services.rooms.room_summary import (
    Summary,
    build_summary,
    list_allowed_rooms_of,
    may_preview_remote,
)
from ranvier.services.rooms.space_children import (
    CHILD,
    MAX_CHILDREN,
    SpaceChild,
    child_of,
    holds,
    is_suggested,
    order_of,
)
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, memberships, rooms, state
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.rooms import Room, RoomSummary

MAX_PAGE: Final = 100
MAX_DEPTH: Final = 100
MAX_WALKED: Final = 5_000
"""Rooms of one tree; what lies behind them is not shown."""
MAX_ASKED: Final = 300
"""Rooms of one tree that other servers are asked about."""
MAX_ASKED_AT_ONCE: Final = 10
MAX_WAIT_S: Final = 40.0
"""For the answers of other servers, for one page; then the page shows what is known."""

KEPT_S: Final = 60.0
"""How long it is remembered how far a walk came."""
MAX_KEPT_ROOMS: Final = 50_000
"""Of all walks that are remembered."""

_SPACE: Final = "m.space"


class TreeWish(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a tree a client asks for."""

    suggested_only: bool = False
    max_depth: int = MAX_DEPTH
    limit: int = MAX_PAGE
    since: str | None = None


class TreeRoom(Summary, frozen=True, kw_only=True, omit_defaults=True):
    """A room of the tree. `children_state`: stripped events with the time of each."""

    children_state: Sequence[msgspec.Raw]


class TreePage(msgspec.Struct, frozen=True, omit_defaults=True):
    rooms: list[TreeRoom]
    next_batch: str | None = None


class _Node(msgspec.Struct, frozen=True):
    """A room that the walk comes to."""

    room_id: RoomID
    depth: int
    via: Sequence[ServerName]  # who can tell of it
    parent: RemoteSpace | None = None  # the space that led here, if another server told of that


class _Local(msgspec.Struct, frozen=True):
    """A room of which something is known here. What is known of one that this server has left may be old."""

    room: Room
    summary: RoomSummary
    is_here: bool
    is_visible: bool  # to the requester


class _Found(msgspec.Struct, frozen=True):
    """A room that the requester may see."""

    summary: Summary
    children: Sequence[SpaceChild]
    told_by: RemoteSpace | None = None  # None: it is known here


class _Walk(msgspec.Struct):
    """How far a walk has come. `ahead`: the next node is the last."""

    ahead: list[_Node]
    seen: set[RoomID]
    passed: int = 0  # rooms before the page
    page: list[TreeRoom] = []
    is_full: bool = False


class _Pause(msgspec.Struct, frozen=True):
    """A walk between two pages."""

    walk: _Walk
    told: Mapping[RoomID, RemoteSpace | None]  # by other servers
    until: float  # monotonic


class Hierarchies:
    """Shows users the trees of spaces."""

    def __init__(
        self, db: Database, interner: Interner, fetch: FetchSpace, clock: Clock, *, sees_all: bool = False
    ) -> None:
        """`sees_all`: who asks is an administrator, and sees every room that is here."""
        self._db = db
        self._interner = interner
        self._fetch = fetch
        self._clock = clock
        self._sees_all = sees_all
        self._pauses: OrderedDict[tuple[int, RoomID, str], _Pause] = OrderedDict()

    async def get_page(self, requester: Requester, room_id: RoomID, wish: TreeWish) -> TreePage:
        """Raises: Forbidden (the space is not known, or not for the requester to see); BadToken, InvalidParam."""
        start = 0
        if wish.since is not None:
            suggested, max_depth, start = (int(key) for key in parse_list_token(wish.since, (int, int, int)))
            if (suggested, max_depth) != (int(wish.suggested_only), wish.max_depth):
                raise InvalidParam("suggested_only and max_depth cannot change between pages.")
        ways = await self._db.read(self._read_ways, requester, room_id)
        page = _Page(self._interner, requester.user_nid, wish, max(0, start), sees_all=self._sees_all)
        walk = _Walk([_Node(room_id, 0, ways)], set())
        pause = self._pauses.get((requester.user_nid, room_id, wish.since or ""))
        if pause is not None and self._clock.monotonic() < pause.until:
            page.recall(pause.told)
            walk = pause.walk
        deadline = self._clock.monotonic() + MAX_WAIT_S
        asked = 0
        while True:
            walk = await self._db.read(page.walk_on, walk)
            wanted = page.list_wanted(walk)
            if not wanted:
                break
            is_enough = asked >= MAX_ASKED or self._clock.monotonic() > deadline
            asked += len(wanted)
            answers = [None] * len(wanted) if is_enough else await self._ask(wanted, wish)
            page.learn(wanted, answers)
        if not walk.seen:
            raise Forbidden("You may not look into this room.")
        if not walk.is_full:
            return TreePage(walk.page)
        passed = start + len(walk.page)
        token = encode_list_token(int(wish.suggested_only), wish.max_depth, passed)
        rest = _Walk(walk.ahead, walk.seen, passed)
        self._pause((requester.user_nid, room_id, token), rest, page.told)
        return TreePage(walk.page, token)

    def _pause(
        self, key: tuple[int, RoomID, str], walk: _Walk, told: Mapping[RoomID, RemoteSpace | None]
    ) -> None:
        self._pauses[key] = _Pause(walk, told, self._clock.monotonic() + KEPT_S)
        self._pauses.move_to_end(key)
        while sum(len(one.walk.seen) for one in self._pauses.values()) > MAX_KEPT_ROOMS:
            self._pauses.popitem(last=False)

    async def _ask(self, wanted: Sequence[_Node], wish: TreeWish) -> list[RemoteSpace | None]:
        own = self._interner.own_server
        return await asyncio.gather(
            *(
                self._fetch([one for one in node.via if one != own], node.room_id, wish.suggested_only)
                for node in wanted
            )
        )

    def _read_ways(self, txn: ReadTxn, requester: Requester, room_id: RoomID) -> list[ServerName]:
        """Servers that may know the root, should this one not be in it."""
        ways = list_ways(txn, self._interner, room_id, requester.user_nid)
        try:
            return [*ways, server_of(room_id)]
        except BadIdentifier:
            return ways


class _Page:
    """What one page asks for, and what was learned for it."""

    def __init__(
        self, interner: Interner, user_nid: int, wish: TreeWish, start: int, *, sees_all: bool
    ) -> None:
        self._interner = interner
        self._user_nid = user_nid
        self._wish = wish
        self._start = start
        self._sees_all = sees_all
        self._told: dict[RoomID, RemoteSpace | None] = {}

    @property
    def told(self) -> Mapping[RoomID, RemoteSpace | None]:
        """What other servers told."""
        return self._told

    def recall(self, told: Mapping[RoomID, RemoteSpace | None]) -> None:
        """What they told for the page before."""
        self._told.update(told)

    def walk_on(self, txn: ReadTxn, before: _Walk) -> _Walk:
        """Walk until the page is full, the tree ends, or a room comes about which another server is to be asked.

        Cost: 5 queries for a space that is here; more for restricted rooms.
        """
        walk = _Walk(list(before.ahead), set(before.seen), before.passed, list(before.page))
        local: dict[RoomID, _Local] = {}
        while walk.ahead and len(walk.seen) < MAX_WALKED:
            node = walk.ahead[-1]
            if node.room_id in walk.seen:
                walk.ahead.pop()
                continue
            if node.room_id not in local:
                local |= self._load(txn, (node.room_id,))
            known = self._find(txn, node, local.get(node.room_id))
            if known is None and node.room_id not in self._told:
                return walk
            if known is not None and walk.passed == self._start and len(walk.page) == self._wish.limit:
                walk.is_full = True
                return walk
            walk.ahead.pop()
            if known is None:
                continue
            walk.seen.add(node.room_id)
            if walk.passed < self._start:
                walk.passed += 1
            else:
                walk.page.append(_shown(known))
            if node.depth < self._wish.max_depth:
                children = [_node(child, node, known) for child in known.children]
                local |= self._load(txn, {one.room_id for one in children} - local.keys())
                walk.ahead += reversed(children)
        walk.ahead = []
        return walk

    def list_wanted(self, walk: _Walk) -> list[_Node]:
        """The room for which the walk waits, and those that it will probably wait for next."""
        if walk.is_full or not walk.ahead:
            return []
        first = walk.ahead[-1]
        wanted = {first.room_id: first}
        for node in reversed(walk.ahead[-MAX_CHILDREN:]):
            if len(wanted) == MAX_ASKED_AT_ONCE or node.parent is not first.parent:
                break
            if node.room_id not in self._told and node.room_id not in walk.seen:
                wanted.setdefault(node.room_id, node)
        return list(wanted.values())

    def learn(self, nodes: Sequence[_Node], answers: Sequence[RemoteSpace | None]) -> None:
        """What others told of rooms; None: nothing."""
        self._told.update(zip((node.room_id for node in nodes), answers, strict=True))

    def _load(self, txn: ReadTxn, room_ids: Collection[RoomID]) -> dict[RoomID, _Local]:
        """Those of the rooms of which something is known here. Cost: 4 queries, and more for restricted rooms."""
        found = rooms.list_rooms_by_id(txn, room_ids)
        nids = [room.room_nid for room in found.values()]
        summaries = rooms.list_summaries(txn, nids)
        own = memberships.list_memberships_of_user(txn, self._user_nid, nids)
        here = list_here(txn, self._interner, found.values())
        local: dict[RoomID, _Local] = {}
        for room in found.values():
            summary = summaries.get(room.room_nid, RoomSummary())
            membership = own[room.room_nid].membership if room.room_nid in own else None
            is_visible = self._sees_all or may_preview(
                txn, self._interner, room, summary, self._user_nid, membership
            )
            local[room.room_id] = _Local(room, summary, room.room_nid in here, is_visible)
        return local

    def _find(self, txn: ReadTxn, node: _Node, local: _Local | None) -> _Found | None:
        """The room, if the requester may see it. What is known here counts, unless others know better."""
        if local is not None and local.is_here:
            if local.is_visible:
                return self._describe(txn, local)
            self._told[node.room_id] = None  # nobody else is to be asked
            return None
        told = self._told.get(node.room_id) or self._find_mentioned(node)
        if told is not None:
            return _Found(told.summary, told.children, told) if self._may_see(txn, told.summary) else None
        is_old = local is not None and local.is_visible and local.room.state_root != EMPTY
        return self._describe(txn, local) if local and is_old and node.room_id in self._told else None

    def _find_mentioned(self, node: _Node) -> RemoteSpace | None:
        """What the server that told of the space said of a room in it, where that is enough."""
        parent = node.parent
        if parent is None:
            return None
        if node.room_id in parent.inaccessible:
            self._told[node.room_id] = None  # "They should not be re-requested"
            return None
        summary = parent.known.get(node.room_id)
        if summary is None:
            return None
        has_more = summary.room_type == _SPACE and node.depth < self._wish.max_depth
        if has_more and node.room_id not in self._told:
            return None
        return RemoteSpace(parent.server, summary, (), {}, ())

    def _describe(self, txn: ReadTxn, local: _Local) -> _Found:
        allowed = list_allowed_rooms_of(txn, self._interner, local.room, local.summary)
        children = list_children(txn, local.room, local.summary, suggested_only=self._wish.suggested_only)
        return _Found(build_summary(local.room, local.summary, allowed), [child_of(one) for one in children])

    def _may_see(self, txn: ReadTxn, summary: Summary) -> bool:
        return may_preview_remote(txn, summary, self._user_nid)


def _node(child: SpaceChild, parent: _Node, found: _Found) -> _Node:
    told_by = found.told_by
    # Who tells of a space mostly knows what is in it, too.
    servers = child.via if told_by is None else (told_by.server, *child.via)
    return _Node(RoomID(child.room_id), parent.depth + 1, servers, told_by)


def _shown(found: _Found) -> TreeRoom:
    return TreeRoom(
        **msgspec.structs.asdict(found.summary),
        children_state=[msgspec.Raw(child.shown) for child in found.children],
    )


def list_children(txn: ReadTxn, room: Room, summary: RoomSummary, *, suggested_only: bool) -> Sequence[Pdu]:
    """The m.space.child events that hold, in the order in which children are shown; none if it is no space."""
    if summary.room_type != _SPACE:
        return ()
    nids = state.list_slots_of_type(txn, room.room_nid, CHILD).values()
    version = get_room_version(room.version)
    pdus = [pdu_of(record, room.room_id, version) for record in events.list_events(txn, nids).values()]
    held = [pdu for pdu in pdus if holds(pdu.content) and (is_suggested(pdu.content) or not suggested_only)]
    return sorted(held, key=lambda pdu: order_of(pdu.content, pdu.origin_server_ts, pdu.slot[1]))[
        :MAX_CHILDREN
    ]


def tree_room(
    txn: ReadTxn, interner: Interner, room: Room, summary: RoomSummary, children: Sequence[Pdu]
) -> TreeRoom:
    """A room of this server with its children."""
    allowed = list_allowed_rooms_of(txn, interner, room, summary)
    found = _Found(build_summary(room, summary, allowed), [child_of(child) for child in children])
    return _shown(found)
