"""Who types in rooms, and who has read how far.

Spec: client-server API, "Typing Notifications", "Receipts".
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.filters import FilterableEvent
from ranvier.core.identifiers import RoomID
from ranvier.services.sync.request import Profile
from ranvier.services.sync.timelines import Window
from ranvier.store.database import ReadTxn
from ranvier.store.tables import receipts, typing
from ranvier.store.tables.interned import Interner, list_user_ids

NOBODY_NID: Final = 0
"""As the reader of receipts: nobody's private ones."""

Receipts = Mapping[str, Mapping[str, Mapping[str, JsonObject]]]
"""event_id -> receipt type -> user -> receipt: the content of m.receipt."""


def read_ephemeral(
    txn: ReadTxn,
    interner: Interner,
    windows: Collection[Window],
    room_ids: Mapping[int, RoomID],
    profile: Profile,
) -> tuple[dict[Window, bytes], dict[Window, Receipts]]:
    """m.typing events, and the contents of m.receipt, of those windows in which they changed.

    Cost: 2 queries for windows with equal bounds, 1 more where somebody types.
    """
    typing_events: dict[Window, bytes] = {}
    read: dict[Window, Receipts] = {}
    if profile.filter.ephemeral.is_nothing:
        return typing_events, read
    groups: dict[tuple[int | None, int], dict[int, Window]] = {}
    for window in windows:
        groups.setdefault((window.since, window.until), {})[window.room_nid] = window
    for (since, until), group in groups.items():
        wanted = [nid for nid in group if _passes(profile, "m.typing", room_ids[nid])]
        for nid, event in read_typing(txn, interner, wanted, since, until).items():
            typing_events[group[nid]] = event
        wanted = [nid for nid in group if _passes(profile, "m.receipt", room_ids[nid])]
        stored = (
            receipts.list_receipts(txn, wanted, NOBODY_NID, until)
            if since is None
            else receipts.list_receipt_changes(txn, wanted, NOBODY_NID, since, until)
        )
        for nid, content in receipt_contents(txn, interner, stored).items():
            read[group[nid]] = content
    return typing_events, read


def receipt_contents(
    txn: ReadTxn, interner: Interner, stored: Sequence[receipts.StoredReceipt]
) -> dict[int, dict[str, Any]]:
    """room_nid -> the content of its m.receipt event.

    There is one place for a user's receipt on an event. Spec: MSC4102: one without a thread, which says more, is told
    before any with one.
    """
    if not stored:
        return {}
    names = list_user_ids(txn, interner, {one.receipt.user_nid for one in stored})
    contents: dict[int, dict[str, Any]] = {}
    for one in stored:
        receipt = one.receipt
        told: JsonObject = {"ts": receipt.ts_ms}
        if receipt.thread_id != receipts.UNTHREADED:
            told["thread_id"] = receipt.thread_id
        by_type = contents.setdefault(receipt.room_nid, {}).setdefault(receipt.event_id, {})
        by_user, name = by_type.setdefault(receipt.type.value, {}), names[receipt.user_nid]
        if "thread_id" not in told or "thread_id" in by_user.get(name, told):
            by_user[name] = told
    return contents


def read_typing(
    txn: ReadTxn, interner: Interner, room_nids: Collection[int], since: int | None, until: int
) -> dict[int, bytes]:
    """Where the set of those who type changed, or from the beginning: where somebody types."""
    changed = room_nids
    if since is not None:
        changed = typing.list_rooms_typing_changed(txn, room_nids, since, until)
    typists = typing.list_typing(txn, changed) if changed else {}
    names = list_user_ids(txn, interner, {nid for nids in typists.values() for nid in nids})
    return {
        room_nid: orjson.dumps({"content": {"user_ids": [names[nid] for nid in nids]}, "type": "m.typing"})
        for room_nid, nids in typists.items()
        if nids or since is not None
    }


def _passes(profile: Profile, event_type: str, room_id: RoomID) -> bool:
    selector = profile.filter.ephemeral
    return selector.is_everything or selector.matches(FilterableEvent(event_type, None, room_id))
