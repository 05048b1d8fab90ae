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
from ranvier.services.sync.unread import NONE_UNREAD

MEMBER: Final = "m.room.member"

Pieces = Sequence[bytes]
"""JSON that is still to be joined: a large response is joined once, at its end."""

Part = tuple[bytes, Pieces]
"""A member of the response: its name in quotes, and its value."""

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
    own_members: Mapping[int, Entry] = {}  # room_nid -> the reader's own, where it is to be told in any case


class RoomExtras(msgspec.Struct, frozen=True):
    """What one reader gets besides, of one room."""

    account_data: Sequence[bytes] = ()
    receipts: Receipts = {}
    unread: bytes = NONE_UNREAD  # the members unread_notifications and unread_thread_notifications
    sticky: Sequence[bytes] = ()  # events that the timeline does not show


NO_EXTRAS: Final = RoomExtras()


def joined_section(part: Slice, reading: Reading, extras: RoomExtras) -> tuple[Pieces, Sequence[Member]]:
    """A room of `rooms.join`, and the members that it brings. Cost: next to nothing for a room of which this reader
    gets what was told before.
    """
    timeline = _timeline(part, reading)
    state, members = _state(part, reading)
    tail = _common_tail(part, reading) if extras is NO_EXTRAS else _tail(part, reading, extras)
    return (b"{", timeline, b",", state, tail), members


def left_section(part: Slice, reading: Reading, extras: RoomExtras) -> Pieces:
    """A room of `rooms.leave`."""
    state, _ = _state(part, reading)
    account_data = b',"account_data":%b}' % events_object(extras.account_data)
    return b"{", _timeline(part, reading), b",", state, account_data


def _common_tail(part: Slice, reading: Reading) -> bytes:
    """What of a room stands behind its state, where it is as for all others, or all but the heroes."""
    tails, heroes = part.encoded.tails, () if part.summary is None else part.summary.heroes
    key = reading.user_id if heroes and reading.user_id in heroes else None
    made = tails.get(key)
    if made is None:
        made = tails[key] = _tail(part, reading, NO_EXTRAS)
    return made


def _tail(part: Slice, reading: Reading, extras: RoomExtras) -> bytes:
    summary = b"" if part.summary is None else b',"summary":' + _summary(part.summary, reading.user_id)
    sticky = b',"msc4354_sticky":' + events_object(extras.sticky) if extras.sticky else b""
    return b',"ephemeral":{"events":[%b]},"account_data":%b%b%b,%b}' % (
        _ephemeral(part, extras.receipts),
        events_object(extras.account_data),
        summary,
        sticky,
        extras.unread,
    )


def _ephemeral(part: Slice, own: Receipts) -> bytes:
    if part.typing is None and not part.receipts and not own:
        return b""
    if not own and part.encoded.ephemeral is not None:
        return part.encoded.ephemeral
    events = [] if part.typing is None else [part.typing]
    read = merge_receipts(part.receipts, own)
    if read:
        events.append(orjson.dumps({"content": read, "type": "m.receipt"}))
    encoded = b",".join(events)
    if not own:
        part.encoded.ephemeral = encoded
    return encoded


def _timeline(part: Slice, reading: Reading) -> bytes:
    if part.has_relations or reading.ignored:
        return _encode_timeline(part, personal_events(part, reading))
    device, now_ms, timelines = reading.device, reading.now_ms, part.encoded.timelines
    key = device if device in part.senders else None
    made = timelines.get(key)
    if made is not None and now_ms - made[0] < AGE_STEP_MS:
        return made[1]
    encoded = _encode_timeline(part, [entry.json(now_ms, device) for entry in part.timeline])
    timelines[key] = (now_ms, encoded)
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
        json = entry.json(reading.now_ms, reading.device)
        relations = reading.bundles.get(record.event_nid)
        if relations is not None:
            json = _with_relations(entry, json, relations, reading)
        yield json


def _with_relations(entry: Entry, json: bytes, relations: bytes, reading: Reading) -> bytes:
    """The client event, with `m.relations` in `unsigned`."""
    if reading.profile.reshapes:
        reader = ReaderFacts(membership=entry.membership, relations=relations)
        return shape(client_event(entry.facts, reader, reading.now_ms), entry.facts, reading.profile)
    assert json.endswith(b"}}"), "`unsigned` comes last, and has something in it"
    return b'%b,"m.relations":%b}}' % (json[:-2], relations)


def _state(part: Slice, reading: Reading) -> tuple[bytes, Sequence[Member]]:
    if reading.known_members:
        state, members = _encode_state(part, reading)
    else:
        made = part.encoded.state
        if made is None:
            made = part.encoded.state = _encode_state(part, reading)
        state, members = made
    own = reading.own_members.get(part.window.room_nid)
    if own is None or part.has_member(own.record.event_nid):
        return state, members
    comma = b"" if state.endswith(b"[]}") else b","
    return b"%b%b%b]}" % (state[:-2], comma, own.before), [*members, member_of(own)]


def _encode_state(part: Slice, reading: Reading) -> tuple[bytes, Sequence[Member]]:
    """The state, with those lazily loaded members that the client does not have yet."""
    profile, events = reading.profile, [entry.before for entry in part.state]
    members: list[Member] = []
    if profile.lazy:
        # Who asked for `state_after` takes no state from the timeline.
        told = part.state if profile.state_after else (*part.state, *part.timeline)
        members += [member_of(entry) for entry in told if entry.record.type == MEMBER]
        given = set(members)
        for entry in part.members:
            member = member_of(entry)
            if member not in given and member not in reading.known_members:
                events.append(entry.before)
                members.append(member)
    return b'"%b":%b' % (profile.state.value, events_object(events)), members


def member_of(entry: Entry) -> Member:
    """What a client has that was told of a member event."""
    return entry.record.room_nid, entry.record.event_nid


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


def room_map(sections: Iterable[tuple[str, Pieces]]) -> list[bytes]:
    """Sections by room id, as the pieces of a JSON object."""
    return json_object([(orjson.dumps(name), body) for name, body in sections])


def json_object(members: Iterable[Part]) -> list[bytes]:
    """The pieces of an object, from those of its members."""
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
