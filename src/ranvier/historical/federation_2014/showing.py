"""PDUs of peers become part of this server: held, and shown in the room of their context if there is one.

All of it happens in one transaction, together with making PDUs of what users of this server did before: so both
sides of the bridge tell the same story, whatever happens between.
"""

import logging
from typing import Final

from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.power import may_redact
from ranvier.core.auth.select import auth_keys_for
from ranvier.core.errors import AuthRejected, ProtocolFault
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, UserID
from ranvier.core.room_versions import BRIDGED_2014
from ranvier.historical.federation_2014.events import INVITE_JOIN, Signer, build_shown
from ranvier.historical.federation_2014.ledger import Ledger, is_shown, read_power
from ranvier.historical.federation_2014.naming import event_id_of, room_id_of, server_of_user
from ranvier.historical.federation_2014.pdu import BadPdu, OldPdu, make_pdu
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.rooms.live import pdu_of, read_slots
from ranvier.services.rooms.writer import Item, Merge, RoomWriters
from ranvier.store.database import Conflict, Database, ReadTxn, WriteTxn
from ranvier.store.tables import events, rooms
from ranvier.store.tables import historical_contexts as contexts
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.placement import DuplicateEventId
from ranvier.store.tables.prepared import Outcome, PreparedEvent

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 5

ID_LENGTH: Final = 18


class Showing:
    """Takes PDUs whose ancestors were looked after."""

    def __init__(
        self,
        db: Database,
        ledger: Ledger,
        writers: RoomWriters,
        interner: Interner,
        signer: Signer,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._db = db
        self._ledger = ledger
        self._writers = writers
        self._interner = interner
        self._signer = signer
        self._clock = clock
        self._randomness = randomness

    async def take(self, pdu: OldPdu) -> None:
        """Hold a PDU, and show it. One of a context at a time. Raises: BadPdu; StoreFault."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                return await self._take(pdu)
            except Conflict:
                if attempt == MAX_ATTEMPTS - 1:
                    raise
            except DuplicateEventId as error:
                raise BadPdu("another room has an event of this name") from error

    async def _take(self, pdu: OldPdu) -> None:
        room = await self._db.read(self._find_room, pdu.context)
        if room is None:
            if pdu.pdu_type == INVITE_JOIN and pdu.state_key is None:
                self._check_asks_us(pdu)
                raise BadPdu("this server is not in that room")
            await self._db.write(self._ledger.take, pdu)
            return
        shown = [one for one in (self._try_build(pdu, room), self._make_join(pdu, room)) if one is not None]
        slots = {slot for one in shown for slot in _slots_of(one)}
        live = await self._writers.find_ready(room.room_id, slots)
        if live is None:
            raise Conflict("the room is gone")
        effects = {one.event_id: self._writers.effect_of(live.fork(), one) for one in shown}
        join = shown[-1] if pdu.pdu_type == INVITE_JOIN and shown else None

        def merge(txn: WriteTxn) -> Merge:
            now = rooms.list_rooms(txn, (room.room_nid,))[room.room_nid]
            context = self._ledger.open_context(txn, now)
            self._ledger.convert(txn, context, now)
            items = self._take_in(txn, pdu, now, join)
            return Merge(
                now.revision,
                [Item(one, effects.get(one.pdu.event_id)) for one in items],
                [one.pdu.slot for one in items if one.pdu.is_state],
            )

        await self._writers.append_merging(live, merge)

    def _take_in(self, txn: WriteTxn, pdu: OldPdu, room: rooms.Room, join: Pdu | None) -> list[PreparedEvent]:
        """Hold the PDU; what is to be shown of it. Raises: BadPdu."""
        if pdu.pdu_type == INVITE_JOIN and pdu.state_key is None:
            return self._let_in(txn, pdu, room, join)
        missing = self._ledger.list_missing(txn, pdu)
        verdict = self._ledger.take(txn, pdu)
        if not verdict.is_new or not verdict.is_current or not is_shown(pdu):
            return []
        event = self._try_build(pdu, room, txn, [event_id_of(name) for name in missing])
        if event is None:
            return []
        return [
            PreparedEvent(
                pdu=event,
                outcome=Outcome.ACCEPTED,
                # Behind a gap the event also cites what is missing, where history can be fetched.
                state_before=room.state_root if missing else None,
                redacts_target=self._redacts(txn, event, room),
            )
        ]

    def _try_build(
        self, pdu: OldPdu, room: rooms.Room, txn: ReadTxn | None = None, missing: list[EventID] | None = None
    ) -> Pdu | None:
        """The event that shows a PDU, on the head of the room if a transaction is given; None if no event of
        today can say the same."""
        heads = [] if txn is None else list(events.list_events(txn, room.extremities).values())
        depth = max((head.depth for head in heads), default=0) + 1
        cited = [head.event_id for head in heads] + (missing or [])
        try:
            return build_shown(pdu, room.room_id, cited, depth, self._signer)
        except ProtocolFault as fault:
            log.info("%s cannot be shown: %s", pdu.label, fault)
            return None

    def _redacts(self, txn: ReadTxn, event: Pdu, room: rooms.Room) -> bool:
        if event.redacts is None:
            return False
        target = events.find_event(txn, event.redacts)
        if target is None or target.room_nid != room.room_nid or target.status.is_outlier:
            return False
        power = read_power(txn, self._interner, room.room_nid, room.room_id)
        return may_redact(event, pdu_of(target, room.room_id, BRIDGED_2014), power)

    # A peer asks that its user be let in.

    def _check_asks_us(self, pdu: OldPdu) -> UserID:
        """Raises: BadPdu."""
        if pdu.carried("target_host") != self._signer.server:
            raise BadPdu("target_host is another server")
        if pdu.user_id is None or server_of_user(pdu.user_id) != pdu.origin:
            raise BadPdu("user_id is no user of the server that asks")
        if pdu.content.get("membership") != "join":
            raise BadPdu("content.membership is not join")
        return UserID(pdu.user_id)

    def _make_join(self, pdu: OldPdu, room: rooms.Room) -> Pdu | None:
        """The join that is asked for, before it has a place."""
        if pdu.pdu_type != INVITE_JOIN or pdu.state_key is not None:
            return None
        user_id = self._check_asks_us(pdu)
        content = {"membership": "join"} | {
            key: value
            for key in ("displayname", "avatar_url")
            if isinstance(value := pdu.content.get(key), str)
        }
        name = (self._signer.server, self._randomness.text(ID_LENGTH))
        more = {"user_id": user_id, "state_key": user_id}
        now_ms = self._clock.now_ms()
        return self._try_build(
            make_pdu(name, pdu.context, now_ms, "m.room.member", content, (), 0, more), room
        )

    def _let_in(self, txn: WriteTxn, pdu: OldPdu, room: rooms.Room, join: Pdu | None) -> list[PreparedEvent]:
        """Raises: BadPdu when the room does not let the user in."""
        user_id = self._check_asks_us(pdu)
        if join is None:
            raise BadPdu("this user cannot be let in")
        slots = auth_keys_for("m.room.member", user_id, user_id, join.content, BRIDGED_2014)
        state = read_slots(txn, self._interner, room.room_nid, room.room_id, BRIDGED_2014, slots)
        try:
            check_state_dependent(join, lambda type_, key: state.get((type_, key)), BRIDGED_2014)
        except AuthRejected as fault:
            raise BadPdu(f"the room does not let the user in: {fault}") from fault
        if not self._ledger.take(txn, pdu).is_new:
            return []
        prev, depth = self._ledger.place(txn, pdu.context)
        level = read_power(txn, self._interner, room.room_nid, room.room_id).user_level(user_id)
        more = {"user_id": user_id, "state_key": user_id, "power_level": level}
        more |= self._ledger.prev_state(txn, pdu.context, "m.room.member", user_id)
        name = (self._signer.server, join.event_id[1:].partition(":")[0])
        answer = make_pdu(
            name, pdu.context, join.origin_server_ts, "m.room.member", join.content, prev, depth, more
        )
        self._ledger.send(txn, answer, self._ledger.list_recipients(txn, room.room_nid, answer))
        event = self._try_build(answer, room, txn)
        return [] if event is None else [PreparedEvent(pdu=event, outcome=Outcome.ACCEPTED)]

    # What users of this server did.

    async def convert(self, room_nid: int) -> None:
        """Make PDUs of events of a room that are none yet."""
        await self._db.write(self._convert, room_nid)

    async def catch_up(self, context: str) -> None:
        """The same for the room of a context, if there is one and it has any."""
        room_nid = await self._db.read(self._find_behind, context)
        if room_nid is not None:
            await self.convert(room_nid)

    def _find_behind(self, txn: ReadTxn, name: str) -> int | None:
        room = self._find_room(txn, name)
        if room is None:
            return None
        context = contexts.find_context_of_room(txn, room.room_nid)
        done = 0 if context is None else context.converted_position
        return room.room_nid if room.newest_local_position > done else None

    def _convert(self, txn: WriteTxn, room_nid: int) -> None:
        room = rooms.list_rooms(txn, (room_nid,))[room_nid]
        self._ledger.convert(txn, self._ledger.open_context(txn, room), room)

    def _find_room(self, txn: ReadTxn, name: str) -> rooms.Room | None:
        """The room of a context; also one that was made here a moment ago, whose context is to be made yet."""
        context = contexts.find_context(txn, name)
        if context is not None and context.room_nid is not None:
            return rooms.list_rooms(txn, (context.room_nid,)).get(context.room_nid)
        room_id = room_id_of(name, self._signer.server)
        room = None if room_id is None else rooms.find_room(txn, room_id)
        is_new = room is not None and room.version == BRIDGED_2014.name and room.newest_local_position > 0
        return room if is_new else None


def _slots_of(event: Pdu) -> list[tuple[str, str]]:
    return [event.slot] if event.is_state else []
