"""What rooms need for a while only goes: which request made an event, and the originals of redacted messages."""

from typing import Final

from ranvier.core.canonical_json import encode, parse_object
from ranvier.core.events.redact import redact
from ranvier.core.room_versions import get_room_version
from ranvier.store.database import WriteTxn
from ranvier.store.tables import client_transactions, events, redactions
from ranvier.store.tables.rooms import list_rooms

DAY_MS: Final = 24 * 3_600_000

REQUEST_KEPT_MS: Final = 30 * DAY_MS
"""For so long the same request again makes no second event."""

ORIGINAL_KEPT_MS: Final = 7 * DAY_MS
"""For so long administrators can look into what was redacted, and a redaction that turns out to be none is undone."""

_AT_ONCE: Final = 200


def sweep_rooms(txn: WriteTxn, now_ms: int) -> bool:
    """Delete a part of what is too old. True: there may be more."""
    forgotten = client_transactions.delete_expired(txn, now_ms - REQUEST_KEPT_MS, _AT_ONCE)
    return _drop_originals(txn, now_ms - ORIGINAL_KEPT_MS) == _AT_ONCE or forgotten == _AT_ONCE


def _drop_originals(txn: WriteTxn, before_ms: int) -> int:
    """State stays as it was sent: what was decided by it may have to be decided again."""
    nids = redactions.list_originals(txn, before_ms, _AT_ONCE)
    records = [one for one in events.list_events(txn, nids).values() if one.state_key_nid is None]
    rooms = list_rooms(txn, {one.room_nid for one in records})
    for one in records:
        version = get_room_version(rooms[one.room_nid].version)
        redactions.replace_original(txn, one.event_nid, encode(redact(parse_object(one.json), version)))
    redactions.forget_originals(txn, nids)
    return len(nids)
