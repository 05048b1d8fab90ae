"""Application services in rooms that span servers."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ..http.appservice import AS_TOKEN, registered, registration
from ..http.client import Client, segment
from ..http.homeserver import eventually

ROOMS = "/_matrix/client/v3/createRoom"
REGISTER = "/_matrix/client/v3/register"


class Service:
    """The service at bridge.test, an ASGI application on the network of the test."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.make: Callable[[str], Awaitable[bool]] | None = None  # asked for a user

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert dict(scope["headers"])[b"authorization"] == b"Bearer hs-secret"
        path, body = scope["raw_path"].decode(), (await receive())["body"]
        status = 200
        if "/transactions/" in path:
            self.events += json.loads(body)["events"]
        elif self.make is None or not await self.make(path.rpartition("/")[2]):
            status = 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def until(self, check: Callable[[dict[str, Any]], bool]) -> None:
        async def has() -> bool:
            return any(check(event) for event in self.events)

        await eventually(has)


async def register(bridge: Client, name: str) -> bool:
    body = {"type": "m.login.application_service", "username": name, "inhibit_login": True}
    return (await bridge.post(REGISTER, body)).status == 200


@pytest.fixture
async def servers(network, tmp_path):
    service = Service()
    network.add("bridge.test", service)
    config = registered(tmp_path, registration("http://bridge.test:8448"))
    return service, await network.server("one", appservices=config), await network.server("two")


async def test_a_ghost_is_invited_from_elsewhere_and_hears_the_room(servers):
    service, one, two = servers
    bridge, bob = one.client.as_user(AS_TOKEN), await two.register("bob")
    ghost = "@ghost_1:one.test"
    assert await register(bridge, "ghost_1")
    room_id = (await bob.post(ROOMS, {"name": "Far", "preset": "private_chat"})).json["room_id"]
    room = f"/_matrix/client/v3/rooms/{segment(room_id)}"
    invited = await bob.post(f"{room}/invite", {"user_id": ghost})
    assert invited.status == 200, invited.body
    await service.until(lambda event: event["content"].get("membership") == "invite")
    (invite,) = service.events
    assert (invite["room_id"], invite["state_key"], invite["sender"]) == (room_id, ghost, "@bob:two.test")
    shown = {one["type"]: one["content"] for one in invite["unsigned"]["invite_room_state"]}
    assert shown["m.room.name"] == {"name": "Far"}
    joined = await bridge.post(f"{room}/join", {}, user_id=ghost)
    assert joined.status == 200, joined.body
    for number in range(5):
        body = {"body": str(number), "msgtype": "m.text"}
        assert (await bob.put(f"{room}/send/m.room.message/{number}", body)).status == 200
    await service.until(lambda event: event["content"].get("body") == "4")
    said = [event["content"]["body"] for event in service.events if event["type"] == "m.room.message"]
    assert said == list("01234")
    assert len({event["event_id"] for event in service.events}) == len(service.events)


async def test_an_unknown_ghost_is_made_when_another_server_invites_it(servers):
    service, one, two = servers
    bridge, bob = one.client.as_user(AS_TOKEN), await two.register("bob")
    asked: list[str] = []

    async def make(user: str) -> bool:
        asked.append(user)
        return user.startswith(segment("@ghost_2")) and await register(bridge, "ghost_2")

    service.make = make
    room_id = (await bob.post(ROOMS, {})).json["room_id"]
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/invite"
    invited = await bob.post(path, {"user_id": "@ghost_2:one.test"})
    assert invited.status == 200, invited.body
    await service.until(lambda event: event.get("state_key") == "@ghost_2:one.test")
    refused = await bob.post(path, {"user_id": "@ghost_3:one.test"})
    assert refused.status != 200
    assert asked[0] == segment("@ghost_2:one.test")
