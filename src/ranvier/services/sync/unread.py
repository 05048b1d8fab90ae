"""How much is unread, for many users and rooms at once.

Spec: client-server API, "Receiving notifications"; GET /sync, `unread_notifications`.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import orjson

from ranvier.core.filters import EventSelector
from ranvier.store.database import ReadTxn
from ranvier.store.tables.events import list_event_ids
from ranvier.store.tables.notifications import Counts, RoomCounts, list_unread

Unread = Mapping[tuple[int, int], RoomCounts]
"""(user_nid, room_nid) -> counts; who has read all is left out."""


def read_unread(txn: ReadTxn, wanted: Iterable[tuple[int, frozenset[int]]]) -> Unread:
    """The counts of users in rooms; users who ask about the same rooms are asked about together.

    Cost: 3 queries for each different set of rooms.
    """
    users: dict[frozenset[int], list[int]] = {}
    for user_nid, room_nids in wanted:
        if room_nids:
            users.setdefault(room_nids, []).append(user_nid)
    found: dict[tuple[int, int], RoomCounts] = {}
    for room_nids, user_nids in users.items():
        found |= list_unread(txn, user_nids, room_nids)
    return found


def encode_unread(
    txn: ReadTxn, unread: Unread, user_nid: int, room_nids: Collection[int], timeline: EventSelector
) -> dict[int, bytes]:
    """room_nid -> the members of the room's section, where anything is unread; elsewhere they are NONE_UNREAD.

    Cost: 1 query if threads are unread and asked about.
    """
    with_threads = timeline.unread_thread_notifications
    counts = {nid: one for nid in room_nids if (one := unread.get((user_nid, nid))) is not None}
    encoded: dict[int, bytes] = {}
    roots = {root for one in counts.values() for root in one.threads} if with_threads else set()
    names = list_event_ids(txn, roots) if roots else {}
    for nid, one in counts.items():
        text = b'"unread_notifications":' + _encode(one.main if with_threads else one.total)
        threads = {names[root]: of for root, of in one.threads.items() if root in names}
        if threads:
            inner = b",".join([orjson.dumps(name) + b":" + _encode(of) for name, of in threads.items()])
            text += b',"unread_thread_notifications":{%b}' % inner
        encoded[nid] = text
    return encoded


def _encode(counts: Counts) -> bytes:
    return b'{"highlight_count":%d,"notification_count":%d}' % (counts.highlight, counts.notify)


NONE_UNREAD: Final = b'"unread_notifications":' + _encode(Counts())
