"""The rooms of a response: which of them, and what of each, for one user."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID, UserID
from ranvier.core.visibility import JOINED_NOW
from ranvier.io.clock import Clock
from ranvier.services.changes import Changed
from ranvier.services.requester import Requester
from ranvier.services.rooms.aggregations import Aggregations
from ranvier.services.rooms.showing import Frame
from ranvier.services.rooms.sight import Standpoint, Viewer, find_standpoint
from ranvier.services.sync.answers import (
    NO_EXTRAS,
    Part,
    Pieces,
    Reading,
    RoomExtras,
    events_object,
    joined_section,
    json_object,
    left_section,
    member_of,
    room_map,
)
from ranvier.services.sync.entries import Device, Entry
from ranvier.services.sync.ephemeral import Receipts, receipt_contents
from ranvier.services.sync.members_sent import Member
from ranvier.services.sync.own import Shown, account_data_events, read_account_data, read_wanted
from ranvier.services.sync.people import Company
from ranvier.services.sync.request import Profile, SyncRequest
from ranvier.services.sync.slices import ANYBODY, Slice, Slices
from ranvier.services.sync.standing import Plan, Standing, plan_first, plan_next
from ranvier.services.sync.sticky import StickyQuestion
from ranvier.services.sync.timelines import Window
from ranvier.services.sync.unread import NONE_UNREAD, Unread, encode_unread, read_unread
from ranvier.store.database import ReadTxn
from ranvier.store.tables.account_data import GLOBAL, AccountData
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.memberships import BAN, INVITE, JOIN, LEAVE
from ranvier.store.tables.partial_rooms import list_hidden
from ranvier.store.tables.receipts import list_private_receipts
from ranvier.store.tables.timeline import live_order

SharedSlices = dict[tuple[Profile, Window], Slice]
"""What requests of one transaction have in common."""


class Asked(msgspec.Struct, frozen=True):
    """Who asks for what."""

    requester: Requester
    request: SyncRequest
    standing: Standing
    changed: Changed | None  # since the request's token; None: not known
    known_members: frozenset[Member]
    cached: Mapping[int, Slice]  # by room: slices of everything, which still hold


class Told(msgspec.Struct, frozen=True):
    parts: Sequence[Part]  # `rooms` and `account_data`, as far as there is something
    members: Sequence[Member]  # that they bring
    company: Company
    read: Sequence[Slice]  # slices of everything, made for this
    is_impersonal: bool  # whether others may get the same
    senders: frozenset[Device]  # except these, who get their transaction ids
    loadable: frozenset[Member]  # members that lazy clients are told of who do not have them yet


class OwnChanges(msgspec.Struct, frozen=True):
    """What changed for one user alone. By room_nid."""

    account_data: Mapping[int, Sequence[AccountData]]  # GLOBAL included
    receipts: Mapping[int, Receipts]  # private ones


NO_CHANGES: Final = OwnChanges({}, {})


class RoomsReader:
    """Reads them in read transactions, on any thread."""

    def __init__(self, interner: Interner, slices: Slices, aggregations: Aggregations, clock: Clock) -> None:
        self._interner = interner
        self._slices = slices
        self._aggregations = aggregations
        self._clock = clock

    def read(self, txn: ReadTxn, asked: Asked, shared: SharedSlices, unread: Unread) -> Told:
        """`unread`: counts that were read before, of rooms in which nothing of the user's own changed."""
        profile = asked.request.profile
        plan = _plan(txn, asked)
        own = self._own_changes(txn, asked, plan)
        plan = self._filtered(txn, _with_own(asked, plan, own), profile)
        first: list[Slice] = []
        joined = self._known_slices(txn, profile, plan.known, shared)
        if asked.request.since is None:
            joined += self._first_slices(txn, asked, plan.new, first)
        else:
            joined += self._own_slices(txn, asked, plan.new)
        joined = self._as_seen(txn, asked, joined)
        left = self._own_slices(txn, asked, plan.left)
        if asked.changed is None or asked.changed.user:
            rooms = frozenset(part.window.room_nid for part in joined)
            unread = read_unread(txn, ((asked.requester.user_nid, rooms),))
        reading = self._reading(txn, asked, joined, left)
        sections, members = self._joined_sections(txn, asked, joined, own, unread, reading)
        rooms_told: list[Part] = [(b'"join"', room_map(sections))] if sections else []
        ignored = asked.standing.ignored
        shown = read_wanted(txn, self._interner, asked.requester.user_nid, plan.pending, ignored)
        rooms_told += self._pending_sections(txn, shown)
        if left:
            gone = [(part.room_id, left_section(part, reading, _extras(asked, part, own))) for part in left]
            rooms_told.append((b'"leave"', room_map(gone)))
        parts: list[Part] = []
        if rooms_told:
            parts.append((b'"rooms"', json_object(rooms_told)))
        selector = profile.filter.account_data
        account_data = account_data_events(own.account_data.get(GLOBAL, ()), selector, None)
        if account_data:
            parts.append((b'"account_data"', (events_object(account_data),)))
        return Told(
            parts,
            members,
            _company(asked.requester.user_id, plan, joined),
            first,
            all(part.is_impersonal for part in joined),
            frozenset().union(*[part.senders for part in joined]),
            frozenset([member_of(entry) for part in joined for entry in part.members]),
        )

    def _filtered(self, txn: ReadTxn, plan: Plan, profile: Profile) -> Plan:
        """The plan without the rooms that the filter leaves out."""
        selection = profile.filter.rooms
        if selection.is_everything:
            return plan
        windows = [*plan.known, *plan.new, *plan.left]
        room_nids = {one.room_nid for one in windows} | {one.room_nid for one in plan.pending}
        ids = self._slices.room_ids(txn, room_nids)
        return Plan(
            [one for one in plan.known if ids[one.room_nid] in selection],
            [one for one in plan.new if ids[one.room_nid] in selection],
            [one for one in plan.left if ids[one.room_nid] in selection],
            [one for one in plan.pending if ids[one.room_nid] in selection],
        )

    def _own_changes(self, txn: ReadTxn, asked: Asked, plan: Plan) -> OwnChanges:
        """What only the user is told. Cost: nothing if no hint for the user came; else 3 or 4 queries."""
        if asked.changed is not None and not asked.changed.user:
            return NO_CHANGES
        since, now = asked.request.since, asked.standing.position
        fresh = {window.room_nid for window in (*plan.new, *plan.left) if window.since is None}
        account_data = read_account_data(txn, asked.requester, since, now, fresh)
        stored = list_private_receipts(
            txn, asked.standing.rooms - fresh, asked.requester.user_nid, since or 0, now
        )
        if fresh:
            stored += list_private_receipts(txn, fresh, asked.requester.user_nid, 0, now)
        return OwnChanges(account_data, receipt_contents(txn, self._interner, stored))

    def _known_slices(
        self, txn: ReadTxn, profile: Profile, windows: Sequence[Window], shared: SharedSlices
    ) -> list[Slice]:
        missing = [window for window in windows if (profile, window) not in shared]
        if missing:
            for window, part in self._slices.read(txn, missing, profile).items():
                shared[(profile, window)] = part
        return [shared[(profile, window)] for window in windows]

    def _first_slices(
        self, txn: ReadTxn, asked: Asked, windows: Sequence[Window], read: list[Slice]
    ) -> list[Slice]:
        """Everything of joined rooms: what all share, where the user was joined before the timeline begins.

        Effects: `read` gets those that were not cached.
        """
        profile, joined = asked.request.profile, asked.standing.joined
        parts: list[Slice] = []
        missing: list[Window] = []
        for window in windows:
            part = asked.cached.get(window.room_nid)
            if part is None or (
                part.reader == ANYBODY and part.begins_at < live_order(joined[window.room_nid])
            ):
                missing.append(window)
            else:
                parts.append(part)
        if missing:
            stretches = self._slices.stretches(txn, missing, profile)
            early = {
                window: stretch
                for window, stretch in stretches.items()
                if stretch.begins_at < live_order(joined[window.room_nid])
            }
            shared = {window: stretch for window, stretch in stretches.items() if window not in early}
            read += self._slices.make(txn, shared, profile).values()
            viewers = self._viewers(txn, asked, early)
            read += self._slices.make_own(txn, early, viewers, profile).values()
        return parts + read

    def _as_seen(self, txn: ReadTxn, asked: Asked, parts: Sequence[Slice]) -> list[Slice]:
        """The slices, those that the user may not have as others do made for this user alone."""
        user_id = asked.requester.user_id
        unfit = {part.window for part in parts if not self._slices.may_have(txn, user_id, part)}
        if not unfit:
            return list(parts)
        return [part for part in parts if part.window not in unfit] + self._own_slices(txn, asked, unfit)

    def _own_slices(self, txn: ReadTxn, asked: Asked, windows: Collection[Window]) -> list[Slice]:
        viewers = self._viewers(txn, asked, windows)
        return list(self._slices.read_own(txn, viewers, asked.request.profile).values())

    def _viewers(self, txn: ReadTxn, asked: Asked, windows: Collection[Window]) -> dict[Window, Viewer]:
        room_ids = self._slices.room_ids(txn, [window.room_nid for window in windows])
        return {window: _viewer(txn, asked, window, room_ids[window.room_nid]) for window in windows}

    def _reading(self, txn: ReadTxn, asked: Asked, joined: Sequence[Slice], left: Sequence[Slice]) -> Reading:
        profile, requester = asked.request.profile, asked.requester
        now_ms = self._clock.now_ms()
        return Reading(
            requester.user_id,
            (requester.user_nid, requester.device_id or ""),
            profile,
            now_ms,
            asked.standing.ignored,
            self._bundles(txn, asked, [*joined, *left], now_ms),
            frozenset() if profile.filter.state.include_redundant_members else asked.known_members,
            self._own_members(txn, asked, joined, left),
        )

    def _own_members(
        self, txn: ReadTxn, asked: Asked, joined: Sequence[Slice], left: Sequence[Slice]
    ) -> Mapping[int, Entry]:
        """The user's own member events that are told in any case: full state has them even if it is lazy; and one ended
        an invite to a room that this server is not in."""
        requester, profile = asked.requester, asked.request.profile
        told: dict[int, Entry] = {}
        if profile.lazy and (asked.request.since is None or asked.request.full_state):
            room_nids = {part.window.room_nid for part in joined}
            told |= self._slices.own_members(txn, requester, room_nids, (JOIN,), profile)
        if any(not part.timeline for part in left):
            room_nids = {part.window.room_nid for part in left}
            told |= self._slices.own_members(txn, requester, room_nids, (LEAVE, BAN), profile)
        return told

    def _bundles(
        self, txn: ReadTxn, asked: Asked, parts: Sequence[Slice], now_ms: int
    ) -> Mapping[int, bytes]:
        """`m.relations` of events in limited timelines: what related to the others was told with them.

        Spec: client-server API, "Aggregations of child events".
        """
        bundles: dict[int, bytes] = {}
        for part in parts:
            if part.has_relations:
                viewer = _viewer(txn, asked, part.window, part.room_id)
                records = [entry.record for entry in part.timeline]
                bundles |= self._aggregations.bundle(txn, viewer, records, Frame(now_ms))
        return bundles

    def _joined_sections(
        self,
        txn: ReadTxn,
        asked: Asked,
        joined: Sequence[Slice],
        own: OwnChanges,
        unread: Unread,
        reading: Reading,
    ) -> tuple[list[tuple[RoomID, Pieces]], list[Member]]:
        sticky = self._sticky(txn, asked, joined, reading)
        told = [part for part in joined if _has_news(part, own) or part.window.room_nid in sticky]
        room_nids = [part.window.room_nid for part in told]
        timeline = asked.request.profile.timeline
        counts = encode_unread(txn, unread, asked.requester.user_nid, room_nids, timeline)
        personal = {*own.account_data, *own.receipts, *counts, *sticky}
        sections: list[tuple[RoomID, Pieces]] = []
        members: list[Member] = []
        for part, room_nid in zip(told, room_nids, strict=True):
            extras = _extras(asked, part, own, counts, sticky) if room_nid in personal else NO_EXTRAS
            body, brought = joined_section(part, reading, extras)
            sections.append((part.room_id, body))
            members += brought
        return sections, members

    def _sticky(
        self, txn: ReadTxn, asked: Asked, joined: Sequence[Slice], reading: Reading
    ) -> Mapping[int, Sequence[bytes]]:
        """The sticky events that timelines do not show. Cost: nothing where all of them are whole."""
        is_filtered = not asked.request.profile.timeline.is_everything
        by_since: dict[int, list[Slice]] = {}
        for part in joined:
            if part.limited or part.window.since is None or is_filtered:
                by_since.setdefault(part.window.since or 0, []).append(part)
        found: dict[int, list[bytes]] = {}
        for since, parts in by_since.items():
            rooms = [part.window.room_nid for part in parts]
            question = StickyQuestion(rooms, since, asked.standing.position, reading.ignored, reading.now_ms)
            told = self._slices.sticky(txn, question)
            shown = {entry.record.event_nid for part in parts for entry in part.timeline} if told else set()
            for one in told:
                if one.event.event_nid not in shown:
                    found.setdefault(one.event.room_nid, []).append(one.json)
        return found

    def _pending_sections(self, txn: ReadTxn, shown: Sequence[Shown]) -> list[Part]:
        if not shown:
            return []
        ids = self._slices.room_ids(txn, [one.room_nid for one in shown])
        rooms: list[Part] = []
        for name, state in ((b'"invite"', b"invite_state"), (b'"knock"', b"knock_state")):
            sections = [
                (ids[one.room_nid], (b'{"%b":%b}' % (state, events_object(one.events)),))
                for one in shown
                if (one.membership == INVITE) == (state == b"invite_state")
            ]
            if sections:
                rooms.append((name, room_map(sections)))
        return rooms


def _plan(txn: ReadTxn, asked: Asked) -> Plan:
    plan = _plan_all(txn, asked)
    return plan if asked.request.profile.lazy else _without_partial(txn, asked, plan)


def _without_partial(txn: ReadTxn, asked: Asked, plan: Plan) -> Plan:
    """The plan without rooms whose members are not all known here, for who wants all of them; those come as new ones
    when they are."""
    if not (plan.known or plan.new):
        return plan
    now, since = asked.standing.position, asked.request.since
    whole_at = list_hidden(txn, now if since is None else since)
    if not whole_at:
        return plan
    hidden = {nid for nid, position in whole_at.items() if position == 0 or position > now}
    known = [window for window in plan.known if window.room_nid not in whole_at]
    new = [window for window in plan.new if window.room_nid not in hidden]
    new += [
        Window(window.room_nid, None, now, True, is_cut_off=True)
        for window in plan.known
        if window.room_nid in whole_at and window.room_nid not in hidden
    ]
    return msgspec.structs.replace(plan, known=known, new=new)


def _plan_all(txn: ReadTxn, asked: Asked) -> Plan:
    request, standing, user_nid = asked.request, asked.standing, asked.requester.user_nid
    since = request.since
    if since is None:
        include_leave = request.profile.filter.include_leave
        return plan_first(txn, user_nid, standing, include_leave=include_leave)
    if asked.changed is None or request.full_state:
        return plan_next(txn, user_nid, standing, since, standing.rooms, full_state=request.full_state)
    rooms = asked.changed.rooms & standing.rooms
    if asked.changed.user:
        return plan_next(txn, user_nid, standing, since, rooms, full_state=False)
    return Plan([Window(nid, since, standing.position, False) for nid in rooms], (), (), ())


def _with_own(asked: Asked, plan: Plan, own: OwnChanges) -> Plan:
    """The plan with those rooms in which something changed for the user alone."""
    since = asked.request.since
    if since is None or own is NO_CHANGES:
        return plan
    covered = {window.room_nid for window in (*plan.known, *plan.new)}
    more = ({*own.account_data, *own.receipts} & asked.standing.rooms) - covered
    now = asked.standing.position
    known = [*plan.known, *(Window(nid, since, now, False) for nid in sorted(more))]
    return msgspec.structs.replace(plan, known=known)


def _viewer(txn: ReadTxn, asked: Asked, window: Window, room_id: RoomID) -> Viewer:
    if window.room_nid in asked.standing.joined:
        standpoint = Standpoint(JOIN, JOINED_NOW)
    else:
        standpoint = find_standpoint(txn, asked.requester.user_nid, window.room_nid)
    return Viewer(asked.requester, window.room_nid, room_id, standpoint, asked.standing.ignored)


def _has_news(part: Slice, own: OwnChanges) -> bool:
    window = part.window
    if window.since is None or window.full_state or not part.is_empty:
        return True
    return window.room_nid in own.account_data or window.room_nid in own.receipts


def _extras(
    asked: Asked,
    part: Slice,
    own: OwnChanges,
    counts: Mapping[int, bytes] = {},
    sticky: Mapping[int, Sequence[bytes]] = {},
) -> RoomExtras:
    """What the user is told of one room besides what everybody is."""
    nid = part.window.room_nid
    selector = asked.request.profile.filter.room_account_data
    data = own.account_data.get(nid, ())
    return RoomExtras(
        account_data_events(data, selector, part.room_id) if data else (),
        own.receipts.get(nid, {}),
        counts.get(nid, NONE_UNREAD),
        sticky.get(nid, ()),
    )


def _company(user_id: UserID, plan: Plan, joined: Sequence[Slice]) -> Company:
    known = [part for part in joined if part.window.since is not None]
    return Company(
        {user for part in known for user in part.joined} - {user_id},
        {user for part in known for user in part.left} - {user_id},
        [window.room_nid for window in plan.new if window.is_cut_off],
        [window.room_nid for window in plan.left],
    )
