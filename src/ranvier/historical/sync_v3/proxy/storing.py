"""Stores one answer of the upstream: all of it and its token, or nothing.

What is malformed in it is left out: it could not be shown to anybody.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.historical.sync_v3.proxy.tallies import count, decode_tally, membership_of, stored_membership
from ranvier.store.database import Kind, WriteTxn
from ranvier.store.tables import sync_v3_proxy as table
from ranvier.store.tables.sync_v3_proxy import (
    ACCOUNT,
    ACTIVITY,
    HOLDS,
    JOIN,
    LEAVE,
    MEMBER,
    MEMBERSHIP,
    STATE,
    SUMMARY,
    TYPING,
    Fact,
    Slot,
)
from ranvier.store.tables.sync_v3_sessions import list_sessions

_MEMBER_EVENT: Final = "m.room.member"
_NOTHING: Final[JsonObject] = {}


def device_key(device_nid: int) -> str:
    """The name of a proxy's device among sessions."""
    return f"token {device_nid}"


class Heard(msgspec.Struct, frozen=True):
    """One answer to a device."""

    device_nid: int
    answer: JsonObject
    is_first: bool  # it tells everything, and not what changed


def store(txn: WriteTxn, heard: Heard) -> None:
    """Take in an answer, and forget what no session can ask for any more.

    Effects: a USER hint for the device.
    """
    storing = _Storing(txn, heard.device_nid)
    rooms = _object(heard.answer, "rooms")
    joined = _objects(_object(rooms, "join"))
    gone = {room_id for name in ("leave", "invite", "knock") for room_id in _objects(_object(rooms, name))}
    if heard.is_first:
        gone |= storing.list_joined() - joined.keys()
    for room_id, room in joined.items():
        storing.join(room_id, room, is_whole=heard.is_first)
    for room_id in gone - joined.keys():
        storing.leave(room_id)
    storing.account_data("", heard.answer)
    messages = [
        orjson.dumps(message)
        for message in _events(heard.answer, "to_device")
        if isinstance(message.get("type"), str)
    ]
    table.insert_messages(txn, heard.device_nid, messages)
    table.set_since(txn, heard.device_nid, heard.answer["next_batch"])
    _prune(txn, heard.device_nid)
    txn.hint(Kind.USER, heard.device_nid)


def stop_typing(txn: WriteTxn, device_nid: int) -> None:
    """Nobody was heard for a while: who typed then is not known to type now."""
    position = txn.next_position()
    for fact in table.list_facts_of_kinds(txn, device_nid, (TYPING,), ("",), HOLDS - 1):
        table.put_fact(txn, device_nid, Fact(fact.slot, position, b"[]"))
    txn.hint(Kind.USER, device_nid)


class _Storing:
    """The storing of one answer."""

    def __init__(self, txn: WriteTxn, device_nid: int) -> None:
        self._txn = txn
        self._device_nid = device_nid
        self._position = txn.next_position()

    def list_joined(self) -> set[str]:
        facts = table.list_facts_of_kinds(self._txn, self._device_nid, (MEMBERSHIP,), ("",), HOLDS - 1)
        return {fact.slot.room_id for fact in facts if fact.value == JOIN}

    def join(self, room_id: str, room: JsonObject, *, is_whole: bool) -> None:
        """What is told of a joined room; all of its state, if it was not joined before."""
        timeline = [event for event in _events(room, "timeline") if _is_event(event)]
        changes = [event for event in (*_events(room, "state"), *timeline) if _is_state(event)]
        known = table.find_value(self._txn, self._device_nid, Slot(room_id, MEMBERSHIP))
        if known != JOIN or is_whole:
            self._begin(room_id, changes, is_known=known is not None)
        else:
            self._change(room_id, changes)
        if known != JOIN:
            self._put(Slot(room_id, MEMBERSHIP), JOIN)
        if timeline:
            self._put(Slot(room_id, ACTIVITY), orjson.dumps(_timestamp(timeline[-1])))
        self._typing(room_id, room)
        self.account_data(room_id, room)

    def leave(self, room_id: str) -> None:
        if table.find_value(self._txn, self._device_nid, Slot(room_id, MEMBERSHIP)) == JOIN:
            self._put(Slot(room_id, MEMBERSHIP), LEAVE)
            table.end_fact(self._txn, self._device_nid, Slot(room_id, TYPING), self._position)

    def account_data(self, room_id: str, section: JsonObject) -> None:
        for event in _events(section, "account_data"):
            type_, content = event.get("type"), event.get("content")
            if _is_text(type_) and type(content) is dict:
                self._put(Slot(room_id, ACCOUNT, str(type_)), orjson.dumps(content))

    def _change(self, room_id: str, changes: Sequence[JsonObject]) -> None:
        """State of a room that is known, in its order."""
        before = table.find_value(self._txn, self._device_nid, Slot(room_id, SUMMARY))
        tally = decode_tally(before)
        for event in changes:
            slot, value = _slot_of(room_id, event), _encode(room_id, event)
            if slot.kind == MEMBER:
                old = table.find_value(self._txn, self._device_nid, slot)
                tally.change(slot.state_key, stored_membership(old), membership_of(event))
            # Each at a position of its own, so that changes can be told one after the other.
            self._put(slot, value, self._txn.next_position())
        if tally.is_short:
            facts = table.list_facts_of_room(self._txn, self._device_nid, room_id, MEMBER, HOLDS - 1)
            facts.sort(key=lambda fact: (fact.position, fact.slot.state_key))
            tally = count(orjson.loads(fact.value) for fact in facts)
        self._put(Slot(room_id, SUMMARY), tally.encode())

    def _begin(self, room_id: str, changes: Sequence[JsonObject], *, is_known: bool) -> None:
        """A room as it is now, whatever was known of it before."""
        events = {_slot_of(room_id, event): event for event in changes}
        values = {slot: _encode(room_id, event) for slot, event in events.items()}
        tally = count(event for slot, event in events.items() if slot.kind == MEMBER)
        self._put(Slot(room_id, SUMMARY), tally.encode())
        if not is_known:
            facts = [Fact(slot, self._position, value) for slot, value in values.items()]
            table.put_new_facts(self._txn, self._device_nid, facts)
            return
        for kind in (MEMBER, STATE):
            for fact in table.list_facts_of_room(self._txn, self._device_nid, room_id, kind, HOLDS - 1):
                if fact.slot not in values:
                    table.end_fact(self._txn, self._device_nid, fact.slot, self._position)
        for slot, value in values.items():
            self._put(slot, value)

    def _typing(self, room_id: str, room: JsonObject) -> None:
        for event in _events(room, "ephemeral"):
            users = _object(event, "content").get("user_ids")
            if event.get("type") == "m.typing" and isinstance(users, list):
                users = sorted({user for user in users if isinstance(user, str)})
                self._put(Slot(room_id, TYPING), orjson.dumps(users))

    def _put(self, slot: Slot, value: bytes, position: int | None = None) -> None:
        fact = Fact(slot, self._position if position is None else position, value)
        table.put_fact(self._txn, self._device_nid, fact)


def _prune(txn: WriteTxn, device_nid: int) -> None:
    """A session pages in the snapshot of its token, which is the one it sent last or a later one."""
    confirmed = [one.events for one in list_sessions(txn, device_key(device_nid)) if one.events]
    if confirmed and (floor := min(confirmed)) > table.find_kept_from(txn, device_nid):
        table.forget_before(txn, device_nid, floor)


def _slot_of(room_id: str, event: JsonObject) -> Slot:
    if event["type"] == _MEMBER_EVENT:
        return Slot(room_id, MEMBER, "", event["state_key"])
    return Slot(room_id, STATE, event["type"], event["state_key"])


def _encode(room_id: str, event: JsonObject) -> bytes:
    """As it is shown: with its room, and without an age, which would make equal events differ."""
    unsigned = {key: value for key, value in _object(event, "unsigned").items() if key != "age"}
    shown: dict[str, Any] = {**event, "room_id": room_id, "unsigned": unsigned}
    if not unsigned:
        del shown["unsigned"]
    return orjson.dumps(shown)


def _timestamp(event: JsonObject) -> int:
    value = event.get("origin_server_ts")
    return value if type(value) is int and 0 <= value < 2**53 else 0


def _is_event(event: JsonObject) -> bool:
    return _is_text(event.get("type")) and type(event.get("content")) is dict


def _is_state(event: JsonObject) -> bool:
    return _is_event(event) and _is_text(event.get("state_key"))


def _is_text(value: object) -> bool:
    """Whether it can be a key of ours. U+0000 is not for PostgreSQL; see ADR 1."""
    return isinstance(value, str) and "\0" not in value and len(value) <= MAX_IDENTIFIER_BYTES


def _object(value: Mapping[str, Any], key: str) -> JsonObject:
    found = value.get(key)
    return found if type(found) is dict else _NOTHING


def _objects(value: JsonObject) -> dict[str, JsonObject]:
    """Rooms by id."""
    return {key: one for key, one in value.items() if key and type(one) is dict and _is_text(key)}


def _events(section: JsonObject, name: str) -> Iterator[JsonObject]:
    events = _object(section, name).get("events")
    for event in events if isinstance(events, list) else ():
        if type(event) is dict:
            yield event
