"""Events of a response: encoded once, but for what depends on when they are told.

Spec: client-server API, "Room event format".
"""

from typing import Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.client import close
from ranvier.services.rooms.presenting import EventFacts, ReaderFacts, client_event, unsigned_of
from ranvier.services.sync.request import Profile
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.memberships import JOIN

_AGE: Final = b'{"age":0'

_KEPT: Final = (
    *("auth_events", "depth", "event_id", "hashes", "origin_server_ts", "prev_events", "room_id"),
    *("sender", "signatures", "state_key", "type"),
)
"""What every room version's redaction leaves of an event, besides content."""

Device = tuple[int, str]
"""Who sent something with a transaction id: (user_nid, device_id)."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event. Its `age` alone depends on when it is told, so that place is left open."""

    facts: EventFacts
    before: bytes  # the JSON up to `unsigned`
    after: bytes | None  # from behind the age on; None: `before` is all
    membership: str | None = None  # of the reader, at the event; None for state, which is not of a time
    sender: Device | None = None
    own: bytes | None = None  # what `sender` gets instead of `after`, or of `before` where that is all

    @property
    def record(self) -> EventRecord:
        return self.facts.record

    def json(self, now_ms: int, device: Device) -> bytes:
        """The client event, as a device gets it whose user was joined then."""
        own = self.own if self.sender == device else None
        if self.after is None:
            return own or self.before
        age_ms = max(0, now_ms - self.facts.record.origin_server_ts)
        return b'%b,"unsigned":{"age":%d%b' % (self.before, age_ms, own or self.after)


def make_timeline_entry(
    facts: EventFacts, membership: str, transaction: tuple[int, str, str] | None, profile: Profile
) -> Entry:
    """An event of a timeline. `transaction`: (user_nid, device_id, transaction id) of who sent it."""
    sees_replaced = membership == JOIN
    reader = ReaderFacts(membership=membership, sees_replaced=sees_replaced)
    before, after = _open(facts, reader, profile)
    if transaction is None:
        return Entry(facts, before, after, membership)
    user_nid, device_id, txn_id = transaction
    told = ReaderFacts(membership=membership, transaction_id=txn_id, sees_replaced=sees_replaced)
    whole, end = _open(facts, told, profile)
    return Entry(facts, before, after, membership, (user_nid, device_id), whole if end is None else end)


def _open(facts: EventFacts, reader: ReaderFacts, profile: Profile) -> tuple[bytes, bytes | None]:
    """The client event in two parts, between which its `unsigned` begins with the age."""
    sent_ms = facts.record.origin_server_ts
    if profile.reshapes:
        return shape(client_event(facts, reader, sent_ms), facts, profile), None
    unsigned = unsigned_of(facts, reader, sent_ms)
    assert unsigned.startswith(_AGE), "the age comes first in `unsigned`"
    return facts.head, unsigned[len(_AGE) :] + b"}"


def make_state_entry(facts: EventFacts, profile: Profile) -> Entry:
    """An event of the state, without what is of interest in a timeline only."""
    because = facts.redacted_because
    unsigned = b"" if because is None else b'{"redacted_because":%b}' % because
    return Entry(facts, shape(close(facts.head, unsigned=unsigned), facts, profile), None)


def shape(json: bytes, facts: EventFacts, profile: Profile) -> bytes:
    """A client event in the form that the filter wants; without its age, if that is not the usual form."""
    if not profile.reshapes:
        return json
    event = orjson.loads(json)
    event.get("unsigned", {}).pop("age", None)
    if profile.filter.federation_format:
        event = {**_federation_form(facts, event["content"]), "unsigned": event.get("unsigned", {})}
    if profile.filter.fields is not None:
        event = profile.filter.fields.project(event)
    return orjson.dumps(event)


def _federation_form(facts: EventFacts, content: JsonObject) -> JsonObject:
    """The event as servers pass it on. `content`: what a redaction left of it."""
    event: JsonObject = orjson.loads(facts.record.json)
    if facts.record.redacted_by is None:
        return event
    return {key: event[key] for key in _KEPT if key in event} | {"content": content}
