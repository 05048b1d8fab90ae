"""The receipts extension: who has read how far. Spec: MSC3960; client-server API, "Receipts"."""

from collections.abc import Collection, Mapping

import msgspec
import orjson

from ranvier.services.sync.ephemeral import receipt_contents
from ranvier.store.database import ReadTxn
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.receipts import StoredReceipt, list_receipt_changes
from ranvier.store.tables.sliding import list_receipts_of, list_receipts_on


class ReceiptsQuestion(msgspec.Struct, frozen=True):
    """What the client has, and what it is to get. Joined rooms only."""

    fresh: Collection[int]  # rooms of which it has no receipts
    on_events: Collection[int]  # the events that it is shown of those
    known: Mapping[int, int]  # rooms in which something may be new -> up to where it has them
    now: int


def read_receipts(
    txn: ReadTxn, interner: Interner, user_nid: int, asked: ReceiptsQuestion
) -> dict[int, bytes]:
    """room_nid -> the m.receipt event. Of fresh rooms: the user's own receipts and those on the events shown; a
    room of 10,000 has as many others, and nobody looks at them.

    Cost: 2 queries for fresh rooms, 1 for each different position of known ones, 1 for names.
    """
    found: list[StoredReceipt] = []
    if asked.fresh:
        found += list_receipts_of(txn, asked.fresh, user_nid, asked.now)
        found += list_receipts_on(txn, asked.on_events, asked.now)
    groups: dict[int, list[int]] = {}
    for nid, upto in asked.known.items():
        groups.setdefault(upto, []).append(nid)
    for upto, nids in groups.items():
        found += list_receipt_changes(txn, nids, user_nid, upto, asked.now)
    return {
        nid: orjson.dumps({"content": content, "type": "m.receipt"})
        for nid, content in receipt_contents(txn, interner, found).items()
    }
