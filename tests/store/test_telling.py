"""A position is told no sooner than the hints of every change up to it, whatever way they come."""

import asyncio
from collections import deque
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.store.database import Database, Hint, Kind, WriteTxn
from ranvier.store.dialect import Engine
from ranvier.store.positions import Observation, Settlement
from ranvier.store.telling import MAX_HINTS, Telling
from ranvier.store.threads import News

from .test_positions import Simulated

STEPS = ("begin", "take", "take", "end", "end", "observe", "take in", "deliver", "deliver")


class Cluster(Simulated):
    """A server with processes, one of which is looked at. The key of a transaction's hint is its id."""

    def __init__(self) -> None:
        super().__init__(sees_all=True)
        self.telling = Telling(Settlement(), self.hear)
        self.queue: deque[int | tuple[int, int, int]] = deque()  # marks, and (first, last, id)
        self.observed: list[tuple[int, Observation]] = []  # that the process has yet to take in
        self.ended: dict[int, list[int]] = {}
        self.told: set[int] = set()
        self.position = 0

    def end(self, which: int) -> None:
        if not self.open:
            return
        xid = sorted(self.open)[which % len(self.open)]
        positions = self.open[xid] or [0]
        is_own = xid % 2 == 1
        if is_own:
            self.telling.hold([Hint(Kind.ROOM, xid, positions[-1])], positions[0])
        else:
            self.queue.append((positions[0], positions[-1], xid))
        self.ended[xid] = positions
        del self.open[xid]

    def look(self) -> None:
        mark = self.telling.next_mark()
        self.observed.append((mark, self.observe()))
        self.queue.append(mark)

    def take_in(self, which: int) -> None:
        if self.observed:
            self.telling.observed(*self.observed.pop(which % len(self.observed)))

    def deliver(self) -> None:
        if not self.queue:
            return
        match self.queue.popleft():
            case (first, last, xid):
                self.telling.hold([Hint(Kind.ROOM, xid, last)], first)
            case mark:
                self.telling.heard(mark)

    def hear(self, news: News) -> None:
        assert news.position >= self.position
        self.position = news.position
        self.told.update(hint.key for hint in news.hints)
        assert all(hint.position <= news.position for hint in news.hints)
        reached = {xid for xid, taken in self.ended.items() if 0 < min(taken) <= self.position}
        assert reached <= self.told, "a client that is told this position hears of these no more"

    def finish(self) -> None:
        for xid in list(self.open):
            self.end(xid)
        for _ in range(2):
            while self.observed or self.queue:
                self.take_in(0)
                self.deliver()
            self.look()


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=80))
def test_no_position_is_told_before_the_hints_of_what_is_below_it(steps):
    cluster = Cluster()
    for step, which in steps:
        match step:
            case "begin":
                cluster.begin()
            case "take":
                cluster.take(which)
            case "end":
                cluster.end(which)
            case "observe":
                cluster.look()
            case "take in":
                cluster.take_in(which)
            case _:
                cluster.deliver()
    cluster.finish()
    assert cluster.position == cluster.last
    assert cluster.told == cluster.ended.keys()
    assert not cluster.telling.is_waiting


def test_hints_that_are_too_many_become_a_gap():
    told: list[News] = []
    telling = Telling(Settlement(), told.append)
    telling.hold([Hint(Kind.ROOM, n, 11) for n in range(MAX_HINTS + 1)], 11)
    assert telling.is_waiting
    telling.observed(telling.next_mark(), Observation(12, 100, 100))
    assert told == []
    telling.heard(1)
    assert told == [News(12, [Hint(Kind.GAP, 0, 12)])]
    assert not telling.is_waiting


def test_marks_that_are_lost_hold_nothing_up():
    told: list[News] = []
    telling = Telling(Settlement(), told.append)
    telling.hold([Hint(Kind.ROOM, 5, 11)], 11)
    telling.observed(telling.next_mark(), Observation(11, 100, 100))
    assert not telling.is_waiting, "the mark is on its way"
    telling.lose_marks()
    assert telling.is_waiting
    telling.observed(telling.next_mark(), Observation(11, 101, 101))
    assert told == []
    telling.heard(2)
    assert told == [News(11, [Hint(Kind.ROOM, 5, 11)])]


def test_two_threads_tell_in_the_order_of_positions():
    """What one thread took to tell is told before another thread tells of more."""
    told: list[int] = []
    is_telling, may_go_on = Event(), Event()

    def tell(news: News) -> None:
        if not told and not is_telling.is_set():
            is_telling.set()
            may_go_on.wait(60)
        told.append(news.position)

    telling = Telling(Settlement(), tell)
    telling.hold([Hint(Kind.ROOM, 5, 11)], 11)
    for last, xid in ((11, 100), (12, 101)):
        telling.observed(telling.next_mark(), Observation(last, xid, xid))
    slow = Thread(target=telling.heard, args=(1,))
    fast = Thread(target=telling.heard, args=(2,))
    slow.start()
    assert is_telling.wait(60)
    fast.start()
    fast.join(0.05)  # it waits; were it not to, it would be done by then
    may_go_on.set()
    slow.join()
    fast.join()
    assert told == [11, 12]


@pytest.mark.parametrize("engine", [Engine.POSTGRES], ids=["postgres"], indirect=True)
async def test_a_process_hears_of_another_before_it_goes_past(db: Database, engine: Engine, open_another):
    """Both write as fast as they can. Without marks one in five is overtaken by what the other writes itself."""
    other = await open_another()
    heard: set[int] = set()
    overtaken: set[int] = set()
    written: dict[int, int] = {}
    woken = asyncio.Event()
    db.subscribe(lambda hints: (heard.update(hint.key for hint in hints), woken.set()))

    def look() -> None:
        overtaken.update(key for key, at in written.items() if key not in heard and at <= db.position())

    def write(txn: WriteTxn, key: int) -> int:
        txn.hint(Kind.ROOM, key)
        return txn.next_position()

    async def write_there(start: int) -> None:
        for key in range(start, start + 50):
            written[key] = await other.write(write, key)
            look()

    async def write_here(start: int) -> None:
        for key in range(start, start + 50):
            await db.write(write, -key)
            look()

    await asyncio.gather(*(one(start) for one in (write_there, write_here) for start in (100, 200)))
    async with asyncio.timeout(10):
        while not heard >= written.keys():
            woken.clear()
            await woken.wait()
    assert not overtaken
