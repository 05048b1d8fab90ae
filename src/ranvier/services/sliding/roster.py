"""A user's rooms, with what lists sort and filter by.

Read whole once, then kept in memory and brought forward by what changed: one query for the rooms in which
something happened, and some more when something of the user's own did.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from ranvier.core import invite_permission
from ranvier.services.changes import Changed
from ranvier.services.rooms.permissions import list_unwanted
from ranvier.services.sync.standing import Standing
from ranvier.store.database import ReadTxn
from ranvier.store.tables.account_data import GLOBAL, find_account_data, list_account_data_changes
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.memberships import (
    BAN,
    INVITE,
    JOIN,
    KNOCK,
    list_membership_changes,
    list_stripped_states,
)
from ranvier.store.tables.sliding import (
    Absence,
    RoomFacts,
    find_room_nids,
    list_absences,
    list_facts,
    list_once_joined,
    list_room_account_data_of_type,
)

MAX_DIRECT: Final = 50_000
"""Rooms that one user's m.direct names; more are passed over."""
MAX_TAGS: Final = 1_000
"""Of one room."""

_DIRECT: Final = "m.direct"
_TAG: Final = "m.tag"
_GLOBAL_TYPES: Final = (_DIRECT, *invite_permission.TYPES)
NO_FACTS: Final = RoomFacts(0, 0, None, False)


class Place(msgspec.Struct, frozen=True):
    """What a room is to the user."""

    membership: str
    position: int  # since when
    event_nid: int  # of the membership; 0 where it is `join`
    recency: int  # what lists sort by
    was_joined: bool  # once, at least, and not forgotten since
    is_listed: bool  # False: left, so of interest only to clients that were told of the room


class Content(msgspec.Struct, frozen=True, eq=False):
    """What a roster says. Compared by identity: the same object means that nothing changed."""

    places: Mapping[int, Place]  # by room_nid
    newest_first: tuple[int, ...]  # the listed ones
    facts: Mapping[int, RoomFacts]
    types: Mapping[int, str]  # of the rooms that have one: few
    encrypted: AbstractSet[int]
    direct: AbstractSet[int]
    tags: Mapping[int, AbstractSet[str]]
    left: tuple[int, ...]  # the rooms that are not listed
    joined: Mapping[int, int]  # that of the standing which it was made from
    ignored: AbstractSet[int]


class Roster(msgspec.Struct, frozen=True):
    position: int  # up to which it is right
    content: Content


def read_roster(
    txn: ReadTxn,
    interner: Interner,
    user_nid: int,
    standing: Standing,
    old: Roster | None,
    changed: Changed | None,
) -> Roster:
    """The roster where the standing is. `changed`: since `old`; None: not known.

    Cost: nothing if nothing changed; else 1 query for rooms, and up to 12 for what is the user's own.
    """
    now = standing.position
    if old is not None and old.position >= now:
        return old
    if old is None or changed is None:
        return Roster(now, _read_all(txn, interner, user_nid, standing))
    if changed.user:
        return Roster(now, _read_own(txn, interner, user_nid, standing, old, changed.rooms))
    return Roster(now, _with_facts(txn, old.content, changed.rooms & standing.rooms))


def _read_all(txn: ReadTxn, interner: Interner, user_nid: int, standing: Standing) -> Content:
    facts = list_facts(txn, standing.rooms)
    places = _joined_places(standing, facts)
    absent = _read_absent(txn, interner, user_nid, standing)
    facts |= _absent_facts(txn, absent)
    places |= absent
    return _content(places, facts, _read_direct(txn, user_nid), _read_tags(txn, user_nid), standing)


def _read_own(
    txn: ReadTxn,
    interner: Interner,
    user_nid: int,
    standing: Standing,
    old: Roster,
    rooms: AbstractSet[int],
) -> Content:
    """What is left of the old one where something of the user's own changed."""
    content, now = old.content, standing.position
    said = {
        one.type
        for one in list_account_data_changes(txn, user_nid, old.position, now)
        if (one.room_nid == GLOBAL) == (one.type in _GLOBAL_TYPES)
    }
    direct = _read_direct(txn, user_nid) if _DIRECT in said else content.direct
    tags = _read_tags(txn, user_nid) if _TAG in said else content.tags
    # A room that was forgotten leaves no trace but this: it was listed though it had been left.
    is_moved = (
        content.joined != standing.joined
        or content.ignored != standing.ignored
        or not said.isdisjoint(invite_permission.TYPES)
        or any(place.membership not in (JOIN, INVITE, KNOCK) for place in content.places.values())
        or bool(list_membership_changes(txn, user_nid, old.position, now))
    )
    if not is_moved:
        if direct is not content.direct or tags is not content.tags:
            content = msgspec.structs.replace(content, direct=direct, tags=tags)
        return _with_facts(txn, content, rooms & standing.rooms)
    stale = (rooms & standing.rooms) | {nid for nid in standing.rooms if nid not in content.joined}
    facts = {**content.facts, **list_facts(txn, stale)}
    places = _joined_places(standing, facts)
    absent = _read_absent(txn, interner, user_nid, standing)
    facts |= _absent_facts(txn, absent)
    places |= absent
    return _content(places, facts, direct, tags, standing)


def _with_facts(txn: ReadTxn, content: Content, rooms: Collection[int]) -> Content:
    """The content with the facts of rooms as they are now; the very same if none is another."""
    found = list_facts(txn, rooms) if rooms else {}
    news = {nid: facts for nid, facts in found.items() if content.facts.get(nid) != facts}
    if not news:
        return content
    places = {**content.places}
    for nid, facts in news.items():
        place = places[nid]
        places[nid] = msgspec.structs.replace(place, recency=facts.newest_position or place.position)
    moved = {nid for nid in news if places[nid].recency != content.places[nid].recency}
    order = content.newest_first
    if moved:
        first = sorted(moved, key=lambda nid: places[nid].recency, reverse=True)
        order = (*first, *[nid for nid in order if nid not in moved])
    all_facts = {**content.facts, **news}
    types, encrypted = content.types, content.encrypted
    if any(_kind(one) != _kind(content.facts.get(nid, NO_FACTS)) for nid, one in news.items()):
        types, encrypted = _read_kinds(all_facts)
    return msgspec.structs.replace(
        content, places=places, facts=all_facts, newest_first=order, types=types, encrypted=encrypted
    )


def _kind(facts: RoomFacts) -> tuple[str | None, bool]:
    return facts.room_type, facts.is_encrypted


def _read_kinds(facts: Mapping[int, RoomFacts]) -> tuple[Mapping[int, str], AbstractSet[int]]:
    """What lists filter by: the types of rooms that have one, and those that are encrypted."""
    types = {nid: one.room_type for nid, one in facts.items() if one.room_type is not None}
    return types, frozenset([nid for nid, one in facts.items() if one.is_encrypted])


def _content(
    places: Mapping[int, Place],
    facts: Mapping[int, RoomFacts],
    direct: AbstractSet[int],
    tags: Mapping[int, AbstractSet[str]],
    standing: Standing,
) -> Content:
    listed = [nid for nid, place in places.items() if place.is_listed]
    listed.sort(key=lambda nid: places[nid].recency, reverse=True)
    left = tuple(nid for nid, place in places.items() if not place.is_listed)
    return Content(
        places,
        tuple(listed),
        facts,
        *_read_kinds(facts),
        direct,
        tags,
        left,
        standing.joined,
        standing.ignored,
    )


def _joined_places(standing: Standing, facts: Mapping[int, RoomFacts]) -> dict[int, Place]:
    return {
        nid: Place(JOIN, since, 0, facts.get(nid, NO_FACTS).newest_position or since, True, True)
        for nid, since in standing.joined.items()
    }


def _read_absent(txn: ReadTxn, interner: Interner, user_nid: int, standing: Standing) -> dict[int, Place]:
    """Where the user is not joined, but something else."""
    absences = [
        one
        for one in list_absences(txn, user_nid)
        if one.position <= standing.position and one.room_nid not in standing.rooms
    ]
    inviters = {one.sender_nid for one in absences if one.membership == INVITE}
    if inviters:
        unwanted = {*standing.ignored, *list_unwanted(txn, interner, user_nid, inviters)}
        absences = [one for one in absences if one.membership != INVITE or one.sender_nid not in unwanted]
    gone = [one.room_nid for one in absences if one.membership not in (INVITE, KNOCK)]
    once = list_once_joined(txn, user_nid, gone) if gone else set()
    return {one.room_nid: _absent_place(one, user_nid, one.room_nid in once) for one in absences}


def _absent_place(one: Absence, user_nid: int, was_joined: bool) -> Place:
    # Spec: MSC4186, "Lists": whoever was kicked or banned is shown so; whoever went knows it.
    is_thrown_out = one.membership == BAN or one.sender_nid != user_nid
    was_joined = was_joined and not one.is_forgotten
    is_listed = one.membership in (INVITE, KNOCK) or (is_thrown_out and was_joined)
    return Place(one.membership, one.position, one.event_nid, one.position, was_joined, is_listed)


class _StrippedContent(msgspec.Struct, frozen=True):
    type: object = None
    algorithm: object = None


class _Stripped(msgspec.Struct):
    type: object = None
    state_key: object = None
    content: _StrippedContent = _StrippedContent()


_STRIPPED: Final = msgspec.json.Decoder(list[_Stripped])


def _absent_facts(txn: ReadTxn, places: Mapping[int, Place]) -> dict[int, RoomFacts]:
    """Facts of rooms in which the user is not joined; of those that are elsewhere, what the invite shows."""
    if not places:
        return {}
    facts = list_facts(txn, places)
    shown = list_stripped_states(
        txn, [place.event_nid for place in places.values() if place.membership in (INVITE, KNOCK)]
    )
    if shown:
        for nid, place in places.items():
            if place.event_nid in shown:
                facts[nid] = _shown_facts(shown[place.event_nid])
    return facts


def _shown_facts(stripped: bytes) -> RoomFacts:
    try:
        events = _STRIPPED.decode(stripped)
    except msgspec.DecodeError:  # other servers wrote it: what cannot be read shows nothing
        return NO_FACTS
    room_type, is_encrypted = None, False
    for event in events:
        if event.state_key != "":
            continue
        if event.type == "m.room.create" and isinstance(event.content.type, str):
            room_type = event.content.type
        is_encrypted = is_encrypted or event.type == "m.room.encryption"
    return RoomFacts(0, 0, room_type, is_encrypted)


def _read_direct(txn: ReadTxn, user_nid: int) -> AbstractSet[int]:
    """The rooms that m.direct names. Spec: client-server API, "Direct Messaging"."""
    content = find_account_data(txn, user_nid, GLOBAL, _DIRECT)
    if content is None:
        return frozenset()
    named = msgspec.json.decode(content)
    room_ids = [
        room_id
        for rooms in (named.values() if isinstance(named, dict) else ())
        if isinstance(rooms, list)
        for room_id in rooms
        if isinstance(room_id, str)
    ]
    return frozenset(find_room_nids(txn, room_ids[:MAX_DIRECT]).values())


def _read_tags(txn: ReadTxn, user_nid: int) -> Mapping[int, AbstractSet[str]]:
    """Spec: client-server API, "Room Tagging"."""
    found = {}
    for room_nid, content in list_room_account_data_of_type(txn, user_nid, _TAG).items():
        tags = msgspec.json.decode(content)
        named = tags.get("tags") if isinstance(tags, dict) else None
        if isinstance(named, dict):
            found[room_nid] = frozenset(list(named)[:MAX_TAGS])
    return found
