"""What this server holds of contexts: PDUs, their graph and their state. Functions that run in transactions.

Source: docs/federation-2014.md, "Graph" and "State".
"""

from collections.abc import Callable
from typing import Final

import msgspec

from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.select import CREATE, POWER_LEVELS
from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.identifiers import RoomID, ServerName, UserID
from ranvier.core.room_versions import BRIDGED_2014
from ranvier.historical.federation_2014.clobbering import MissingPdu, replaces
from ranvier.historical.federation_2014.events import INVITE_JOIN
from ranvier.historical.federation_2014.naming import context_of, name_of_event, server_of_user
from ranvier.historical.federation_2014.pdu import BadPdu, OldPdu, make_pdu, parse_pdu
from ranvier.services.rooms.live import pdu_of, read_slots
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables import historical_contexts as contexts
from ranvier.store.tables import historical_pdus as pdus
from ranvier.store.tables import rooms
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.historical_contexts import Context
from ranvier.store.tables.historical_pdus import Name
from ranvier.store.tables.historical_transactions import queue_pdu
from ranvier.store.tables.interned import Interner, list_user_ids

MAX_CITED: Final = 20
"""Forward extremities that a new PDU cites, the deepest ones."""

BATCH: Final = 500

IsPeer = Callable[[object], bool]


class Verdict(msgspec.Struct, frozen=True):
    """What became of a PDU."""

    is_new: bool  # False: it was held in line already
    is_current: bool  # it is no state, or it holds its slot now


class Ledger:
    """Writes PDUs of peers and of this server."""

    def __init__(self, server: ServerName, is_peer: IsPeer, interner: Interner) -> None:
        self.server = server
        self.is_peer = is_peer
        self._interner = interner

    def take(self, txn: WriteTxn, pdu: OldPdu) -> Verdict:
        """Hold a peer's PDU in line, and let it compete for its slot. Raises: BadPdu."""
        self._check_maker(txn, pdu)
        return self._take(txn, pdu)

    def _take(self, txn: WriteTxn, pdu: OldPdu) -> Verdict:
        held = self._hold(txn, pdu)
        if held is None:
            return Verdict(False, False)
        self._line_up(txn, pdu, held)
        if pdu.state_key is None:
            return Verdict(True, True)
        holder = pdus.find_holder(txn, pdu.context, pdu.pdu_type, pdu.state_key)
        wins = (
            holder is None
            or holder.pdu_nid == held
            or replaces(pdu, parse_held(holder), lambda name: find_held(txn, name))
        )
        if wins:
            pdus.set_holder(txn, pdu.context, pdu.pdu_type, pdu.state_key, held)
        return Verdict(True, wins)

    def take_history(self, txn: WriteTxn, pdu: OldPdu) -> bool:
        """Hold a peer's PDU in line that says nothing about the state now. False: it was. Raises: BadPdu."""
        self._check_maker(txn, pdu)
        held = self._hold(txn, pdu)
        if held is not None:
            self._line_up(txn, pdu, held)
        return held is not None

    def take_aside(self, txn: WriteTxn, pdu: OldPdu, *, holds_slot: bool = False) -> None:
        """Hold a peer's PDU as an outlier; `holds_slot`: the state of its context now has it, as a peer says.

        Raises: BadPdu.
        """
        self._check_maker(txn, pdu)
        self._keep(txn, pdu, holds_slot=holds_slot)

    def send_aside(
        self, txn: WriteTxn, pdu: OldPdu, destination: ServerName, *, holds_slot: bool = False
    ) -> None:
        """Hold a PDU of this server about a context that it is not in, and queue it."""
        self._keep(txn, pdu, holds_slot=holds_slot)
        self.queue(txn, pdu.name, {destination})

    def _keep(self, txn: WriteTxn, pdu: OldPdu, *, holds_slot: bool) -> None:
        self._check_context(txn, pdu)
        contexts.insert_context(txn, pdu.context)
        held = pdus.find_pdu(txn, pdu.name)
        nid = self._insert(txn, pdu) if held is None else held.pdu_nid
        if holds_slot and pdu.state_key is not None:
            pdus.set_holder(txn, pdu.context, pdu.pdu_type, pdu.state_key, nid)

    def send(self, txn: WriteTxn, pdu: OldPdu, destinations: set[ServerName]) -> None:
        """Hold a PDU of this server, and queue it for those of the destinations that are peers."""
        self._take(txn, pdu)
        self.queue(txn, pdu.name, destinations)

    def queue(self, txn: WriteTxn, name: Name, destinations: set[ServerName]) -> None:
        held = pdus.find_pdu(txn, name)
        assert held is not None, "only what is held is sent"
        for destination in sorted(destinations):
            if self.is_peer(destination):
                queue_pdu(txn, destination, held.pdu_nid)

    def list_recipients(self, txn: ReadTxn, room_nid: int, pdu: OldPdu) -> set[ServerName]:
        """Servers of whoever is joined, and of whose membership it is."""
        servers = contexts.list_servers(txn, room_nid)
        if pdu.pdu_type == "m.room.member" and (target := server_of_user(pdu.state_key)) is not None:
            servers.add(target)
        return servers

    def place(self, txn: ReadTxn, context: str) -> tuple[tuple[Name, ...], int]:
        """What the next PDU of a context cites, and its depth."""
        heads = pdus.list_forward(txn, context, MAX_CITED)
        return tuple(head.name for head in heads), max((head.depth for head in heads), default=-1) + 1

    def convert(self, txn: WriteTxn, context: Context, room: rooms.Room) -> int:
        """Make PDUs of what users of this server did in the room since; how many."""
        count, after = 0, context.converted_position
        while batch := contexts.list_own_events(txn, room.room_nid, after, BATCH):
            senders = list_user_ids(txn, self._interner, {record.sender_nid for record in batch})
            for record in batch:
                pdu = self._convert(txn, context.context, room, record, senders[record.sender_nid])
                if pdu is not None:
                    self.send(txn, pdu, self.list_recipients(txn, room.room_nid, pdu))
                    count += 1
                after = (record.room_order or 0) >> 20
        if after > context.converted_position:
            contexts.set_converted(txn, context.context, after)
        return count

    def open_context(self, txn: WriteTxn, room: rooms.Room) -> Context:
        """The context of a room; made if the room was made here."""
        found = contexts.find_context_of_room(txn, room.room_nid)
        if found is None:
            name = context_of(room.room_id)
            contexts.insert_context(txn, name)
            contexts.show_in_room(txn, name, room.room_nid, 0)
            found = contexts.find_context_of_room(txn, room.room_nid)
        assert found is not None, "it was there, or it was made"
        return found

    def _convert(
        self, txn: WriteTxn, context: str, room: rooms.Room, record: EventRecord, sender: UserID
    ) -> OldPdu | None:
        """The PDU of an event; None if it is too large for one, or has been sent."""
        event = pdu_of(record, room.room_id, BRIDGED_2014)
        name = name_of_event(event.event_id)
        if name is None or name[0] != self.server or pdus.find_pdu(txn, name) is not None:
            return None
        more: JsonObject = {"user_id": sender}
        if event.state_key is not None:
            more |= {"state_key": event.state_key, "power_level": self._level(txn, room, sender)}
            more |= self.prev_state(txn, context, event.type, event.state_key)
        prev, depth = self.place(txn, context)
        try:
            return make_pdu(
                name, context, event.origin_server_ts, event.type, event.content, prev, depth, more
            )
        except BadPdu:
            return None

    def prev_state(self, txn: ReadTxn, context: str, pdu_type: str, state_key: str) -> JsonObject:
        """The keys by which a new PDU of state names what it replaces."""
        holder = pdus.find_holder(txn, context, pdu_type, state_key)
        if holder is None:
            return {}
        return {"prev_state_id": holder.name[1], "prev_state_origin": holder.name[0]}

    def _level(self, txn: ReadTxn, room: rooms.Room, user_id: UserID) -> int:
        return read_power(txn, self._interner, room.room_nid, room.room_id).user_level(user_id)

    def _hold(self, txn: WriteTxn, pdu: OldPdu) -> int | None:
        """The number of a PDU that is to be put in line; None if it is there."""
        self._check_context(txn, pdu)
        held = pdus.find_pdu(txn, pdu.name)
        if held is not None and not held.is_outlier:
            return None
        contexts.insert_context(txn, pdu.context)
        return self._insert(txn, pdu) if held is None else held.pdu_nid

    def _insert(self, txn: WriteTxn, pdu: OldPdu) -> int:
        state_type = None if pdu.state_key is None else pdu.pdu_type
        return pdus.insert_pdu(txn, pdu.name, pdu.context, pdu.depth, state_type, pdu.json)

    def _line_up(self, txn: WriteTxn, pdu: OldPdu, pdu_nid: int) -> None:
        pdus.put_in_line(txn, pdu_nid, pdu.name, pdu.context, resolve_prev(txn, pdu, self._is_server(pdu)))
        contexts.lower_min_depth(txn, pdu.context, pdu.depth)

    def _is_server(self, pdu: OldPdu) -> IsPeer:
        return lambda name: name in (self.server, pdu.origin) or self.is_peer(name)

    def _check_maker(self, txn: ReadTxn, pdu: OldPdu) -> None:
        """Nobody else makes PDUs of this server."""
        if pdu.origin == self.server and pdus.find_pdu(txn, pdu.name) is None:
            raise BadPdu("this server has made no such PDU")

    def _check_context(self, txn: ReadTxn, pdu: OldPdu) -> None:
        held = pdus.find_pdu(txn, pdu.name)
        if held is not None and held.context != pdu.context:
            raise BadPdu("another context has a PDU of this name")

    def list_missing(self, txn: ReadTxn, pdu: OldPdu) -> list[Name]:
        """What the PDU cites and is not held in line."""
        return pdus.list_missing(txn, pdu.context, resolve_prev(txn, pdu, self._is_server(pdu)))

    def find_missing_state(self, txn: ReadTxn, pdu: OldPdu, given_up: set[Name]) -> Name | None:
        """What has to be fetched to decide whether a PDU of state takes its slot; None: nothing."""
        if pdu.state_key is None:
            return None
        holder = pdus.find_holder(txn, pdu.context, pdu.pdu_type, pdu.state_key)
        if holder is None or holder.name == pdu.name:
            return None

        def lookup(name: Name) -> OldPdu | None:
            found = find_held(txn, name)
            if found is None and name not in given_up:
                raise MissingPdu(name)
            return found

        try:
            replaces(pdu, parse_held(holder), lookup)
        except MissingPdu as missing:
            return missing.name
        return None


def parse_held(stored: pdus.StoredPdu) -> OldPdu:
    """The PDU of a row: it was checked when it came."""
    return parse_pdu(parse_object(stored.json))


def find_held(txn: ReadTxn, name: Name) -> OldPdu | None:
    stored = pdus.find_pdu(txn, name)
    return None if stored is None else parse_held(stored)


def resolve_prev(txn: ReadTxn, pdu: OldPdu, is_server: IsPeer) -> list[Name]:
    """What a PDU cites. The pairs are written in either order: that is right in which it names a PDU that is
    held; else the one whose first element is a server; else, as the document has it, the origin is first."""
    names: list[Name] = []
    for one, other in pdu.prev:
        held = pdus.list_pdus(txn, ((one, other), (other, one)))
        if (one, other) in held or ((other, one) not in held and (is_server(one) or not is_server(other))):
            names.append((one, other))
        else:
            names.append((other, one))
    return [name for name in dict.fromkeys(names) if name != pdu.name]


def read_power(txn: ReadTxn, interner: Interner, room_nid: int, room_id: RoomID) -> PowerLevels:
    """The power levels of a room now."""
    state = read_slots(txn, interner, room_nid, room_id, BRIDGED_2014, (CREATE, POWER_LEVELS))
    return PowerLevels.from_events(state[CREATE], state[POWER_LEVELS], BRIDGED_2014)


def is_shown(pdu: OldPdu) -> bool:
    """Whether clients see such PDUs at all."""
    return pdu.pdu_type != INVITE_JOIN
