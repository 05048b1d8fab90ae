"""Two servers of this kind and a Synapse in the same rooms, over HTTPS on loopback: whatever one of them does, the
others see. One process of each serves all tests. Skipped where Synapse is not installed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from ..clients.process import free_port
from ..http.client import segment
from ..unit.certificates import Authority
from .test_synapse import RANVIER, SYNAPSE, Person, Server, eventually, start_ranvier, start_synapse

C: Final = "/_matrix/client/v3"

GENEROUS: Final = """
presence: {enabled: true}
room_list_publication_rules: [{action: allow}]
federation:
  {destination_min_retry_interval: 200, destination_max_retry_interval: 1s, max_long_retry_delay: 1s}
rc_federation: {window_size: 1000, sleep_limit: 100000, sleep_delay: 1, reject_limit: 100000, concurrent: 100}
rc_room_creation: {per_second: 100000, burst_count: 100000}
background_updates: {sleep_enabled: false}
allow_public_rooms_over_federation: true
allow_public_rooms_without_auth: true
caches: {sync_response_cache_duration: 0}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not SYNAPSE.exists(), reason="Synapse is not installed"),
]

Pair = tuple["Member", "Member"]


class Line:
    """What others reach a server through, and can be cut."""

    def __init__(self) -> None:
        self.port = free_port()
        self.is_cut = False
        self._to = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, to: int) -> None:
        self._to = to
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)

    async def close(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def cut(self) -> None:
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def heal(self) -> None:
        self.is_cut = False

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.is_cut:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers |= {writer, back}
            try:
                await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
            finally:
                self._writers -= {writer, back}
                back.close()
        except OSError:
            pass
        finally:
            writer.close()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    finally:
        target.close()


class Member(Person):
    """A client, and what these tests ask of it."""

    async def attempt(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer, whatever it is."""
        url = f"http://127.0.0.1:{self.server.client_port}{path}"
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.request(
            method, URL(url, encoded=True), json=body, headers=headers
        ) as response:
            return response.status, await response.json()

    async def create(self, **body: Any) -> str:
        body = {"preset": "public_chat", "room_version": "11"} | body
        return str((await self.call("POST", f"{C}/createRoom", body))["room_id"])

    async def join(self, room: str, *via: Person) -> str:
        query = "&".join(f"server_name={one.server.name}" for one in via)
        return str((await self.call("POST", f"{C}/join/{segment(room)}?{query}", {}))["room_id"])

    async def act(self, room_id: str, action: str, **body: Any) -> None:
        await self.call("POST", f"{C}/rooms/{segment(room_id)}/{action}", body)

    async def set(self, room_id: str, type_: str, content: Any, key: str = "") -> str:
        path = f"{C}/rooms/{segment(room_id)}/state/{type_}/{segment(key)}"
        return str((await self.call("PUT", path, content))["event_id"])

    async def state(self, room_id: str, type_: str, key: str = "") -> Any:
        status, answer = await self.attempt(
            "GET", f"{C}/rooms/{segment(room_id)}/state/{type_}/{segment(key)}"
        )
        return answer if status == 200 else None

    async def timeline(self, room_id: str) -> list[Any]:
        """All that the user may see of it, oldest first."""
        events: list[Any] = []
        token = ""
        while True:
            page = await self.call(
                "GET", f"{C}/rooms/{segment(room_id)}/messages?dir=b&limit=100{token and '&from=' + token}"
            )
            events += page["chunk"]
            if "end" not in page or not page["chunk"]:
                return events[::-1]
            token = segment(page["end"])

    async def event_of(self, room_id: str, text: str) -> Any:
        return next(e for e in await self.timeline(room_id) if e["content"].get("body") == text)

    async def synced(self, room_id: str) -> Any:
        answer = await self.call("GET", f"{C}/sync")
        return answer.get("rooms", {}).get("join", {}).get(room_id, {})

    async def finds(self, room_id: str, type_: str, content: Any, key: str = "") -> None:
        await eventually(
            lambda: self.state(room_id, type_, key),
            lambda found: found == content,
            f"{self.user_id} finds {type_} {content}",
        )


class World:
    """The servers, and the people who come up as they are called."""

    def __init__(self, session: aiohttp.ClientSession, servers: list[Server], lines: list[Line]) -> None:
        self.session = session
        self.servers, self.lines = servers, lines
        self._numbers = count()

    async def person(self, which: int) -> Member:
        """A new user of the first server of this kind (0), of Synapse (1), or of the second one (2)."""
        person = Member(self.session, self.servers[which])
        await person.register(f"{'ask'[which]}{next(self._numbers)}")
        return person

    async def pairs(self) -> list[Pair]:
        """Somebody of ours and somebody of Synapse, in both roles."""
        ours, theirs = await asyncio.gather(self.person(0), self.person(1))
        return [(ours, theirs), (theirs, ours)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("world")
    authority = Authority(directory)
    lines = [Line(), Line(), Line()]
    servers = [
        start_ranvier(directory / "first", authority, lines[0].port),
        await asyncio.to_thread(start_synapse, directory / "synapse", authority, lines[1].port, GENEROUS),
        start_ranvier(directory / "second", authority, lines[2].port),
    ]
    try:
        async with aiohttp.ClientSession() as session:
            for line, server in zip(lines, servers, strict=True):
                await line.open(server.port)
                await server.wait(session)
            yield World(session, servers, lines)
    finally:
        for line in lines:
            await line.close()
        for server in servers:
            server.stop()


@pytest.fixture(autouse=True)
def _whole(world: World) -> None:
    for line in world.lines:
        line.heal()


async def test_join_by_alias_and_by_id(world: World) -> None:
    for owner, guest in await world.pairs():
        name = f"hall-{owner.user_id[1:3]}"
        room_id = await owner.create(room_alias_name=name)
        alias = f"#{name}:{owner.server.name}"
        found = await guest.call("GET", f"{C}/directory/room/{segment(alias)}")
        assert found["room_id"] == room_id
        assert owner.server.name in found["servers"]
        assert await guest.join(alias) == room_id
        await owner.sees(room_id, guest.user_id, "join")
        other = await owner.create()
        assert await guest.join(other, owner) == other
        await owner.sees(other, guest.user_id, "join")


async def test_every_change_of_membership(world: World) -> None:
    for owner, guest in await world.pairs():
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        room_id = await owner.create(preset="private_chat", initial_state=[rules])
        path = f"{C}/knock/{segment(room_id)}?server_name={owner.server.name}"
        await guest.call("POST", path, {"reason": "please"})
        await owner.sees(room_id, guest.user_id, "knock")
        if guest.server is not world.servers[1]:  # Synapse keeps it to itself that a knock was taken back
            await guest.act(room_id, "leave")
            await owner.sees(room_id, guest.user_id, "leave")
            await guest.call("POST", path, {})
            await owner.sees(room_id, guest.user_id, "knock")
        await owner.act(room_id, "invite", user_id=guest.user_id)
        await eventually(guest.invites, lambda invites, r=room_id: r in invites, "the invite after the knock")
        await guest.act(room_id, "leave")
        await owner.sees(room_id, guest.user_id, "leave")
        await owner.act(room_id, "invite", user_id=guest.user_id)
        await eventually(guest.invites, lambda invites, r=room_id: r in invites, "another invite")
        await guest.join(room_id, owner)
        await owner.sees(room_id, guest.user_id, "join")
        await owner.act(room_id, "kick", user_id=guest.user_id, reason="out")
        await _is_out(guest, room_id)
        await owner.act(room_id, "invite", user_id=guest.user_id)
        await eventually(guest.invites, lambda invites, r=room_id: r in invites, "the third invite")
        # An invite can be taken back.
        await owner.act(room_id, "kick", user_id=guest.user_id)
        await eventually(guest.invites, lambda invites, r=room_id: r not in invites, "it is taken back")
        await owner.act(room_id, "ban", user_id=guest.user_id)
        status, answer = await guest.attempt("POST", path, {})
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        await owner.act(room_id, "unban", user_id=guest.user_id)
        await guest.call("POST", path, {})
        await owner.sees(room_id, guest.user_id, "knock")


async def _is_out(person: Member, room_id: str) -> None:
    await eventually(
        lambda: person.call("GET", f"{C}/joined_rooms"),
        lambda answer: room_id not in answer["joined_rooms"],
        f"{person.user_id} is out",
    )


@pytest.mark.parametrize("version", ["6", "7", "8", "9", "10", "11", "12"])
async def test_messages_state_and_redaction_in_each_version(world: World, version: str) -> None:
    for owner, guest in await world.pairs():
        room_id = await owner.create(room_version=version)
        await guest.join(room_id, owner)
        await owner.sees(room_id, guest.user_id, "join")
        await asyncio.gather(owner.say(room_id, "from here"), guest.say(room_id, "from there"))
        await guest.reads(room_id, "from here")
        await owner.reads(room_id, "from there")
        powers = await owner.state(room_id, "m.room.power_levels")
        powers["users"] = powers.get("users", {}) | {guest.user_id: 50}
        await owner.set(room_id, "m.room.power_levels", powers)
        await guest.finds(room_id, "m.room.power_levels", powers)
        await guest.set(room_id, "m.room.name", {"name": "ours"})
        await owner.finds(room_id, "m.room.name", {"name": "ours"})
        for author, reader, text in ((guest, owner, "from here"), (owner, guest, "from there")):
            event_id = (await author.event_of(room_id, text))["event_id"]
            await author.call(
                "PUT", f"{C}/rooms/{segment(room_id)}/redact/{segment(event_id)}/{text[-4:]}", {}
            )
            await eventually(
                lambda reader=reader, r=room_id: reader.texts(r),
                lambda texts, text=text: text not in texts,
                f"{text} is redacted",
            )


@pytest.mark.parametrize(
    ("visibility", "expected"),
    [
        ("shared", ["before", "invited", "after"]),
        ("invited", ["invited", "after"]),
        ("joined", ["after"]),
        ("world_readable", ["before", "invited", "after"]),
    ],
)
async def test_history_is_shown_to_whom_the_room_says(
    world: World, visibility: str, expected: list[str]
) -> None:
    for owner, guest in await world.pairs():
        shown = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
        room_id = await owner.create(preset="private_chat", initial_state=[shown])
        await owner.say(room_id, "before")
        await owner.act(room_id, "invite", user_id=guest.user_id)
        await eventually(guest.invites, lambda invites, r=room_id: r in invites, "the invite")
        await owner.say(room_id, "invited")
        await guest.join(room_id, owner)
        await owner.sees(room_id, guest.user_id, "join")
        await owner.say(room_id, "after")
        await guest.reads(room_id, "after")
        bodies = [
            e["content"]["body"] for e in await guest.timeline(room_id) if e["type"] == "m.room.message"
        ]
        assert bodies == expected, (owner.user_id, bodies)


async def test_backfill_of_three_hundred_events(world: World) -> None:
    for owner, guest in await world.pairs():
        room_id = await owner.create()

        async def talk(start: int, owner: Member = owner, room_id: str = room_id) -> None:
            for number in range(start, 300, 6):
                path = f"{C}/rooms/{segment(room_id)}/send/m.room.message/b{number}"
                await owner.call("PUT", path, {"msgtype": "m.text", "body": str(number)})

        await asyncio.gather(*(talk(start) for start in range(6)))
        await guest.join(room_id, owner)
        theirs = [e["event_id"] for e in await owner.timeline(room_id)]
        mine = [e["event_id"] for e in await guest.timeline(room_id)]
        assert len(mine) >= 300
        assert len(set(mine)) == len(mine)
        assert set(mine) == set(theirs)
        if owner.server is not world.servers[1]:  # where Synapse sends at once, there are branches
            assert mine == theirs


@pytest.mark.parametrize("rule", ["restricted", "knock_restricted"])
async def test_restricted_rooms(world: World, rule: str) -> None:
    for owner, guest in await world.pairs():
        space = await owner.create(preset="private_chat", creation_content={"type": "m.space"})
        allow = [{"type": "m.room_membership", "room_id": space}]
        rules = {"type": "m.room.join_rules", "content": {"join_rule": rule, "allow": allow}}
        room_id = await owner.create(preset="private_chat", initial_state=[rules])
        path = f"{C}/join/{segment(room_id)}?server_name={owner.server.name}"
        status, answer = await guest.attempt("POST", path, {})
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        await owner.act(space, "invite", user_id=guest.user_id)
        await eventually(guest.invites, lambda invites, r=space: r in invites, "the invite")
        await guest.join(space, owner)
        await guest.join(room_id, owner)
        await owner.sees(room_id, guest.user_id, "join")
        member = await owner.state(room_id, "m.room.member", guest.user_id)
        assert member["join_authorised_via_users_server"] == owner.user_id
        await guest.say(room_id, "let in")
        await owner.reads(room_id, "let in")
        if rule == "knock_restricted":
            other = await world.person(world.servers.index(guest.server))
            await other.call("POST", f"{C}/knock/{segment(room_id)}?server_name={owner.server.name}", {})
            await owner.sees(room_id, other.user_id, "knock")


async def test_upgrade(world: World) -> None:
    for owner, guest in await world.pairs():
        room_id = await owner.create(room_version="10", name="Old")
        await guest.join(room_id, owner)
        await owner.sees(room_id, guest.user_id, "join")
        answer = await owner.call("POST", f"{C}/rooms/{segment(room_id)}/upgrade", {"new_version": "12"})
        new_id = answer["replacement_room"]
        await eventually(
            lambda g=guest, r=room_id: g.state(r, "m.room.tombstone"),
            lambda found, n=new_id: found is not None and found["replacement_room"] == n,
            "the tombstone arrives",
        )
        await guest.join(new_id, owner)
        create = await guest.state(new_id, "m.room.create")
        assert create["predecessor"]["room_id"] == room_id
        assert await guest.state(new_id, "m.room.name") == {"name": "Old"}
        await guest.say(new_id, "moved")
        await owner.reads(new_id, "moved")


async def all_agree(room_id: str, *people: Member) -> None:
    """Everybody has the same state and the same messages."""

    async def views() -> list[Any]:
        found = []
        for person in people:
            state = await person.call("GET", f"{C}/rooms/{segment(room_id)}/state")
            found.append(
                (
                    {(e["type"], e["state_key"]): e["event_id"] for e in state},
                    {e["event_id"] for e in await person.timeline(room_id) if e["type"] == "m.room.message"},
                )
            )
        return found

    await eventually(views, lambda found: all(one == found[0] for one in found), "all agree")


async def three(world: World, version: str = "11") -> tuple[list[Member], str]:
    """Somebody of each server, in a room in which each may do anything."""
    people = list(await asyncio.gather(*(world.person(which) for which in range(3))))
    owner = people[0]
    others = {person.user_id: 90 for person in people[1:]}
    powers = {"users": others | ({} if version == "12" else {owner.user_id: 100})}
    room_id = await owner.create(room_version=version, power_level_content_override=powers)
    for person in people[1:]:
        await person.join(room_id, owner)
    for person in people:
        for other in people:
            await person.sees(room_id, other.user_id, "join")
    return people, room_id


@pytest.mark.parametrize("version", ["6", "11", "12"])
async def test_what_conflicts_during_a_partition_converges(world: World, version: str) -> None:
    people, room_id = await three(world, version)
    alice, sam, kim = people
    victim = await world.person(1)
    await victim.join(room_id, sam)
    for person in people:
        await person.sees(room_id, victim.user_id, "join")
    for line in world.lines:
        line.cut()
    powers = await alice.state(room_id, "m.room.power_levels")
    await asyncio.gather(
        *(person.set(room_id, "m.room.name", {"name": person.user_id}) for person in people),
        *(person.set(room_id, "m.room.topic", {"topic": person.user_id}) for person in people),
        *(person.say(room_id, f"cut off, {person.user_id}") for person in people),
    )
    # One bans, one lets the banned one speak on, and one takes power away.
    await kim.act(room_id, "ban", user_id=victim.user_id)
    await victim.say(room_id, "banned elsewhere")
    await sam.set(room_id, "m.room.join_rules", {"join_rule": "invite"})
    powers["users"] = powers["users"] | {sam.user_id: 0}
    await alice.set(room_id, "m.room.power_levels", powers)
    for line in world.lines:
        line.heal()
    # Each says something, so that nobody waits for a pause to end.
    await sam.say(room_id, "healed")
    for person in (alice, kim):
        await person.reads(room_id, "healed")
    await asyncio.gather(alice.say(room_id, "alice again"), kim.say(room_id, "kim again"))
    for person in people:
        await person.reads(room_id, "alice again")
        await person.reads(room_id, "kim again")
    await _same_state(room_id, people)
    for person in people:
        await person.sees(room_id, victim.user_id, "ban")
        await person.finds(room_id, "m.room.power_levels", powers)


async def _same_state(room_id: str, people: list[Member]) -> None:
    async def states() -> list[Any]:
        answers = [await one.call("GET", f"{C}/rooms/{segment(room_id)}/state") for one in people]
        return [{(e["type"], e["state_key"]): e["event_id"] for e in answer} for answer in answers]

    await eventually(states, lambda found: all(one == found[0] for one in found), "the states are the same")


@pytest.mark.parametrize("away", [0, 1])
async def test_who_cannot_be_reached_catches_up(world: World, away: int) -> None:
    people, room_id = await three(world)
    others = [person for which, person in enumerate(people) if which != away]
    world.lines[away].cut()
    for number in range(30):
        await others[number % 2].say(room_id, f"missed {number}")
    await others[0].set(room_id, "m.room.topic", {"topic": "missed"})
    await asyncio.gather(*(person.reads(room_id, "missed 29") for person in others))
    world.lines[away].heal()
    # It speaks, and so the others know that it is back.
    await people[away].say(room_id, "what did I miss?")
    for person in others:
        await person.reads(room_id, "what did I miss?")
    await people[away].reads(room_id, "missed 29")
    await people[away].finds(room_id, "m.room.topic", {"topic": "missed"})
    await all_agree(room_id, *people)


async def test_who_was_down_catches_up(world: World) -> None:
    people, room_id = await three(world)
    alice, sam, kim = people
    server = world.servers[2]
    await asyncio.to_thread(server.stop)
    for number in range(10):
        await sam.say(room_id, f"down {number}")
        await alice.say(room_id, f"down too {number}")
    server.start(str(RANVIER), "serve", "--config", str(server.directory / "ranvier.toml"))
    await server.wait(world.session)
    await kim.say(room_id, "back")
    for person in (alice, sam):
        await person.reads(room_id, "back")
    await kim.reads(room_id, "down 9")
    await kim.reads(room_id, "down too 9")
    await all_agree(room_id, *people)


async def test_twenty_join_at_once(world: World) -> None:
    for owner, guest in await world.pairs():
        which = world.servers.index(guest.server)
        crowd = [guest, *await asyncio.gather(*(world.person(which) for _ in range(19)))]
        room_id = await owner.create()
        await asyncio.gather(*(one.join(room_id, owner) for one in crowd))

        async def joined(owner: Member = owner, room_id: str = room_id) -> set[str]:
            answer = await owner.call("GET", f"{C}/rooms/{segment(room_id)}/joined_members")
            return set(answer["joined"])

        everybody = {owner.user_id, *(one.user_id for one in crowd)}
        await eventually(joined, lambda found, e=everybody: found == e, "all are in")
        await asyncio.gather(*(one.say(room_id, f"I am {one.user_id}") for one in crowd))
        for one in crowd:
            await owner.reads(room_id, f"I am {one.user_id}")
        await _same_state(room_id, [owner, *crowd[:2]])


async def test_directories_and_profiles(world: World) -> None:
    for owner, guest in await world.pairs():
        name = f"Market of {owner.user_id}"
        room_id = await owner.create(visibility="public", name=name)
        directory = f"{C}/publicRooms?server={owner.server.name}"
        await eventually(  # Synapse lists a room when it has counted its members
            lambda g=guest, d=directory: g.call("GET", f"{d}&limit=50"),
            lambda page, n=name: n in {room.get("name") for room in page["chunk"]},
            "the room is listed",
        )
        wanted = {"filter": {"generic_search_term": owner.user_id}}
        found = await guest.call("POST", directory, wanted)
        assert [room["room_id"] for room in found["chunk"]] == [room_id]
        path = f"{C}/profile/{segment(owner.user_id)}"
        await owner.call("PUT", f"{path}/displayname", {"displayname": "Owner"})
        assert (await guest.call("GET", path))["displayname"] == "Owner"
        status, _ = await guest.attempt("GET", f"{C}/profile/{segment('@nobody:' + owner.server.name)}")
        assert status == 404


async def test_typing_receipts_and_presence(world: World) -> None:
    for owner, guest in await world.pairs():
        room_id = await owner.create()
        await guest.join(room_id, owner)
        await owner.sees(room_id, guest.user_id, "join")
        await guest.say(room_id, "read me")
        await owner.reads(room_id, "read me")
        event_id = (await guest.event_of(room_id, "read me"))["event_id"]
        room = f"{C}/rooms/{segment(room_id)}"
        body = {"typing": True, "timeout": 20_000}
        await owner.call("PUT", f"{room}/typing/{segment(owner.user_id)}", body)
        await owner.call("POST", f"{room}/receipt/m.read/{segment(event_id)}", {})
        await _shows(guest, room_id, "m.typing", lambda c, o=owner: c.get("user_ids") == [o.user_id])
        await _shows(
            guest,
            room_id,
            "m.receipt",
            lambda c, o=owner, e=event_id: o.user_id in c.get(e, {}).get("m.read", {}),
        )
        status = {"presence": "online", "status_msg": f"here, {room_id}"}
        await owner.call("PUT", f"{C}/presence/{segment(owner.user_id)}/status", status)
        await eventually(
            lambda g=guest, o=owner: g.attempt("GET", f"{C}/presence/{segment(o.user_id)}/status"),
            lambda found, s=status: found[1].get("status_msg") == s["status_msg"],
            "presence arrives",
        )


async def _shows(person: Member, room_id: str, type_: str, is_so: Callable[[Any], bool]) -> None:
    async def look() -> Any:
        events = (await person.synced(room_id)).get("ephemeral", {}).get("events", [])
        return [e["content"] for e in events if e["type"] == type_]

    await eventually(look, lambda found: any(is_so(content) for content in found), f"{type_} arrives")
