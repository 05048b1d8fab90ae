"""Unread counts against a model that looks at every event for every user. What a cheaper test would miss: the
counts are differences of cumulative numbers, so a mistake shows only after some history."""

import random

import pytest

from ranvier.core.identifiers import RoomID, ServerName, UserID
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.dialect import Engine
from ranvier.store.tables import pushers, rooms
from ranvier.store.tables.interned import Interner, intern_users
from ranvier.store.tables.notifications import (
    EVERYTHING,
    MAIN_TIMELINE,
    NOTHING_UNREAD,
    Counts,
    NotifyingEvent,
    RoomCounts,
    UserOutcome,
    change_quiet_rooms,
    count_unread,
    insert_notifications,
    list_notified,
    list_to_push,
    list_unread,
    mark_read,
    mark_sent,
    retract_notification,
    start_counting,
    stop_counting,
)

from .room_builder import ALICE, BOB, RoomBuilder
from .test_query_plans import Explaining

NOTIFY = '["notify"]'
JOIN = """
    INSERT INTO memberships (room_nid, user_nid, membership, event_nid, position, is_local)
    VALUES (:room_nid, :user_nid, 'join', :nid, :nid, 1)
"""
LEAVE = "DELETE FROM memberships WHERE room_nid = :room_nid AND user_nid = :user_nid"


class Model:
    """One room, naively: for each user, every event with what it means to that user."""

    def __init__(self, users: list[int]) -> None:
        self.joined: dict[int, int] = {}
        self.quiet: dict[int, set[str]] = {}
        self.meanings: dict[int, list[tuple[int, int, bool, bool]]] = {user: [] for user in users}
        self.marks: dict[tuple[int, int], int] = {}

    def event(self, event: NotifyingEvent) -> None:
        for user, meanings in self.meanings.items():
            outcome = event.others.get(user)
            if outcome is not None:
                meanings.append((event.event_nid, event.thread_nid, outcome.notify, outcome.highlight))
            elif user in self.joined and not self.quiet.get(user) and event.actions is not None:
                meanings.append((event.event_nid, event.thread_nid, True, False))

    def hush(self, user: int, rooms: set[str]) -> set[str]:
        """Which rooms are quiet from here on; those that were."""
        before, self.quiet[user] = self.quiet.get(user, set()), rooms
        return before

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


def run_history(txn: WriteTxn, seed: int) -> None:  # noqa: C901 - a list of actions
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
        action = chance.choice(
            ("events", "events", "events", "join", "leave", "read", "sent", "redact", "hush")
        )
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
            txn.execute(JOIN, room_nid=room_nid, user_nid=user, nid=nid)
            model.join(user, nid)
        elif action == "leave" and user in model.joined:
            stop_counting(txn, room_nid, user)
            txn.execute(LEAVE, room_nid=room_nid, user_nid=user)
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
        elif action == "hush":
            nid += 1
            after = chance.choice((set(), {f"!r{seed}:one"}))
            change_quiet_rooms(txn, user, model.hush(user, after), after, nid)
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
            others[user] = UserOutcome(notify, highlight, NOTIFY)
    actions = NOTIFY if chance.random() < 0.6 else None
    return NotifyingEvent(nid, chance.choice((MAIN_TIMELINE, MAIN_TIMELINE, 5, 9)), actions, others)


@pytest.mark.parametrize("seeds", [range(8), range(8, 16)], ids=str)
async def test_counts_are_those_of_the_naive_model(db: Database, seeds: range) -> None:
    for seed in seeds:
        await db.write(run_history, seed)


@pytest.mark.parametrize("engine", [Engine.SQLITE])
async def test_counts_are_read_by_index(db: Database) -> None:
    """Whatever the history of a room: only what is unread, and one row for each user and place read up to."""

    def plans(txn: ReadTxn) -> list[str]:
        explaining = Explaining(txn)
        list_unread(explaining, [1, 2], [3, 4])
        count_unread(explaining, 1)
        list_to_push(explaining, 1, 2, 3, 4)
        return explaining.plans

    steps = await db.read(plans)
    assert steps
    assert not [step for step in steps if step.startswith("SCAN") and step != "SCAN x"], steps


async def test_what_notified_is_listed_both_ways(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.set_membership("alice", ALICE, "join")
    await room.set_membership("bob", BOB, "join")
    sent = [await room.say(f"message {number}") for number in range(4)]
    alice, bob = await room.user_nid(ALICE), await room.user_nid(BOB)
    silent = UserOutcome(False, False, NOTIFY)
    loud = UserOutcome(True, True, NOTIFY)

    def run(txn: WriteTxn) -> None:
        others: list[dict[int, UserOutcome]] = [{}, {bob: silent}, {bob: loud}, {}]
        events = [
            NotifyingEvent(nid, MAIN_TIMELINE, NOTIFY, meaning)
            for nid, meaning in zip(sent, others, strict=True)
        ]
        insert_notifications(txn, room.room_nid, events)
        mark_read(txn, room.room_nid, bob, EVERYTHING, sent[0])
        newest_first = list_notified(txn, bob, below=2**62, limit=10)
        assert [(one.event_nid, one.is_read) for one in newest_first] == [
            (sent[3], False),
            (sent[2], False),
            (sent[0], True),
        ]
        assert [one.event_nid for one in list_notified(txn, bob, below=sent[3], limit=1)] == [sent[2]]
        highlights = list_notified(txn, bob, below=2**62, limit=10, only_highlights=True)
        assert [one.event_nid for one in highlights] == [sent[2]]
        to_push = list_to_push(txn, bob, sent[0], txn.position, 10)
        assert [one.event_nid for one in to_push] == [sent[2], sent[3]]
        assert list_notified(txn, alice, below=2**62, limit=10) == []  # she sent them

    await db.write(run)


async def test_a_pusher_is_claimed_by_one(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.set_membership("bob", BOB, "join")
    bob = await room.user_nid(BOB)
    keys = pushers.PusherKeys(
        kind="http",
        app_id="app",
        pushkey="key",
        app_display_name="App",
        device_display_name="Phone",
        profile_tag="",
        lang="en",
        data=b"{}",
    )

    def run(txn: WriteTxn) -> None:
        pushers.set_pusher(txn, bob, None, keys, 5, append=False)
        (pusher,) = pushers.list_pushers(txn, bob)
        assert pushers.list_pushers_in_rooms(txn, [room.room_nid]) == {pusher.pusher_nid}
        assert pushers.find_pusher(txn, pusher.pusher_nid) == pusher
        assert pushers.claim_pusher(txn, pusher, 10, 20)
        assert not pushers.claim_pusher(txn, pusher, 19, 30)
        assert pushers.claim_pusher(txn, pusher, 20, 30)
        pushers.note_pushed(txn, pusher.pusher_nid, pusher.pushed_nid + 1)
        # Somebody was quicker: what was read of it is out of date.
        assert not pushers.claim_pusher(txn, pusher, 40, 50)
        # What is put off is put off to the first time that was said, and until it was told.
        nid = pusher.pusher_nid
        pushers.schedule_push(txn, nid, 60)
        pushers.schedule_push(txn, nid, 70)
        (put_off,) = pushers.list_pushers(txn, bob)
        assert (put_off.due_ms, put_off.told_ms, put_off.gap_ms) == (60, None, 0)
        pushers.note_told(txn, nid, put_off.pushed_nid + 1, 65, 1000)
        (told,) = pushers.list_pushers(txn, bob)
        assert (told.due_ms, told.told_ms, told.gap_ms, told.retry_ms) == (None, 65, 1000, 0)
        assert told.pushed_nid == put_off.pushed_nid + 1

    await db.write(run)
