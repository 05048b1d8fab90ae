"""Presence: what is set, what syncing shows, and who may see it."""

import asyncio

import pytest

from ranvier.io.clock import VirtualClock
from ranvier.services.ephemeral.presence import PresenceTracker
from ranvier.services.requester import Requester
from ranvier.store.tables.presence import PresenceState, list_presence

from .client import segment
from .homeserver import Homeserver, User, eventually
from .rooms import C, create, say
from .scripted_room import Room


def path(user_id: str) -> str:
    return f"/_matrix/client/v3/presence/{segment(user_id)}/status"


async def test_what_a_user_sets_is_seen_by_who_shares_a_room(homeserver, alice, bob):
    room = await Room.create(homeserver, alice)
    await room.join(bob)
    body = {"presence": "unavailable", "status_msg": "at lunch"}
    assert (await alice.put(path(alice.user_id), body)).json == {}
    for viewer in (alice, bob):
        shown = (await viewer.get(path(alice.user_id))).json
        assert shown.pop("last_active_ago") >= 0
        assert shown == {"presence": "unavailable", "status_msg": "at lunch", "currently_active": False}
    await alice.put(path(alice.user_id), {"presence": "online"})
    shown = (await bob.get(path(alice.user_id))).json
    assert (shown["presence"], shown["currently_active"], "status_msg" in shown) == ("online", True, False)


async def test_a_sync_tells_of_others_only(homeserver, alice, bob):
    room = await Room.create(homeserver, alice)
    await room.join(bob)
    for user in (alice, bob):
        await user.put(path(user.user_id), {"presence": "online"})
    told = (await alice.get(f"{C}/sync")).json["presence"]["events"]
    assert [event["sender"] for event in told] == [bob.user_id]


async def test_strangers_see_nothing(homeserver, alice, bob):
    for user_id in (alice.user_id, "@nobody:test", "@nobody:elsewhere"):
        answer = await bob.get(path(user_id))
        assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"presence": "busy"}, "M_INVALID_PARAM"),
        ({"presence": 1}, "M_BAD_JSON"),
        ({"presence": "online", "status_msg": 5}, "M_BAD_JSON"),
        ({"presence": "online", "status_msg": "x" * 5000}, "M_BAD_JSON"),
    ],
)
async def test_what_is_refused(alice, body, errcode):
    answer = await alice.put(path(alice.user_id), body)
    assert (answer.status, answer.errcode) == (400, errcode)


async def test_nobody_sets_another_ones(alice, bob):
    assert (await alice.put(path(bob.user_id), {"presence": "online"})).errcode == "M_FORBIDDEN"
    assert (await alice.as_user(None).put(path(alice.user_id), {"presence": "online"})).status == 401


class Device:
    """A tracker whose time stands still, and one device of Alice."""

    def __init__(self, homeserver: Homeserver, user: User, clock: VirtualClock) -> None:
        foundation = homeserver.foundation
        self._db = foundation.ports.db
        self.tracker = PresenceTracker(self._db, foundation.interner, clock, enabled=True)
        self.requester: Requester = Requester(user_id=user.user_id, user_nid=1, device_id=user.device_id)

    async def stored(self) -> PresenceState:
        await self.tracker.write_changes()
        return (await self._db.read(list_presence, [1]))[1].state


async def test_syncing_shows_a_user_until_its_devices_are_gone(homeserver, alice):
    clock = VirtualClock()
    device = Device(homeserver, alice, clock)
    with device.tracker.syncing(device.requester, PresenceState.ONLINE):
        assert await device.stored() is PresenceState.ONLINE
        await clock.advance(289)
        assert await device.stored() is PresenceState.ONLINE
        await clock.advance(12)
        assert await device.stored() is PresenceState.UNAVAILABLE
        device.tracker.note_activity(device.requester)
        assert await device.stored() is PresenceState.ONLINE
    await clock.advance(19)
    assert await device.stored() is PresenceState.ONLINE
    await clock.advance(12)
    assert await device.stored() is PresenceState.OFFLINE


async def test_a_device_may_stay_hidden(homeserver, alice):
    device = Device(homeserver, alice, VirtualClock())
    with device.tracker.syncing(device.requester, PresenceState.UNAVAILABLE):
        assert await device.stored() is PresenceState.UNAVAILABLE
        with device.tracker.syncing(device.requester, PresenceState.OFFLINE):
            assert await device.stored() is PresenceState.UNAVAILABLE


async def test_who_says_something_is_not_idle(homeserver, alice):
    room = await create(alice)
    since = (await alice.get(f"{C}/sync", timeout=0)).json["next_batch"]
    waiting = asyncio.create_task(alice.get(f"{C}/sync", since=since, timeout=60_000))

    async def shown() -> str:
        return (await alice.get(path(alice.user_id))).json["presence"]

    async def is_online() -> bool:
        return await shown() == "online"

    await eventually(is_online)
    homeserver.clock.ahead_ms += 6 * 60 * 1000
    assert await shown() == "unavailable"
    await say(alice, room, "still here")
    assert await shown() == "online"
    waiting.cancel()
