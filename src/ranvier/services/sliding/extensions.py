"""The extensions of an answer: for which rooms each is wanted, and what the client has of it already.

Spec: MSC4508, "Common per-room extension semantics".
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.io.clock import Clock
from ranvier.services.changes import Changed
from ranvier.services.requester import Requester
from ranvier.services.sliding.account_data import AccountDataQuestion, read_account_data_answer
from ranvier.services.sliding.encryption import EncryptionQuestion, read_device_list_changes
from ranvier.services.sliding.making import ReadRoom
from ranvier.services.sliding.receipts import ReceiptsQuestion, read_receipts
from ranvier.services.sliding.request import Extensions, Paged, Scope
from ranvier.services.sliding.results import (
    AccountDataAnswer,
    Encryption,
    ExtensionsAnswer,
    StickyAnswer,
)
from ranvier.services.sliding.sticky import StickyScope, read_sticky_answer
from ranvier.services.sliding.to_device import MAX_MESSAGES, read_to_device
from ranvier.services.sliding.told import ACCOUNT_DATA, RECEIPTS, Knowledge
from ranvier.services.sliding.typing import TypingQuestion, read_typing_answer
from ranvier.services.sliding.windows import Shown
from ranvier.services.sync.slices import Slices
from ranvier.services.sync.standing import Standing
from ranvier.services.thread_subscriptions.listing import SubscriptionsPage, read_page
from ranvier.store.database import ReadTxn
from ranvier.store.tables.interned import Interner


class Touched(msgspec.Struct, frozen=True):
    """What changed after the client's knowledge. By room_nid."""

    rooms: AbstractSet[int]  # for everybody in them
    read: AbstractSet[int]  # in which the user read on
    account_data: AbstractSet[int]  # of which the user's own data changed
    moved: AbstractSet[int]  # which the user entered or left, or is to enter
    user: bool  # whether anything of the user's own changed
    changed: Changed | None  # from memory; None: it was asked of the tables

    @property
    def every(self) -> AbstractSet[int]:
        return self.rooms | self.read | self.account_data | self.moved


class Circumstances(msgspec.Struct, frozen=True):
    """What an answer is made of besides."""

    requester: Requester
    standing: Standing
    knowledge: Knowledge | None  # None: the client knows nothing
    touched: Touched
    shown: Shown
    read: Mapping[int, ReadRoom]

    @property
    def now(self) -> int:
        return self.standing.position

    def is_quiet_since(self, upto: int | None) -> bool:
        """Whether nothing of the user's own changed after a position up to which the client was told of it."""
        return self.knowledge is not None and upto == self.knowledge.position and not self.touched.user

    def is_joined(self, room_nid: int) -> bool:
        return room_nid in self.standing.rooms


class Progress(msgspec.Struct, frozen=True):
    """What the client has of extensions then."""

    account_data_upto: int | None
    device_lists_upto: int | None
    to_device_upto: int | None
    in_scope: frozenset[int]
    scopes: Mapping[int, AbstractSet[int]]  # the rooms that each was for
    subscriptions_upto: int | None


class ExtensionsReader:
    """Reads them in read transactions, on any thread."""

    def __init__(self, interner: Interner, slices: Slices, clock: Clock) -> None:
        self._interner = interner
        self._slices = slices
        self._clock = clock

    def read(self, txn: ReadTxn, wanted: Extensions, at: Circumstances) -> tuple[ExtensionsAnswer, Progress]:
        """What each enabled extension tells, and what the client has then. Cost: that of each."""
        known = at.knowledge
        answer, to_device_upto = ExtensionsAnswer(), None
        if wanted.to_device is not None:
            messages = read_to_device(txn, at.requester.device_nid, wanted.to_device, at.now)
            answer = msgspec.structs.replace(answer, to_device=messages)
            if len(messages.events) < min(wanted.to_device.limit, MAX_MESSAGES):
                to_device_upto = messages.next_batch
        device_lists_upto = None if known is None else known.device_lists_upto
        if wanted.encryption:
            answer = msgspec.structs.replace(answer, encryption=self._encryption(txn, at))
            device_lists_upto = at.now
        account_data_upto = None if known is None else known.account_data_upto
        scopes: dict[int, AbstractSet[int]] = {}
        if wanted.account_data is not None:
            scope = scopes[ACCOUNT_DATA] = rooms_in_scope(wanted.account_data, at.shown)
            answer = msgspec.structs.replace(answer, account_data=self._account_data(txn, at, scope))
            account_data_upto = at.now
        if wanted.receipts is not None:
            scope = scopes[RECEIPTS] = rooms_in_scope(wanted.receipts, at.shown)
            answer = msgspec.structs.replace(answer, receipts=self._receipts(txn, at, scope))
        in_scope: frozenset[int] = frozenset()
        if wanted.typing is not None:
            in_scope = frozenset(filter(at.is_joined, rooms_in_scope(wanted.typing, at.shown)))
            answer = msgspec.structs.replace(answer, typing=self._typing(txn, at, in_scope))
        subscriptions_upto = None if known is None else known.subscriptions_upto
        if wanted.thread_subscriptions is not None:
            page = self._subscriptions(txn, wanted.thread_subscriptions, at)
            answer = msgspec.structs.replace(answer, thread_subscriptions=page)
            subscriptions_upto = at.now
        if wanted.sticky is not None:
            answer = msgspec.structs.replace(answer, sticky=self._sticky(txn, wanted.sticky, at))
        return answer, Progress(
            account_data_upto, device_lists_upto, to_device_upto, in_scope, scopes, subscriptions_upto
        )

    def _subscriptions(self, txn: ReadTxn, limit: int, at: Circumstances) -> SubscriptionsPage:
        """The newest changes to threads' subscriptions that the client has not got. Spec: MSC4308."""
        since = None if at.knowledge is None else at.knowledge.subscriptions_upto
        if at.is_quiet_since(since):
            return SubscriptionsPage((), None)
        return read_page(txn, at.requester.user_nid, since or 0, at.now + 1, limit)

    def _sticky(self, txn: ReadTxn, asked: Paged, at: Circumstances) -> StickyAnswer:
        rooms = at.standing.rooms
        entered = rooms & at.touched.moved if asked.since is not None else frozenset[int]()
        scope = StickyScope(
            rooms - entered,
            entered,
            {nid for one in at.read.values() for nid in one.event_nids},
            at.standing.ignored,
            at.now,
            self._clock.now_ms(),
        )
        return read_sticky_answer(txn, self._slices, asked, scope)

    def _encryption(self, txn: ReadTxn, at: Circumstances) -> Encryption:
        since = None if at.knowledge is None else at.knowledge.device_lists_upto
        lists = None
        if at.knowledge is not None and since is not None:
            changed = at.touched.changed if since == at.knowledge.position else None
            question = EncryptionQuestion(
                since,
                at.now,
                None if changed is None else changed.device_lists,
                None if changed is None else at.touched.rooms,
                changed is None or changed.user,
            )
            lists = read_device_list_changes(txn, self._interner, at.requester, question)
        return Encryption(at.standing.keys, lists)

    def _account_data(self, txn: ReadTxn, at: Circumstances, scope: AbstractSet[int]) -> AccountDataAnswer:
        fresh, known = _sort_out(at, scope, ACCOUNT_DATA, at.touched.account_data)
        since = None if at.knowledge is None else at.knowledge.account_data_upto
        is_quiet = at.is_quiet_since(since)
        if is_quiet and not fresh and not known:
            return AccountDataAnswer((), {})
        question = AccountDataQuestion(at.now if is_quiet else since, fresh, known, at.now)
        return read_account_data_answer(txn, at.requester, question, at.shown.room_ids)

    def _receipts(self, txn: ReadTxn, at: Circumstances, scope: AbstractSet[int]) -> dict[RoomID, bytes]:
        fresh, known = _sort_out(at, scope, RECEIPTS, at.touched.rooms | at.touched.read)
        fresh = [nid for nid in fresh if at.is_joined(nid)]
        known = {nid: upto for nid, upto in known.items() if at.is_joined(nid)}
        shown = [nid for room in fresh if room in at.read for nid in at.read[room].event_nids]
        question = ReceiptsQuestion(fresh, shown, known, at.now)
        found = read_receipts(txn, self._interner, at.requester.user_nid, question)
        return {at.shown.room_ids[nid]: event for nid, event in found.items()}

    def _typing(self, txn: ReadTxn, at: Circumstances, scope: frozenset[int]) -> dict[RoomID, bytes]:
        before = None if at.knowledge is None else at.knowledge.in_scope
        entered: Collection[int] = scope if before is None else scope - before
        # What a client follows that came back after a restart is not known: it may be all of these.
        known = scope & at.touched.rooms if before is not None else scope
        since = None if at.knowledge is None else at.knowledge.position
        question = TypingQuestion(entered, known, since, at.now)
        found = read_typing_answer(txn, self._interner, question)
        return {at.shown.room_ids[nid]: event for nid, event in found.items()}


def rooms_in_scope(scope: Scope, shown: Shown) -> AbstractSet[int]:
    """The rooms that an extension is for: in windows of its lists, or among its subscriptions."""
    if scope.lists is None and scope.rooms is None:
        return shown.wanted.keys()
    found: set[int] = set()
    for name, one in shown.windows.items():
        if scope.lists is None or name in scope.lists:
            found.update(one.shows())
    for room_id, nid in shown.subscribed.items():
        if scope.rooms is None or room_id in scope.rooms:
            found.add(nid)
    return found


def _sort_out(
    at: Circumstances, scope: AbstractSet[int], extension: int, touched: AbstractSet[int]
) -> tuple[list[int], dict[int, int]]:
    """The rooms of which the client has nothing, and those of which something may be new: up to where it has
    them."""
    fresh: list[int] = []
    known: dict[int, int] = {}
    position = 0 if at.knowledge is None else at.knowledge.position
    rooms = {} if at.knowledge is None else at.knowledge.rooms
    for nid in scope:
        told = rooms.get(nid)
        if told is None or not told.extensions & extension or _is_anew(at.read.get(nid)):
            fresh.append(nid)
        elif told.upto is not None:
            known[nid] = told.upto
        elif nid in touched:
            known[nid] = position
    return fresh, known


def _is_anew(read: ReadRoom | None) -> bool:
    """Whether the room's timeline is shown from scratch, or from further back."""
    return (
        read is not None and read.result is not None and (read.result.is_initial or read.result.is_expanded)
    )
