"""Unread counts against a model that looks at every event for every user. What a cheaper test would miss: the
counts are differences of cumulative numbers, so a mistake shows only after some history."""

import random

import pytest

from ranvier.core.identifiers import RoomID, ServerName, UserID
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import rooms
from ranvier.store.tables.interned import Interner, intern_users
from ranvier.store.tables.notifications import (
    EVERYTHING,
    MAIN_TIMELINE,
    NOTHING_UNREAD,
    Counts,
    NotifyingEvent,
    RoomCounts,
    UserOutcome,
    count_unread,
    insert_notifications,
    list_unread,
    mark_read,
    mark_sent,
    retract_notification,
    start_counting,
    stop_counting,
)

NOTIFY = '["notify"]'


class Model:
    """One room, naively: for each user, every event with what it means to that user."""

    def __init__(self, users: list[int]) -> None:
        self.joined: dict[int, int] = {}
        self.meanings: dict[int, list[tuple[int, int, bool, bool]]] = {user: [] for user in users}
        self.marks: dict[tuple[int, int], int] = {}

    def event(self, event: NotifyingEvent) -> None:
        for user, meanings in self.meanings.items():
            outcome = event.others.get(user)
            if outcome is not None:
                meanings.append((event.event_nid, event.thread_nid, outcome.notify, outcome.highlight))
            elif user in self.joined and event.actions is not None:
                meanings.append((event.event_nid, event.thread_nid, True, False))

    def redact(self, nid: int) -> None:
        for user, meanings in self.meanings.items():
            self.meanings[user] = [meaning for meaning in meanings if meaning[0] != nid]

    def join(self, user: int, nid: int) -> None:
        self.leave(user)
        self.joined[user] = nid

    def leave(self, user: int) -> None:
        self.joined.pop(user, None)
        self.meanings[user].clear()

    def read(self, user: int, thread: int, nid: int) -> None:
        self.marks[user, thread] = max(nid, self.marks.get((user, thread), 0))

    def unread(self, user: int) -> RoomCounts:
        found: dict[int, Counts] = {}
        for nid, thread, notify, highlight in self.meanings[user]:
            if nid > max(self.marks.get((user, EVERYTHING), 0), self.marks.get((user, thread), 0)):
                before = found.get(thread, Counts())
                found[thread] = Counts(before.notify + notify, before.highlight + highlight)
        threads = {thread: counts for thread, counts in found.items() if thread and counts != Counts()}
        return RoomCounts(found.get(MAIN_TIMELINE, Counts()), threads)


def run_history(txn: WriteTxn, seed: int) -> None:
    chance = random.Random(seed)
    names = [UserID(f"@user{number}-{seed}:one") for number in range(4)]
    users = list(intern_users(txn, Interner(ServerName("one")), names).values())
    room_nid = rooms.insert_room(txn, RoomID(f"!r{seed}:one"), "11").room_nid
    other_nid = rooms.insert_room(txn, RoomID(f"!other{seed}:one"), "11").room_nid
    model, other = Model(users), Model(users)
    nid = 0
    for user in users:
        start_counting(txn, other_nid, user, 0)
        other.join(user, 0)
    for _ in range(60):
        action = chance.choice(("events", "events", "events", "join", "leave", "read", "sent", "redact"))
        user = chance.choice(users)
        thread = chance.choice((MAIN_TIMELINE, MAIN_TIMELINE, 5, 9))
        if action == "events":
            events = []
            for _ in range(chance.randint(1, 3)):
                nid += chance.randint(1, 3)
                events.append(_make_event(chance, model, users, nid))
            insert_notifications(txn, room_nid, events)
            for event in events:
                model.event(event)
        elif action == "join" and user not in model.joined:
            nid += 1
            start_counting(txn, room_nid, user, nid)
            model.join(user, nid)
        elif action == "leave" and user in model.joined:
            stop_counting(txn, room_nid, user)
            model.leave(user)
        elif action == "read":
            upto = chance.randint(0, nid)
            place = chance.choice((EVERYTHING, thread))
            mark_read(txn, room_nid, user, place, upto)
            model.read(user, place, upto)
        elif action == "sent":
            nid += 1
            mark_sent(txn, room_nid, {(user, thread): nid})
            model.read(user, thread, nid)
        elif action == "redact":
            redacted = chance.randint(0, nid)
            retract_notification(txn, room_nid, redacted)
            model.redact(redacted)
        found = list_unread(txn, users, [room_nid, other_nid])
        for one in users:
            assert found.get((one, room_nid), NOTHING_UNREAD) == model.unread(one), (seed, one)
            assert (one, other_nid) not in found
            assert count_unread(txn, one) == model.unread(one).total.notify


def _make_event(chance: random.Random, model: Model, users: list[int], nid: int) -> NotifyingEvent:
    others = {}
    for user in users:
        if chance.random() < 0.3:
            notify = chance.random() < 0.6
            highlight = notify and chance.random() < 0.5
            others[user] = UserOutcome(notify, highlight, NOTIFY, is_counting=user in model.joined)
    actions = NOTIFY if chance.random() < 0.6 else None
    return NotifyingEvent(nid, chance.choice((MAIN_TIMELINE, MAIN_TIMELINE, 5, 9)), actions, others)


@pytest.mark.parametrize("seeds", [range(8), range(8, 16)], ids=str)
async def test_counts_are_those_of_the_naive_model(db: Database, seeds: range) -> None:
    for seed in seeds:
        await db.write(run_history, seed)
