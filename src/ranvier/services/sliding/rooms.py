"""The room results: what each plan comes to, read for all rooms of an answer together."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.filters import compile_filter, parse_filter
from ranvier.core.identifiers import RoomID
from ranvier.core.visibility import JOINED_NOW
from ranvier.services.requester import Requester
from ranvier.services.rooms.aggregations import Aggregations
from ranvier.services.rooms.showing import Frame
from ranvier.services.rooms.sight import Standpoint, Viewer, find_standpoint
from ranvier.services.sliding.making import Facts, Parts, ReadRoom, make_room
from ranvier.services.sliding.planning import RoomPlan
from ranvier.services.sliding.results import RoomResult
from ranvier.services.sliding.room_state import Granted, RoomStates, Wish
from ranvier.services.sliding.roster import NO_FACTS, Content
from ranvier.services.sliding.told import NO_EXTENSION, Told
from ranvier.services.sync.answers import Reading, personal_events
from ranvier.services.sync.own import read_wanted
from ranvier.services.sync.request import Profile, StateSection
from ranvier.services.sync.slices import Slice, Slices
from ranvier.services.sync.standing import Pending, Standing
from ranvier.services.sync.timelines import Window
from ranvier.services.sync.unread import read_unread
from ranvier.store.database import ReadTxn
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.memberships import JOIN
from ranvier.store.tables.notifications import NOTHING_UNREAD
from ranvier.store.tables.timeline import live_order

_FILTER: Final = compile_filter(
    parse_filter(b'{"room": {"state": {"lazy_load_members": true}, "ephemeral": {"types": []}}}')
)

SharedSlices = dict[tuple[Profile, Window], Slice]
"""What requests of one transaction have in common."""

CachedSlices = Mapping[tuple[Profile, int], Slice]
"""Whole rooms that were read before and still hold, by profile and room_nid."""


class Profiles:
    """What shapes slices for sliding sync: one profile for each number of events."""

    def __init__(self) -> None:
        self._profiles: dict[int, Profile] = {}

    def __getitem__(self, limit: int) -> Profile:
        found = self._profiles.get(limit)
        if found is None:
            # Limits are bounded, so these are.
            found = self._profiles.setdefault(limit, Profile(_FILTER, limit, StateSection.AFTER))
        return found


class Asked(msgspec.Struct, frozen=True):
    """Who asks, and when."""

    requester: Requester
    standing: Standing
    since: int | None  # position of the client's knowledge; None: it has none
    now_ms: int
    content: Content  # of the roster
    tells_counts: bool
    cached: CachedSlices


class RoomsReader:
    """Reads them in read transactions, on any thread."""

    def __init__(
        self, interner: Interner, slices: Slices, states: RoomStates, aggregations: Aggregations
    ) -> None:
        self._interner = interner
        self._slices = slices
        self._states = states
        self._aggregations = aggregations
        self.profiles = Profiles()

    def read(
        self, txn: ReadTxn, asked: Asked, plans: Sequence[RoomPlan], shared: SharedSlices
    ) -> dict[int, ReadRoom]:
        """What the plans come to, by room_nid. Effects: `shared` gets slices that others may use.

        Cost: some twenty queries, whatever the number of rooms.
        """
        pending = [plan for plan in plans if plan.is_pending]
        others = [plan for plan in plans if not plan.is_pending]
        rooms = self._read_pending(txn, asked, pending)
        if not others:
            return rooms
        room_ids = self._slices.room_ids(txn, [plan.room_nid for plan in others])
        parts = self._read_parts(txn, asked, others, room_ids, shared)
        counts = _read_counts(txn, asked, others)
        granted = self._read_state(txn, others, parts)
        for plan in others:
            facts = Facts(
                room_ids[plan.room_nid],
                parts[plan.room_nid],
                granted[plan.room_nid],
                counts.get(plan.room_nid),
                asked.content.facts.get(plan.room_nid, NO_FACTS).bump_position,
                plan.room_nid in asked.content.direct,
            )
            rooms[plan.room_nid] = self._make(txn, asked, plan, facts)
        return rooms

    def _read_pending(self, txn: ReadTxn, asked: Asked, plans: Sequence[RoomPlan]) -> dict[int, ReadRoom]:
        """Invites and knocks."""
        if not plans:
            return {}
        wanted = [Pending(plan.room_nid, plan.place.event_nid, plan.place.membership) for plan in plans]
        user_nid, ignored = asked.requester.user_nid, asked.standing.ignored
        shown = {one.room_nid: one for one in read_wanted(txn, self._interner, user_nid, wanted, ignored)}
        room_ids = self._slices.room_ids(txn, shown)
        return {
            plan.room_nid: ReadRoom(
                RoomResult(
                    room_id=room_ids[plan.room_nid],
                    membership=plan.place.membership,
                    is_initial=True,
                    bump_stamp=plan.place.position,
                    stripped=shown[plan.room_nid].events,
                    is_direct=plan.room_nid in asked.content.direct,
                    counts=(0, 0),
                ),
                Told(
                    None,
                    0,
                    plan.config.required_state,
                    NO_EXTENSION,
                    plan.place.membership,
                    plan.room_nid in asked.content.direct,
                ),
            )
            for plan in plans
            if plan.room_nid in shown
        }

    def _read_parts(
        self,
        txn: ReadTxn,
        asked: Asked,
        plans: Sequence[RoomPlan],
        room_ids: Mapping[int, RoomID],
        shared: SharedSlices,
    ) -> dict[int, Parts]:
        """The slices of each plan: those that everybody gets who was joined, or the user's own."""
        wanted = [
            (plan, self.profiles[plan.config.timeline_limit], window)
            for plan in plans
            for window in (plan.change, plan.whole)
            if window is not None
        ]
        self._read_alike(txn, asked, wanted, shared)
        found: SharedSlices = {}
        own: dict[Profile, dict[Window, Viewer]] = {}
        for plan, profile, window in wanted:
            part = shared.get((profile, window)) if plan.place.membership == JOIN else None
            if (
                part is None
                or _reaches_before_join(asked, part)
                or not self._slices.may_have(txn, asked.requester.user_id, part)
            ):
                own.setdefault(profile, {})[window] = _viewer(txn, asked, window, room_ids)
            else:
                found[profile, window] = part
        for profile, viewers in own.items():
            for window, part in self._slices.read_own(txn, viewers, profile).items():
                found[profile, window] = part
        slices: dict[int, dict[Window, Slice]] = {plan.room_nid: {} for plan in plans}
        for plan, profile, window in wanted:
            slices[plan.room_nid][window] = found[profile, window]
        return {
            plan.room_nid: Parts(
                None if plan.change is None else slices[plan.room_nid][plan.change],
                None if plan.whole is None else slices[plan.room_nid][plan.whole],
            )
            for plan in plans
        }

    def _read_alike(
        self,
        txn: ReadTxn,
        asked: Asked,
        wanted: Sequence[tuple[RoomPlan, Profile, Window]],
        shared: SharedSlices,
    ) -> None:
        """Effects: `shared` gets what it does not have yet of joined rooms."""
        missing: dict[Profile, list[Window]] = {}
        for plan, profile, window in wanted:
            if plan.place.membership != JOIN or (profile, window) in shared:
                continue
            cached = asked.cached.get((profile, window.room_nid)) if window.full_state else None
            if cached is None:
                missing.setdefault(profile, []).append(window)
            else:
                shared[profile, window] = cached
        for profile, windows in missing.items():
            for window, part in self._slices.read(txn, windows, profile).items():
                shared[profile, window] = part

    def _read_state(
        self, txn: ReadTxn, plans: Sequence[RoomPlan], parts: Mapping[int, Parts]
    ) -> dict[int, Granted]:
        """The state that each plan tells."""
        wishes: list[tuple[int, Wish]] = []
        for plan in plans:
            part, told, wanted = parts[plan.room_nid], plan.told, plan.config.required_state
            if told is None:
                made = part.whole or part.change
                assert made is not None, "who knows nothing of a room gets something"
                wishes.append((plan.room_nid, Wish(made, wanted)))
                continue
            if part.change is not None:
                wishes.append((plan.room_nid, Wish(part.change, wanted, known_members=told.members)))
            if part.whole is not None and (plan.grows or wanted.is_lazy):
                wish = Wish(part.whole, wanted, told.required_state, told.members)
                wishes.append((plan.room_nid, wish))
        profile = self.profiles[0]
        granted: dict[int, Granted] = {plan.room_nid: Granted((), (), frozenset()) for plan in plans}
        for (nid, _), one in zip(
            wishes, self._states.read(txn, [wish for _, wish in wishes], profile), strict=True
        ):
            granted[nid] = _join(granted[nid], one)
        return self._with_own_members(txn, plans, granted, profile)

    def _with_own_members(
        self, txn: ReadTxn, plans: Sequence[RoomPlan], granted: dict[int, Granted], profile: Profile
    ) -> dict[int, Granted]:
        """Whoever left is told so by their own member event, even if they saw nothing else of the room."""
        own = {plan.place.event_nid: plan.room_nid for plan in plans if plan.place.membership != JOIN}
        for nid, entry in self._states.entries(txn, own.keys(), profile).items():
            granted[own[nid]] = _join(granted[own[nid]], Granted((entry,), (), frozenset()))
        return granted

    def _make(self, txn: ReadTxn, asked: Asked, plan: RoomPlan, facts: Facts) -> ReadRoom:
        """The result of a room that the user is or was in."""
        part = facts.parts.timeline_of(plan)
        timeline: list[bytes] = []
        if part is not None:
            reading = Reading(
                asked.requester.user_id,
                (asked.requester.user_nid, asked.requester.device_id or ""),
                self.profiles[plan.config.timeline_limit],
                asked.now_ms,
                asked.standing.ignored,
                self._bundles(txn, asked, part),
                frozenset(),
            )
            timeline = list(personal_events(part, reading))
        return make_room(plan, facts, timeline, asked.requester.user_id, asked.since)

    def _bundles(self, txn: ReadTxn, asked: Asked, part: Slice) -> Mapping[int, bytes]:
        """`m.relations` of the events of a limited timeline."""
        if not part.has_relations:
            return {}
        viewer = _viewer(txn, asked, part.window, {part.window.room_nid: part.room_id})
        records = [entry.record for entry in part.timeline]
        return self._aggregations.bundle(txn, viewer, records, Frame(asked.now_ms))


def _viewer(txn: ReadTxn, asked: Asked, window: Window, room_ids: Mapping[int, RoomID]) -> Viewer:
    nid = window.room_nid
    if nid in asked.standing.rooms:
        standpoint = Standpoint(JOIN, JOINED_NOW)
    else:
        standpoint = find_standpoint(txn, asked.requester.user_nid, nid)
    return Viewer(asked.requester, nid, room_ids[nid], standpoint, asked.standing.ignored)


def _read_counts(txn: ReadTxn, asked: Asked, plans: Sequence[RoomPlan]) -> dict[int, tuple[int, int]]:
    """What is unread. Cost: 3 queries, if anybody asks."""
    if not asked.tells_counts:
        return {}
    user_nid = asked.requester.user_nid
    joined = frozenset(plan.room_nid for plan in plans if plan.place.membership == JOIN)
    unread = read_unread(txn, ((user_nid, joined),))
    totals = {nid: unread.get((user_nid, nid), NOTHING_UNREAD).total for nid in joined}
    counts = {nid: (total.notify, total.highlight) for nid, total in totals.items()}
    return {plan.room_nid: counts.get(plan.room_nid, (0, 0)) for plan in plans}


def _join(one: Granted, other: Granted) -> Granted:
    """Both, each event once."""
    known = {entry.record.event_nid for entry in one.entries}
    more = [entry for entry in other.entries if entry.record.event_nid not in known]
    return Granted([*one.entries, *more], [*one.removed, *other.removed], one.members | other.members)


def _reaches_before_join(asked: Asked, part: Slice) -> bool:
    """Whether a timeline from scratch goes back to before the user came."""
    joined = asked.standing.joined.get(part.window.room_nid)
    return part.window.since is None and joined is not None and part.begins_at < live_order(joined)
