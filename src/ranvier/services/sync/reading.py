"""Reads responses, in read transactions that many requests may share.

All that is read is what changed in (since, now]: `now` becomes `next_batch`, so nothing is lost or doubled.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Final

import msgspec
import orjson

from ranvier.io.clock import Clock
from ranvier.services.changes import Changed
from ranvier.services.requester import Requester
from ranvier.services.sync.answers import encode_answer, events_object
from ranvier.services.sync.entries import Device
from ranvier.services.sync.members_sent import Member
from ranvier.services.sync.people import (
    Company,
    list_presence_changed,
    list_updated,
    read_device_lists,
    read_presence,
    read_present,
)
from ranvier.services.sync.request import SyncRequest
from ranvier.services.sync.rooms import Asked, RoomsReader, SharedSlices, Told
from ranvier.services.sync.slices import Slice
from ranvier.services.sync.standing import Standing, read_standing
from ranvier.services.sync.unread import Unread, read_unread
from ranvier.store.database import ReadTxn
from ranvier.store.tables.cross_signing import list_users_signed
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.notifications import NOTHING_UNREAD
from ranvier.store.tables.to_device import ToDeviceMessage, list_messages

MAX_TO_DEVICE: Final = 500
"""Messages to a device in one response; its token then stands at the last of them, for all that it brings."""


MAX_KEPT_BYTES: Final = 4 * 1024 * 1024
"""Of responses that others may get, too, as long as nothing else happens,"""

KEPT_S: Final = 1.0
"""for so long: whoever was just being answered when something happened asks a moment later than those who waited."""


class Job(msgspec.Struct, frozen=True):
    """One request, and what is known of it before anything is read."""

    requester: Requester
    request: SyncRequest
    standing: Standing  # of the user, at a position that the transaction sees
    changed: Changed | None  # since the request's token; None: not known
    known_members: frozenset[Member]
    keys_told: bytes | None  # what the device was told of its keys; None: not known
    cached: Mapping[int, Slice] = {}  # see `rooms.Asked`

    @property
    def now(self) -> int:
        return self.standing.position

    @property
    def may_have_own(self) -> bool:
        """Whether anything of the user's own may have changed."""
        return self.changed is None or self.changed.user


class Result(msgspec.Struct, frozen=True):
    standing: Standing  # of the user, at the position that becomes `next_batch`
    body: bytes | None  # None: there is nothing to tell
    members: Sequence[Member] = ()  # that the body brings
    delivered: int | None = None  # position of the last message to the device
    read: Sequence[Slice] = ()  # see `rooms.Told`

    @property
    def now(self) -> int:
        return self.standing.position


class Alike(msgspec.Struct, frozen=True):
    """Responses that others get as well, but for the devices that sent what they tell."""

    senders: frozenset[Device]
    loadable: frozenset[Member]  # members that are told to who does not have them yet
    results: dict[frozenset[Member], Result]  # by those of them that were there


class _Kept(msgspec.Struct, frozen=True):
    """What was read up to a position, for those who ask at the same one."""

    position: int
    since_s: float  # of the clock
    alike: dict[Hashable, Alike]


class SyncReader:
    """Runs jobs in read transactions, on any thread."""

    def __init__(self, interner: Interner, rooms: RoomsReader, clock: Clock) -> None:
        self._interner = interner
        self._rooms = rooms
        self._clock = clock
        self._kept = _Kept(0, 0.0, {})

    def read_all(self, txn: ReadTxn, jobs: Sequence[Job]) -> list[Result]:
        """Every job, in one transaction. What several of them ask is read once, and so is what those ask who come a
        moment later, while nothing else has happened."""
        shared = SharedSlices()
        unread = read_unread(
            txn,
            (
                (job.requester.user_nid, frozenset(job.changed.rooms & job.standing.rooms))
                for job in jobs
                if job.changed is not None and not job.changed.user
            ),
        )
        position, now_s = max(job.now for job in jobs), self._clock.monotonic()
        kept = self._kept
        if kept.position != position or now_s - kept.since_s > KEPT_S:
            kept = _Kept(position, now_s, {})
        results = [self._read_or_share(txn, job, shared, unread, kept.alike) for job in jobs]
        if position >= self._kept.position and _bytes_of(kept.alike) <= MAX_KEPT_BYTES:
            self._kept = kept
        return results

    def _read_or_share(
        self, txn: ReadTxn, job: Job, shared: SharedSlices, unread: Unread, alike: dict[Hashable, Alike]
    ) -> Result:
        """The response that was made for another client, if this one is to get the very same."""
        key = _likeness(job, unread)
        device = (job.requester.user_nid, job.requester.device_id or "")
        made = None if key is None else alike.get(key)
        if made is not None and device not in made.senders:
            result = made.results.get(job.known_members & made.loadable)
            if result is not None:
                return Result(job.standing, result.body, result.members)
        result, told = self._read(txn, job, shared, unread)
        if key is not None and told.is_impersonal and device not in told.senders:
            made = alike.setdefault(key, Alike(told.senders, told.loadable, {}))
            made.results[job.known_members & told.loadable] = result
        return result

    def _read(self, txn: ReadTxn, job: Job, shared: SharedSlices, unread: Unread) -> tuple[Result, Told]:
        job, messages = self._with_messages(txn, job)
        request, requester = job.request, job.requester
        asked = Asked(requester, request, job.standing, job.changed, job.known_members, job.cached)
        told = self._rooms.read(txn, asked, shared, unread)
        parts = list(told.parts)
        if messages:
            parts.append((b'"to_device"', (events_object([_encode(message) for message in messages]),)))
        if request.since is not None:
            lists = self._device_lists(txn, job, request.since, told.company)
            if lists is not None:
                parts.append((b'"device_lists"', (lists,)))
        presence = self._presence(txn, job, told.company)
        if presence:
            parts.append((b'"presence"', (events_object(presence),)))
        must_answer = request.since is None or request.full_state or _has_other_keys(job)
        body = encode_answer(job.now, parts, job.standing.keys) if parts or must_answer else None
        delivered = messages[-1].position if messages else None
        return Result(job.standing, body, told.members, delivered, told.read), told

    def _with_messages(self, txn: ReadTxn, job: Job) -> tuple[Job, Sequence[ToDeviceMessage]]:
        """The messages to the device; the job ends with the last of them if there are more."""
        requester = job.requester
        if requester.device_nid is None or not job.may_have_own:
            return job, ()
        since = job.request.since or 0
        messages = list_messages(txn, requester.device_nid, since, job.now, MAX_TO_DEVICE + 1)
        if len(messages) <= MAX_TO_DEVICE:
            return job, messages
        messages = messages[:MAX_TO_DEVICE]
        last = messages[-1].position
        standing = read_standing(txn, requester.user_nid, requester.device_nid, last)
        return msgspec.structs.replace(job, standing=standing, changed=None, cached={}), messages

    def _device_lists(self, txn: ReadTxn, job: Job, since: int, company: Company) -> bytes | None:
        updated: Collection[int] = (
            list_updated(txn, since, job.now) if job.changed is None else job.changed.device_lists
        )
        if job.may_have_own:
            # The signatures by which a user verifies others are told to nobody else.
            updated = {*updated, *list_users_signed(txn, job.requester.user_nid, since, job.now)}
        return read_device_lists(txn, self._interner, job.requester.user_nid, updated, company)

    def _presence(self, txn: ReadTxn, job: Job, company: Company) -> list[bytes]:
        now_ms, since, user_nid = self._clock.now_ms(), job.request.since, job.requester.user_nid
        selector = job.request.profile.filter.presence
        if since is None:
            return read_present(txn, self._interner, user_nid, now_ms, selector)
        updated = list_presence_changed(txn, since, job.now) if job.changed is None else job.changed.presence
        return read_presence(txn, self._interner, user_nid, updated, company, now_ms, selector)


def _likeness(job: Job, unread: Unread) -> Hashable | None:
    """Jobs with one likeness get one response, unless it turns out to be personal; None: this one is."""
    request, standing, changed = job.request, job.standing, job.changed
    profile = request.profile
    if changed is None or changed.user or changed.device_lists or changed.presence or standing.ignored:
        return None
    if request.full_state or not profile.filter.rooms.is_everything or _has_other_keys(job):
        return None
    counts = []
    for nid in changed.rooms & standing.rooms:
        one = unread.get((job.requester.user_nid, nid), NOTHING_UNREAD)
        if one.threads:
            return None
        counts.append((nid, one.main.notify, one.main.highlight))
    return profile, request.since, standing.position, standing.keys, frozenset(counts)


def _bytes_of(alike: Mapping[Hashable, Alike]) -> int:
    # RACE: another thread may be adding to them; a list is made in one go.
    return sum(len(one.body or b"") for made in list(alike.values()) for one in list(made.results.values()))


def _has_other_keys(job: Job) -> bool:
    """Whether the device has to hear of its keys: somebody claimed some, or there are new ones."""
    return job.keys_told is not None and job.keys_told != job.standing.keys


def _encode(message: ToDeviceMessage) -> bytes:
    return b'{"content":%b,"sender":%b,"type":%b}' % (
        message.content,
        orjson.dumps(message.sender),
        orjson.dumps(message.type),
    )
