"""Events of one room as one viewer gets them: those that may be seen, with what `unsigned` says to them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.errors import Forbidden, NotFound
from ranvier.core.identifiers import EventID, RoomID
from ranvier.services.requester import Requester
from ranvier.services.rooms.erasure import list_erased_events
from ranvier.services.rooms.presenting import (
    NOBODY,
    EventFacts,
    Presenting,
    ReaderFacts,
    client_event,
    list_transaction_ids,
)
from ranvier.services.rooms.sight import Seeing, Viewer, find_viewer
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, rooms
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.memberships import JOIN

_NOT_IN_ROOM: Final = "You are not in this room."
_NO_SUCH_EVENT: Final = "There is no such event in this room, or you may not see it."


VisibleEvent = tuple[EventRecord, str]
"""An event and `unsigned.membership`."""


class Frame(msgspec.Struct, frozen=True):
    """The response around the events."""

    now_ms: int
    room_id: RoomID | None = None  # None: the response says elsewhere which room it is


class Showing:
    """Its functions run in read transactions, on any thread."""

    def __init__(self, presenting: Presenting, sight: Seeing) -> None:
        self._presenting = presenting
        self._sight = sight

    def access_room(self, txn: ReadTxn, requester: Requester, room_id: RoomID) -> Viewer:
        """Somebody who may look into the room at all.

        Members may; so may who left, as far as what came before; and everybody where the room is world-readable.
        Raises: Forbidden, with the same words for a room that is not known here.
        Spec: client-server API, "Room History Visibility".
        """
        room = rooms.find_room(txn, room_id)
        if room is None:
            raise Forbidden(_NOT_IN_ROOM)
        viewer = find_viewer(txn, requester, room.room_nid, room_id)
        standpoint = viewer.standpoint
        if standpoint.is_joined:
            return viewer
        if self._sight.is_world_readable(txn, room.state_root):
            return msgspec.structs.replace(viewer, is_passer_by=True)
        if not standpoint.may_look_back:
            raise Forbidden(_NOT_IN_ROOM)
        return viewer

    def access_event(
        self, txn: ReadTxn, requester: Requester, room_id: RoomID | None, event_id: EventID
    ) -> tuple[Viewer, EventRecord, str]:
        """An event that the requester may see, with `unsigned.membership`; of any room if `room_id` is None.

        Raises: NotFound, with the same words whatever the reason.
        """
        record = events.find_event(txn, event_id)
        if record is None:
            raise NotFound(_NO_SUCH_EVENT)
        home = rooms.list_rooms(txn, (record.room_nid,))[record.room_nid].room_id
        try:
            viewer = self.access_room(txn, requester, home)
        except Forbidden as error:
            raise NotFound(_NO_SUCH_EVENT) from error
        visible = self.visible(txn, viewer, (record,))
        if room_id not in (None, home) or not visible:
            raise NotFound(_NO_SUCH_EVENT)
        return viewer, *visible[record.event_nid]

    def visible(
        self, txn: ReadTxn, viewer: Viewer, records: Collection[EventRecord]
    ) -> dict[int, VisibleEvent]:
        """Those events that the viewer gets to see, in their order: event_nid -> event, `unsigned.membership`.

        Cost: see `Sight.visible`.
        """
        seen = self._sight.visible(txn, viewer, records)
        kept = [record for record in records if record.event_nid in seen and not viewer.hides(record)]
        return {
            record.event_nid: (record, seen[record.event_nid])
            for record in self._presenting.without_erased(txn, kept, seen)
        }

    def visible_or_hidden(
        self, txn: ReadTxn, viewer: Viewer, records: Collection[EventRecord]
    ) -> list[VisibleEvent]:
        """As `visible`, but events of ignored senders are kept, redacted: for the roots of threads.

        Spec: client-server API, `GET /rooms/{roomId}/threads`.
        """
        seen = self._sight.visible(txn, viewer, records)
        kept = [record for record in records if record.event_nid in seen]
        return [
            (self._presenting.without_content(txn, one) if viewer.hides(one) else one, seen[one.event_nid])
            for one in self._presenting.without_erased(txn, kept, seen)
        ]

    def client_events(
        self,
        txn: ReadTxn,
        viewer: Viewer,
        visible: Collection[VisibleEvent],
        frame: Frame,
        bundles: Mapping[int, bytes],
    ) -> list[bytes]:
        """Those events, which were found to be visible, as client events; `bundles`: `m.relations` by event_nid.

        Cost: up to 3 queries (own transaction ids; what replaced or redacted something; its visibility).
        """
        records = [record for record, _ in visible]
        facts = self._presenting.facts(txn, records)
        txn_ids = list_transaction_ids(txn, viewer.requester, records)
        was_joined = {record.event_nid for record, membership in visible if membership == JOIN}
        unseen = self._list_unseen(txn, viewer, facts, was_joined)
        return [
            client_event(
                one,
                ReaderFacts(
                    membership,
                    txn_ids.get(record.event_nid),
                    one.replaced is None or one.replaced.event_nid not in unseen,
                    bundles.get(record.event_nid),
                ),
                frame.now_ms,
                frame.room_id,
            )
            for one, (record, membership) in zip(facts, visible, strict=True)
        ]

    def state_events(self, txn: ReadTxn, records: Sequence[EventRecord], frame: Frame) -> list[bytes]:
        """Events of the room's state at something visible, as client events: without what they replaced."""
        return [
            client_event(one, NOBODY, frame.now_ms, frame.room_id)
            for one in self._presenting.facts(txn, records, with_replaced=False)
        ]

    def _list_unseen(
        self, txn: ReadTxn, viewer: Viewer, facts: Sequence[EventFacts], was_joined: Collection[int]
    ) -> set[int]:
        """What these events replaced and the viewer may not see: also what was erased, unless the viewer was joined
        when it was replaced, and so has seen it as state."""
        replaced = {one.replaced.event_nid: one.replaced for one in facts if one.replaced is not None}
        if not replaced:
            return set()
        unseen = replaced.keys() - self._sight.visible(txn, viewer, replaced.values()).keys()
        strange = [
            one.replaced
            for one in facts
            if one.replaced is not None and one.record.event_nid not in was_joined
        ]
        return unseen | list_erased_events(txn, strange)
