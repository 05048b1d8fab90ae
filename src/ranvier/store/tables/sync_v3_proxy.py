"""What a proxy for sync v3 has heard from its upstream, one view for each access token.

Tables (of the proxy's own database): sync_v3_devices, sync_v3_facts, sync_v3_messages.
Owner: historical.sync_v3.proxy. Growth: a row for each state slot of a user's rooms, and for each change of
one that a session may still ask for; a row a message until it is acknowledged.
Index -> query: token_hash -> the device; primary key of facts -> one slot, the slots of a room; by_kind ->
what changed since a position, and the facts of all rooms but for their members; by_end -> what may go.

A fact holds in [from_position, to_position). So the view at any position that is kept is one condition.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn

HOLDS: Final = 2**63 - 1
"""The end of what is true now."""

MEMBER: Final = "member"  # state_key: the user; value: the event
STATE: Final = "state"  # any other state; value: the event
ACCOUNT: Final = "account"  # value: the content
MEMBERSHIP: Final = "membership"  # the user's own; value: a JSON string
TYPING: Final = "typing"  # value: an array of user ids
ACTIVITY: Final = "activity"  # value: origin_server_ts of the newest event
SUMMARY: Final = "summary"  # value: as the upstream's


class Device(msgspec.Struct, frozen=True):
    device_nid: int
    user_id: str
    since: str | None


class Slot(msgspec.Struct, frozen=True):
    """What a fact is about."""

    room_id: str
    kind: str
    type: str = ""
    state_key: str = ""


class Fact(msgspec.Struct, frozen=True):
    slot: Slot
    position: int  # since when it holds
    value: bytes


_COLUMNS: Final = "room_id, kind, type, state_key, from_position, value"
_FIND_DEVICE: Final = """
    SELECT device_nid, user_id, since FROM sync_v3_devices WHERE token_hash = :token_hash
"""
_INSERT_DEVICE: Final = """
    INSERT INTO sync_v3_devices (device_nid, token_hash, user_id, since, kept_from, used_ms)
    VALUES (:device_nid, :token_hash, :user_id, NULL, 0, :now_ms) ON CONFLICT (token_hash) DO NOTHING
"""
_TOUCH: Final = "UPDATE sync_v3_devices SET used_ms = :now_ms WHERE device_nid = :device_nid"
_SET_SINCE: Final = "UPDATE sync_v3_devices SET since = :since WHERE device_nid = :device_nid"
_SINCE: Final = "SELECT since FROM sync_v3_devices WHERE device_nid = :device_nid"
_KEPT_FROM: Final = "SELECT kept_from FROM sync_v3_devices WHERE device_nid = :device_nid"
_SET_KEPT_FROM: Final = "UPDATE sync_v3_devices SET kept_from = :floor WHERE device_nid = :device_nid"
_UNUSED: Final = """
    SELECT device_nid FROM sync_v3_devices WHERE used_ms < :before_ms ORDER BY used_ms LIMIT :limit
"""
_DELETE_DEVICE: Final = "DELETE FROM sync_v3_devices WHERE device_nid = :device_nid"

_SLOT: Final = """
    device_nid = :device_nid AND room_id = :room_id AND kind = :kind AND type = :type AND state_key = :state_key
"""
_VALUE: Final = f"SELECT value FROM sync_v3_facts WHERE {_SLOT} AND to_position = {HOLDS}"  # noqa: S608
_END: Final = f"""
    UPDATE sync_v3_facts SET to_position = :position
    WHERE {_SLOT} AND to_position = {HOLDS} AND from_position < :position
"""  # noqa: S608
_PUT: Final = f"""
    INSERT INTO sync_v3_facts (device_nid, room_id, kind, type, state_key, from_position, to_position, value)
    VALUES (:device_nid, :room_id, :kind, :type, :state_key, :position, {HOLDS}, :value)
    ON CONFLICT (device_nid, room_id, kind, type, state_key, from_position)
        DO UPDATE SET value = excluded.value, to_position = excluded.to_position
"""  # noqa: S608
_OF_ROOM: Final = f"""
    SELECT {_COLUMNS} FROM sync_v3_facts
    WHERE device_nid = :device_nid AND room_id = :room_id AND kind = :kind
        AND from_position <= :at AND to_position > :at
"""  # noqa: S608
_OF_KINDS: Final = f"""
    SELECT {_COLUMNS} FROM sync_v3_facts
    WHERE device_nid = :device_nid AND kind IN (:kinds[]) AND from_position <= :at AND to_position > :at
        AND type IN (:types[]) AND state_key = ''
"""  # noqa: S608
_OF_KIND: Final = f"""
    SELECT {_COLUMNS} FROM sync_v3_facts
    WHERE device_nid = :device_nid AND kind = :kind AND from_position > :since AND from_position <= :up_to
        AND to_position > :up_to ORDER BY from_position, room_id, type
"""  # noqa: S608
_CHANGES: Final = f"""
    SELECT {_COLUMNS} FROM sync_v3_facts
    WHERE device_nid = :device_nid AND kind = :kind AND from_position > :since AND from_position <= :up_to
        AND room_id = :room_id ORDER BY from_position, state_key LIMIT :limit
"""  # noqa: S608
_ROOMS_CHANGED: Final = """
    SELECT DISTINCT room_id FROM sync_v3_facts
    WHERE device_nid = :device_nid AND kind IN (:kinds[]) AND from_position > :since AND from_position <= :up_to
        AND type IN (:types[]) AND room_id <> ''
"""
_PRUNE: Final = "DELETE FROM sync_v3_facts WHERE device_nid = :device_nid AND to_position <= :floor"
_LEFT: Final = f"""
    SELECT room_id FROM sync_v3_facts
    WHERE device_nid = :device_nid AND kind = '{MEMBERSHIP}' AND from_position <= :floor
        AND to_position = {HOLDS} AND value <> :join
"""  # noqa: S608
_DELETE_ROOM: Final = "DELETE FROM sync_v3_facts WHERE device_nid = :device_nid AND room_id = :room_id"

_INSERT_MESSAGE: Final = """
    INSERT INTO sync_v3_messages (device_nid, position, message) VALUES (:device_nid, :position, :message)
"""
_MESSAGES: Final = """
    SELECT position, message FROM sync_v3_messages
    WHERE device_nid = :device_nid AND position > :since AND position <= :up_to ORDER BY position LIMIT :limit
"""
_DELETE_MESSAGES: Final = """
    DELETE FROM sync_v3_messages WHERE device_nid = :device_nid AND position <= :up_to
"""

JOIN: Final = b'"join"'
LEAVE: Final = b'"leave"'


def find_device(txn: ReadTxn, token_hash: str) -> Device | None:
    row = txn.first(_FIND_DEVICE, token_hash=token_hash)
    return None if row is None else Device(*row)


def insert_device(txn: WriteTxn, token_hash: str, user_id: str, now_ms: int) -> Device:
    """The device of a token; the one that is there already, if it is."""
    txn.execute(
        _INSERT_DEVICE,
        device_nid=txn.next_position(),
        token_hash=token_hash,
        user_id=user_id,
        now_ms=now_ms,
    )
    device = find_device(txn, token_hash)
    assert device is not None, "it was inserted, or it was there"
    return device


def touch_device(txn: WriteTxn, device_nid: int, now_ms: int) -> None:
    txn.execute(_TOUCH, device_nid=device_nid, now_ms=now_ms)


def find_since(txn: ReadTxn, device_nid: int) -> str | None:
    """The upstream's token up to which all is stored."""
    value: str | None = txn.value(_SINCE, device_nid=device_nid)
    return value


def set_since(txn: WriteTxn, device_nid: int, since: str) -> None:
    txn.execute(_SET_SINCE, device_nid=device_nid, since=since)


def find_kept_from(txn: ReadTxn, device_nid: int) -> int:
    """Before this position the view is not complete any more."""
    return int(txn.value(_KEPT_FROM, device_nid=device_nid) or 0)


def list_unused_devices(txn: ReadTxn, before_ms: int, limit: int) -> list[int]:
    return [row[0] for row in txn.all(_UNUSED, before_ms=before_ms, limit=limit)]


def delete_device(txn: WriteTxn, device_nid: int) -> None:
    """With everything that was heard for it."""
    txn.execute(_DELETE_DEVICE, device_nid=device_nid)


def put_fact(txn: WriteTxn, device_nid: int, fact: Fact) -> bool:
    """What holds from a position on, in the place of what held before. False: it was so already."""
    slot = _slot(device_nid, fact.slot)
    if txn.value(_VALUE, **slot) == fact.value:
        return False
    txn.execute(_END, **slot, position=fact.position)
    txn.execute(_PUT, **slot, position=fact.position, value=fact.value)
    return True


def put_new_facts(txn: WriteTxn, device_nid: int, facts: Sequence[Fact]) -> None:
    """Facts of slots of which nothing is known: a room's first state."""
    txn.execute_many(
        _PUT,
        [{**_slot(device_nid, one.slot), "position": one.position, "value": one.value} for one in facts],
    )


def end_fact(txn: WriteTxn, device_nid: int, slot: Slot, position: int) -> None:
    """From a position on it is not so any more."""
    txn.execute(_END, **_slot(device_nid, slot), position=position)


def find_value(txn: ReadTxn, device_nid: int, slot: Slot) -> bytes | None:
    """What holds now."""
    value: bytes | None = txn.value(_VALUE, **_slot(device_nid, slot))
    return value


def list_facts_of_room(txn: ReadTxn, device_nid: int, room_id: str, kind: str, at: int) -> list[Fact]:
    """The facts of one kind of a room at a position, in no order."""
    return [_fact(row) for row in txn.all(_OF_ROOM, device_nid=device_nid, room_id=room_id, kind=kind, at=at)]


def list_facts_of_kinds(
    txn: ReadTxn, device_nid: int, kinds: Collection[str], types: Collection[str], at: int
) -> list[Fact]:
    """The facts of all rooms that have no state key, at a position, in no order."""
    return [
        _fact(row)
        for row in txn.all(_OF_KINDS, device_nid=device_nid, kinds=list(kinds), types=list(types), at=at)
    ]


def list_changed_facts(txn: ReadTxn, device_nid: int, kind: str, since: int, up_to: int) -> list[Fact]:
    """What of a kind began to hold in (since, up_to], and holds at its end."""
    return [
        _fact(row) for row in txn.all(_OF_KIND, device_nid=device_nid, kind=kind, since=since, up_to=up_to)
    ]


def list_changes_of_room(
    txn: ReadTxn, device_nid: int, room_id: str, kind: str, since: int, up_to: int, limit: int
) -> list[Fact]:
    """What of a kind began to hold in a room in (since, up_to], the oldest first."""
    return [
        _fact(row)
        for row in txn.all(
            _CHANGES,
            device_nid=device_nid,
            room_id=room_id,
            kind=kind,
            since=since,
            up_to=up_to,
            limit=limit,
        )
    ]


def list_rooms_changed(
    txn: ReadTxn, device_nid: int, kinds: Collection[str], types: Collection[str], since: int, up_to: int
) -> set[str]:
    """Rooms of which something began to hold in (since, up_to]."""
    return {
        row[0]
        for row in txn.all(
            _ROOMS_CHANGED,
            device_nid=device_nid,
            kinds=list(kinds),
            types=list(types),
            since=since,
            up_to=up_to,
        )
    }


def forget_before(txn: WriteTxn, device_nid: int, floor: int) -> None:
    """Forget what nobody will ask for: what ended up to a position, and rooms that were left by then."""
    txn.execute(_PRUNE, device_nid=device_nid, floor=floor)
    for (room_id,) in txn.all(_LEFT, device_nid=device_nid, floor=floor, join=JOIN):
        txn.execute(_DELETE_ROOM, device_nid=device_nid, room_id=room_id)
    txn.execute(_SET_KEPT_FROM, device_nid=device_nid, floor=floor)


def insert_messages(txn: WriteTxn, device_nid: int, messages: Sequence[bytes]) -> None:
    """Queue messages, each at a position of its own."""
    txn.execute_many(
        _INSERT_MESSAGE,
        [
            {"device_nid": device_nid, "position": txn.next_position(), "message": message}
            for message in messages
        ],
    )


def list_messages(
    txn: ReadTxn, device_nid: int, since: int, up_to: int, limit: int
) -> list[tuple[int, bytes]]:
    """Messages in (since, up_to], oldest first."""
    return [
        (position, bytes(message))
        for position, message in txn.all(
            _MESSAGES, device_nid=device_nid, since=since, up_to=up_to, limit=limit
        )
    ]


def delete_messages(txn: WriteTxn, device_nid: int, up_to: int) -> None:
    txn.execute(_DELETE_MESSAGES, device_nid=device_nid, up_to=up_to)


def _slot(device_nid: int, slot: Slot) -> dict[str, object]:
    return {
        "device_nid": device_nid,
        "room_id": slot.room_id,
        "kind": slot.kind,
        "type": slot.type,
        "state_key": slot.state_key,
    }


def _fact(row: tuple[str, str, str, str, int, bytes]) -> Fact:
    room_id, kind, type_, state_key, position, value = row
    return Fact(Slot(room_id, kind, type_, state_key), position, bytes(value))
