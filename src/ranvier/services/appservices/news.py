"""What happened between two positions that concerns an application service, as the body of a transaction.

Events come first: how many of them fit decides up to which position everything else is told. All of this runs in
one read transaction.

Spec: application service API, "Pushing events", "Pushing ephemeral data"; MSC4203 (messages to devices) and
MSC3202 (device lists and key counts), which are not in the specification yet, under their unstable names.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec
import orjson

from ranvier.core.appservices.registration import Registration
from ranvier.core.events.client import Unsigned, close, encode_unsigned
from ranvier.core.identifiers import RoomID, UserID
from ranvier.io.clock import Clock
from ranvier.services.appservices.interest import Interest
from ranvier.services.rooms.presenting import NOBODY, EventFacts, Presenting, client_event
from ranvier.services.sync.ephemeral import receipt_contents
from ranvier.services.sync.own import read_pending
from ranvier.services.sync.people import presence_event
from ranvier.services.sync.standing import Pending
from ranvier.store.database import ReadTxn
from ranvier.store.tables import (
    appservices,
    device_lists,
    events,
    presence,
    receipts,
    rooms,
    to_device,
    typing,
)
from ranvier.store.tables.devices import list_devices_of_users
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import Interner, find_user_nids, list_state_keys, list_user_ids
from ranvier.store.tables.memberships import INVITE, list_members, list_stored_memberships
from ranvier.store.tables.one_time_keys import count_one_time_keys, list_unused_fallback_types
from ranvier.store.tables.receipts import ReceiptType
from ranvier.store.tables.to_device import AddressedMessage

BATCH: Final = 500
"""Events of all rooms in one read."""
MAX_EVENTS: Final = 100
"""In one transaction; and messages to devices."""
MAX_BYTES: Final = 700_000
"""Of events in one transaction, but for a first one that is larger: many services take no body above 1 MiB."""
MAX_PRESENCES: Final = 500
MAX_IN_SIGHT: Final = 1_000
"""Members of a room whose devices are told of when a user of the service comes or goes."""
MAX_KEY_USERS: Final = 200
"""Users of whose devices one transaction tells how many keys are left."""


class Told(msgspec.Struct, frozen=True):
    """What hints told since the last time."""

    rooms: AbstractSet[int] = frozenset()
    users: AbstractSet[int] = frozenset()
    is_all: bool = False  # hints may have been missed: anything may have changed


class KeysLeft(msgspec.Struct, frozen=True):
    """How many one-time keys each device has, and for which algorithms an unused fallback key."""

    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    fallbacks: Mapping[str, Mapping[str, Sequence[str]]]

    def is_less_than(self, known: Mapping[tuple[str, str], Mapping[str, int]]) -> bool:
        """Whether some device has fewer keys than the service was told last."""
        return any(
            counts.get(algorithm, 0) < count
            for user_id, devices in self.counts.items()
            for device_id, counts in devices.items()
            for algorithm, count in known.get((user_id, device_id), {}).items()
        )


class News(msgspec.Struct, frozen=True):
    """What was found up to a position."""

    upto: int
    has_more: bool
    body: bytes | None  # None: nothing concerns the service
    has_messages: bool = False
    keys: KeysLeft | None = None


class NewsReader:
    """Reads for one service."""

    def __init__(
        self, interner: Interner, presenting: Presenting, clock: Clock, service: Registration
    ) -> None:
        self._interner = interner
        self._presenting = presenting
        self._clock = clock
        self._service = service
        self._interest = Interest(interner, service.namespaces)

    def read(
        self,
        txn: ReadTxn,
        after: int,
        limit: int,
        told: Told,
        known_keys: Mapping[tuple[str, str], Mapping[str, int]],
    ) -> News:
        """What concerns the service after a position, up to the one that `told` reaches. `known_keys`: what it was told
        of keys."""
        found, upto = self._read_events(txn, after, limit)
        messages: list[AddressedMessage] = []
        if self._service.receives_messages:
            messages, upto = self._read_messages(txn, after, upto, told)
            found = [one for one in found if one[0] <= upto]
        body: dict[str, Any] = {"events": self._show(txn, [record for _, record in found])}
        is_empty = not (found or messages)
        if self._service.receives_ephemeral:
            body["ephemeral"] = passing = self._read_passing(txn, after, upto, told)
            is_empty = is_empty and not passing
        if self._service.receives_messages:
            body["de.sorunome.msc2409.to_device"] = self._address(txn, messages)
        keys = None
        if self._service.receives_encryption:
            lists = self._read_lists(txn, after, upto, [record for _, record in found])
            keys = self._read_keys(txn, told, {one.user_nid for one in messages})
            body |= _encryption(lists, keys)
            is_empty = is_empty and not (lists["changed"] or lists["left"] or keys.is_less_than(known_keys))
        return News(
            upto,
            upto < limit,
            None if is_empty else orjson.dumps(body),
            bool(messages),
            keys,
        )

    def _read_events(self, txn: ReadTxn, after: int, limit: int) -> tuple[list[tuple[int, EventRecord]], int]:
        """Events of interest, oldest first, and the position up to which they are all."""
        live = events.list_live_events(txn, after, limit, BATCH)
        elsewhere = appservices.list_events_elsewhere(txn, after, limit, BATCH)
        upto = min(
            live[-1][0] if len(live) == BATCH else limit,
            elsewhere[-1][0] if len(elsewhere) == BATCH else limit,
        )
        concerned = self._interest.list_users(txn, {user_nid for _, user_nid, _ in elsewhere})
        found = self._interest.select_events(txn, live, after) if live else []
        found += [(position, record) for position, user_nid, record in elsewhere if user_nid in concerned]
        found = sorted((one for one in found if one[0] <= upto), key=lambda one: one[0])
        fitting = _count_fitting([len(record.json) for _, record in found])
        return found[:fitting], upto if fitting == len(found) else found[fitting - 1][0]

    def _show(self, txn: ReadTxn, records: Sequence[EventRecord]) -> list[orjson.Fragment]:
        now_ms = self._clock.now_ms()
        found = rooms.list_rooms(txn, {record.room_nid for record in records})
        shown = self._read_invites(txn, records)
        return [
            orjson.Fragment(
                _invite(facts, shown[record.event_nid], found[record.room_nid].room_id, now_ms)
                if record.event_nid in shown
                else client_event(facts, NOBODY, now_ms, found[record.room_nid].room_id)
            )
            for record, facts in zip(records, self._presenting.facts(txn, records), strict=True)
        ]

    def _read_invites(self, txn: ReadTxn, records: Sequence[EventRecord]) -> dict[int, Sequence[bytes]]:
        """What invites show of their rooms to the service's users: event_nid -> stripped events."""
        members = {
            record.event_nid: record
            for record in records
            if record.type == "m.room.member" and record.state_key_nid is not None
        }
        if not members:
            return {}
        slots = list_state_keys(
            txn, self._interner, {nid for one in members.values() if (nid := one.state_key_nid) is not None}
        )
        stored = list_stored_memberships(txn, members)
        claims = self._service.namespaces.claims_user
        found: dict[int, Sequence[bytes]] = {}
        for nid, record in members.items():
            slot = slots.get(record.state_key_nid or 0)
            if stored.get(nid) == INVITE and slot is not None and claims(UserID(slot[1])):
                pending = Pending(record.room_nid, nid, INVITE)
                for one in read_pending(txn, self._interner, (pending,)):
                    found[nid] = one.events
        return found

    def _read_messages(
        self, txn: ReadTxn, after: int, upto: int, told: Told
    ) -> tuple[list[AddressedMessage], int]:
        users = to_device.list_users_with_messages(txn, after, upto) if told.is_all else told.users
        concerned = self._interest.list_users(txn, users)
        if not concerned:
            return [], upto
        found = to_device.list_messages_of_users(txn, concerned, after, upto, MAX_EVENTS)
        fitting = _count_fitting([len(one.message.content) for one in found])
        if fitting == len(found) < MAX_EVENTS:
            return found, upto
        last = found[fitting - 1].message.position
        return [one for one in found if one.message.position <= last], last

    def _address(self, txn: ReadTxn, messages: Sequence[AddressedMessage]) -> list[dict[str, Any]]:
        names = list_user_ids(txn, self._interner, {one.user_nid for one in messages})
        return [
            {
                "content": orjson.Fragment(one.message.content),
                "sender": one.message.sender,
                "type": one.message.type,
                "to_user_id": names[one.user_nid],
                "to_device_id": one.device_id,
            }
            for one in messages
        ]

    def _read_passing(self, txn: ReadTxn, after: int, upto: int, told: Told) -> list[Any]:
        """Typing, receipts, presence."""
        read_in = set(told.rooms)
        if told.is_all:
            read_in.update(receipts.list_rooms_with_receipt_changes(txn, after, upto))
        elif own := self._interest.list_users(
            txn, told.users
        ):  # private receipts are told of to their users only
            read_in.update(receipts.list_rooms_with_own_receipt_changes(txn, own, after, upto))
        interests = self._interest.list_rooms(txn, read_in)
        room_ids = {nid: interest.room.room_id for nid, interest in interests.items() if interest}
        return [
            *self._read_typing(txn, after, upto, room_ids),
            *self._read_receipts(txn, after, upto, room_ids),
            *self._read_presence(txn, after, upto),
        ]

    def _read_typing(
        self, txn: ReadTxn, after: int, upto: int, room_ids: Mapping[int, RoomID]
    ) -> list[dict[str, Any]]:
        changed = typing.list_rooms_typing_changed(txn, room_ids, after, upto) if room_ids else []
        now = typing.list_typing(txn, changed) if changed else {}
        names = list_user_ids(txn, self._interner, {nid for nids in now.values() for nid in nids})
        return [
            {
                "type": "m.typing",
                "room_id": room_ids[room_nid],
                "content": {"user_ids": [names[nid] for nid in nids]},
            }
            for room_nid, nids in now.items()
        ]

    def _read_receipts(
        self, txn: ReadTxn, after: int, upto: int, room_ids: Mapping[int, RoomID]
    ) -> list[dict[str, Any]]:
        stored = receipts.list_all_receipt_changes(txn, room_ids, after, upto) if room_ids else []
        private = {one.receipt.user_nid for one in stored if one.receipt.type is ReceiptType.PRIVATE}
        own = self._interest.list_users(txn, private)
        shown = [
            one
            for one in stored
            if one.receipt.type is not ReceiptType.PRIVATE or one.receipt.user_nid in own
        ]
        return [
            {"type": "m.receipt", "room_id": room_ids[room_nid], "content": content}
            for room_nid, content in receipt_contents(txn, self._interner, shown).items()
        ]

    def _read_presence(self, txn: ReadTxn, after: int, upto: int) -> list[orjson.Fragment]:
        changed = presence.list_presence_changes(txn, after, upto)[-MAX_PRESENCES:]
        if not changed:
            return []
        seen = self._interest.list_sharing(txn, [one.user_nid for one in changed])
        names = list_user_ids(txn, self._interner, seen)
        now_ms = self._clock.now_ms()
        return [
            orjson.Fragment(presence_event(one, names[one.user_nid], now_ms))
            for one in changed
            if one.user_nid in seen
        ]

    def _read_lists(
        self, txn: ReadTxn, after: int, upto: int, records: Sequence[EventRecord]
    ) -> dict[str, list[str]]:
        """Whose devices changed or came into sight, and whose went out of it."""
        moved = self._list_moved(txn, records)
        changed = set(device_lists.list_changed_users(txn, after, upto))
        shared = self._interest.list_sharing(txn, changed | moved)
        names = list_user_ids(txn, self._interner, shared | moved)
        return {
            "changed": sorted(names[nid] for nid in shared),
            "left": sorted(names[nid] for nid in moved - shared),
        }

    def _list_moved(self, txn: ReadTxn, records: Sequence[EventRecord]) -> set[int]:
        """Users who may have come into sight or gone out of it: of whom member events tell, and for a user of the
        service those who are in that room."""
        rooms_of_targets = {
            record.state_key_nid: record.room_nid
            for record in records
            if record.type == "m.room.member" and record.state_key_nid is not None
        }
        if not rooms_of_targets:
            return set()
        slots = list_state_keys(txn, self._interner, rooms_of_targets)
        targets = {UserID(key): rooms_of_targets[nid] for nid, (_, key) in slots.items()}
        moved = set(find_user_nids(txn, self._interner, targets).values())
        for user_id, room_nid in targets.items():
            if self._service.namespaces.claims_user(user_id):
                moved.update(nid for nid, _ in list_members(txn, room_nid, limit=MAX_IN_SIGHT))
        return moved

    def _read_keys(self, txn: ReadTxn, told: Told, recipients: AbstractSet[int]) -> KeysLeft:
        users = sorted(self._interest.list_users(txn, told.users | recipients))[:MAX_KEY_USERS]
        names = list_user_ids(txn, self._interner, users)
        counts: dict[str, dict[str, Mapping[str, int]]] = {}
        fallbacks: dict[str, dict[str, Sequence[str]]] = {}
        for user_nid, devices in list_devices_of_users(txn, users).items():
            for device in devices:
                if device.keys is not None:
                    user_id, nid = names[user_nid], device.device_nid
                    counts.setdefault(user_id, {})[device.device_id] = count_one_time_keys(txn, nid)
                    fallbacks.setdefault(user_id, {})[device.device_id] = list_unused_fallback_types(txn, nid)
        return KeysLeft(counts, fallbacks)


def _encryption(lists: Mapping[str, Sequence[str]], keys: KeysLeft) -> dict[str, Any]:
    prefix = "org.matrix.msc3202"
    return {
        f"{prefix}.device_lists": lists,
        f"{prefix}.device_one_time_keys_count": keys.counts,
        # COMPAT: an older name of the same.
        f"{prefix}.device_one_time_key_counts": keys.counts,
        f"{prefix}.device_unused_fallback_key_types": keys.fallbacks,
    }


def _count_fitting(sizes: Sequence[int]) -> int:
    """How many of these go into one transaction: at least one."""
    total = 0
    for place, size in enumerate(sizes):
        total += size
        if place and (place >= MAX_EVENTS or total > MAX_BYTES):
            return place
    return len(sizes)


def _invite(facts: EventFacts, shown: Sequence[bytes], room_id: RoomID, now_ms: int) -> bytes:
    """An invite of one of the service's users, with what it shows of the room, as in federation."""
    unsigned = Unsigned(
        age=now_ms - facts.record.origin_server_ts,
        invite_room_state=[msgspec.Raw(one) for one in shown],
    )
    return close(facts.head, room_id=room_id, unsigned=encode_unsigned(unsigned))
