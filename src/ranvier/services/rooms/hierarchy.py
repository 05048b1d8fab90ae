"""The tree of a space: its rooms, and those of the spaces in it.

A page is found by walking the tree from its root again: no page is kept for anybody, so any process can serve
the next one.
Spec: client-server API, "Discovering rooms within spaces".
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import msgspec

from ranvier.core.errors import Forbidden, InvalidParam
from ranvier.core.events.client import stripped_state
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID
from ranvier.core.room_versions import get_room_version
from ranvier.core.tokens import encode_list_token, parse_list_token
from ranvier.services.requester import Requester
from ranvier.services.rooms.access import may_preview
from ranvier.services.rooms.live import pdu_of
from ranvier.services.rooms.room_summary import Summary, build_summary, list_allowed_rooms_of
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, memberships, rooms, state
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.rooms import Room, RoomSummary

MAX_PAGE: Final = 100
MAX_DEPTH: Final = 100
MAX_WALKED: Final = 5_000
"""Rooms of one tree; what lies behind them is not shown."""
MAX_CHILDREN: Final = 1_000
"""Children of one space, in their order."""

_SPACE: Final = "m.space"
_CHILD: Final = "m.space.child"
_MAX_ORDER_CHARS: Final = 50


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


class Hierarchies:
    """Shows users the trees of spaces."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def get_page(self, requester: Requester, room_id: RoomID, wish: TreeWish) -> TreePage:
        """Raises: Forbidden (the space is not known, or not for the requester to see); BadToken, InvalidParam."""
        start = 0
        if wish.since is not None:
            suggested, max_depth, start = (int(key) for key in parse_list_token(wish.since, (int, int, int)))
            if (suggested, max_depth) != (int(wish.suggested_only), wish.max_depth):
                raise InvalidParam("suggested_only and max_depth cannot change between pages.")
        return await self._db.read(_read_page, self._interner, requester, room_id, wish, max(0, start))


class _Known(msgspec.Struct, frozen=True):
    """A room of this server that the requester may see."""

    room: Room
    summary: RoomSummary


def _read_page(
    txn: ReadTxn, interner: Interner, requester: Requester, room_id: RoomID, wish: TreeWish, start: int
) -> TreePage:
    walk = _Walk(txn, interner, requester, suggested_only=wish.suggested_only)
    page: list[TreeRoom] = []
    for count, (known, children) in enumerate(walk.rooms(room_id, wish.max_depth)):
        if count < start:
            continue
        if len(page) == wish.limit:
            token = encode_list_token(int(wish.suggested_only), wish.max_depth, count)
            return TreePage(page, token)
        page.append(tree_room(txn, interner, known.room, known.summary, children))
    return TreePage(page)


class _Walk:
    """One walk through one tree."""

    def __init__(
        self, txn: ReadTxn, interner: Interner, requester: Requester, *, suggested_only: bool
    ) -> None:
        self._txn = txn
        self._interner = interner
        self._user_nid = requester.user_nid
        self._suggested_only = suggested_only

    def rooms(self, root: RoomID, max_depth: int) -> Iterator[tuple[_Known, Sequence[Pdu]]]:
        """Each room once, depth first, with its children. Raises: Forbidden."""
        known = self._load((root,))
        if root not in known:
            raise Forbidden("You may not look into this room.")
        ahead = [(root, 0)]
        seen: set[RoomID] = set()
        while ahead and len(seen) < MAX_WALKED:
            room_id, depth = ahead.pop()
            if room_id in seen or room_id not in known:
                continue
            seen.add(room_id)
            children = list_children(
                self._txn,
                known[room_id].room,
                known[room_id].summary,
                suggested_only=self._suggested_only,
            )
            yield known[room_id], children
            if depth < max_depth:
                child_ids = [RoomID(child.slot[1]) for child in children]
                known |= self._load([child_id for child_id in child_ids if child_id not in known])
                ahead += [(child_id, depth + 1) for child_id in reversed(child_ids)]

    def _load(self, room_ids: Collection[RoomID]) -> dict[RoomID, _Known]:
        """Those of the rooms that are known here and may be seen. Cost: 3 queries, and more for restricted rooms."""
        found = rooms.list_rooms_by_id(self._txn, room_ids)
        nids = [room.room_nid for room in found.values()]
        summaries = rooms.list_summaries(self._txn, nids)
        own = memberships.list_memberships_of_user(self._txn, self._user_nid, nids)
        visible: dict[RoomID, _Known] = {}
        for room in found.values():
            summary = summaries.get(room.room_nid, RoomSummary())
            membership = own[room.room_nid].membership if room.room_nid in own else None
            if may_preview(self._txn, self._interner, room, summary, self._user_nid, membership):
                visible[room.room_id] = _Known(room, summary)
        return visible


def list_children(txn: ReadTxn, room: Room, summary: RoomSummary, *, suggested_only: bool) -> Sequence[Pdu]:
    """The m.space.child events that hold, in the order in which children are shown; none if it is no space."""
    if summary.room_type != _SPACE:
        return ()
    nids = state.list_slots_of_type(txn, room.room_nid, _CHILD).values()
    version = get_room_version(room.version)
    pdus = [pdu_of(record, room.room_id, version) for record in events.list_events(txn, nids).values()]
    held = [pdu for pdu in pdus if _holds(pdu.content, suggested_only=suggested_only)]
    return sorted(held, key=_order)[:MAX_CHILDREN]


def _holds(content: dict[str, Any], *, suggested_only: bool) -> bool:
    """Spec: m.space.child without `via` removes the child."""
    via = content.get("via")
    if not isinstance(via, list) or not any(isinstance(server, str) and server for server in via):
        return False
    return not suggested_only or content.get("suggested") is True


def _order(child: Pdu) -> tuple[bool, str, int, str]:
    """Spec: "Ordering of children within a space"."""
    order = child.content.get("order")
    is_valid = (
        isinstance(order, str)
        and len(order) <= _MAX_ORDER_CHARS
        and all("\x20" <= character <= "\x7e" for character in order)
    )
    return (
        not is_valid,
        order if is_valid and isinstance(order, str) else "",
        child.origin_server_ts,
        child.slot[1],
    )


def tree_room(
    txn: ReadTxn, interner: Interner, room: Room, summary: RoomSummary, children: Sequence[Pdu]
) -> TreeRoom:
    allowed = list_allowed_rooms_of(txn, interner, room, summary)
    return TreeRoom(
        **msgspec.structs.asdict(build_summary(room, summary, allowed)),
        children_state=[_stripped(child) for child in children],
    )


def _stripped(child: Pdu) -> msgspec.Raw:
    """Spec: stripped state "with an added origin_server_ts"."""
    return msgspec.Raw(b'%b,"origin_server_ts":%d}' % (stripped_state(child)[:-1], child.origin_server_ts))
