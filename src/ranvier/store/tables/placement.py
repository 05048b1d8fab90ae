"""Where the events of a batch go: their numbers, their places, and how they move the state on.

The first half of `append`. Nothing is written here but names, and nodes of state maps.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey, UserID
from ranvier.store.database import StoreFault, WriteTxn
from ranvier.store.tables.events import KnownEvent, Status, list_known
from ranvier.store.tables.interned import Interner, intern_state_keys, intern_users
from ranvier.store.tables.prepared import Batch, Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import PendingNodes
from ranvier.store.tables.timeline import free_orders, live_order

STATUS: Final = {
    Outcome.ACCEPTED: Status.ACCEPTED,
    Outcome.BACKFILLED: Status.ACCEPTED,
    Outcome.SOFT_FAILED: Status.SOFT_FAILED,
    Outcome.REJECTED: Status.REJECTED,
    Outcome.OUTLIER: Status.OUTLIER,
    Outcome.REJECTED_OUTLIER: Status.REJECTED_OUTLIER,
}


class DuplicateEventId(StoreFault):
    """The event's id is that of an event of another room (possible in rooms v1 and v2): it cannot be
    stored."""


class Placed(msgspec.Struct, frozen=True):
    """An event of the batch with its number and place."""

    prepared: PreparedEvent
    event_nid: int
    position: int  # its number, unless it was here before as an outlier
    room_order: int | None
    state_root: int | None
    is_known: bool  # it has a row already
    is_news: bool  # False: nothing is to be done, it was here before


class Context(msgspec.Struct, frozen=True):
    """What one append works with."""

    txn: WriteTxn
    interner: Interner
    nodes: PendingNodes
    batch: Batch
    known: dict[EventID, KnownEvent]  # those that the batch names, and then its own as they are placed
    users: Mapping[UserID, int]
    slots: Mapping[StateKey, int]


class StateNow(msgspec.Struct):
    """The room's state as the batch moves it on."""

    root: int
    changes: dict[int, tuple[int | None, int]]  # slot -> (event or None, position of the change)
    roots: list[tuple[int, int]]  # (position, root from there on)


def build_context(txn: WriteTxn, interner: Interner, nodes: PendingNodes, batch: Batch) -> Context:
    """Look up what the batch names: two queries at most if the interner knows the names."""
    event_ids: set[EventID] = set()
    senders: set[UserID] = set()
    slots: set[StateKey] = set()
    for event in batch.events:
        pdu = event.pdu
        senders.add(pdu.sender)
        if not event.is_local:
            event_ids.add(pdu.event_id)
        if (
            event.outcome is Outcome.BACKFILLED
            or event.state_before is not None
            or batch.replace_state is not None
        ):
            event_ids.update(pdu.prev_events)
            event_ids.update(event.behind)
            event_ids.update(event.lacking)
        if pdu.state_key is not None:
            slots.add((pdu.type, pdu.state_key))
            event_ids.update(pdu.auth_events)
        if event.changes:
            slots.update(event.changes)
            event_ids.update(EventID(value) for value in event.changes.values() if isinstance(value, str))
    return Context(
        txn,
        interner,
        nodes,
        batch,
        list_known(txn, event_ids) if event_ids else {},
        intern_users(txn, interner, senders),
        intern_state_keys(txn, interner, slots) if slots else {},
    )


def place_events(context: Context, now: StateNow) -> list[Placed]:
    """Give every event its number and its place, and move the room's state on."""
    batch = context.batch
    if batch.replace_state is not None or batch.replace_rows is not None:
        _replace_state(context, now, batch)
    count = sum(event.outcome is Outcome.BACKFILLED for event in batch.events)
    orders: Iterator[int] = iter(())
    if count:
        if batch.below_order is None:
            raise ValueError("backfilled events need an order to stand below")
        orders = iter(free_orders(context.txn, batch.room_nid, batch.below_order, count))
    placed: list[Placed] = []
    for event in batch.events:
        existing = context.known.get(event.pdu.event_id)
        if existing is not None and (STATUS[event.outcome].is_outlier or not existing.status.is_outlier):
            _check_room(context, event.pdu, existing)
            placed.append(Placed(event, existing.event_nid, existing.event_nid, None, None, True, False))
            continue
        placed.append(_place_event(context, now, event, existing, orders))
    return placed


def _place_event(
    context: Context,
    now: StateNow,
    event: PreparedEvent,
    existing: KnownEvent | None,
    orders: Iterator[int],
) -> Placed:
    pdu = event.pdu
    position = context.txn.next_position()
    event_nid = position
    if existing is not None:
        _check_room(context, pdu, existing)
        event_nid = existing.event_nid
    room_order: int | None = None
    state_root = event.state_before
    if event.outcome is Outcome.ACCEPTED:
        room_order = live_order(position)
        if state_root is None:
            state_root = now.root
    elif event.outcome is Outcome.BACKFILLED:
        room_order = next(orders)
    context.known[pdu.event_id] = KnownEvent(
        event_nid,
        context.batch.room_nid,
        STATUS[event.outcome],
        room_order,
        state_root,
        None if pdu.state_key is None else _auth_depth(context, pdu),
    )
    if event.outcome is Outcome.ACCEPTED or event.changes:
        _change_state(context, now, event, position)
    return Placed(event, event_nid, position, room_order, state_root, existing is not None, True)


def _check_room(context: Context, pdu: Pdu, existing: KnownEvent) -> None:
    # Event ids of rooms v1 and v2 are what their server says, so one may come again for another room.
    if existing.room_nid != context.batch.room_nid:
        raise DuplicateEventId(f"{pdu.event_id} is an event of another room")


def _auth_depth(context: Context, pdu: Pdu) -> int:
    known = (context.known.get(event_id) for event_id in pdu.auth_events)
    return 1 + max((k.auth_depth for k in known if k is not None and k.auth_depth is not None), default=-1)


def _replace_state(context: Context, now: StateNow, batch: Batch) -> None:
    position = context.txn.next_position()
    root, rows = batch.replace_state, batch.replace_rows
    if rows is None:
        assert root is not None, "one of them is given"
        found = state_map.difference(context.nodes, (now.root, root))
        rows = {slot: new for slot, (_, new) in found.items()}
    now.changes.update((slot, (new, position)) for slot, new in rows.items())
    if root is not None:
        now.root = root
        now.roots.append((position, root))


def _change_state(context: Context, now: StateNow, event: PreparedEvent, position: int) -> None:
    pdu = event.pdu
    changes = event.changes
    if changes is None:
        changes = {} if pdu.state_key is None else {(pdu.type, pdu.state_key): pdu.event_id}
    entries = {
        context.slots[slot]: context.known[EventID(value)].event_nid if isinstance(value, str) else value
        for slot, value in changes.items()
    }
    root = state_map.update(context.nodes, now.root, entries)
    if root != now.root:
        now.root = root
        now.roots.append((position, root))
        now.changes.update((slot, (nid, position)) for slot, nid in entries.items())


def is_on_head(event: PreparedEvent) -> bool:
    """Whether its prev_events are all the extremities that there are, so that none of them has to be looked
    up."""
    return event.outcome is Outcome.ACCEPTED and event.state_before is None
