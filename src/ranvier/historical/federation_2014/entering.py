"""Contexts that this server is not in: its users are invited to them, ask to be let in, enter, or decline.

Source: docs/federation-2014.md, "Joining".
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from ranvier.core.errors import MatrixError, ProtocolFault
from ranvier.core.events.client import stripped_state
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, StateKey, UserID
from ranvier.core.room_versions import BRIDGED_2014
from ranvier.historical.federation_2014.events import Signer, build_default_state, build_shown, list_lacking
from ranvier.historical.federation_2014.ledger import Ledger, find_held, is_shown, resolve_prev
from ranvier.historical.federation_2014.naming import event_id_of, room_id_of, server_of_user
from ranvier.historical.federation_2014.pdu import BadPdu, OldPdu
from ranvier.historical.federation_2014.peers import Peers
from ranvier.io.ports import RemoteFault
from ranvier.services.federation.invitations import check_welcome
from ranvier.services.flows.entrance import Entrance
from ranvier.services.flows.remote_joining import RoomStore
from ranvier.services.rooms.elsewhere import Elsewhere, is_here
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import historical_contexts as contexts
from ranvier.store.tables import historical_pdus as pdus
from ranvier.store.tables import rooms
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.prepared import Outcome, PreparedEvent

log = logging.getLogger(__name__)

_SHOWN_TO_INVITED: Final = (
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
)


class Waiting:
    """Who asked to be let in, and waits for the answer."""

    def __init__(self) -> None:
        self._futures: dict[tuple[str, UserID], asyncio.Future[EventID]] = {}

    def expect(self, context: str, user_id: UserID) -> asyncio.Future[EventID]:
        """The id of the join, once it has come."""
        key = (context, user_id)
        if key not in self._futures:
            self._futures[key] = asyncio.get_running_loop().create_future()
        return self._futures[key]

    def is_expected(self, context: str, user_id: str) -> bool:
        return (context, user_id) in self._futures

    def come(self, context: str, user_id: UserID, event_id: EventID) -> None:
        future = self._futures.get((context, user_id))
        if future is not None and not future.done():
            future.set_result(event_id)

    def forget(self, context: str, user_id: UserID) -> None:
        self._futures.pop((context, user_id), None)


class Entering:
    """Makes rooms of contexts, and keeps invites to them."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        ledger: Ledger,
        store: RoomStore,
        elsewhere: Elsewhere,
        peers: Peers,
        signer: Signer,
    ) -> None:
        self._db = db
        self._interner = interner
        self._ledger = ledger
        self._store = store
        self._elsewhere = elsewhere
        self._peers = peers
        self._signer = signer

    async def is_in(self, context: str) -> bool:
        """Whether this server is in the context: whether there is a room that shows it, with a user of ours."""
        return await self._db.read(self._read_is_in, context)

    async def enter(self, join: OldPdu, host: ServerName) -> EventID:
        """Make the room of a context that a user of this server was let into; `host` tells its state.

        Raises: RemoteFault; BadPdu when the context cannot be a room.
        """
        room_id = await self._find_name(join.context)
        state = await self._peers.fetch_state(host, join.context)
        held = await self._db.write(self._hold, join, state)
        shown = self._build_state(join, held, host, room_id)
        event = await self._build_join(join, room_id)
        outliers = tuple(PreparedEvent(pdu=pdu, outcome=Outcome.OUTLIER) for pdu in shown.values())
        await self._store.enter(room_id, BRIDGED_2014, Entrance(outliers, shown), event)
        await self._db.write(self._show, join.context, room_id)
        return event.event_id

    async def keep_invite(self, invite: OldPdu) -> None:
        """Let a user of this server know of an invite, to a context that this server is not in.

        Raises: BadPdu.
        """
        room_id, user_id = await self._find_name(invite.context), UserID(str(invite.state_key))
        try:
            await self._db.read(check_welcome, UserID(invite.user_id or ""), user_id, room_id)
        except MatrixError as error:
            raise BadPdu(error.message) from error
        state: Sequence[OldPdu] = ()
        try:
            state = await self._peers.fetch_state(invite.origin, invite.context)
        except RemoteFault as fault:
            log.info("%s shows nothing of the room of an invite: %s", invite.origin, fault)
        await self._db.write(self._hold_aside, invite)
        shown = [pdu for pdu in self._build_all(state, room_id) if pdu.type in _SHOWN_TO_INVITED]
        member = self._build(invite, room_id, ())
        if member is None:
            raise BadPdu("the invite cannot be shown")
        await self._elsewhere.record(member, BRIDGED_2014, [stripped_state(pdu) for pdu in (*shown, member)])

    async def keep_end(self, member: OldPdu) -> None:
        """A user of this server is not invited any more, to a context that this server is not in. Raises: BadPdu."""
        user_id = UserID(str(member.state_key))
        was_known = await self._db.read(find_member, member.context, user_id) is not None
        await self._db.write(self._hold_aside, member)
        event = self._build(member, await self._find_name(member.context), ())
        if was_known and event is not None:
            await self._elsewhere.record(event, BRIDGED_2014)

    async def record_leave(self, leave: OldPdu, destination: ServerName) -> None:
        """A user of this server declines an invite: tell who invited."""
        room_id = await self._find_name(leave.context)
        await self._db.write(self._hold_leave, leave, destination)
        member = self._build(leave, room_id, ())
        if member is None:
            raise BadPdu("the leave cannot be shown")
        await self._elsewhere.record(member, BRIDGED_2014)

    async def _find_name(self, context: str) -> RoomID:
        """The room of a context. Raises: BadPdu when no room can have that name, or one of today has it."""
        room_id = room_id_of(context, self._signer.server)
        if room_id is None:
            raise BadPdu("the context's name is too long for a room")
        room = await self._db.read(rooms.find_room, room_id)
        if room is not None and room.version != BRIDGED_2014.name:
            raise BadPdu("a room of another kind has the context's name")
        return room_id

    def _build(self, pdu: OldPdu, room_id: RoomID, prev_events: Sequence[EventID]) -> Pdu | None:
        try:
            return build_shown(pdu, room_id, prev_events, pdu.depth + 2, self._signer)
        except ProtocolFault as fault:
            log.info("%s cannot be shown: %s", pdu.label, fault)
            return None

    def _build_all(self, state: Sequence[OldPdu], room_id: RoomID) -> list[Pdu]:
        built = (self._build(pdu, room_id, ()) for pdu in state)
        return [event for event in built if event is not None]

    def _build_state(
        self, join: OldPdu, state: Sequence[OldPdu], host: ServerName, room_id: RoomID
    ) -> dict[StateKey, Pdu]:
        """The room's state before the join. Users of this server are in it by their own wish alone."""
        foreign = [
            pdu
            for pdu in state
            if pdu.pdu_type != "m.room.member" or server_of_user(pdu.state_key) != self._signer.server
        ]
        events = {event.slot: event for event in self._build_all(foreign, room_id)}
        default = build_default_state(list_lacking(list(events)), host, room_id, join.ts, self._signer)
        return {**{event.slot: event for event in default}, **events}

    async def _build_join(self, join: OldPdu, room_id: RoomID) -> Pdu:
        """The join, citing what it cites as a PDU: there the history of the room is asked for."""
        cited = await self._db.read(self._read_cited, join)
        event = self._build(join, room_id, cited)
        if event is None:
            raise BadPdu("the join cannot be shown")
        return event

    def _read_cited(self, txn: ReadTxn, join: OldPdu) -> list[EventID]:
        cited: list[EventID] = []
        for name in resolve_prev(txn, join, self._peers.is_peer):
            held = find_held(txn, name)
            if held is None or is_shown(held):
                cited.append(event_id_of(name))
        return cited

    def _hold(self, txn: WriteTxn, join: OldPdu, state: Sequence[OldPdu]) -> list[OldPdu]:
        """Returns what may be believed of the state."""
        held: list[OldPdu] = []
        for pdu in state:
            try:
                self._ledger.take_aside(txn, pdu, holds_slot=True)
                held.append(pdu)
            except BadPdu as fault:
                log.info("%s is no part of the state of %s: %s", pdu.label, pdu.context, fault)
        self._ledger.take(txn, join)
        return held

    def _hold_aside(self, txn: WriteTxn, member: OldPdu) -> None:
        self._ledger.take_aside(txn, member, holds_slot=True)

    def _hold_leave(self, txn: WriteTxn, leave: OldPdu, destination: ServerName) -> None:
        self._ledger.send_aside(txn, leave, destination, holds_slot=True)

    def _show(self, txn: WriteTxn, context: str, room_id: RoomID) -> None:
        room = rooms.find_room(txn, room_id)
        assert room is not None, "it was entered"
        known = contexts.find_context(txn, context)
        # What users of ours did in an earlier stay was sent then.
        done = 0 if known is None else known.converted_position
        contexts.show_in_room(txn, context, room.room_nid, done)

    def _read_is_in(self, txn: ReadTxn, context: str) -> bool:
        known = contexts.find_context(txn, context)
        return (
            known is not None and known.room_nid is not None and is_here(txn, self._interner, known.room_nid)
        )


def find_member(txn: ReadTxn, context: str, user_id: UserID) -> pdus.StoredPdu | None:
    """The PDU that says what a user is in a context."""
    return pdus.find_holder(txn, context, "m.room.member", user_id)
