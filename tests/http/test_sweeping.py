"""What nobody needs any more goes from the database, too: each hour, and when a server starts."""

from typing import Any, Final

import pytest

from ranvier.services.rooms.sweeping import ORIGINAL_KEPT_MS, REQUEST_KEPT_MS

from .client import segment
from .homeserver import AheadClock, Homeserver, User, eventually, running_homeserver
from .rooms import create, say, set_state

C: Final = "/_matrix/client/v3"


@pytest.fixture
def start(tmp_path):
    """Starts the same homeserver again, so many ms after now."""

    def start(ahead_ms: int = 0) -> Any:
        clock = AheadClock()
        clock.ahead_ms = ahead_ms
        return running_homeserver(tmp_path / "data", replaced={"clock": clock})

    return start


async def count(homeserver: Homeserver, table: str) -> int:
    return await homeserver.foundation.ports.db.read(lambda txn: txn.value(f"SELECT COUNT(*) FROM {table}"))


async def stored(homeserver: Homeserver, event_id: str) -> bytes:
    sql = "SELECT json FROM events WHERE event_id = :event_id"
    return bytes(await homeserver.foundation.ports.db.read(lambda txn: txn.value(sql, event_id=event_id)))


async def show(user: User, room_id: str, event_id: str) -> Any:
    """The event but for what differs from look to look, and from device to device."""
    event = (await user.get(f"{C}/rooms/{segment(room_id)}/event/{segment(event_id)}")).json
    for one in (event, event["unsigned"]["redacted_because"]):
        for name in ("age", "transaction_id"):
            one.get("unsigned", {}).pop(name, None)
    return event


async def test_messages_to_a_device_that_is_gone(start):
    async with start() as homeserver:
        alice, phone = await homeserver.register("alice"), await homeserver.login("alice", device_id="PHONE")
        to = {"messages": {alice.user_id: {"*": {}}}}
        assert (await alice.put(f"{C}/sendToDevice/m.test/1", to)).status == 200
        assert (await phone.post(f"{C}/logout")).status == 200
        assert await count(homeserver, "deleted_devices") == 1
        assert await count(homeserver, "to_device_messages") == 2
    async with start() as homeserver:

        async def is_gone() -> bool:
            return await count(homeserver, "deleted_devices") == 0

        await eventually(is_gone)
        assert await count(homeserver, "to_device_messages") == 1


async def test_which_request_made_an_event(start):
    async with start() as homeserver:
        alice = await homeserver.register("alice")
        await say(alice, await create(alice), "hello")
    async with start(REQUEST_KEPT_MS - 3_600_000) as homeserver:
        assert await count(homeserver, "client_transactions") == 1
    async with start(REQUEST_KEPT_MS + 3_600_000) as homeserver:

        async def is_gone() -> bool:
            return await count(homeserver, "client_transactions") == 0

        await eventually(is_gone)


async def test_what_was_redacted(start):
    async with start() as homeserver:
        alice = await homeserver.register("alice")
        room_id = await create(alice)
        said = await say(alice, room_id, "my secret")
        state = await set_state(alice, room_id, "m.test", {"body": "my secret"})
        for event_id in (said, state):
            path = f"{C}/rooms/{segment(room_id)}/redact/{segment(event_id)}/{segment(event_id)}"
            assert (await alice.put(path, {})).status == 200
        shown = await show(alice, room_id, said)
    async with start(ORIGINAL_KEPT_MS - 3_600_000) as homeserver:
        assert b"secret" in await stored(homeserver, said)
    async with start(ORIGINAL_KEPT_MS + 3_600_000) as homeserver:

        async def is_gone() -> bool:
            return await count(homeserver, "redacted_originals") == 0

        await eventually(is_gone)
        assert b"secret" not in await stored(homeserver, said)
        # What was decided by a state may have to be decided again.
        assert b"secret" in await stored(homeserver, state)
        assert await show(await homeserver.login("alice"), room_id, said) == shown
