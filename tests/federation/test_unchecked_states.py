"""Events of a state that cannot be checked, since the keys of their servers cannot be had just then: they are left out,
and in the end it is as if they had not been."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ranvier.core.room_versions import get_room_version
from ranvier.services.rooms import rechecks
from ranvier.services.rooms.writer import RoomWriters
from ranvier.store.database import Conflict, ReadTxn

from ..http.client import Answer, segment
from ..http.homeserver import Homeserver, User
from .agreement import differences, view_of
from .network import Network
from .peer import Peer
from .test_handshakes import hand_in, make, sign

C = "/_matrix/client/v3"

_KEYS = "SELECT 1 FROM server_keys JOIN servers USING (server_nid) WHERE server_name = :name LIMIT 1"
_WAITING = "SELECT (SELECT COUNT(*) FROM unchecked_states) + (SELECT COUNT(*) FROM partial_events)"


class Rooms:
    """A room on `one` in which `two` is, too; `three` enters it while it cannot reach `two`."""

    def __init__(self, network: Network, version: str) -> None:
        self.network = network
        self.version = version

    async def start(self) -> None:
        self.one, self.two, self.three = [await self.network.server(name) for name in ("one", "two", "three")]
        self.ann, self.bob, self.cid = [
            await server.register(name)
            for server, name in ((self.one, "ann"), (self.two, "bob"), (self.three, "cid"))
        ]
        body = {"preset": "public_chat", "room_version": self.version}
        answer = await self.ann.post(f"{C}/createRoom", body)
        assert answer.status == 200, answer.body
        self.room_id = str(answer.json["room_id"])
        await self.join(self.bob)
        await self.until(lambda: self.knows(self.one, self.bob))

    async def join(self, user: User, via: str = "one.test") -> Answer:
        answer = await user.post(f"{C}/join/{segment(self.room_id)}?server_name={via}", {})
        assert answer.status == 200, answer.body
        return answer

    async def send(self, user: User, text: str) -> str:
        path = f"{C}/rooms/{segment(self.room_id)}/send/m.room.message/{text}"
        answer = await user.put(path, {"body": text, "msgtype": "m.text"})
        assert answer.status == 200, answer.body
        return str(answer.json["event_id"])

    async def knows(self, server: Homeserver, user: User) -> bool:
        view = await view_of(server, self.room_id)
        return ("m.room.member", user.user_id) in view.state

    async def has(self, user: User, event_id: str) -> bool:
        path = f"{C}/rooms/{segment(self.room_id)}/event/{segment(event_id)}"
        return (await user.get(path)).status == 200

    async def is_waiting(self) -> bool:
        def read(txn: ReadTxn) -> bool:
            return bool(txn.value(_WAITING))

        return await self.three.foundation.ports.db.read(read)

    async def until(self, check: Callable[[], Awaitable[bool]], *, skip_s: float = 0) -> None:
        """`skip_s`: time that passes between looks."""
        for _ in range(3_000):
            if await check():
                return
            if skip_s:
                self.network.clock.skip(skip_s)
            await asyncio.sleep(0.01)
        raise TimeoutError

    async def until_agreed(self) -> None:
        """Everybody speaks until all have heard all: what was dropped comes before what is said next."""
        servers = (self.one, self.two, self.three)
        for number in range(50):
            self.network.clock.skip(30)
            for user in (self.ann, self.bob, self.cid):
                await self.send(user, f"{number}")
            for _ in range(20):
                await asyncio.sleep(0.02)
                views = {server.server_name: await view_of(server, self.room_id) for server in servers}
                if not differences(views) and not await self.is_waiting():
                    return
        raise TimeoutError(f"{differences(views)[:3]}")


@pytest.fixture(params=["12", "10", "3"])
async def rooms(network: Network, request: pytest.FixtureRequest) -> Rooms:
    rooms = Rooms(network, request.param)
    await rooms.start()
    return rooms


async def test_what_could_not_be_checked_on_entering_comes_when_the_server_answers(rooms: Rooms) -> None:
    rooms.network.cut("two", "three")
    await rooms.join(rooms.cid)
    assert not await rooms.knows(rooms.three, rooms.bob)
    assert await rooms.is_waiting()
    said = await rooms.send(rooms.cid, "here")
    rooms.network.heal()
    await rooms.until_agreed()
    assert await rooms.knows(rooms.three, rooms.bob)
    assert await rooms.has(rooms.cid, said)
    answer = await rooms.cid.get(f"{C}/rooms/{segment(rooms.room_id)}/joined_members")
    assert rooms.bob.user_id in answer.json["joined"]


async def enter_fourth(rooms: Rooms) -> tuple[Homeserver, Answer]:
    """Somebody of a fourth server asks to be let in by the third."""
    four = await rooms.network.server("four")
    dan = await four.register("dan")
    path = f"{C}/join/{segment(rooms.room_id)}?server_name=three.test"
    return four, await dan.post(path, {})


async def has_keys(server: Homeserver, name: str) -> bool:
    def read(txn: ReadTxn) -> bool:
        return txn.value(_KEYS, name=name) is not None

    return await server.foundation.ports.db.read(read)


async def test_others_are_not_let_in_with_a_state_that_may_soon_be_another_one(rooms: Rooms) -> None:
    rooms.network.cut("two", "three")
    rooms.network.cut("one", "four")
    await rooms.join(rooms.cid)
    _, answer = await enter_fourth(rooms)
    assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")


async def test_a_state_that_can_be_checked_by_now_is_checked_before_others_are_told_of_it(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of `two` come when it asks for something, long before the state would be looked at again."""
    monkeypatch.setattr(rechecks, "FIRST_PAUSE_MS", rechecks.MAX_PAUSE_MS)
    rooms.network.cut("two", "three")
    await rooms.join(rooms.cid)
    rooms.network.clock.skip(11)  # until it may be asked again for its keys
    rooms.network.heal()
    assert (await rooms.bob.get(f"{C}/profile/{segment(rooms.cid.user_id)}")).status == 200
    assert await has_keys(rooms.three, "two.test")
    four, answer = await enter_fourth(rooms)
    assert answer.status == 200, answer.body
    assert await rooms.knows(four, rooms.bob)
    three, fourth = await view_of(rooms.three, rooms.room_id), await view_of(four, rooms.room_id)
    assert not [one for one in differences({"three": three, "four": fourth}) if one[0] == "state before"]


async def test_others_are_let_in_after_a_while_though_a_server_is_gone(rooms: Rooms) -> None:
    await rooms.network.stop("two")
    await rooms.join(rooms.cid)
    rooms.network.clock.skip(601)
    _, answer = await enter_fourth(rooms)
    assert answer.status == 200, answer.body


async def test_a_server_of_which_nobody_knew_that_it_is_there_is_told_what_was_said_meanwhile(
    rooms: Rooms,
) -> None:
    """It came into the room by no event that is new here; and nobody says another word."""
    rooms.network.cut("two", "three")
    await rooms.join(rooms.cid)
    said = await rooms.send(rooms.cid, "here")
    await rooms.until(lambda: rooms.has(rooms.ann, said))
    rooms.network.heal()
    await rooms.until(lambda: rooms.knows(rooms.three, rooms.bob), skip_s=1)
    await rooms.until(lambda: rooms.has(rooms.bob, said))


async def test_history_that_came_in_a_stay_that_ended_before(rooms: Rooms) -> None:
    """It is fetched anew in the next one: what was before it was another state than was taken then."""
    said = await rooms.send(rooms.ann, "early")
    path = f"{C}/rooms/{segment(rooms.room_id)}"
    rooms.network.cut("two", "three")
    await rooms.join(rooms.cid)
    assert (await rooms.cid.get(f"{path}/messages", dir="b", limit=50)).status == 200
    assert said in (await view_of(rooms.three, rooms.room_id)).before
    assert await rooms.is_waiting()
    assert (await rooms.cid.post(f"{path}/leave", {})).status == 200
    rooms.network.heal()
    rooms.network.clock.skip(3_700)
    await rooms.join(rooms.cid)
    await rooms.until_agreed()
    assert (await rooms.cid.get(f"{path}/messages", dir="b", limit=50)).status == 200
    await rooms.until_agreed()
    assert await rooms.has(rooms.cid, said)


async def test_it_comes_after_a_restart(rooms: Rooms) -> None:
    rooms.network.cut("two", "three")
    await rooms.join(rooms.cid)
    await rooms.network.stop("three")
    rooms.network.heal()
    rooms.three = await rooms.network.server("three")
    session = {"access_token": rooms.cid.token, "user_id": rooms.cid.user_id, "device_id": ""}
    rooms.cid = rooms.three.user(session)
    await rooms.until_agreed()
    assert await rooms.knows(rooms.three, rooms.bob)


async def test_what_was_rejected_for_want_of_it_is_shown_then(rooms: Rooms) -> None:
    """`two`'s events come through `one`, who speaks behind them; what `two` says is allowed by its own join."""
    rooms.network.cut("two", "three")
    await rooms.join(rooms.cid)
    said = await rooms.send(rooms.bob, "hello")
    await rooms.until(lambda: rooms.has(rooms.ann, said))
    behind = await rooms.send(rooms.ann, "behind")
    await rooms.until(lambda: rooms.has(rooms.cid, behind))
    assert not await rooms.has(rooms.cid, said)
    rooms.network.heal()
    await rooms.until_agreed()

    async def is_there() -> bool:
        await rooms.cid.get(f"{C}/rooms/{segment(rooms.room_id)}/messages?dir=b&limit=50")
        return await rooms.has(rooms.cid, said)

    await rooms.until(is_there, skip_s=60)


async def test_what_lies_before_the_entrance_and_came_late_is_told_once(rooms: Rooms) -> None:
    """Somebody speaks behind what is long past: all up to there is fetched, before it is decided again."""
    peer = Peer(rooms.network)
    eve, version = peer.user("eve"), get_room_version(rooms.version)
    answer = await make(peer, rooms.one, rooms.room_id, eve, ver=f"?ver={rooms.version}")
    entered = sign(peer, answer, version)
    assert (await hand_in(peer, rooms.one, entered)).status == 200
    copy = await peer.copy(rooms.one, rooms.room_id)
    await rooms.send(rooms.ann, "later")
    rooms.network.cut("two", "three")
    await rooms.join(rooms.cid)
    assert await rooms.is_waiting()
    aside = peer.message(copy, eve, "aside", entered)
    for server in (rooms.one, rooms.two, rooms.three):
        await peer.send(server, [aside])
    await rooms.until(lambda: rooms.has(rooms.cid, aside.event_id))
    told, since = await list_told(rooms.cid, rooms.room_id)
    assert aside.event_id in told
    rooms.network.heal()

    async def is_decided() -> bool:
        return not await rooms.is_waiting()

    await rooms.until(is_decided, skip_s=10)
    for event_id in copy.pdus.keys() & set(told):
        assert await rooms.has(rooms.cid, event_id)
    await rooms.send(rooms.cid, "now")
    again, _ = await list_told(rooms.cid, rooms.room_id, since)
    assert not set(told) & set(again)


async def list_told(user: User, room_id: str, since: str | None = None) -> tuple[list[str], str]:
    """What the room's timeline shows the user, by /sync and, behind its gap, by /messages; and the next token."""
    answer = (await user.get(f"{C}/sync", since=since, timeout=0)).json
    timeline = answer["rooms"]["join"][room_id]["timeline"]
    told = [event["event_id"] for event in timeline["events"]]
    if timeline["limited"]:
        path = f"{C}/rooms/{segment(room_id)}/messages"
        page = await user.get(path, dir="b", limit=100, to=since, **{"from": timeline["prev_batch"]})
        told += [event["event_id"] for event in page.json["chunk"]]
    return told, answer["next_batch"]


async def test_members_who_were_written_before_a_state_that_never_took_effect_go(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rooms.version != "12":
        pytest.skip("it is the same in all versions")
    rooms.network.cut("two", "three")
    await rooms.join(rooms.cid)
    assert await rooms.is_waiting()
    tried = 0

    async def fail(*_: object) -> None:
        nonlocal tried
        tried += 1
        raise Conflict("it changes too fast")

    monkeypatch.setattr(RoomWriters, "rewrite", fail)
    rooms.network.heal()

    async def list_joined() -> list[str]:
        return sorted(
            (await rooms.cid.get(f"{C}/rooms/{segment(rooms.room_id)}/joined_members")).json["joined"]
        )

    async def is_ahead() -> bool:
        return rooms.bob.user_id in await list_joined()

    async def is_over() -> bool:
        return not await rooms.is_waiting()

    await rooms.until(is_ahead, skip_s=30)
    await rooms.until(is_over, skip_s=3_600)
    assert tried
    assert not await rooms.knows(rooms.three, rooms.bob)
    assert await list_joined() == [rooms.ann.user_id, rooms.cid.user_id]


async def test_a_server_that_is_gone_does_not_keep_others_out(rooms: Rooms) -> None:
    await rooms.network.stop("two")
    await rooms.join(rooms.cid)
    assert await rooms.is_waiting()

    async def is_over() -> bool:
        return not await rooms.is_waiting()

    await rooms.until(is_over, skip_s=3_600)
    said = await rooms.send(rooms.cid, "all the same")
    await rooms.until(lambda: rooms.has(rooms.ann, said))


async def test_who_lets_us_in_passes_on_what_a_server_says_that_we_knew(rooms: Rooms) -> None:
    """`two`'s key is known from before, but not that it was still good when it signed: `one` has the document that says
    so, signed with that key."""
    if rooms.version == "3":
        pytest.skip("keys are good at any time in this version")
    await rooms.join(rooms.cid)
    assert await rooms.knows(rooms.three, rooms.bob)
    await rooms.cid.post(f"{C}/rooms/{segment(rooms.room_id)}/leave", {})
    rooms.network.clock.skip(3 * 86_400)
    await rooms.bob.post(f"{C}/rooms/{segment(rooms.room_id)}/leave", {})
    await rooms.join(rooms.bob)
    await rooms.send(rooms.bob, "again")
    rooms.network.isolate("two")
    await rooms.join(rooms.cid)
    assert await rooms.knows(rooms.three, rooms.bob)
    assert not await rooms.is_waiting()
