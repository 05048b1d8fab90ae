"""The response as bytes, joined from pieces that are encoded already."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import orjson

from ranvier.core.identifiers import UserID
from ranvier.core.tokens import SyncToken, encode_room_token, encode_sync_token
from ranvier.services.rooms.presenting import ReaderFacts, client_event
from ranvier.services.sync.entries import Device, Entry, shape
from ranvier.services.sync.ephemeral import Receipts
from ranvier.services.sync.members_sent import Member
from ranvier.services.sync.request import Profile
from ranvier.services.sync.slices import Slice
from ranvier.services.sync.summaries import HEROES, Summary

MEMBER: Final = "m.room.member"


_EPHEMERAL: Final = "ephemeral"
_STATE: Final = "state"

Part = tuple[bytes, Sequence[bytes]]
"""A member of the response: its name in quotes, and the pieces of its value."""

AGE_STEP_MS: Final = 1_000
"""An event's `age` may be told wrong by so much: so long are timelines used again."""


class Reading(msgspec.Struct, frozen=True):
    """What one reader gets besides what everybody gets, of all rooms."""

    user_id: UserID
    device: Device
    profile: Profile
    now_ms: int
    ignored: frozenset[int]
    bundles: Mapping[int, bytes]  # event_nid -> m.relations
    known_members: frozenset[Member]


class RoomExtras(msgspec.Struct, frozen=True):
    """What one reader gets besides, of one room."""

    account_data: Sequence[bytes] = ()
    receipts: Receipts = {}
    unread: bytes | None = None  # the members unread_notifications and unread_thread_notifications
    sticky: Sequence[bytes] = ()  # events that the timeline does not show


def joined_section(part: Slice, reading: Reading, extras: RoomExtras) -> tuple[bytes, list[Member]]:
    """A room of `rooms.join`, and the members that it brings."""
    timeline = _timeline(part, reading)
    state, members = _state(part, reading)
    ephemeral = _ephemeral(part, extras.receipts)
    summary = b"" if part.summary is None else b',"summary":' + _summary(part.summary, reading.user_id)
    unread = b"" if extras.unread is None else b"," + extras.unread
    account_data = b",".join(extras.account_data) if extras.account_data else b""
    sticky = b',"msc4354_sticky":' + events_object(extras.sticky) if extras.sticky else b""
    return (
        b'{%b,%b,"ephemeral":{"events":[%b]},"account_data":{"events":[%b]}%b%b%b}'
        % (timeline, state, ephemeral, account_data, summary, sticky, unread)
    ), members


def _ephemeral(part: Slice, own: Receipts) -> bytes:
    if part.typing is None and not part.receipts and not own:
        return b""
    if not own and (made := part.encoded.get(_EPHEMERAL)) is not None:
        return made[1]
    events = [] if part.typing is None else [part.typing]
    read = merge_receipts(part.receipts, own)
    if read:
        events.append(orjson.dumps({"content": read, "type": "m.receipt"}))
    encoded = b",".join(events)
    if not own:
        part.encoded[_EPHEMERAL] = (0, encoded)
    return encoded


def left_section(part: Slice, reading: Reading, extras: RoomExtras) -> bytes:
    """A room of `rooms.leave`."""
    state, _ = _state(part, reading)
    return b'{%b,%b,"account_data":{"events":[%b]}}' % (
        _timeline(part, reading),
        state,
        b",".join(extras.account_data),
    )


def _timeline(part: Slice, reading: Reading) -> bytes:
    if part.has_relations or reading.ignored:
        return _encode_timeline(part, personal_events(part, reading))
    device, now_ms = reading.device, reading.now_ms
    key = device if device in part.senders else None
    made_ms, made = part.encoded.get(key, (0, b""))
    if now_ms - made_ms < AGE_STEP_MS:
        return made
    events = [
        (entry.own if entry.own is not None and entry.sender == device else entry).json(now_ms)
        for entry in part.timeline
    ]
    encoded = _encode_timeline(part, events)
    part.encoded[key] = (now_ms, encoded)
    return encoded


def _encode_timeline(part: Slice, events: Iterable[bytes]) -> bytes:
    return b'"timeline":{"events":[%b],"limited":%b,"prev_batch":"%b"}' % (
        b",".join(events),
        b"true" if part.limited else b"false",
        encode_room_token(part.prev_order).encode(),
    )


def personal_events(part: Slice, reading: Reading) -> Iterator[bytes]:
    """The events of the timeline without those of ignored users, with what relates to them."""
    for entry in part.timeline:
        record = entry.record
        if record.state_key_nid is None and record.sender_nid in reading.ignored:
            continue
        told = entry.own if entry.own is not None and entry.sender == reading.device else entry
        json = told.json(reading.now_ms)
        relations = reading.bundles.get(record.event_nid)
        if relations is not None:
            json = _with_relations(told, json, relations, reading)
        yield json


def _with_relations(entry: Entry, json: bytes, relations: bytes, reading: Reading) -> bytes:
    """The client event, with `m.relations` in `unsigned`."""
    if reading.profile.reshapes:
        reader = ReaderFacts(membership=entry.membership, relations=relations)
        return shape(client_event(entry.facts, reader, reading.now_ms), entry.facts, reading.profile)
    assert json.endswith(b"}}"), "`unsigned` comes last, and has something in it"
    return b'%b,"m.relations":%b}}' % (json[:-2], relations)


def _state(part: Slice, reading: Reading) -> tuple[bytes, list[Member]]:
    room_nid, profile = part.window.room_nid, reading.profile
    name = profile.state.value
    if not profile.lazy:
        made = part.encoded.get(_STATE)
        if made is None:
            made = (0, b'"%b":{"events":[%b]}' % (name, b",".join([entry.before for entry in part.state])))
            part.encoded[_STATE] = made
        return made[1], []
    events = [entry.before for entry in part.state]
    # Who asked for `state_after` takes no state from the timeline.
    told = part.state if profile.state_after else (*part.state, *part.timeline)
    members = [(room_nid, entry.record.event_nid) for entry in told if entry.record.type == MEMBER]
    given = set(members)
    for entry in part.members:
        member = (room_nid, entry.record.event_nid)
        if member not in given and member not in reading.known_members:
            events.append(entry.before)
            members.append(member)
            given.add(member)
    return b'"%b":{"events":[%b]}' % (name, b",".join(events)), members


def _summary(summary: Summary, reader: UserID) -> bytes:
    if summary.heroes is None:
        return b'{"m.joined_member_count":%d,"m.invited_member_count":%d}' % (
            summary.joined_count,
            summary.invited_count,
        )
    heroes = [hero for hero in summary.heroes if hero != reader][:HEROES]
    return b'{"m.heroes":%b,"m.joined_member_count":%d,"m.invited_member_count":%d}' % (
        orjson.dumps(heroes),
        summary.joined_count,
        summary.invited_count,
    )


def merge_receipts(public: Receipts, own: Receipts) -> Receipts:
    """The receipts of everybody and those that only the reader sees."""
    if not own:
        return public
    merged: dict[str, dict[str, Mapping[str, object]]] = {
        event_id: dict(by_type) for event_id, by_type in public.items()
    }
    for event_id, by_type in own.items():
        merged.setdefault(event_id, {}).update(by_type)
    return merged  # type: ignore[return-value]  # the same, made of dicts


def room_map(sections: Iterable[tuple[str, bytes]]) -> list[bytes]:
    """Sections by room id, as the pieces of a JSON object."""
    return json_object((orjson.dumps(name), (body,)) for name, body in sections)


def json_object(members: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[bytes]:
    """The pieces of an object, from those of its members. A large response is joined once, at its end."""
    pieces = [b"{"]
    for name, value in members:
        pieces += (name, b":", *value, b",")
    if len(pieces) > 1:
        pieces.pop()
    pieces.append(b"}")
    return pieces


def events_object(events: Sequence[bytes]) -> bytes:
    return b'{"events":[%b]}' % b",".join(events)


def encode_answer(next_batch: int, parts: Iterable[Part], keys: bytes) -> bytes:
    """The response: each part that there is, and the members that every response has."""
    pieces = [b'{"next_batch":"%b",%b' % (encode_sync_token(SyncToken(next_batch)).encode(), keys)]
    for name, value in parts:
        pieces += (b",", name, b":", *value)
    pieces.append(b"}")
    return b"".join(pieces)
