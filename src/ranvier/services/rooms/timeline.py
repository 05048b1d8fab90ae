"""The write path: every event of a local user becomes part of its room here, and nowhere else.

How a message goes in: docs/adr/0002-main-job.md. Between finding the room and queueing the append is no
await: what is built on a head will follow it.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.numbering import numbering_of
from ranvier.core.auth.power import may_redact
from ranvier.core.auth.select import auth_keys_for
from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.errors import (
    AuthRejected,
    BadJsonValue,
    Forbidden,
    MatrixError,
    NotFound,
    ServerFault,
)
from ranvier.core.events.build import EventTemplate, Placement, build_event
from ranvier.core.events.pdu import Pdu
from ranvier.core.hashes import reference_hash
from ranvier.core.identifiers import EventID, RoomID, ServerName, StateKey, UserID
from ranvier.core.room_versions import DEFAULT_ROOM_VERSION, RoomVersion
from ranvier.core.signing import SigningKey
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.rooms.live import CORE_SLOTS, POLICY, LiveRoom, pdu_of
from ranvier.services.rooms.merging import Merging
from ranvier.services.rooms.writer import Also, Item, RoomWriters
from ranvier.store.database import Conflict, Database, Integrity
from ranvier.store.tables import events
from ranvier.store.tables.client_transactions import ClientTransaction
from ranvier.store.tables.events import EventRecord, Status
from ranvier.store.tables.prepared import Outcome, PreparedEvent

MAX_ATTEMPTS: Final = 10
"""How often an event is built anew because its room changed under it."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a local user wants to send."""

    sender: UserID
    type: str
    content: JsonObject
    state_key: str | None = None
    redacts: EventID | None = None
    transaction: ClientTransaction | None = None  # what makes a repeated request find this event
    sticky_ms: int | None = None  # for how long it is sticky (MSC4354)
    origin_server_ts: int | None = None  # an application service may date its events; None: now


Check = Callable[[LiveRoom], None]
"""Something that must hold for the room at the moment when an event is built on it. Raises MatrixError."""


class Author(msgspec.Struct, frozen=True):
    """Who this server is when it makes events."""

    server: ServerName
    key: SigningKey
    clock: Clock
    randomness: Randomness


class Recommending(Protocol):
    """Asks the policy servers of rooms."""

    async def sign(self, room_id: RoomID, version: RoomVersion, pdus: Sequence[Pdu]) -> Sequence[Pdu]:
        """The events as they may be sent. Raises: MatrixError when they may not."""


class Timeline:
    """Builds, authorizes and appends the events of local users."""

    def __init__(self, db: Database, writers: RoomWriters, merging: Merging, author: Author) -> None:
        self._db = db
        self._writers = writers
        self._merging = merging
        self._author = author
        self._policies: Recommending | None = None
        self._turns: dict[RoomID, asyncio.Lock] = {}

    def heed(self, policies: Recommending) -> None:
        """From now on, ask the policy servers of rooms that have one before anything is sent there."""
        self._policies = policies

    async def send(
        self,
        room_id: RoomID,
        drafts: Sequence[Draft],
        *,
        check: Check | None = None,
        needs: Collection[StateKey] = (),
    ) -> list[EventID]:
        """Append `drafts`, each after the one before, all or none; return when they are on disk.

        A state event that changes nothing is not sent again: its slot's event is returned. `check` is run on
        the head that the first draft will follow, with the slots `needs` loaded.

        Raises: Forbidden (the room is not known here); AuthRejected; BadEvent, TooLarge, BadJson for content
        that no event may have; NotFound (a redaction of an unknown event); what `check` raises; Integrity
        when a draft has a transaction, which may have been used before; in a room with a policy server what
        `Recommending.sign` raises.
        """
        sent = await self._send(room_id, drafts, check, needs, may_ask=False)
        if sent is not None:
            return sent
        # While the policy server thinks, nobody else of here moves the head under what it thinks about.
        turn = self._turns.setdefault(room_id, asyncio.Lock())
        try:
            async with turn:
                sent = await self._send(room_id, drafts, check, needs, may_ask=True)
        finally:
            if not turn.locked():
                self._turns.pop(room_id, None)
        assert sent is not None, "it may ask"
        return sent

    async def _send(
        self,
        room_id: RoomID,
        drafts: Sequence[Draft],
        check: Check | None,
        needs: Collection[StateKey],
        *,
        may_ask: bool,
    ) -> list[EventID] | None:
        """None: nothing was sent, as the room's policy server is to be asked, and `may_ask` is false."""
        for _ in range(MAX_ATTEMPTS):
            targets = await self._read_targets(drafts)
            room = await self._ready(room_id, {*needs, *_needed_slots(drafts)})
            heads = room.heads
            is_judged = room.state(*POLICY) is not None and self._policies is not None
            if is_judged and not may_ask:
                return None
            pending = room.fork() if is_judged or room.is_wide or len(drafts) > 1 else room
            try:
                if check is not None:
                    check(room)
                event_ids, items = self._build_all(pending, drafts, targets)
            except (AuthRejected, MatrixError):
                # What says no may be older than what the database has.
                if await self._writers.is_current(room):
                    raise
                continue
            if not items:
                return event_ids
            if is_judged:
                items = await self._signed_by_policy(room, items)
                if room.is_stale or room.heads is not heads:
                    continue  # the room moved on meanwhile
            try:
                await self._append(room, pending, items)
            except Conflict:
                continue
            except Integrity:
                # A transaction id that was used before, of one of these drafts or of an event beside them.
                if any(draft.transaction is not None for draft in drafts):
                    raise
                continue
            return event_ids
        raise ServerFault("the room changes too fast")

    async def _append(self, room: LiveRoom, pending: LiveRoom, items: Sequence[Item]) -> None:
        """Append what was built on `room`, or on its fork. Raises: Conflict; Integrity; Forbidden."""
        if room.is_wide:
            return await self._merging.append(room, items)
        if pending is not room:
            room.join(pending)
        await self._writers.append(room, items)

    async def build(self, room_id: RoomID, draft: Draft) -> tuple[Pdu, RoomVersion]:
        """The signed event that `draft` would become now, allowed by the room but not appended to it: for an
        invite, which the invited user's server is to sign first.

        Raises: Forbidden, AuthRejected, and what building raises; what `Recommending.sign` raises.
        """
        for _ in range(MAX_ATTEMPTS):
            room = await self._ready(room_id, _needed_slots([draft]))
            try:
                pdu = self._build(room, draft)
            except AuthRejected:
                if await self._writers.is_current(room):
                    raise
                continue
            if self._policies is not None:
                (pdu,) = await self._policies.sign(room_id, room.version, (pdu,))
            return pdu, room.version
        raise ServerFault("the room changes too fast")

    async def _ready(self, room_id: RoomID, slots: Collection[StateKey]) -> LiveRoom:
        """The room with all that building on it takes. From the return on, until the caller awaits, nothing
        else changes it.

        Raises: Forbidden when the room is not known here.
        """
        room = await self._writers.find_ready(room_id, slots)
        if room is None:
            raise Forbidden("You are not in this room.")
        return room

    async def create(self, version: RoomVersion, drafts: Sequence[Draft], also: Also | None = None) -> RoomID:
        """Make a room of `drafts`, the first of which is its create event; all are stored at once or none is,
        together with what `also` writes.

        Raises: AuthRejected, BadEvent, TooLarge, BadJson; what `also` raises.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                return await self._create(version, drafts, also)
            except Conflict:
                # The same room, by the same user, in the same millisecond: its name is the hash of just that.
                earlier_ms = self._author.clock.now_ms() - self._author.randomness.below(1000)
                first = msgspec.structs.replace(drafts[0], origin_server_ts=earlier_ms)
                drafts = [first, *drafts[1:]]
        raise ServerFault("the room cannot be named")

    async def _create(self, version: RoomVersion, drafts: Sequence[Draft], also: Also | None) -> RoomID:
        """Raises: Conflict when there is a room of that name; what `create` raises."""
        named_by_hash = version.auth.room_id_is_create_hash
        room_id = None if named_by_hash else self._new_room_id()
        create = self._sign(drafts[0], version, room_id, _Parents((), (), 1))
        room = LiveRoom(0, create.room_id, version, 0)
        room.learn(dict.fromkeys(CORE_SLOTS))
        room.advance(create)
        items = [self._item(room, create, drafts[0], redacts_target=False)]
        for draft in drafts[1:]:
            room.learn(dict.fromkeys(room.missing(_slots_of(draft, version))))
            pdu = self._build(room, draft)
            items.append(self._item(room, pdu, draft, redacts_target=False))
            room.advance(pdu)
        await self._writers.create(room, items, also)
        return room.room_id

    async def _signed_by_policy(self, room: LiveRoom, items: Sequence[Item]) -> list[Item]:
        """The same with the signatures of the room's policy server. Raises: what `Recommending.sign` raises."""
        assert self._policies is not None
        pdus = await self._policies.sign(room.room_id, room.version, [item.prepared.pdu for item in items])
        return [
            Item(msgspec.structs.replace(item.prepared, pdu=pdu), item.effect)
            for item, pdu in zip(items, pdus, strict=True)
        ]

    def _build_all(
        self, pending: LiveRoom, drafts: Sequence[Draft], targets: "_Targets"
    ) -> tuple[list[EventID], list[Item]]:
        """The ids of all events, and what is to be appended. With several drafts, `pending` is a fork: it moves
        on also when the last of them is not allowed."""
        event_ids: list[EventID] = []
        items: list[Item] = []
        for draft in drafts:
            same = _find_same(pending, draft)
            if same is not None:
                event_ids.append(same.event_id)
                continue
            pdu = self._build(pending, draft)
            target = None if draft.redacts is None else _find_target(pending, pdu, targets)
            if target is not None and not may_redact(pdu, target, pending.power):
                raise Forbidden("You may not redact this event.")
            items.append(self._item(pending, pdu, draft, redacts_target=target is not None))
            event_ids.append(pdu.event_id)
            pending.advance(pdu)
            if target is not None:
                pending.redact(target)
        return event_ids, items

    def _build(self, room: LiveRoom, draft: Draft) -> Pdu:
        """The signed event on the room's pending head. Raises: AuthRejected, and what building raises."""
        if draft.type == "m.room.create":
            # Nothing else stands in its way: the rules on create events look at what it cites.
            raise BadJsonValue("A room has one create event.")
        slots = auth_keys_for(draft.type, draft.sender, draft.state_key, draft.content, room.version)
        authorizing = tuple(pdu for slot in slots if (pdu := room.state(*slot)) is not None)
        depth = max((head.depth for head in room.heads), default=0) + 1
        pdu = self._sign(draft, room.version, room.room_id, _Parents(room.heads, authorizing, depth))
        try:
            check_state_dependent(pdu, room.state, room.version)
        except AuthRejected as fault:
            if fault.rule == numbering_of(room.version.auth).levels_creators:
                raise BadJsonValue(f"This can be said by nobody: {fault.reason}.") from fault
            raise
        return pdu

    def _sign(self, draft: Draft, version: RoomVersion, room_id: RoomID | None, parents: "_Parents") -> Pdu:
        author = self._author
        template = EventTemplate(
            room_id=room_id,
            type=draft.type,
            state_key=draft.state_key,
            sender=draft.sender,
            content=draft.content,
            redacts=draft.redacts,
            sticky_ms=draft.sticky_ms,
        )
        cited = (*parents.prev, *parents.auth)
        placement = Placement(
            prev_events=[pdu.event_id for pdu in parents.prev],
            auth_events=[pdu.event_id for pdu in parents.auth],
            depth=parents.depth,
            origin_server_ts=(
                author.clock.now_ms() if draft.origin_server_ts is None else draft.origin_server_ts
            ),
            event_id=None if version.hash_event_ids else self._new_event_id(),
            reference_hashes=(
                {}
                if version.hash_event_ids
                else {pdu.event_id: reference_hash(parse_object(pdu.json), version) for pdu in cited}
            ),
        )
        return build_event(template, placement, version, author.server, author.key)

    def _item(self, room: LiveRoom, pdu: Pdu, draft: Draft, *, redacts_target: bool) -> Item:
        prepared = PreparedEvent(
            pdu=pdu,
            outcome=Outcome.ACCEPTED,
            is_local=True,
            redacts_target=redacts_target,
            transaction=draft.transaction,
        )
        return Item(prepared, self._writers.effect_of(room, pdu))

    async def _read_targets(self, drafts: Sequence[Draft]) -> "_Targets":
        """The events that are to be redacted, those that are here."""
        redacted = {draft.redacts for draft in drafts if draft.redacts is not None}
        return await self._db.read(events.list_events_by_id, redacted) if redacted else {}

    def _new_room_id(self) -> RoomID:
        return RoomID(f"!{self._author.randomness.text(18)}:{self._author.server}")

    def _new_event_id(self) -> EventID:
        return EventID(f"${self._author.randomness.text(18)}:{self._author.server}")


_Targets = Mapping[EventID, EventRecord]


class _Parents(msgspec.Struct, frozen=True):
    """What an event cites, and how deep it lies."""

    prev: tuple[Pdu, ...]
    auth: tuple[Pdu, ...]
    depth: int


def _find_target(room: LiveRoom, redaction: Pdu, targets: _Targets) -> Pdu | None:
    """What a redaction names, or None if that is not here: then who may redact whatever there is may redact it for
    those who have it, and it takes effect here when it comes.

    Raises: NotFound when that is no event of the room. Asked last, so that only members learn of it.
    """
    record = None if redaction.redacts is None else targets.get(redaction.redacts)
    if record is None and room.power.user_level(redaction.sender) >= room.power.redact:
        return None
    if record is None or record.room_nid != room.nid or record.status is Status.REJECTED_OUTLIER:
        raise NotFound("There is no such event in this room.")
    return pdu_of(record, room.room_id, room.version)


def _needed_slots(drafts: Sequence[Draft]) -> set[StateKey]:
    """What authorizing these events looks at, and the slots that they fill, whatever the room version."""
    return {slot for draft in drafts for slot in _slots_of(draft, DEFAULT_ROOM_VERSION)}


def _slots_of(draft: Draft, version: RoomVersion) -> set[StateKey]:
    slots: set[StateKey] = {
        *CORE_SLOTS,
        *auth_keys_for(draft.type, draft.sender, draft.state_key, draft.content, version),
    }
    if draft.state_key is not None:
        slots.add((draft.type, draft.state_key))
    return slots


def _find_same(room: LiveRoom, draft: Draft) -> Pdu | None:
    """The event that fills the draft's slot, if it already says the same from the same sender."""
    if draft.state_key is None:
        return None
    current = room.state(draft.type, draft.state_key)
    if current is None or current.sender != draft.sender or current.content != draft.content:
        return None
    # To Python, 1, 1.0 and True are equal; to JSON they are not.
    return current if encode(current.content) == encode(draft.content) else None
