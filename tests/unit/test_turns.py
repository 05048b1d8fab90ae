"""Turns: a bound for each, whoever else waits."""

import asyncio

import pytest

from ranvier.core.errors import LimitExceeded
from ranvier.services.turns import Turns, network_of


async def test_each_has_its_own_bound_and_its_own_queue() -> None:
    turns: Turns[str] = Turns(each=2, waiting=1)
    go = asyncio.Event()
    at_once: dict[str, int] = {}
    most: dict[str, int] = {}

    async def work(key: str) -> None:
        async with turns.take(key):
            at_once[key] = at_once.get(key, 0) + 1
            most[key] = max(most.get(key, 0), at_once[key])
            await go.wait()
            at_once[key] -= 1

    tasks = [asyncio.create_task(work("a")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded):
        await work("a")
    tasks.append(asyncio.create_task(work("b")))
    await asyncio.sleep(0)
    assert at_once == {"a": 2, "b": 1}, "whoever fills one queue is not in another's way"
    go.set()
    await asyncio.gather(*tasks)
    assert most == {"a": 2, "b": 1}
    assert not turns._queues, "nothing is kept of who is done"


async def test_who_gives_up_leaves_the_queue() -> None:
    turns: Turns[str] = Turns(each=1, waiting=1)
    async with turns.take("a"):
        waiting = asyncio.create_task(turns.take("a").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        second = asyncio.create_task(turns.take("a").__aenter__())
        await asyncio.sleep(0)
    await second


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address:", "no address:"),
        ("", ""),
    ],
)
def test_what_an_address_counts_as(ip: str, network: str) -> None:
    assert network_of(ip) == network
