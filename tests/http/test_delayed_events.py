"""Events that are sent later: when they are due, and after whatever happened meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ranvier.app.config import DelayedEventsConfig
from ranvier.store.tables.delayed_events import claim_due

from .client import segment
from .homeserver import Homeserver, User, eventually, running_homeserver
from .rooms import C, create, do, get_state, put_state

U = "/_matrix/client/unstable/org.matrix.msc4140"
TYPE = "com.example.test"
LATER = 3_600_000


async def delay_message(
    user: User, room_id: str, content: Any, delay_ms: object = LATER, txn_id: str = "t"
) -> Any:
    path = f"{C}/rooms/{segment(room_id)}/send/{TYPE}/{txn_id}"
    return await user.put(path, content, **{"org.matrix.msc4140.delay": delay_ms})


async def delay_state(user: User, room_id: str, content: Any, delay_ms: int = LATER, key: str = "") -> str:
    path = f"{C}/rooms/{segment(room_id)}/state/{TYPE}/{segment(key)}"
    answer = await user.put(path, content, **{"org.matrix.msc4140.delay": delay_ms})
    assert answer.status == 200, answer.body
    return answer.json["delay_id"]


async def scheduled(user: User) -> list[dict[str, Any]]:
    answer = await user.get(f"{U}/delayed_events")
    assert answer.status == 200, answer.body
    return answer.json["delayed_events"]


async def sent(user: User, room_id: str) -> list[Any]:
    """The contents of the test's events, the oldest first."""
    answer = await user.get(f"{C}/rooms/{segment(room_id)}/messages", dir="f", limit=100)
    return [event["content"] for event in answer.json["chunk"] if event["type"] == TYPE]


async def finalised(user: User, delay_id: str) -> dict[str, Any]:
    answer = await user.get(f"{U}/delayed_events/{delay_id}")
    assert answer.status == 200, answer.body
    return answer.json


def pass_time(homeserver: Homeserver, ms: int) -> None:
    """The clock goes on, and the worker looks at it."""
    homeserver.clock.ahead_ms += ms  # type: ignore[attr-defined]
    worker = next(one for one in homeserver.workers if one.name == "delayed events")
    worker._scheduled.set()  # type: ignore[attr-defined]


async def test_due_events_are_sent_in_order(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    for number, delay_ms in enumerate((3000, 1000, 2000)):
        answer = await delay_message(alice, room_id, {"n": delay_ms}, delay_ms, f"t{number}")
        assert answer.status == 200
    assert [one["delay"] for one in await scheduled(alice)] == [1000, 2000, 3000]
    assert await sent(alice, room_id) == []
    pass_time(homeserver, 4000)

    async def is_done() -> bool:
        return await scheduled(alice) == []

    await eventually(is_done)
    assert await sent(alice, room_id) == [{"n": 1000}, {"n": 2000}, {"n": 3000}]


async def test_the_same_transaction_gets_the_same_delay(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    first = await delay_message(alice, room_id, {"n": 1})
    again = await delay_message(alice, room_id, None)
    assert first.json == again.json
    assert len(await scheduled(alice)) == 1


async def test_state_is_sent_on_request_once(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    delay_id = await delay_state(alice, room_id, {"left": True}, key="call")
    (told,) = await scheduled(alice)
    assert told["state_key"] == "call"
    assert told["type"] == TYPE
    assert told["room_id"] == room_id
    assert told["content"] == {"left": True}
    assert told["running_since"] == told["scheduled_at"]
    # Whoever knows the id may do it: there is no token.
    assert (await homeserver.client.post(f"{U}/delayed_events/{delay_id}/send", {})).status == 200
    assert await get_state(alice, room_id, TYPE, "call") == {"left": True}
    assert (await homeserver.client.post(f"{U}/delayed_events/{delay_id}/send", {})).status == 200
    assert "event_id" in await finalised(alice, delay_id)
    for action in ("cancel", "restart"):
        assert (await alice.post(f"{U}/delayed_events/{delay_id}/{action}", {})).status == 409
    assert await scheduled(alice) == []


async def test_canceled_events_are_never_sent(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    delay_id = await delay_state(alice, room_id, {})
    for _ in range(2):
        assert (await alice.post(f"{U}/delayed_events/{delay_id}", {"action": "cancel"})).status == 200
    for action in ("send", "restart"):
        assert (await alice.post(f"{U}/delayed_events/{delay_id}/{action}", {})).status == 409
    told = await finalised(alice, delay_id)
    assert "finalised_ts" in told
    assert "event_id" not in told
    assert "error" not in told


async def test_restarting_begins_the_delay_anew(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    delay_id = await delay_state(alice, room_id, {"n": 1}, 10_000)
    homeserver.clock.ahead_ms += 9_000  # type: ignore[attr-defined]
    assert (await homeserver.client.post(f"{U}/delayed_events/{delay_id}/restart", {})).status == 200
    (told,) = await scheduled(alice)
    assert told["scheduled_at"] + told["delay_ms"] > homeserver.clock.now_ms() + 9_000
    marker = await delay_state(alice, room_id, {}, 1_000, key="marker")
    pass_time(homeserver, 5_000)

    async def is_marker_sent() -> bool:
        return "event_id" in await finalised(alice, marker)

    await eventually(is_marker_sent)
    assert (await finalised(alice, delay_id)).get("finalised_ts") is None


async def test_what_may_not_be_sent_when_it_is_due_fails(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    answer = await delay_message(bob, room_id, {"n": 1}, 1_000)
    state = await delay_state(bob, room_id, {})
    asked = await bob.post(f"{U}/delayed_events/{state}/send", {})
    assert (asked.status, asked.errcode) == (403, "M_FORBIDDEN")
    assert "finalised_ts" not in await finalised(bob, state)
    await do(bob, room_id, "leave")
    pass_time(homeserver, 2_000)

    async def is_finalised() -> bool:
        return "finalised_ts" in await finalised(bob, answer.json["delay_id"])

    await eventually(is_finalised)
    told = await finalised(bob, answer.json["delay_id"])
    assert told["error"]["errcode"] == "M_FORBIDDEN"
    assert await sent(alice, room_id) == []


async def test_events_wait_through_a_restart_even_if_one_was_being_sent(tmp_path: Path) -> None:
    async with running_homeserver(tmp_path / "data") as before:
        alice = await before.register("alice")
        room_id = await create(alice)
        await delay_message(alice, room_id, {"n": 1}, 1_000, "a")
        await delay_message(alice, room_id, {"n": 2}, 2_000, "b")
        token = alice.token
    async with running_homeserver(tmp_path / "data") as after:
        pass_time(after, 61_000)
        alice = after.user({"access_token": token, "user_id": "@alice:test", "device_id": "D"})

        async def are_sent() -> bool:
            return len(await sent(alice, room_id)) == 2

        await eventually(are_sent)
        assert await sent(alice, room_id) == [{"n": 1}, {"n": 2}]

        async def is_settled() -> bool:  # it is in the room a moment before it is crossed off
            return await scheduled(alice) == []

        await eventually(is_settled)


async def test_what_was_claimed_before_a_crash_is_sent_once(homeserver: Homeserver) -> None:
    """The message was sent, the process died before it noted so."""
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    delay_id = (await delay_message(alice, room_id, {"n": 1}, 1_000)).json["delay_id"]
    db, now_ms = homeserver.foundation.ports.db, homeserver.clock.now_ms()
    (delayed,) = await db.write(claim_due, now_ms + 1_000, now_ms + 60_000, 10)
    assert (await alice.post(f"{U}/delayed_events/{delay_id}/cancel", {})).status == 409
    worker: Any = next(one for one in homeserver.workers if one.name == "delayed events")
    event_id = await worker._send(delayed)
    pass_time(homeserver, 120_000)

    async def is_finalised() -> bool:
        return "finalised_ts" in await finalised(alice, delay_id)

    await eventually(is_finalised)
    assert (await finalised(alice, delay_id))["event_id"] == event_id
    assert await sent(alice, room_id) == [{"n": 1}]


async def test_events_of_other_users_are_not_there(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    delay_id = await delay_state(alice, await create(alice), {})
    assert await scheduled(bob) == []
    assert (await bob.get(f"{U}/delayed_events/{delay_id}")).status == 404
    for action in ("send", "restart", "cancel"):
        assert (await bob.post(f"{U}/delayed_events/{delay_id}/{action}", {})).status == 404
        unknown = await homeserver.client.post(f"{U}/delayed_events/abc/{action}", {})
        assert (unknown.status, unknown.errcode) == (404, "M_NOT_FOUND")
    assert (await homeserver.client.get(f"{U}/delayed_events")).status == 401
    assert (await homeserver.client.post(f"{U}/delayed_events/abc/oops", {})).status == 404
    assert (await homeserver.client.post(f"{U}/delayed_events/abc", {})).errcode == "M_MISSING_PARAM"
    assert (await homeserver.client.post(f"{U}/delayed_events/abc", {"action": "x"})).status == 400


async def test_the_endpoint_of_2026(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    path = f"{U}/rooms/{segment(room_id)}/delayed_event/{TYPE}/t1"
    body = {"delay_ms": 5000, "content": {"n": 1}, "state_key": "k"}
    answer = await alice.put(path, body)
    assert answer.status == 200
    assert (await alice.put(path, body)).json == answer.json
    told = await finalised(alice, answer.json["delay_id"])
    assert told["state_key"] == "k"
    assert told["delay_ms"] == 5000
    for wrong in ({"content": {}}, {"delay_ms": 0, "content": {}}, {"delay_ms": 5, "content": 7}):
        assert (await alice.put(path, wrong)).status == 400


@pytest.mark.parametrize(
    ("delay_ms", "status", "errcode"),
    [(0, 400, "M_INVALID_PARAM"), ("x", 400, "M_INVALID_PARAM"), (86_400_001, 403, "M_FORBIDDEN")],
)
async def test_delays_have_bounds(
    homeserver: Homeserver, delay_ms: object, status: int, errcode: str
) -> None:
    alice = await homeserver.register("alice")
    answer = await delay_message(alice, await create(alice), {}, delay_ms)
    assert (answer.status, answer.errcode) == (status, errcode)


async def test_too_large_events_are_refused_at_once(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    answer = await delay_message(alice, await create(alice), {"x": "x" * 70_000})
    assert (answer.status, answer.errcode) == (413, "M_TOO_LARGE")


async def test_each_user_has_a_bound(start_homeserver: Callable) -> None:
    homeserver = await start_homeserver(
        delayed_events=DelayedEventsConfig(max_scheduled=2, max_delay_ms=5_000)
    )
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    for number in range(2):
        assert (await delay_message(alice, room_id, {}, 5_000, f"t{number}")).status == 200
    refused = await delay_message(alice, room_id, {}, 5_000, "t3")
    assert (refused.status, refused.errcode) == (429, "M_LIMIT_EXCEEDED")
    assert 0 < int(refused.headers["retry-after"]) <= 5
    assert (await put_state(alice, room_id, TYPE, {})).status == 200
    capabilities = (await alice.get(f"{C}/capabilities")).json["capabilities"]
    assert capabilities["org.matrix.msc4140.delayed_events"] == {"max_delay_ms": 5_000, "max_scheduled": 2}


async def test_delays_can_be_turned_off(start_homeserver: Callable) -> None:
    homeserver = await start_homeserver(delayed_events=DelayedEventsConfig(max_scheduled=0))
    alice = await homeserver.register("alice")
    answer = await delay_message(alice, await create(alice), {})
    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
