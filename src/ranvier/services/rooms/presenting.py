"""Stored events in the form that clients get: the one place where they and their `unsigned` are put together.

What every reader gets alike (`EventFacts`) is apart from what one reader gets (`ReaderFacts`), so that an
event which many wait for is put together once. The greatest part of it, the head, is kept in memory by event
number.

Spec: client-server API, "Room event format", "Redactions".
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from threading import Lock
from typing import Final

import msgspec

from ranvier.core import canonical_json, state_map
from ranvier.core.events.client import Unsigned, client_head, close, encode_unsigned, raw_content, sender_of
from ranvier.core.events.redact import redact
from ranvier.core.identifiers import RoomID
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.services.recent import Recent
from ranvier.services.requester import Requester
from ranvier.services.rooms.erasure import list_erased_events
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, rooms
from ranvier.store.tables.client_transactions import list_txn_ids
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.memberships import JOIN
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes

MAX_CACHED_BYTES: Final = 32 * 1024 * 1024

MAX_VERSIONS: Final = 20_000
"""Of rooms with redacted events, whose versions are remembered."""

_ENTRY_BYTES: Final = 300
"""What an entry of the cache takes besides the text, about."""

_NOTHING: Final = 0
"""As `redacted_by`: no event has this number."""


class EventFacts(msgspec.Struct, frozen=True, gc=False):
    """An event as every reader gets it. Once made it stays right until the event is redacted."""

    record: EventRecord
    head: bytes  # see `core.events.client.close`; of a redacted event, what the redaction left
    redacted_because: bytes | None = None  # a client event
    replaced: EventRecord | None = None  # what filled the slot of this state event before
    replaced_content: bytes | None = None


class ReaderFacts(msgspec.Struct, frozen=True):
    """What one reader gets besides."""

    membership: str | None = None  # the reader's, just after the event
    transaction_id: str | None = None  # if the reader's device sent the event
    sees_replaced: bool = True  # whether the event that this one replaced is visible to the reader
    relations: bytes | None = None  # `m.relations` as JSON (services.rooms.aggregations)


NOBODY: Final = ReaderFacts()


def client_event(facts: EventFacts, reader: ReaderFacts, now_ms: int, room_id: RoomID | None = None) -> bytes:
    """The whole client event as JSON; `room_id` where the response does not say it elsewhere."""
    return close(facts.head, room_id=room_id, unsigned=unsigned_of(facts, reader, now_ms))


def unsigned_of(facts: EventFacts, reader: ReaderFacts, now_ms: int) -> bytes:
    """The client event's `unsigned` as JSON, which begins with the age."""
    replaced, because = facts.replaced, facts.redacted_because
    relations = reader.relations
    if replaced is None:
        unsigned = Unsigned(
            age=now_ms - facts.record.origin_server_ts,
            transaction_id=reader.transaction_id,
            membership=reader.membership,
            redacted_because=None if because is None else msgspec.Raw(because),
            relations=None if relations is None else msgspec.Raw(relations),
        )
    else:
        content = facts.replaced_content if reader.sees_replaced else None
        unsigned = Unsigned(
            age=now_ms - facts.record.origin_server_ts,
            transaction_id=reader.transaction_id,
            membership=reader.membership,
            replaces_state=replaced.event_id,
            prev_sender=sender_of(replaced.json) if reader.sees_replaced else None,
            prev_content=None if content is None else msgspec.Raw(content),
            redacted_because=None if because is None else msgspec.Raw(because),
            relations=None if relations is None else msgspec.Raw(relations),
        )
    return encode_unsigned(unsigned)


def list_transaction_ids(
    txn: ReadTxn, requester: Requester, records: Iterable[EventRecord]
) -> Mapping[int, str]:
    """The transaction ids of those events that the requester's device sent: event_nid -> id.

    Cost: 1 query if the requester sent any of them, else nothing.
    """
    own = [record.event_nid for record in records if record.sender_nid == requester.user_nid]
    if not own:
        return {}
    return list_txn_ids(txn, requester.user_nid, requester.device_id or "", own)


class Presenting:
    """Makes `EventFacts`. Its functions run in read transactions, on any thread."""

    def __init__(self, nodes: NodeCache, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        self._nodes = nodes
        self._heads = _HeadCache(max_cached_bytes)
        # What a room's version is never changes.
        self._versions: Recent[int, RoomVersion] = Recent(MAX_VERSIONS)

    def facts(
        self, txn: ReadTxn, records: Sequence[EventRecord], *, with_replaced: bool = True
    ) -> list[EventFacts]:
        """What every reader gets of these events, of any rooms, in their order.

        `with_replaced` may be false where readers care for state as it is and not for how it changed.

        Cost: nothing but memory for messages that were seen lately; 1 query if state events or redacted
        events are among them; state events take a look into the state before each.
        """
        replaced_nids = self._list_replaced(txn, records) if with_replaced else {}
        others_nids = {record.redacted_by for record in records if record.redacted_by is not None}
        others_nids.update(replaced_nids.values())
        others = events.list_events(txn, others_nids) if others_nids else {}
        heads = self._list_heads(txn, records)
        # Apart: what is shown without its content may have been replaced by something that is shown.
        others_heads = self._list_heads(txn, list(others.values())) if others else {}
        return [
            _facts_of(
                record,
                heads[record.event_nid],
                others,
                others_heads,
                replaced_nids.get(record.event_nid),
            )
            for record in records
        ]

    def without_content(self, txn: ReadTxn, record: EventRecord) -> EventRecord:
        """The event as a redaction would leave it, though nothing redacted it."""
        version = self._list_versions(txn, (record.room_nid,))[record.room_nid]
        return msgspec.structs.replace(record, json=_redacted(record.json, version), redacted_by=_NOTHING)

    def without_erased(
        self, txn: ReadTxn, records: Sequence[EventRecord], seen: Mapping[int, str]
    ) -> Sequence[EventRecord]:
        """The events, without the content of those whose senders wanted it to be erased.

        SPEC: who joins after the erasure is not to have it, who could see it before may. Here, as in Synapse, who
        was not in the room when it came does not get it any more.
        Args: seen - event_nid -> the reader's membership at the event.
        Cost: nothing where the reader was joined all the time; else as `list_erased_events`.
        """
        erased = list_erased_events(txn, [record for record in records if seen[record.event_nid] != JOIN])
        if not erased:
            return records
        return [
            self.without_content(txn, record) if record.event_nid in erased else record for record in records
        ]

    def _list_replaced(self, txn: ReadTxn, records: Iterable[EventRecord]) -> dict[int, int]:
        """State event -> the event that filled its slot in the state before it."""
        reader = SnapshotNodes(txn, self._nodes)
        found: dict[int, int] = {}
        for record in records:
            if record.state_key_nid is not None and record.state_root:
                nid = state_map.get(reader, record.state_root, record.state_key_nid)
                if nid is not None:
                    found[record.event_nid] = nid
        return found

    def _list_heads(self, txn: ReadTxn, records: Sequence[EventRecord]) -> dict[int, bytes]:
        heads = self._heads.find(records)
        missing = [record for record in records if record.event_nid not in heads]
        if missing:
            versions = self._list_versions(
                txn, {record.room_nid for record in missing if record.redacted_by is not None}
            )
            made = {record.event_nid: _make_head(record, versions.get(record.room_nid)) for record in missing}
            self._heads.remember(missing, made)
            heads.update(made)
        return heads

    def _list_versions(self, txn: ReadTxn, room_nids: Collection[int]) -> Mapping[int, RoomVersion]:
        known = {nid: version for nid in room_nids if (version := self._versions.get(nid)) is not None}
        missing = [nid for nid in room_nids if nid not in known]
        if missing:
            for nid, room in rooms.list_rooms(txn, missing).items():
                known[nid] = get_room_version(room.version)
                self._versions.keep(nid, known[nid], 1)
        return known


def _facts_of(
    record: EventRecord,
    head: bytes,
    others: Mapping[int, EventRecord],
    others_heads: Mapping[int, bytes],
    replaced_nid: int | None,
) -> EventFacts:
    if record.redacted_by is None and replaced_nid is None:
        return EventFacts(record, head)
    because = None
    if record.redacted_by is not None and record.redacted_by in others:
        because = close(others_heads[record.redacted_by])
    replaced = None if replaced_nid is None else others.get(replaced_nid)
    if replaced is None:
        return EventFacts(record, head, because)
    return EventFacts(record, head, because, replaced, _content_of(others_heads[replaced.event_nid]))


def _make_head(record: EventRecord, version: RoomVersion | None) -> bytes:
    """`version`: of the room, if the event is redacted."""
    json = record.json
    if record.redacted_by is not None:
        assert version is not None, "an event's room is stored"
        json = _redacted(json, version)
    return client_head(json, record.event_id)


def _redacted(json: bytes, version: RoomVersion) -> bytes:
    return canonical_json.encode(redact(canonical_json.parse_object(json), version))


def _content_of(head: bytes) -> bytes:
    return bytes(raw_content(head + b"}"))


class _HeadCache:
    """Heads by event number, bounded by the memory they take; the least recently used go first. Any thread.

    An entry holds for one state of redaction: (head, redacted_by).
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[int, tuple[bytes, int | None]] = OrderedDict()
        self._lock = Lock()

    def find(self, records: Iterable[EventRecord]) -> dict[int, bytes]:
        """The heads of those events that are here."""
        found: dict[int, bytes] = {}
        entries = self._entries
        with self._lock:
            for record in records:
                nid = record.event_nid
                entry = entries.get(nid)
                if entry is not None and entry[1] == record.redacted_by:
                    entries.move_to_end(nid)
                    found[nid] = entry[0]
        return found

    def remember(self, records: Iterable[EventRecord], heads: Mapping[int, bytes]) -> None:
        with self._lock:
            for record in records:
                nid = record.event_nid
                old = self._entries.pop(nid, None)
                if old is not None:
                    self._bytes -= len(old[0]) + _ENTRY_BYTES
                head = heads[nid]
                self._entries[nid] = (head, record.redacted_by)
                self._bytes += len(head) + _ENTRY_BYTES
            while self._bytes > self._max_bytes:
                _, (head, _) = self._entries.popitem(last=False)
                self._bytes -= len(head) + _ENTRY_BYTES
