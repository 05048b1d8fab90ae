"""What is remembered of changes: never less than what happened, whatever was forgotten."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from ranvier.services.changes import Changes, Waiters, wait_for_news
from ranvier.store.database import Hint, Kind

USER = 1
HINTS = st.lists(
    st.tuples(
        st.sampled_from((Kind.ROOM, Kind.USER, Kind.DEVICE_LIST, Kind.PRESENCE, Kind.SERVER)),
        st.integers(1, 6),
        st.integers(0, 2),
    ),
    max_size=60,
)


def changed_keys(hints, kind, since):
    return {hint.key for hint in hints if hint.kind is kind and hint.position > since}


@given(HINTS, st.integers(1, 60), st.integers(0, 130), st.sets(st.integers(1, 8)), st.integers(0, 130))
def test_what_is_told_is_what_happened_or_nothing_is(steps, log_length, since, rooms, until):
    changes = Changes(0, log_length)
    hints, position = [], 0
    for kind, key, step in steps:
        position += step
        hints.append(Hint(kind, key, position))
        changes.add(hints[-1:])
    told = changes.since(since, until, USER, rooms)
    if told is None:
        assert len(hints) > log_length, "nothing had to be forgotten"
        return
    assert told.rooms == changed_keys(hints, Kind.ROOM, since) & rooms
    assert told.user is (USER in changed_keys(hints, Kind.USER, since))
    for kind, keys in ((Kind.DEVICE_LIST, told.device_lists), (Kind.PRESENCE, told.presence)):
        assert keys == changed_keys([hint for hint in hints if hint.position <= until], kind, since)


def test_before_the_beginning_and_behind_a_gap_nothing_is_known():
    changes = Changes(10)
    changes.add([Hint(Kind.ROOM, 5, 12)])
    assert changes.since(9, 12, USER, {5}) is None
    assert changes.since(10, 12, USER, {5}).rooms == {5}
    changes.forget(20)
    assert changes.since(12, 20, USER, {5}) is None
    assert changes.since(20, 20, USER, {5}).rooms == set()


def test_a_hint_that_comes_late_is_not_overlooked():
    changes = Changes(0)
    changes.add([Hint(Kind.ROOM, 1, 10), Hint(Kind.ROOM, 2, 5)])
    assert changes.since(7, 10, USER, {1, 2}).rooms == {1, 2}


async def test_waiters_are_woken_for_their_rooms_and_themselves():
    waiters = Waiters()
    with waiters.subscribe(USER, frozenset({5, 6})).wakeup() as woken:
        waiters.wake([Hint(Kind.ROOM, 7, 1), Hint(Kind.USER, 2, 1), Hint(Kind.DEVICE_LIST, USER, 1)])
        assert not woken.done()
        waiters.subscribe(USER, frozenset({6, 7}))
        waiters.wake([Hint(Kind.ROOM, 5, 2)])
        assert not woken.done()
        waiters.unsubscribe(USER)
        waiters.wake([Hint(Kind.ROOM, 7, 3)])
        assert woken.done(), "who waits is not forgotten"
    assert waiters.waiting_count() == 0
    waiters.unsubscribe(USER)
    for wake in (lambda: waiters.wake([Hint(Kind.USER, USER, 4)]), waiters.wake_all):
        with waiters.subscribe(USER, frozenset()).wakeup() as woken:
            wake()
            assert woken.done()


class Timers:
    """A clock that remembers what was to be called when."""

    def __init__(self):
        self.set, self.cancelled = [], 0

    def call_later(self, seconds, callback):
        self.set.append((seconds, callback))
        return self

    def cancel(self):
        self.cancelled += 1


async def test_who_waits_for_news_hears_of_it_or_of_the_end_of_the_time():
    waiters, timers = Waiters(), Timers()
    subscription = waiters.subscribe(USER, frozenset({7}))
    for wake in (lambda: waiters.wake_rooms((7,)), lambda: timers.set[-1][1]()):
        with subscription.wakeup() as woken:
            task = asyncio.create_task(wait_for_news(woken, timers, 30))
            await asyncio.sleep(0)
            assert not task.done()
            wake()
            await task
    assert [seconds for seconds, _ in timers.set] == [30, 30]
    assert timers.cancelled == 2


async def test_who_hears_for_somebody_decides_when_they_wake_and_with_what():
    waiters, timers, heard = Waiters(), Timers(), []
    with waiters.subscribe(USER, frozenset({7})).wakeup(heard.append) as woken:
        task = asyncio.create_task(wait_for_news(woken, timers, 30))
        for _ in range(2):
            waiters.wake_rooms((7,))
            await asyncio.sleep(0)
            assert not task.done()
        assert heard == [woken, woken]
        woken.set_result("news")
        assert await task == "news"
    waiters.wake_rooms((7,))
    assert len(heard) == 2
