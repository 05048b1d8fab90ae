"""Servers that leave rooms and come back, get new keys, or are gone for good."""

import random
from typing import Any

from ranvier.core.signing import SigningKey

from ..http.client import segment
from .actors import REPEATS, Actor, Cast, Room
from .server import SimServer


class Travels:
    """What whole servers do. The first one always stays, so that there is a room to come back to."""

    def __init__(self, cast: Cast, servers: list[SimServer]) -> None:
        self._cast = cast
        self._servers = servers

    async def act(self, kind: str, number: int, rng: random.Random) -> None:
        living = [server for server in self._servers[1:] if not server.is_gone]
        if not living:
            return
        server = rng.choice(living)
        room = rng.choice([room for room in self._cast.rooms if room.is_founding])
        match kind:
            case "depart":
                await self._leave(server, room)
            case "return":
                await self._return(server, room, rng)
            case "rotate_key":
                seed = f"{server.name} {number}".encode().ljust(32, b".")
                await server.stop()
                server.keys.insert(0, SigningKey(seed, f"a_{number}"))
                if not server.is_up and not server.is_stopping and not server.is_gone:
                    server.start()
            case _:
                # Two are left at least.
                if len(living) > 1 and len(living) == len(self._servers) - 1:
                    server.perish()
                    self._cast.forget(server)

    async def gather(self, *, is_sure: bool) -> None:
        """Bring back every server that is out of a room; with `is_sure` also one that takes itself to be in it, where
        its users' joins came to nothing by what was done to the room elsewhere."""
        for room in self._cast.rooms:
            if room.is_founding:
                await self._gather(room, is_sure=is_sure)

    async def _gather(self, room: Room, *, is_sure: bool) -> None:
        if not is_sure:
            # What was said while it was away a server need not know.
            room.elsewhere.update({name: set(room.spoken.values()) for name in room.travelers})
        host, *others = self._cast.keepers
        for keeper in others:
            own = [await self._membership(one, room, one) for one in self._list_users(keeper.server)]
            is_in = await self._membership(keeper, room, keeper) == "join"
            if is_in and await self._membership(host, room, keeper) == "join":
                continue
            if "join" in own:
                if not is_sure:
                    continue
                await self._leave(keeper.server, room)
            await self._let_in(host, keeper, room, [host.server])

    def _list_users(self, server: SimServer) -> list[Actor]:
        return [one for one in self._cast.everybody if one.server is server]

    async def _leave(self, server: SimServer, room: Room) -> None:
        room.travelers.add(server.name)
        for one in self._list_users(server):
            await self._cast.ask(one, "POST", f"{room.path}/leave", repeats=REPEATS)
        # What it said last, nobody may have heard; and what it says next leads nobody there.
        room.spoken = {text: one for text, one in room.spoken.items() if room.speakers[text] is not server}

    async def _return(self, server: SimServer, room: Room, rng: random.Random) -> None:
        keepers = {one.server.name: one for one in self._cast.keepers}
        keeper = keepers.pop(server.name)
        others = list(keepers.values())
        via = rng.sample(others, rng.randrange(1, len(others) + 1))
        await self._let_in(rng.choice(others), keeper, room, [one.server for one in via])
        for one in self._cast.actors:
            if one.server is server:
                await self._cast.join(one, room)

    async def _let_in(self, host: Actor, keeper: Actor, room: Room, via: list[SimServer]) -> None:
        room.travelers.add(keeper.server.name)
        body = {"user_id": keeper.user_id}
        await self._cast.ask(host, "POST", f"{room.path}/invite", body)
        await self._cast.join(keeper, room, via=via)
        room.elsewhere[keeper.server.name] = set(room.spoken.values())

    async def _membership(self, asker: Actor, room: Room, user: Actor) -> Any:
        path = f"{room.path}/state/m.room.member/{segment(user.user_id)}"
        answer = await self._cast.ask(asker, "GET", path)
        return answer.json.get("membership") if answer is not None and answer.status == 200 else None
