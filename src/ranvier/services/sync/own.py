"""What of a response is one user's own: account data, private receipts, invites and knocks.

Spec: client-server API, "Client Config", "Receipts", "Stripped state".
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import orjson

from ranvier.core.filters import EventSelector, FilterableEvent
from ranvier.core.identifiers import RoomID, StateKey
from ranvier.services.push.rules import read_push_rules
from ranvier.services.requester import Requester
from ranvier.services.rooms.permissions import list_unwanted
from ranvier.services.sync.standing import Pending
from ranvier.store.database import ReadTxn
from ranvier.store.tables.account_data import (
    GLOBAL,
    AccountData,
    list_account_data,
    list_account_data_changes,
    list_account_data_of_rooms,
)
from ranvier.store.tables.events import EventRecord, list_events
from ranvier.store.tables.interned import Interner, find_state_key_nids, list_user_ids
from ranvier.store.tables.memberships import INVITE, list_stripped_states
from ranvier.store.tables.state import list_slots_of_rooms

SHOWN_STATE: Final[tuple[StateKey, ...]] = tuple(
    (event_type, "")
    for event_type in (
        "m.room.create",
        "m.room.name",
        "m.room.avatar",
        "m.room.topic",
        "m.room.join_rules",
        "m.room.canonical_alias",
        "m.room.encryption",
    )
)
"""What somebody outside of a room is shown of it."""

_PUSH_RULES: Final = "m.push_rules"


def read_account_data(
    txn: ReadTxn, requester: Requester, since: int | None, upto: int, fresh_rooms: Collection[int]
) -> dict[int, list[AccountData]]:
    """What changed after `since`, push rules included, and all there is of rooms that are new to the client.

    Cost: 2 queries, one more with fresh rooms.
    """
    user_nid = requester.user_nid
    if since is None:
        found = list_account_data(txn, user_nid, upto)
    else:
        fresh = set(fresh_rooms)
        changes = list_account_data_changes(txn, user_nid, since, upto)
        found = [one for one in changes if one.room_nid not in fresh]
        if fresh:
            found += list_account_data_of_rooms(txn, user_nid, fresh)
    rules = read_push_rules(txn, user_nid, requester.user_id, since or 0)
    if rules is not None:
        found.append(AccountData(GLOBAL, _PUSH_RULES, rules, upto))
    by_room: dict[int, list[AccountData]] = {}
    for one in found:
        by_room.setdefault(one.room_nid, []).append(one)
    return by_room


def account_data_events(
    found: Iterable[AccountData], selector: EventSelector, room_id: RoomID | None
) -> list[bytes]:
    """Account data as events. What was deleted is shown as empty."""
    return [
        b'{"content":%b,"type":%b}' % (one.content or b"{}", orjson.dumps(one.type))
        for one in found
        if not selector.checks
        or selector.matches(
            FilterableEvent(one.type, None, room_id, orjson.loads(one.content) if one.content else {})
        )
    ]


class Shown(msgspec.Struct, frozen=True):
    """What an invited or knocking user sees of a room."""

    room_nid: int
    membership: str
    events: Sequence[
        bytes
    ]  # stripped; the user's own member event comes last, and says which it is and when it was


def read_wanted(
    txn: ReadTxn, interner: Interner, user_nid: int, pending: Sequence[Pending], ignored: Collection[int]
) -> list[Shown]:
    """Invites and knocks as a client of the user is to see them: without the invites of ignored users, and of those
    whom the user does not let invite.

    Cost: nothing without any; else 7 queries, or 8.
    """
    if not pending:
        return []
    members = list_events(txn, [one.event_nid for one in pending])
    senders = {members[one.event_nid].sender_nid for one in pending if one.event_nid in members}
    unwanted = {*ignored, *list_unwanted(txn, interner, user_nid, senders)}
    pending = [
        one
        for one in pending
        if one.event_nid in members
        and not (one.membership == INVITE and members[one.event_nid].sender_nid in unwanted)
    ]
    return _show(txn, interner, pending, members)


def read_pending(txn: ReadTxn, interner: Interner, pending: Sequence[Pending]) -> list[Shown]:
    """Invites and knocks. Cost: nothing without any; else 5 queries."""
    if not pending:
        return []
    members = list_events(txn, [one.event_nid for one in pending])
    return _show(txn, interner, [one for one in pending if one.event_nid in members], members)


def _show(
    txn: ReadTxn, interner: Interner, pending: Sequence[Pending], members: Mapping[int, EventRecord]
) -> list[Shown]:
    if not pending:
        return []
    given = list_stripped_states(txn, [one.event_nid for one in pending])
    here = _read_state(txn, interner, [one for one in pending if one.event_nid not in given], members)
    shown = []
    for one in pending:
        if one.event_nid in given:
            events = [
                bytes(event) for event in msgspec.json.decode(given[one.event_nid], type=list[msgspec.Raw])
            ]
        else:
            events = [strip(record) for record in here[one.room_nid]]
        own = strip(members[one.event_nid])
        others = [event for event in events if event != own]
        shown.append(Shown(one.room_nid, one.membership, [*others, _date(own, members[one.event_nid])]))
    return shown


def _read_state(
    txn: ReadTxn, interner: Interner, pending: Sequence[Pending], members: Mapping[int, EventRecord]
) -> dict[int, list[EventRecord]]:
    """What is shown of rooms whose state is here, the inviter's own member event included."""
    senders = list_user_ids(txn, interner, {members[one.event_nid].sender_nid for one in pending})
    inviters: dict[int, StateKey] = {
        one.room_nid: ("m.room.member", senders[members[one.event_nid].sender_nid]) for one in pending
    }
    slots = find_state_key_nids(txn, interner, {*SHOWN_STATE, *inviters.values()})
    filled = list_slots_of_rooms(txn, list(inviters), slots.values())
    records = list_events(txn, {nid for entries in filled.values() for nid in entries.values()})
    found = {}
    for room_nid, inviter in inviters.items():
        entries = filled[room_nid]
        wanted = [slots[slot] for slot in (*SHOWN_STATE, inviter) if slot in slots]
        found[room_nid] = [records[entries[slot]] for slot in wanted if slot in entries]
    return found


class _Stored(msgspec.Struct, gc=False):
    content: msgspec.Raw
    sender: msgspec.Raw
    state_key: msgspec.Raw
    type: msgspec.Raw


_STORED: Final = msgspec.json.Decoder(_Stored)


def strip(record: EventRecord) -> bytes:
    """The stripped form of a stored state event."""
    stored = _STORED.decode(record.json)
    return b'{"content":%b,"sender":%b,"state_key":%b,"type":%b}' % (
        stored.content,
        stored.sender,
        stored.state_key,
        stored.type,
    )


def _date(stripped: bytes, record: EventRecord) -> bytes:
    """SPEC: stripped state has four fields; clients need these two as well, to sort invites and to say how old
    one is, and show 1970 without."""
    event_id = msgspec.json.encode(record.event_id)
    return b'%b,"event_id":%b,"origin_server_ts":%d}' % (stripped[:-1], event_id, record.origin_server_ts)
