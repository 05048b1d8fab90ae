"""A room in a database under test: makes events as other floors would hand them over, and appends them."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import orjson

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.store.database import Database
from ranvier.store.tables import rooms
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.prepared import Appended, Batch, Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import NodeCache

ALICE = UserID("@alice:here")
BOB = UserID("@bob:here")
CAROL = UserID("@carol:there")


def make_pdu(name: str, **fields: Any) -> Pdu:
    """An event whose id follows from `name`."""
    content = fields.pop("content", {"body": name})
    values: dict[str, Any] = {
        "event_id": event_id_of(name),
        "room_id": RoomID("!room:here"),
        "sender": ALICE,
        "type": "m.room.message",
        "origin_server_ts": 1_000,
        "depth": 1,
        "prev_events": (),
        "auth_events": (),
        "signatures": {},
        "json": orjson.dumps({"content": content, "name": name}),
        **fields,
    }
    return Pdu(content=content, **values)


def event_id_of(name: str) -> EventID:
    return EventID("$" + sha256(name.encode()).hexdigest()[:43])


def member(name: str, user_id: UserID, membership: object, **fields: Any) -> Pdu:
    return make_pdu(
        name,
        type="m.room.member",
        state_key=user_id,
        sender=user_id,
        content={"membership": membership},
        **fields,
    )


def accepted(pdu: Pdu, **fields: Any) -> PreparedEvent:
    return PreparedEvent(pdu=pdu, outcome=Outcome.ACCEPTED, is_local=True, **fields)


class RoomBuilder:
    """Appends to one room and keeps what it was told of the head."""

    def __init__(self, db: Database, room: rooms.Room, interner: Interner, cache: NodeCache) -> None:
        self.db = db
        self.room_nid = room.room_nid
        self.room_id = room.room_id
        self.interner = interner
        self.cache = cache
        self.revision = room.revision
        self.nids: dict[str, int] = {}

    @classmethod
    async def create(
        cls, db: Database, room_id: str = "!room:here", other: "RoomBuilder | None" = None
    ) -> "RoomBuilder":
        room = await db.write(rooms.insert_room, RoomID(room_id), "11")
        interner = other.interner if other else Interner(ServerName("here"))
        return cls(db, room, interner, other.cache if other else NodeCache())

    async def append(self, *events: PreparedEvent, **fields: Any) -> Appended:
        moves = any(e.outcome is Outcome.ACCEPTED for e in events) or "replace_state" in fields
        batch = Batch(
            room_nid=self.room_nid,
            events=events,
            now_ms=fields.pop("now_ms", 5_000),
            revision=fields.pop("revision", self.revision if moves else None),
            **fields,
        )
        appended = await self.db.write(append, self.interner, self.cache, batch)
        remember_appended(self.interner, self.cache, appended)
        self.revision = appended.revision
        return appended

    async def say(self, name: str, **fields: Any) -> int:
        """Append a live message; its number."""
        return (await self.append(accepted(make_pdu(name, **fields)))).event_nids[0]

    async def set_state(self, name: str, slot: tuple[str, str], content: Mapping[str, Any]) -> int:
        pdu = make_pdu(name, type=slot[0], state_key=slot[1], content=dict(content))
        return (await self.append(accepted(pdu))).event_nids[0]

    async def set_membership(self, name: str, user_id: UserID, membership: object) -> int:
        return (await self.append(accepted(member(name, user_id, membership)))).event_nids[0]

    async def read(self) -> rooms.Room:
        room = await self.db.read(rooms.find_room, self.room_id)
        assert room is not None
        return room

    async def user_nid(self, user_id: UserID) -> int:
        nid = self.interner.users.number(user_id)
        assert nid is not None
        return nid
