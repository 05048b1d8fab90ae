"""What changed about other users: their devices and their presence, for those who share a room with them.

Spec: client-server API, "End-to-end encryption", extensions to /sync; "Presence".
"""

from collections.abc import Collection
from typing import Final

import msgspec
import orjson

from ranvier.core.filters import EventSelector, FilterableEvent
from ranvier.core.identifiers import UserID
from ranvier.store.database import ReadTxn
from ranvier.store.tables import device_lists, memberships, presence
from ranvier.store.tables.interned import Interner, find_user_nids, list_user_ids
from ranvier.store.tables.presence import Presence, PresenceState

MAX_PRESENT: Final = 1_000
"""Users who are online that a first sync tells of: those who were active last."""


class Company(msgspec.Struct, frozen=True):
    """Who came into a user's rooms and who went, the user's own coming and going included."""

    came: Collection[UserID]  # into rooms that the user was in
    went: Collection[UserID]
    entered: Collection[int]  # rooms (by number) that the user came into
    quitted: Collection[int]  # and those that the user left

    @property
    def is_empty(self) -> bool:
        return not (self.came or self.went or self.entered or self.quitted)


def read_device_lists(
    txn: ReadTxn, interner: Interner, user_nid: int, updated: Collection[int], company: Company
) -> bytes | None:
    """`device_lists`, or None if there is nothing to tell. `updated`: whose devices changed, in any room.

    SPEC: the text speaks of encrypted rooms. Users who share only others are told of as well: clients that
    do not encrypt for them pass them over, and nothing has to be told anew when a room turns to encryption.
    Cost: nothing for nobody; else 1 query for those who changed, and 1 a room that was entered or left.
    """
    if not updated and company.is_empty:
        return None
    changed = memberships.list_sharing_among(txn, user_nid, updated) if updated else set()
    for room_nid in company.entered:
        changed.update(nid for nid, _ in memberships.list_members(txn, room_nid))
    changed.update(find_user_nids(txn, interner, list(company.came)).values())
    # Who came into a room is among those who now share it: the user's other devices are to look, too.
    if user_nid in updated:
        changed.add(user_nid)
    gone = set(find_user_nids(txn, interner, list(company.went)).values())
    for room_nid in company.quitted:
        gone.update(nid for nid, _ in memberships.list_members(txn, room_nid))
    gone.discard(user_nid)
    if gone:
        gone -= memberships.list_sharing_among(txn, user_nid, gone)
    changed -= gone
    if not changed and not gone:
        return None
    names = list_user_ids(txn, interner, changed | gone)
    return orjson.dumps(
        {"changed": sorted(names[nid] for nid in changed), "left": sorted(names[nid] for nid in gone)}
    )


def list_updated(txn: ReadTxn, since: int, upto: int) -> Collection[int]:
    """Whose devices changed, where memory does not tell."""
    return device_lists.list_changed_users(txn, since, upto)


def read_presence(
    txn: ReadTxn,
    interner: Interner,
    user_nid: int,
    updated: Collection[int],
    company: Company,
    now_ms: int,
    selector: EventSelector,
) -> list[bytes]:
    """m.presence events of those in `updated` who share a room with the user, and of those who do so only
    now, as far as they are not offline.

    Spec: "updates to the presence status of other users". A sync makes its own user online, and would wake itself.
    Cost: nothing for nobody; else 2 queries, and 1 a room that was entered.
    """
    if selector.is_nothing or not (updated or company.came or company.entered):
        return []
    new = set(find_user_nids(txn, interner, list(company.came)).values())
    for room_nid in company.entered:
        new.update(nid for nid, _ in memberships.list_members(txn, room_nid, limit=MAX_PRESENT))
    seen = memberships.list_sharing_among(txn, user_nid, updated) if updated else set()
    found = {
        nid: one
        for nid, one in presence.list_presence(txn, (seen | new) - {user_nid}).items()
        if nid in seen or one.state is not PresenceState.OFFLINE
    }
    return _presence_events(txn, interner, found.values(), now_ms, selector)


def read_present(
    txn: ReadTxn, interner: Interner, user_nid: int, now_ms: int, selector: EventSelector
) -> list[bytes]:
    """m.presence events of those who are not offline: what a first sync tells. Cost: 2 queries, or nothing."""
    if selector.is_nothing:
        return []
    found = presence.list_present(txn, user_nid, MAX_PRESENT)
    return _presence_events(txn, interner, found, now_ms, selector)


def _presence_events(
    txn: ReadTxn, interner: Interner, found: Collection[Presence], now_ms: int, selector: EventSelector
) -> list[bytes]:
    names = list_user_ids(txn, interner, [one.user_nid for one in found])
    return [
        presence_event(one, names[one.user_nid], now_ms)
        for one in found
        if not selector.checks or selector.matches(FilterableEvent("m.presence", names[one.user_nid]))
    ]


def presence_event(one: Presence, user_id: UserID, now_ms: int) -> bytes:
    """A user's presence as clients get it."""
    content: dict[str, object] = {
        "presence": one.state.value,
        "currently_active": one.currently_active,
        "last_active_ago": max(0, now_ms - one.last_active_ms),
    }
    if one.status_msg is not None:
        content["status_msg"] = orjson.Fragment(one.status_msg)
    return orjson.dumps({"content": content, "sender": user_id, "type": "m.presence"})


def list_presence_changed(txn: ReadTxn, since: int, upto: int) -> Collection[int]:
    """Whose presence changed, where memory does not tell."""
    return [one.user_nid for one in presence.list_presence_changes(txn, since, upto)]
