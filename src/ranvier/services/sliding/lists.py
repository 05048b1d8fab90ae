"""Lists of rooms: which of a user's rooms belong to one, in which order, and what its windows show.

Pure functions over a roster, but for spaces, whose children stand in the state of rooms.
"""

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from ranvier.core.identifiers import StateKey
from ranvier.services.sliding.request import Filters, Range
from ranvier.services.sliding.roster import Content
from ranvier.services.sliding.told import Knowledge
from ranvier.services.sliding.windows import Window, WindowedList
from ranvier.store.database import ReadTxn
from ranvier.store.tables.events import list_events
from ranvier.store.tables.interned import Interner, list_state_keys
from ranvier.store.tables.memberships import INVITE, JOIN
from ranvier.store.tables.sliding import find_room_nids
from ranvier.store.tables.state import list_slots_of_type

_CHILD = "m.space.child"


def newest_first(content: Content, knowledge: Knowledge) -> Sequence[int]:
    """The rooms of the server's list, by their latest event, newest first. A room that was left belongs to it if
    the client was told of the room. Spec: MSC4186, "Lists", "Activity ordering"."""
    gone = [nid for nid in content.left if nid in knowledge.rooms]
    if knowledge.is_stale:
        # The client may have been told of it before it was left.
        gone = [
            nid for nid in content.left if content.places[nid].position > knowledge.position or nid in gone
        ]
    if not gone:
        return content.newest_first
    places = content.places
    return sorted((*content.newest_first, *gone), key=lambda nid: places[nid].recency, reverse=True)


def select(
    content: Content, rooms: Sequence[int], filters: Filters, children: Mapping[str, AbstractSet[int]]
) -> Sequence[int]:
    """Those of the rooms that belong to a list. `children`: of spaces. Spec: MSC4186, `SlidingRoomFilter`."""
    places, types = content.places, content.types
    if filters.is_dm is not None:
        rooms = [nid for nid in rooms if (nid in content.direct) == filters.is_dm]
    if filters.is_invited is not None:
        rooms = [nid for nid in rooms if (places[nid].membership == INVITE) == filters.is_invited]
    if filters.is_encrypted is not None:
        rooms = [nid for nid in rooms if (nid in content.encrypted) == filters.is_encrypted]
    if filters.room_types is not None:
        rooms = [nid for nid in rooms if types.get(nid) in filters.room_types]
    if None in filters.not_room_types:
        rooms = [nid for nid in rooms if nid in types]
    if unwanted := {nid for nid, one in types.items() if one in filters.not_room_types}:
        rooms = [nid for nid in rooms if nid not in unwanted]
    if filters.tags is not None:
        rooms = [nid for nid in rooms if not filters.tags.isdisjoint(content.tags.get(nid, ()))]
    if filters.not_tags:
        rooms = [nid for nid in rooms if filters.not_tags.isdisjoint(content.tags.get(nid, ()))]
    if filters.spaces is not None:
        inside = {nid for space in filters.spaces for nid in children.get(space, ())}
        rooms = [nid for nid in rooms if nid in inside]
    return rooms


def cut(rooms: Sequence[int], ranges: Sequence[Range] | None) -> WindowedList:
    """The windows over the rooms of a list; without ranges, one that shows everything."""
    if ranges is None:
        ranges = ((0, max(0, len(rooms) - 1)),)
    return WindowedList(len(rooms), [Window(one, rooms[one[0] : one[1] + 1]) for one in ranges])


class _ChildContent(msgspec.Struct):
    via: object = None


class _Child(msgspec.Struct):
    content: _ChildContent


def read_children(
    txn: ReadTxn, interner: Interner, content: Content, spaces: Collection[str]
) -> dict[str, AbstractSet[int]]:
    """The rooms that spaces name as children, of those spaces that the user is joined to.

    Spec: client-server API, "Spaces": a child event without `via` names none. Cost: 4 queries a space.
    """
    found: dict[str, AbstractSet[int]] = {}
    for space, room_nid in find_room_nids(txn, spaces).items():
        place = content.places.get(room_nid)
        if place is None or place.membership != JOIN:
            continue
        slots = list_slots_of_type(txn, room_nid, _CHILD)
        records = list_events(txn, slots.values())
        valid = {slot for slot, nid in slots.items() if nid in records and _has_via(records[nid].json)}
        names: Mapping[int, StateKey] = list_state_keys(txn, interner, valid)
        found[space] = frozenset(find_room_nids(txn, [key for _, key in names.values()]).values())
    return found


def _has_via(json: bytes) -> bool:
    try:
        via = msgspec.json.decode(json, type=_Child).content.via
    except msgspec.DecodeError:
        return False
    return isinstance(via, list) and bool(via)
