"""What `append` takes and gives back."""

from collections.abc import Collection, Mapping
from enum import Enum

import msgspec

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey
from ranvier.core.state_map import Node
from ranvier.store.tables.client_transactions import ClientTransaction
from ranvier.store.tables.interned import Interned


class Outcome(Enum):
    """What the checks on an event came to, and where it goes."""

    ACCEPTED = "accepted"  # live: to the end of the timeline
    BACKFILLED = "backfilled"  # accepted, into a gap of the timeline
    SOFT_FAILED = "soft_failed"
    REJECTED = "rejected"
    OUTLIER = "outlier"
    REJECTED_OUTLIER = "rejected_outlier"


StateChanges = Mapping[StateKey, EventID | int | None]
"""Slot -> the event that fills it now, by id or number; None: nothing does any more."""


class PreparedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event that was checked, and what it does."""

    pdu: Pdu
    outcome: Outcome
    is_local: bool = False  # made by this server just now: new for certain, and to be sent to others
    # Came by a handshake (a join, leave or knock from outside, an invite that was signed elsewhere): this server
    # sends it to the others.
    is_relayed: bool = False
    # The root of the room's state before the event. None for outliers; and for an ACCEPTED event whose
    # prev_events are all extremities of the room (or the events before it in the batch): then that is the
    # room's state now.
    state_before: int | None = None
    # ACCEPTED events: how the room's state now changes, if not just by the event's own slot: for an event on
    # one of several branches, the difference between the room's state now and the resolved one.
    # Also of other events of the room's graph, where they put some of its extremities behind others.
    changes: StateChanges | None = None
    # Events with `state_before`: what, besides the prev_events of an ACCEPTED one, is no extremity any more.
    behind: Collection[EventID] = ()
    # An ACCEPTED event that is none itself: what follows it came before it.
    is_behind: bool = False
    # ACCEPTED events: what is not here behind what they cite and was not accepted; gaps of the timeline, too.
    lacking: Collection[EventID] = ()
    # Roots of the states after those of its prev_events that are not here, as another server claims them.
    claimed: Mapping[EventID, int] = {}
    # A redaction that its room's rules allow to take effect now, on the event `pdu.redacts`.
    redacts_target: bool = False
    # The redaction that was waiting for this event, and that may take effect on it.
    redacted_by: int | None = None
    # An OUTLIER that sets its state_key's membership although the room's state is not known here: an invite,
    # a knock, or the end of one.
    sets_membership: bool = False
    # With that, the stripped state: a JSON array.
    stripped_state: bytes | None = None
    transaction: ClientTransaction | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one room that are stored together, ancestors before descendants."""

    room_nid: int
    events: tuple[PreparedEvent, ...]
    now_ms: int
    # The revision of the head that the ACCEPTED events were built on. May be None only if there are none.
    revision: int | None = None
    # Replaces the room's state before the events apply: on joining by federation, or when it is complete at
    # last. An ACCEPTED event without state_before then is the room's only head, whatever it cites.
    replace_state: int | None = None
    # With that, where no event applies: the extremities that the room has then.
    replace_extremities: Collection[int] | None = None
    # What changes in `current_state`, where its rows are ahead of the room's state: slot -> event, None to remove.
    # Without `replace_state` the room's state stays what it is, and they get (further) ahead.
    replace_rows: Mapping[int, int | None] | None = None
    # BACKFILLED events go right below this room_order: that of the event that cites the newest of them.
    below_order: int | None = None


class Appended(msgspec.Struct, frozen=True):
    """How the room stands after the batch. What `remember` needs is of use only if the transaction
    commits."""

    event_nids: tuple[int, ...]  # one for each event of the batch, also for those that were here before
    revision: int
    extremities: tuple[int, ...]
    state_root: int
    interned: Interned
    nodes: Mapping[int, Node]
