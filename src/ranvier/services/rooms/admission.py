"""The other half of the write path: received events whose parents are here become part of their room.

Most events follow the room's head, as our own do: those are held against the state in memory, and many of
them go into one commit. What stands beside the head is decided on the database; see `deciding`.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.power import may_redact
from ranvier.core.auth.select import auth_keys_for
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey
from ranvier.core.limits import MAX_PREV_EVENTS
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.deciding import Case, Decision, Decisions, decide, prepare
from ranvier.services.rooms.live import LiveRoom, pdu_of
from ranvier.services.rooms.outliers import (
    Authorizers,
    Outliers,
    check_by_own_citations,
    cited_by,
    read_authorizers,
)
from ranvier.services.rooms.outsiders import list_outsiders
from ranvier.services.rooms.policy_servers import PolicyServers
from ranvier.services.rooms.writer import Item, Merge, RoomWriters
from ranvier.store.database import Conflict, Database, Integrity, ReadTxn, WriteTxn
from ranvier.store.tables import events, redactions
from ranvier.store.tables.interned import Interner, list_state_keys
from ranvier.store.tables.placement import DuplicateEventId
from ranvier.store.tables.prepared import Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 3
"""How often events are decided anew because their room changed meanwhile; then once more, within the write."""

Reasons = dict[EventID, str | None]
"""For each event None, or why it is not part of the room."""


class _Facts(msgspec.Struct, frozen=True):
    """What is stored of what events name; grows with the events that are admitted."""

    authorizers: Authorizers
    targets: dict[EventID, Pdu]  # what redactions name, as far as it is here
    awaited: set[EventID]  # what redactions name that are here before it


class Admission:
    """Appends received events to their rooms."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        nodes: NodeCache,
        writers: RoomWriters,
        outliers: Outliers,
        policies: PolicyServers,
    ) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._writers = writers
        self._outliers = outliers
        self._policies = policies

    async def admit(self, case: Case) -> Reasons:
        """Append those events of the case that may be: `pdus` were checked, are not part of the room yet, and
        come each after its parents.

        Cost: 1 read, and 1 commit together with others, for events that follow the head.
        Raises: StoreFault.
        """
        reasons: Reasons = {}
        refused = await self._policies.list_refused(case.room.room_id, case.room.version, case.pdus)
        if refused:
            case = msgspec.structs.replace(case, soft_failed=refused)
        waiting = list(case.pdus)
        while waiting:
            count = await self._admit_behind_head(case, waiting)
            reasons |= dict.fromkeys([pdu.event_id for pdu in waiting[:count]])
            waiting = waiting[count:]
            if waiting and not count:
                rest = msgspec.structs.replace(case, pdus=waiting)
                return reasons | await self._admit_beside_head(rest)
        return reasons

    async def _admit_behind_head(self, case: Case, pdus: Sequence[Pdu]) -> int:
        """Append the events at the beginning of `pdus` that follow the head one by one; how many they are."""
        first = pdus[0]
        room = await self._writers.find_ready(case.room.room_id, ())
        if room is None or not _follows(room, first):
            return 0
        facts = await self._db.read(_read_facts, case.room, pdus)
        room = await self._writers.find_ready(case.room.room_id, _slots_of(pdus, case.room))
        if room is None:
            return 0
        pending = room.fork()
        items: list[Item] = []
        for pdu in pdus:
            if pdu.event_id in case.soft_failed or not _follows(pending, pdu):
                break
            item = self._build_item(pending, pdu, facts)
            if item is None:
                break
            items.append(_relayed(item) if case.is_relayed else item)
        if not items:
            return 0
        room.join(pending)
        try:
            await self._writers.append(room, items)
        except (Conflict, Integrity, DuplicateEventId):
            # The head was another, or one of the events cannot be stored: looked at one by one, it shows.
            return 0
        return len(items)

    def _build_item(self, room: LiveRoom, pdu: Pdu, facts: _Facts) -> Item | None:
        """What to append, with the pending head moved on; None where that is for the database to decide."""
        if pdu.event_id in facts.awaited:
            return None
        try:
            check_by_own_citations(pdu, facts.authorizers, room.version)
            # The state before it and the state now are the same here.
            check_state_dependent(pdu, room.state, room.version)
        except (AuthRejected, KeyError):
            return None
        target = None if pdu.redacts is None else facts.targets.get(pdu.redacts)
        redacts = target is not None and may_redact(pdu, target, room.power)
        facts.targets[pdu.event_id] = pdu
        if pdu.redacts is not None:
            facts.awaited.add(pdu.redacts)
        prepared = PreparedEvent(pdu=pdu, outcome=Outcome.ACCEPTED, redacts_target=redacts)
        item = Item(prepared, self._writers.effect_of(room, pdu))
        room.advance(pdu)
        if target is not None and redacts:
            room.redact(target)
        return item

    async def _admit_beside_head(self, case: Case) -> Reasons:
        await self._outliers.store(case.room, [pdu for pdu in case.pdus if pdu.is_state])
        for attempt in range(MAX_ATTEMPTS + 1):
            decided: Decisions | None = None
            if attempt < MAX_ATTEMPTS:
                decided = await self._db.read(decide, self._interner, self._nodes, case)
            try:
                return await self._append(case, decided)
            except Conflict:
                continue
        raise Conflict("the room changes too fast")

    async def _append(self, case: Case, decided: Decisions | None) -> Reasons:
        """Append what was decided; where nothing was, what is decided in the same transaction."""
        room = await self._writers.find_ready(case.room.room_id, ())
        if room is None:
            return {pdu.event_id: "the room is not known here" for pdu in case.pdus}
        effects = {pdu.event_id: self._writers.effect_of(room.fork(), pdu) for pdu in case.pdus}
        writing = _Writing(self._interner, self._nodes, self._writers, case, decided, effects)
        await self._writers.append_merging(room, writing.merge)
        self._nodes.remember(writing.touched)
        return writing.reasons


class _Writing:
    """What `RoomWriters.append_merging` asks in its transaction, which may run twice."""

    def __init__(
        self,
        interner: Interner,
        nodes: NodeCache,
        writers: RoomWriters,
        case: Case,
        decided: Decisions | None,
        effects: Mapping[EventID, object],
    ) -> None:
        self._interner = interner
        self._nodes = nodes
        self._writers = writers
        self._case = case
        self._decided = decided
        self._effects = effects
        self.reasons: Reasons = {}
        self.touched: Mapping[int, state_map.Node] = {}

    def merge(self, txn: WriteTxn) -> Merge:
        decisions = self._decided or decide(txn, self._interner, self._nodes, self._case)
        pending = PendingNodes(txn, self._nodes)
        kept = [one for one in decisions.decided if one.outcome is not None]
        changed = {slot for one in kept for slot in one.changes}
        names = list_state_keys(txn, self._interner, changed) if changed else {}
        items = [self._item(txn, pending, one, names) for one in kept]
        self.touched = pending.touched
        # Other servers are told of what was dropped alone: a rejected event has arrived.
        self.reasons = {
            one.pdu.event_id: one.reason if one.outcome is None else None for one in decisions.decided
        }
        return Merge(decisions.revision, items, names.values())

    def _item(self, txn: WriteTxn, nodes: PendingNodes, one: Decision, names: Mapping[int, StateKey]) -> Item:
        prepared = prepare(nodes, one, {names[slot]: nid for slot, nid in one.changes.items()})
        effect = None
        if prepared.outcome is not Outcome.ACCEPTED:
            log.info("%s is %s: %s", one.pdu.event_id, prepared.outcome.value, one.reason)
        elif (effect := self._effects[one.pdu.event_id]) is not None:
            outsiders = list_outsiders(txn, self._interner, nodes, self._case.room.nid, prepared)
            effect = self._writers.effect_without(effect, outsiders)
        item = Item(prepared, effect)
        return _relayed(item) if self._case.is_relayed else item


def _relayed(item: Item) -> Item:
    return Item(msgspec.structs.replace(item.prepared, is_relayed=True), item.effect)


def _read_facts(txn: ReadTxn, room: RoomRef, pdus: Sequence[Pdu]) -> _Facts:
    cited = {event_id for pdu in pdus for event_id in cited_by(pdu, room.version)}
    redacted = {pdu.redacts for pdu in pdus if pdu.redacts is not None}
    found = events.list_events_by_id(txn, redacted) if redacted else {}
    targets = {
        event_id: pdu_of(record, room.room_id, room.version)
        for event_id, record in found.items()
        if record.room_nid == room.nid
    }
    known = read_authorizers(txn, room, cited)
    # What they cite may be among themselves, and what they redact, too.
    own = {pdu.event_id: pdu for pdu in pdus}
    return _Facts(
        Authorizers({**own, **known.pdus}, known.rejected),
        targets,
        set(redactions.list_redactions(txn, own.keys())),
    )


def _follows(room: LiveRoom, pdu: Pdu) -> bool:
    """Whether the event cites all of the room's extremities and nothing else."""
    heads = {head.event_id for head in room.heads}
    return len(heads) < MAX_PREV_EVENTS and heads == set(pdu.prev_events)


def _slots_of(pdus: Sequence[Pdu], room: RoomRef) -> set[StateKey]:
    slots: set[StateKey] = set()
    for pdu in pdus:
        slots.update(auth_keys_for(pdu.type, pdu.sender, pdu.state_key, pdu.content, room.version))
        if pdu.is_state:
            slots.add(pdu.slot)
    return slots
