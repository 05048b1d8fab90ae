"""What users of this server are in rooms that it is not in: invited, knocking, or not any more.

Of such a room only these events are known: outliers, which set the membership of their user all the same.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier
from ranvier.core.events.client import stripped_state
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID, ServerName, UserID, server_of
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.core.state_map import EMPTY
from ranvier.io.clock import Clock
from ranvier.services.push.effects import store_invite
from ranvier.services.rooms.checking import Checking, RoomRef
from ranvier.services.rooms.live import LiveRooms, pdu_of
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import events, memberships, rooms
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.interned import (
    Interner,
    find_server_nids,
    find_user_nids,
    list_server_names,
    list_user_ids,
)
from ranvier.store.tables.prepared import Appended, Batch, Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import NodeCache

MAX_SHOWN: Final = 100
"""State events that show a room to somebody outside it; more are cut off."""

MAX_WAYS: Final = 5


class _Sender(msgspec.Struct):
    sender: str


class Standing(msgspec.Struct, frozen=True):
    """What a user is in a room that this server is not in."""

    member: Pdu
    version: RoomVersion
    shown: Sequence[bytes]  # stripped


class Elsewhere:
    """Keeps these memberships."""

    def __init__(
        self, db: Database, interner: Interner, nodes: NodeCache, live: LiveRooms, clock: Clock
    ) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._live = live
        self._clock = clock

    async def record(self, member: Pdu, version: RoomVersion, shown: Sequence[bytes] | None = None) -> None:
        """The event of a user of this server says what the user is from now on; `shown` is what the user may
        see of the room, stripped."""
        known = await self._live.find(member.room_id)
        appended = await self._db.write(self._write, member, version, shown)
        remember_appended(self._interner, self._nodes, appended)
        if known is not None:
            self._live.drop(known)

    async def find(self, user_id: UserID, room_id: RoomID) -> Standing | None:
        """What the user is there; None if nothing is known of it, or if this server is in the room."""
        return await self._db.read(self._read, user_id, room_id)

    def _write(
        self, txn: WriteTxn, member: Pdu, version: RoomVersion, shown: Sequence[bytes] | None
    ) -> Appended:
        room = rooms.insert_room(txn, member.room_id, version.name)
        if room.version != version.name:
            rooms.correct_version(txn, room.room_nid, version.name)
        event = PreparedEvent(
            pdu=member,
            outcome=Outcome.OUTLIER,
            sets_membership=True,
            stripped_state=None if shown is None else b"[" + b",".join(shown) + b"]",
        )
        batch = Batch(room_nid=room.room_nid, events=(event,), now_ms=self._clock.now_ms())
        appended = append(txn, self._interner, self._nodes, batch)
        if member.content.get("membership") == "invite":
            store_invite(txn, self._interner, room.room_nid, appended.event_nids[0], member)
        return appended

    def _read(self, txn: ReadTxn, user_id: UserID, room_id: RoomID) -> Standing | None:
        room = rooms.find_room(txn, room_id)
        user_nid = find_user_nids(txn, self._interner, (user_id,)).get(user_id)
        if room is None or user_nid is None or is_here(txn, self._interner, room.room_nid):
            return None
        now = memberships.find_membership(txn, room.room_nid, user_nid)
        if now is None:
            return None
        version = get_room_version(room.version)
        record = events.list_events(txn, (now.event_nid,))[now.event_nid]
        shown = memberships.list_stripped_states(txn, (now.event_nid,)).get(now.event_nid, b"[]")
        return Standing(
            pdu_of(record, room_id, version),
            version,
            [bytes(one) for one in msgspec.json.decode(shown, type=list[msgspec.Raw])],
        )


def is_here(txn: ReadTxn, interner: Interner, room_nid: int) -> bool:
    """Whether this server is in the room: whether anybody of it is joined; or nobody at all is any more, so that
    no other server can know the room better."""
    own = find_server_nids(txn, interner, (interner.own_server,))
    if any(memberships.is_server_in_room(txn, room_nid, nid) for nid in own.values()):
        return True
    room = rooms.list_rooms(txn, (room_nid,)).get(room_nid)
    return room is not None and _is_deserted(room)


def list_here(txn: ReadTxn, interner: Interner, found: Collection[rooms.Room]) -> set[int]:
    """The room_nids of those rooms that this server is in, as `is_here`. Cost: 1 query."""
    nids = [room.room_nid for room in found]
    (own,) = find_server_nids(txn, interner, (interner.own_server,)).values() or (0,)
    return memberships.list_rooms_with_server(txn, own, nids) | {
        room.room_nid for room in found if _is_deserted(room)
    }


def _is_deserted(room: rooms.Room) -> bool:
    return room.joined_count == 0 and room.state_root != EMPTY and not room.is_partial


def list_ways(txn: ReadTxn, interner: Interner, room_id: RoomID, user_nid: int) -> list[ServerName]:
    """Servers that may be in a room that this one is not in: that of whoever invited the user or made what the
    user is shown of it, and some that were there once."""
    room = rooms.find_room(txn, room_id)
    if room is None:
        return []
    now = memberships.find_membership(txn, room.room_nid, user_nid)
    ways: list[str] = []
    if now is not None:
        record = events.list_events(txn, (now.event_nid,))[now.event_nid]
        ways += list_user_ids(txn, interner, (record.sender_nid,)).values()
        shown = memberships.list_stripped_states(txn, (now.event_nid,)).get(now.event_nid, b"[]")
        ways += [one.sender for one in msgspec.json.decode(shown, type=list[_Sender])]
    once = [nid for nid, _ in memberships.list_servers_in_room(txn, room.room_nid)[:MAX_WAYS]]
    servers = [*list_servers(ways), *list_server_names(txn, interner, once).values()]
    return list(dict.fromkeys(server for server in servers if server != interner.own_server))


def list_servers_of(standing: Standing) -> list[ServerName]:
    """Who may be in the room: the server of who invited, of who made what is seen of the room, of the room id."""
    shown = [msgspec.json.decode(one, type=_Sender).sender for one in standing.shown]
    return list(list_servers([standing.member.sender, *shown, standing.member.room_id]))


def list_servers(names: Iterable[str]) -> Iterator[ServerName]:
    """The servers that ids name; those of rooms since v12 name none."""
    for name in names:
        try:
            yield server_of(name)
        except BadIdentifier:
            continue


class Shown(msgspec.Struct, frozen=True):
    """What another server lets an invited or knocking user see of its room."""

    stripped: Sequence[bytes]
    pdus: Sequence[Pdu]  # of the entries, those that are signed events of the room
    is_whole: bool  # all entries are, and the create event is among them


async def read_shown(checking: Checking, room: RoomRef, entries: Sequence[object]) -> Shown:
    """Check what came, and strip it. An event of the room with a bad signature is left out.

    SPEC: the specification wants whole events since v1.16; older servers send stripped ones, which cannot be
    verified, and which are shown as they were for years.
    """
    objects = [entry for entry in entries[:MAX_SHOWN] if isinstance(entry, dict)]
    checked = await checking.check(room, objects)
    stripped: list[bytes] = []
    pdus: list[Pdu] = []
    for entry, pdu in zip(objects, checked, strict=True):
        if isinstance(pdu, Pdu) and pdu.is_state:
            pdus.append(pdu)
            stripped.append(stripped_state(pdu))
        elif "signatures" not in entry and (form := _strip(entry)) is not None:
            stripped.append(form)
    is_whole = len(pdus) == len(entries) and any(pdu.type == "m.room.create" for pdu in pdus)
    return Shown(stripped, pdus, is_whole)


def _strip(entry: JsonObject) -> bytes | None:
    """The four fields that clients get, if they are there."""
    fields = {name: entry.get(name) for name in ("sender", "state_key", "type")}
    content = entry.get("content")
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in fields.values()):
        return None
    return msgspec.json.encode({"content": content, **fields})
