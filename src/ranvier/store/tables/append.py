"""The one function that puts events into rooms.

Tables: events, late_events and the head in rooms are written here; the rows that follow from an event by the
modules of their tables, in the same transaction. Nothing else inserts into `events`.

An event gets its position, hence its number, here. So whatever refers to an event of the same batch does so
by id, and roots of states that hold a new event are computed here too.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import StateKey, UserID, parse_user_id
from ranvier.store.database import Conflict, Kind, WriteTxn
from ranvier.store.tables import (
    auth_gaps,
    client_transactions,
    edges,
    memberships,
    partial_rooms,
    redactions,
    relations,
    state,
    sticky_events,
)
from ranvier.store.tables.interned import (
    Interned,
    Interner,
    list_state_keys,
)
from ranvier.store.tables.placement import (
    STATUS,
    Context,
    Placed,
    StateNow,
    build_context,
    is_on_head,
    place_events,
)
from ranvier.store.tables.prepared import Appended, Batch, Outcome, PreparedEvent
from ranvier.store.tables.rooms import decode_extremities, encode_extremities
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes

_MEMBER: Final = "m.room.member"
_MAX_INT: Final = 2**63 - 1

# Spec: MSC4186, `bump_stamp`; the last two are what clients of today write for polls and beacons.
_BUMPS: Final = frozenset(
    (
        *("m.room.create", "m.room.message", "m.room.encrypted", "m.sticker", "m.call.invite"),
        *("m.poll.start", "m.beacon_info", "org.matrix.msc3381.poll.start", "org.matrix.msc3672.beacon_info"),
    )
)

_HEAD: Final = """
    SELECT revision, extremities, state_root, is_partial = 1 OR EXISTS (
        SELECT 1 FROM unchecked_states u WHERE u.room_nid = rooms.room_nid
    ) FROM rooms WHERE room_nid = :room_nid {for_update}
"""
_INSERT_EVENT: Final = """
    INSERT INTO events (event_nid, event_id, room_nid, room_order, status, type, sender_nid, state_key_nid,
        state_root, auth_depth, depth, origin_server_ts, is_local, contains_url, redacted_by, json)
    VALUES (:event_nid, :event_id, :room_nid, :room_order, :status, :type, :sender_nid, :state_key_nid,
        :state_root, :auth_depth, :depth, :origin_server_ts, :is_local, :contains_url, :redacted_by, :json)
"""
_PROMOTE: Final = """
    UPDATE events SET room_order = :room_order, status = :status, state_root = :state_root,
        redacted_by = :redacted_by, is_local = {greatest}(is_local, :is_local)
    WHERE event_nid = :event_nid
"""
_INSERT_LATE: Final = "INSERT INTO late_events (position, event_nid) VALUES (:position, :event_nid)"
_INSERT_STRIPPED: Final = """
    INSERT INTO stripped_states (event_nid, json) VALUES (:event_nid, :json)
    ON CONFLICT (event_nid) DO UPDATE SET json = excluded.json
"""
_UPDATE_HEAD: Final = """
    UPDATE rooms SET revision = :new_revision, extremities = :extremities, state_root = :state_root,
        newest_position = {greatest}(newest_position, :newest_position),
        newest_local_position = {greatest}(newest_local_position, :newest_local_position),
        bump_position = {greatest}(bump_position, :bump_position),
        joined_count = joined_count + :joined_delta, invited_count = invited_count + :invited_delta
    WHERE room_nid = :room_nid AND revision = :revision
"""


class _Head(msgspec.Struct, frozen=True):
    revision: int
    extremities: tuple[int, ...]
    state_root: int
    is_provisional: bool  # what is decided now is to be decided again


def append(txn: WriteTxn, interner: Interner, cache: NodeCache, batch: Batch) -> Appended:
    """Store the events of a batch with all that follows from them. An event that is here already is left as
    it is, but for an outlier whose place is now known.

    When the transaction has committed, tell the interner and the cache: `remember_appended`.

    Effects: events, edges, relations, redactions, client transactions, state, memberships, the room's head;
        a ROOM hint if the timeline grew, a USER hint for each local user whose membership changed.
    Cost: 3 statements for a message of a local user, 4 with a transaction id.
    Raises: Conflict if the room's head is not at `batch.revision` any more; LookupError if there is no such
        room; timeline.OrdersExhausted; placement.DuplicateEventId; KeyError if `changes` names an event that
        is not stored.
    """
    head = _read_head(txn, batch)
    context = build_context(txn, interner, PendingNodes(txn, cache), batch)
    now = StateNow(head.state_root, {}, [])
    placed = place_events(context, now)
    _write_events(context, placed)
    news = [one for one in placed if one.is_news]
    _write_edges(context, news)
    _write_consequences(context, news)
    if head.is_provisional:
        _mark_provisional(context, news)
    applied = _apply_state(context, now, news)
    extremities = _next_extremities(context, head, news)
    revision = _write_head(context, head, now.root, extremities, news, applied)
    return Appended(
        tuple(one.event_nid for one in placed),
        revision,
        extremities,
        now.root,
        Interned(applied.servers, {**context.users, **applied.users}, context.slots),
        context.nodes.touched,
    )


def remember_appended(interner: Interner, cache: NodeCache, appended: Appended) -> None:
    """Keep the numbers that an append used or made. Only after its transaction has committed."""
    interner.remember(appended.interned)
    cache.remember(appended.nodes)


def _read_head(txn: WriteTxn, batch: Batch) -> _Head:
    row = txn.first(_HEAD, room_nid=batch.room_nid)
    if row is None:
        raise LookupError(f"no room has the number {batch.room_nid}")
    revision, extremities, state_root, is_provisional = row
    if batch.revision is None:
        if batch.replace_state is not None or any(
            e.outcome is Outcome.ACCEPTED or e.behind for e in batch.events
        ):
            raise ValueError("what changes the head of a room must name the revision it was built on")
    elif batch.revision != revision:
        raise Conflict(f"room {batch.room_nid} is at revision {revision}, not {batch.revision}")
    return _Head(revision, decode_extremities(extremities), state_root, bool(is_provisional))


def _write_events(context: Context, placed: Sequence[Placed]) -> None:
    txn = context.txn
    txn.execute_many(_INSERT_EVENT, [_row(context, one) for one in placed if not one.is_known])
    for one in placed:
        if not (one.is_known and one.is_news):
            continue
        txn.execute(
            _PROMOTE,
            event_nid=one.event_nid,
            room_order=one.room_order,
            status=int(STATUS[one.prepared.outcome]),
            state_root=one.state_root,
            redacted_by=one.prepared.redacted_by,
            is_local=int(_is_to_be_sent(one.prepared)),
        )
        if one.prepared.outcome is Outcome.ACCEPTED:
            txn.execute(_INSERT_LATE, position=one.position, event_nid=one.event_nid)


def _row(context: Context, one: Placed) -> dict[str, object]:
    pdu = one.prepared.pdu
    return {
        "event_nid": one.event_nid,
        "event_id": pdu.event_id,
        "room_nid": context.batch.room_nid,
        "room_order": one.room_order,
        "status": int(STATUS[one.prepared.outcome]),
        "type": pdu.type,
        "sender_nid": context.users[pdu.sender],
        "state_key_nid": None if pdu.state_key is None else context.slots[pdu.type, pdu.state_key],
        "state_root": one.state_root,
        "auth_depth": context.known[pdu.event_id].auth_depth,
        # Old room versions allow any integer; only the JSON has to keep it exactly.
        "depth": _clamp(pdu.depth),
        "origin_server_ts": _clamp(pdu.origin_server_ts),
        "is_local": int(_is_to_be_sent(one.prepared)),
        "contains_url": int(isinstance(pdu.content.get("url"), str)),
        "redacted_by": one.prepared.redacted_by,
        "json": pdu.json,
    }


def _is_to_be_sent(event: PreparedEvent) -> bool:
    return event.is_local or event.is_relayed


def _clamp(number: int) -> int:
    return max(-_MAX_INT, min(number, _MAX_INT))


def _write_edges(context: Context, news: Sequence[Placed]) -> None:
    """Auth edges and gaps."""
    known, room_nid = context.known, context.batch.room_nid
    # Entering a room by federation: what our event cites is not here, and nothing else is a head.
    is_entrance = context.batch.replace_state is not None
    edges.insert_auth_edges(
        context.txn,
        (
            (one.event_nid, known[auth_id].event_nid)
            for one in news
            if one.prepared.pdu.is_state
            for auth_id in one.prepared.pdu.auth_events
            if auth_id in known and known[auth_id].room_nid == room_nid
        ),
    )
    _write_auth_gaps(context, news)
    arrived = [
        one.prepared.pdu.event_id
        for one in news
        if not one.prepared.is_local and not STATUS[one.prepared.outcome].is_outlier
    ]
    if arrived:
        edges.close_gaps(context.txn, arrived)
    edges.insert_gaps(
        context.txn,
        room_nid,
        [
            edges.Gap(prev_id, one.event_nid, one.room_order, one.prepared.claimed.get(prev_id))
            for one in news
            if one.room_order is not None and (is_entrance or not is_on_head(one.prepared))
            for prev_id in (*one.prepared.pdu.prev_events, *one.prepared.lacking)
            if prev_id not in known or known[prev_id].status.is_outlier
        ],
    )


def _write_auth_gaps(context: Context, news: Sequence[Placed]) -> None:
    """What is cited and not here to authorize an event; and what waited for these events to do so."""
    # What others made on what we sent comes after that, and what was here before has its edges.
    new = [
        one for one in news if one.prepared.pdu.is_state and not one.is_known and not one.prepared.is_local
    ]
    if not new:
        return
    auth_gaps.insert_auth_gaps(
        context.txn,
        (
            (auth_id, one.event_nid)
            for one in new
            for auth_id in one.prepared.pdu.auth_events
            if auth_id not in context.known
        ),
    )
    arrived = {one.prepared.pdu.event_id: one.event_nid for one in new}
    auth_gaps.close_auth_gaps(context.txn, context.batch.room_nid, arrived)


def _write_consequences(context: Context, news: Sequence[Placed]) -> None:
    """The rows that follow from single events: redactions, relations, transactions, stripped state."""
    txn, batch = context.txn, context.batch
    for one in news:
        event, pdu = one.prepared, one.prepared.pdu
        if one.room_order is not None:
            if pdu.redacts is not None:
                redactions.insert_redaction(txn, pdu.redacts, one.event_nid)
                if event.redacts_target:
                    redactions.redact_event(txn, batch.room_nid, pdu.redacts, one.event_nid, batch.now_ms)
            relation = relations.relation_of(pdu)
            if relation is not None and event.redacted_by is None:
                sender_nid = context.users[pdu.sender]
                relations.insert_relation(
                    txn, relation, pdu, one.event_nid, one.room_order, batch.room_nid, sender_nid
                )
            if event.outcome is Outcome.ACCEPTED and event.redacted_by is None:
                sticky_events.insert_if_sticky(
                    txn,
                    pdu,
                    one.event_nid,
                    batch.room_nid,
                    context.users[pdu.sender],
                    one.position,
                    batch.now_ms,
                )
        if event.redacted_by is not None:
            redactions.keep_original(txn, one.event_nid, batch.now_ms)
        if event.stripped_state is not None:
            txn.execute(_INSERT_STRIPPED, event_nid=one.event_nid, json=event.stripped_state)
    requests = [
        (transaction, one.event_nid) for one in news if (transaction := one.prepared.transaction) is not None
    ]
    client_transactions.insert_transactions(txn, requests, batch.now_ms)


def _mark_provisional(context: Context, news: Sequence[Placed]) -> None:
    """What was decided on a state that lacks its members, or what could not be checked, is decided again."""
    partial_rooms.insert_events(
        context.txn,
        context.batch.room_nid,
        [
            one.event_nid
            for one in news
            if one.state_root is not None and one.prepared.outcome is not Outcome.BACKFILLED
        ],
    )


def _apply_state(context: Context, now: StateNow, news: Sequence[Placed]) -> memberships.Applied:
    """Write the state that the batch led to, and what users are now."""
    txn, room_nid = context.txn, context.batch.room_nid
    updates: dict[UserID, memberships.MembershipUpdate] = {}
    state.insert_roots(txn, room_nid, now.roots)
    if now.changes:
        state.apply_current_state(txn, room_nid, {slot: nid for slot, (nid, _) in now.changes.items()})
        updates = _membership_updates(context, now, news)
    for one in news:
        if one.prepared.sets_membership:
            user_id = _member(one.prepared.pdu.slot)
            if user_id is not None:
                membership = _membership(one.prepared.pdu.content)
                updates[user_id] = memberships.MembershipUpdate(membership, one.event_nid, one.position)
    if not updates:
        return memberships.NOTHING_APPLIED
    return memberships.apply_memberships(txn, context.interner, room_nid, updates)


def _membership_updates(
    context: Context, now: StateNow, news: Sequence[Placed]
) -> dict[UserID, memberships.MembershipUpdate]:
    """What the changed m.room.member slots say."""
    names: dict[int, StateKey] = {nid: slot for slot, nid in context.slots.items()}
    unnamed = [slot for slot in now.changes if slot not in names]
    if unnamed:
        names.update(list_state_keys(context.txn, context.interner, unnamed))
    changes = {
        user_id: change
        for slot, change in now.changes.items()
        if (user_id := _member(names[slot])) is not None
    }
    contents = {one.event_nid: one.prepared.pdu.content for one in news}
    missing = [nid for nid, _ in changes.values() if nid is not None and nid not in contents]
    stored = memberships.list_stored_memberships(context.txn, missing)
    updates: dict[UserID, memberships.MembershipUpdate] = {}
    for user_id, (nid, position) in changes.items():
        if nid is None:
            membership = memberships.LEAVE
        elif nid in contents:
            membership = _membership(contents[nid])
        else:
            membership = stored[nid]
        updates[user_id] = memberships.MembershipUpdate(membership, nid, position)
    return updates


def _member(slot: StateKey) -> UserID | None:
    """Whose membership the slot holds, if it does: state keys are whatever other servers allowed."""
    if slot[0] != _MEMBER:
        return None
    try:
        return parse_user_id(slot[1])
    except BadIdentifier:
        return None


def _membership(content: Mapping[str, object]) -> str:
    return memberships.parse_membership(content.get("membership"))


def _next_extremities(context: Context, head: _Head, news: Sequence[Placed]) -> tuple[int, ...]:
    """Spec: server-server API, "PDUs": the events that no other event of the timeline has behind it."""
    if context.batch.replace_extremities is not None:
        return tuple(sorted(context.batch.replace_extremities))
    extremities = set(head.extremities)
    for one in news:
        event = one.prepared
        is_accepted = event.outcome is Outcome.ACCEPTED
        if is_on_head(event):
            extremities.clear()
        elif is_accepted or event.behind:
            behind = (*event.pdu.prev_events, *event.behind) if is_accepted else event.behind
            found = (context.known.get(event_id) for event_id in behind)
            extremities.difference_update(prev.event_nid for prev in found if prev is not None)
        if is_accepted and not event.is_behind:
            extremities.add(one.event_nid)
    return tuple(sorted(extremities))


def _write_head(
    context: Context,
    head: _Head,
    state_root: int,
    extremities: tuple[int, ...],
    news: Sequence[Placed],
    applied: memberships.Applied,
) -> int:
    """Move the head on and tell who waits. Returns its revision."""
    txn, batch = context.txn, context.batch
    live = [one for one in news if one.prepared.outcome is Outcome.ACCEPTED]
    # What was decided before all was decided again counts no more, whatever came of that.
    is_redecided = batch.replace_extremities is not None
    moves = bool(live) or is_redecided or state_root != head.state_root or extremities != head.extremities
    if batch.replace_state is not None or any(one.room_order is not None for one in news):
        txn.hint(Kind.ROOM, batch.room_nid)
    if not (moves or applied.joined_delta or applied.invited_delta):
        return head.revision
    revision = head.revision + moves
    # RACE: the row was locked, or this process is the only writer; the condition says what is relied on.
    changed = txn.execute(
        _UPDATE_HEAD,
        room_nid=batch.room_nid,
        revision=head.revision,
        new_revision=revision,
        extremities=encode_extremities(extremities),
        state_root=state_root,
        newest_position=live[-1].position if live else 0,
        newest_local_position=max((one.position for one in live if _is_to_be_sent(one.prepared)), default=0),
        bump_position=max((one.position for one in live if one.prepared.pdu.type in _BUMPS), default=0),
        joined_delta=applied.joined_delta,
        invited_delta=applied.invited_delta,
    )
    if changed == 0:
        raise Conflict(f"room {batch.room_nid} moved on from revision {head.revision}")
    return revision
