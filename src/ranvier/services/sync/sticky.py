"""Sticky events for those who are joined, wherever a timeline does not show them.

Neither the history visibility nor a filter keeps them back. Spec: MSC4354, "Sync API changes".
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from ranvier.services.rooms.presenting import Presenting, ReaderFacts, client_event
from ranvier.store.database import ReadTxn
from ranvier.store.tables.events import list_events
from ranvier.store.tables.memberships import JOIN
from ranvier.store.tables.sticky_events import StickyEvent, list_sticky

MAX_EVENTS: Final = 1_000
"""In one answer of classic sync; in an hour no room should have as many."""


class StickyQuestion(msgspec.Struct, frozen=True):
    """Joined rooms, and what of them is wanted."""

    room_nids: Collection[int]
    after: int  # positions
    upto: int
    ignored: AbstractSet[int]  # senders
    now_ms: int
    limit: int = MAX_EVENTS


class ToldSticky(msgspec.Struct, frozen=True):
    """An event as clients get it."""

    event: StickyEvent
    json: bytes


def read_sticky(txn: ReadTxn, presenting: Presenting, asked: StickyQuestion) -> Sequence[ToldSticky]:
    """The oldest first; without those that were redacted since. Cost: 1 query, 1 more if there are any."""
    found = list_sticky(txn, asked.room_nids, asked.after, asked.upto, asked.now_ms, asked.limit)
    if not found:
        return ()
    records = list_events(txn, [one.event_nid for one in found])
    told = [
        one
        for one in found
        if one.sender_nid not in asked.ignored
        and (record := records.get(one.event_nid)) is not None
        and record.redacted_by is None
    ]
    facts = presenting.facts(txn, [records[one.event_nid] for one in told], with_replaced=False)
    reader = ReaderFacts(membership=JOIN)
    return [
        ToldSticky(
            one, _with_time_left(client_event(fact, reader, asked.now_ms), one.expires_ms - asked.now_ms)
        )
        for one, fact in zip(told, facts, strict=True)
    ]


def _with_time_left(json: bytes, left_ms: int) -> bytes:
    assert json.endswith(b"}}"), "`unsigned` comes last, and has something in it"
    return b'%b,"msc4354_sticky_duration_ttl_ms":%d}}' % (json[:-2], left_ms)
