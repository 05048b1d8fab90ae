"""Which events are sticky, and for how long.

Table: sticky_events. Written by `append`. Growth: one row a sticky event, until it expires: then the next one that
comes in takes it away. Index -> query: by_room -> what is new in rooms; by_time -> expiry.

Spec: MSC4354.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.events.pdu import Pdu
from ranvier.core.events.sticky import sticky_duration_ms
from ranvier.store.database import ReadTxn, WriteTxn


class StickyEvent(msgspec.Struct, frozen=True):
    event_nid: int
    room_nid: int
    sender_nid: int
    position: int
    expires_ms: int


_INSERT: Final = """
    INSERT INTO sticky_events (event_nid, room_nid, sender_nid, position, expires_ms)
    VALUES (:event_nid, :room_nid, :sender_nid, :position, :expires_ms) ON CONFLICT (event_nid) DO NOTHING
"""
_DELETE_EXPIRED: Final = "DELETE FROM sticky_events WHERE expires_ms <= :now_ms"
_LIST: Final = """
    SELECT event_nid, room_nid, sender_nid, position, expires_ms FROM sticky_events
    WHERE room_nid IN (:room_nids[]) AND position > :after AND position <= :upto AND expires_ms > :now_ms
    ORDER BY position LIMIT :limit
"""


def insert_if_sticky(
    txn: WriteTxn, pdu: Pdu, event_nid: int, room_nid: int, sender_nid: int, position: int, now_ms: int
) -> None:
    """Note that an event is sticky, if it is and for as long. Cost: nothing for all others."""
    duration_ms = sticky_duration_ms(pdu.json)
    if duration_ms is None:
        return
    expires_ms = min(pdu.origin_server_ts, now_ms) + duration_ms
    txn.execute(_DELETE_EXPIRED, now_ms=now_ms)
    if expires_ms > now_ms:
        txn.execute(
            _INSERT,
            event_nid=event_nid,
            room_nid=room_nid,
            sender_nid=sender_nid,
            position=position,
            expires_ms=expires_ms,
        )


def list_sticky(
    txn: ReadTxn, room_nids: Collection[int], after: int, upto: int, now_ms: int, limit: int
) -> list[StickyEvent]:
    """What came into rooms between two positions (the first left out) and has not expired, the oldest first."""
    rows = txn.all(_LIST, room_nids=list(room_nids), after=after, upto=upto, now_ms=now_ms, limit=limit)
    return [StickyEvent(*row) for row in rows]
