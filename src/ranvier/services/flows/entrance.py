"""The state of a room that another server lets us into: checked before anything is built on it.

No I/O here: checking a large room takes seconds, and is run on another thread.
Spec: server-server API, "Joining Rooms"; "Checks performed on receipt of a PDU", step 4.
"""

from collections.abc import Collection, Mapping

import msgspec

from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.select import CREATE
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.services.rooms.outliers import Authorizers, check_by_own_citations, sorted_by_auth
from ranvier.store.tables.prepared import Outcome, PreparedEvent


class BadEntrance(Exception):
    """What the other server says about the room cannot be."""


class Entrance(msgspec.Struct, frozen=True):
    """What is to be stored before the event by which we enter."""

    events: tuple[PreparedEvent, ...]  # outliers, each behind those that it cites
    state: Mapping[StateKey, Pdu]


def build_entrance(
    pdus: Collection[Pdu],
    state_ids: Collection[EventID],
    join: Pdu,
    version: RoomVersion,
    *,
    lacks_members: bool = False,
) -> Entrance:
    """Hold every event against those that it cites, and our own against the state.

    Args: pdus - the state and what authorizes it, of which format and signatures were checked; lacks_members - the
        state is one without most members: those that our own event cites are taken into it.
    Raises: BadEntrance.
    """
    known, rejected = _judge(pdus, join, version)
    state = {
        known[event_id].slot: known[event_id]
        for event_id in state_ids
        if event_id in known and event_id not in rejected
    }
    if lacks_members:
        for event_id in join.auth_events:
            cited = known.get(event_id)
            if cited is not None and cited.type == "m.room.member" and event_id not in rejected:
                state.setdefault(cited.slot, cited)
    _check_entrance(state, join, version)
    outcomes = dict.fromkeys(rejected, Outcome.REJECTED_OUTLIER)
    return Entrance(
        tuple(
            PreparedEvent(pdu=pdu, outcome=outcomes.get(pdu.event_id, Outcome.OUTLIER))
            for pdu in known.values()
        ),
        state,
    )


def _judge(pdus: Collection[Pdu], join: Pdu, version: RoomVersion) -> tuple[dict[EventID, Pdu], set[EventID]]:
    """The events of which something can be said, each behind those that it cites; those that are rejected."""
    known: dict[EventID, Pdu] = {}
    rejected: set[EventID] = set()
    for pdu in sorted_by_auth(pdus):
        if not pdu.is_state or pdu.event_id == join.event_id:
            continue
        try:
            check_by_own_citations(pdu, Authorizers(known, rejected), version)
        except AuthRejected:
            rejected.add(pdu.event_id)
        except KeyError:
            continue  # what authorizes it did not come, or was bad
        known[pdu.event_id] = pdu
    return known, rejected


def _check_entrance(state: Mapping[StateKey, Pdu], join: Pdu, version: RoomVersion) -> None:
    create = state.get(CREATE)
    if create is None:
        raise BadEntrance("the room's state has no create event")
    if get_room_version(create.content.get("room_version", "1")) != version:
        raise BadEntrance("the room is of another version than the server said")
    try:
        check_state_dependent(join, lambda type_, key: state.get((type_, key)), version)
    except AuthRejected as error:
        raise BadEntrance(f"the room's state does not allow our event: {error}") from error
