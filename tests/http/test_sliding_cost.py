"""What sliding sync costs: the questions to the database do not grow with rooms; without news there are none."""

from typing import Any

import pytest

from ranvier.services.sliding.reading import SlidingReader

from ..sliding_client import ALL_EXTENSIONS, SlidingClient
from .homeserver import Homeserver, User
from .rooms import create, say

STATE = (
    *(("m.room.name", ""), ("m.room.encryption", ""), ("m.room.member", "$LAZY"), ("m.room.member", "$ME")),
    *(("m.room.topic", ""), ("m.room.canonical_alias", ""), ("m.room.power_levels", "")),
)
FIRST_WINDOW = 24
ONE_MESSAGE = 16
ONE_ROOM_MORE = 23


class Counted:
    """A read transaction that notes what it is asked."""

    def __init__(self, txn: Any, asked: list[str]) -> None:
        self._txn = txn
        self._asked = asked

    @property
    def position(self) -> int:
        return self._txn.position

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._txn, name)

        def counted(sql: str, /, **params: object) -> Any:
            self._asked.append(" ".join(sql.split()))
            return call(sql, **params)

        return counted


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements of sliding sync, as they come."""
    seen: list[str] = []
    read_all = SlidingReader.read_all
    monkeypatch.setattr(
        SlidingReader, "read_all", lambda self, txn, jobs: read_all(self, Counted(txn, seen), jobs)
    )
    return seen


def client(user: User) -> SlidingClient:
    sliding = SlidingClient(user, "simplified", user_id=user.user_id)
    sliding.lists = {"all": sliding.config(1, STATE, (0, 19), not_room_types=["m.space"])}
    sliding.extensions = ALL_EXTENSIONS
    return sliding


async def enter_rooms(user: User, count: int) -> list[str]:
    rooms = [await create(user, name=f"Room {number}") for number in range(count)]
    for room in rooms:
        await say(user, room, "hello")
    return rooms


async def test_a_first_window_costs_the_same_however_many_rooms_it_shows(
    homeserver: Homeserver, alice: User, bob: User, asked: list[str]
) -> None:
    costs = []
    for user, count in ((alice, 3), (bob, 18)):
        await enter_rooms(user, count)
        asked.clear()
        told = await client(user).sync()
        assert len(told["rooms"]) == count
        costs.append(len(asked))
    assert costs == [costs[0], costs[0]]
    assert costs[0] <= FIRST_WINDOW, asked


async def test_a_message_costs_the_same_in_an_account_of_many_rooms(alice: User, asked: list[str]) -> None:
    rooms = await enter_rooms(alice, 25)
    sliding = client(alice)
    for _ in range(2):
        await sliding.sync()
    asked.clear()
    assert not (await sliding.sync())["rooms"]
    assert asked == [], "nothing happened"
    await say(alice, rooms[-1], "in the window")
    assert list((await sliding.sync())["rooms"]) == [rooms[-1]]
    assert len(asked) <= ONE_MESSAGE, asked
    asked.clear()
    await say(alice, rooms[0], "outside of it")
    assert list((await sliding.sync())["rooms"]) == [rooms[0]]
    assert len(asked) <= ONE_ROOM_MORE, asked
