"""What a pusher has to tell: read whole, in one transaction."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import RoomID, UserID
from ranvier.core.push.rules import outcome_of
from ranvier.services.push.audience import read_names
from ranvier.services.push.gateway import Notice
from ranvier.services.push.pushers import EMAIL, HTTP
from ranvier.store.database import ReadTxn
from ranvier.store.tables import notifications, pushers, rooms
from ranvier.store.tables.events import EventRecord, list_events
from ranvier.store.tables.interned import Interner, list_user_ids
from ranvier.store.tables.notifications import Notified
from ranvier.store.tables.pushers import Pusher
from ranvier.store.tables.rooms import RoomSummary

MAX_NOTICES: Final = 20
"""In one go."""

MAX_AGE_MS: Final[Mapping[str, int]] = {HTTP: 86_400_000, EMAIL: 7 * 86_400_000}
"""What a gateway did not take within a day is no news any more. Mails wait for long by themselves."""


class Notices(msgspec.Struct, frozen=True):
    """What is to be told, oldest first."""

    pusher: Pusher
    notices: Sequence[Notice]
    unread: int
    up_to: int  # all up to here is among `notices`, or not worth telling
    is_cut: bool  # there is more behind it
    position: int  # when this was read


class _Stored(msgspec.Struct):
    content: JsonObject
    state_key: str | None = None


_STORED: Final = msgspec.json.Decoder(_Stored)


def read_notices(txn: ReadTxn, interner: Interner, pusher_nid: int, now_ms: int) -> Notices | None:
    """None if the pusher is gone. Cost: 4 queries; with notices 4 more, and 2 for each room that they are from."""
    pusher = pushers.find_pusher(txn, pusher_nid)
    if pusher is None:
        return None
    oldest_ms = now_ms - MAX_AGE_MS[pusher.keys.kind]
    found = notifications.list_to_push(txn, pusher.user_nid, pusher.pushed_nid, txn.position, MAX_NOTICES)
    records = list_events(txn, [one.event_nid for one in found if not one.is_read])
    news = [
        (one, records[one.event_nid])
        for one in found
        if one.event_nid in records and _is_news(records[one.event_nid], oldest_ms)
    ]
    is_cut = len(found) == MAX_NOTICES
    # Another process may have seen and told more than this one sees.
    position = max(txn.position, pusher.pushed_nid)
    return Notices(
        pusher,
        _describe(txn, interner, pusher.user_nid, news) if news else (),
        notifications.count_unread(txn, pusher.user_nid),
        found[-1].event_nid if is_cut else position,
        is_cut,
        position,
    )


def _is_news(record: EventRecord, oldest_ms: int) -> bool:
    return record.redacted_by is None and record.origin_server_ts > oldest_ms


def _describe(
    txn: ReadTxn, interner: Interner, user_nid: int, news: Sequence[tuple[Notified, EventRecord]]
) -> list[Notice]:
    room_nids = {record.room_nid for _, record in news}
    room_ids = {nid: room.room_id for nid, room in rooms.list_rooms(txn, room_nids).items()}
    summaries = rooms.list_summaries(txn, room_nids)
    user_ids = list_user_ids(txn, interner, {user_nid, *(record.sender_nid for _, record in news)})
    names = {
        room_nid: read_names(
            txn,
            room_nid,
            {
                record.sender_nid: user_ids[record.sender_nid]
                for _, record in news
                if record.room_nid == room_nid
            },
        )
        for room_nid in room_nids
    }
    return [
        _notice(
            one,
            record,
            room_ids[record.room_nid],
            _People(user_ids[user_nid], user_ids[record.sender_nid], names[record.room_nid]),
            summaries.get(record.room_nid, RoomSummary()),
        )
        for one, record in news
    ]


class _People(msgspec.Struct, frozen=True):
    reader: UserID
    sender: UserID
    names: Mapping[UserID, str]


def _notice(
    one: Notified, record: EventRecord, room_id: RoomID, people: _People, summary: RoomSummary
) -> Notice:
    stored = _STORED.decode(record.json)
    return Notice(
        event_nid=record.event_nid,
        event_id=record.event_id,
        room_id=room_id,
        type=record.type,
        sender=people.sender,
        content=stored.content,
        is_about_user=record.type == "m.room.member" and stored.state_key == people.reader,
        outcome=outcome_of(msgspec.json.decode(one.actions)),
        sender_name=people.names.get(people.sender),
        room_name=summary.name,
        room_alias=summary.canonical_alias,
    )
