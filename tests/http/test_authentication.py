"""What is known of access tokens in memory is never older than the tables."""

import asyncio

import pytest

from ranvier.core.errors import UnknownToken
from ranvier.io.clock import SystemClock
from ranvier.services.accounts import authentication as module
from ranvier.services.accounts.authentication import Authentication
from ranvier.services.accounts.last_seen import LastSeen
from ranvier.store.database import Hint, Kind
from ranvier.store.tables.accounts import AccountKind, set_kind, set_locked, set_suspended
from ranvier.store.tables.devices import find_device
from ranvier.store.tables.tokens import delete_tokens_of_user


class Counting:
    """A database that counts reads, and can hold their answers back."""

    def __init__(self, db):
        self._db = db
        self.reads = 0
        self.hold = None
        self.answered = asyncio.Event()

    async def read(self, fn, *args):
        self.reads += 1
        found = await self._db.read(fn, *args)
        if self.hold is not None:
            self.answered.set()
            await self.hold.wait()
        return found

    def __getattr__(self, name):
        return getattr(self._db, name)


@pytest.fixture
def db(homeserver):
    return Counting(homeserver.foundation.ports.db)


@pytest.fixture
def authentication(db):
    return Authentication(db, SystemClock(), LastSeen(db, SystemClock()))


async def user_nid(authentication, alice):
    return (await authentication.user(alice.token, None, None)).user_nid


async def test_a_token_is_read_once(db, authentication, alice):
    for _ in range(3):
        requester = await authentication.user(alice.token, None, None)
    assert (requester.user_id, requester.device_id, db.reads) == ("@alice:test", alice.device_id, 1)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda txn, nid: set_locked(txn, nid, is_locked=True), "is_locked"),
        (lambda txn, nid: set_suspended(txn, nid, is_suspended=True), "is_suspended"),
        (lambda txn, nid: set_kind(txn, nid, AccountKind.ADMIN), "is_admin"),
    ],
)
async def test_a_change_of_standing_is_seen_by_the_next_request(db, authentication, alice, change, seen):
    nid = await user_nid(authentication, alice)
    assert not getattr(await authentication.user(alice.token, None, None), seen)
    await db.write(change, nid)
    assert getattr(await authentication.user(alice.token, None, None), seen)


async def test_a_session_that_ends_while_it_is_read_is_not_remembered(db, authentication, alice):
    nid = await user_nid(Authentication(db, SystemClock(), LastSeen(db, SystemClock())), alice)
    db.hold = asyncio.Event()
    reading = asyncio.create_task(authentication.user(alice.token, None, None))
    await db.answered.wait()
    await db.write(delete_tokens_of_user, nid)
    db.hold.set()
    assert (await reading).user_id == "@alice:test"
    with pytest.raises(UnknownToken):
        await authentication.user(alice.token, None, None)


async def test_a_session_that_is_read_while_hints_are_lost_is_not_remembered(db, authentication, alice):
    db.hold = asyncio.Event()
    reading = asyncio.create_task(authentication.user(alice.token, None, None))
    await db.answered.wait()
    authentication._hear([Hint(Kind.GAP, 0, 10)])
    db.hold.set()
    await reading
    await authentication.user(alice.token, None, None)
    assert db.reads == 2


async def test_after_a_gap_everything_is_read_anew(db, authentication, alice):
    await authentication.user(alice.token, None, None)
    authentication._hear([Hint(Kind.GAP, 0, 10)])
    await authentication.user(alice.token, None, None)
    assert db.reads == 2


async def test_memory_is_bounded(homeserver, monkeypatch, db, authentication):
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    users = [await homeserver.register(name) for name in ("a", "b", "c")]
    for user in users:
        await authentication.user(user.token, None, None)
    assert db.reads == 3
    await authentication.user(users[2].token, None, None)
    assert db.reads == 3
    await authentication.user(users[0].token, None, None)
    assert db.reads == 4
    assert len(authentication._known) == 2


async def test_unknown_tokens_are_not_remembered(db, authentication):
    for token in ("", "x", "\udfff", "x" * 100_000):
        with pytest.raises(UnknownToken) as caught:
            await authentication.user(token, None, None)
        assert caught.value.extra == {"soft_logout": False}
    assert not authentication._known


async def test_where_a_device_was_seen_is_written_at_once(homeserver, db, alice):
    last_seen = LastSeen(db, SystemClock())
    requester = await Authentication(db, SystemClock(), last_seen).user(alice.token, None, None)
    for number in range(100):
        last_seen.note(requester, f"10.0.0.{number}", None)
    await last_seen.write()
    device = await db.read(find_device, requester.user_nid, requester.device_id)
    assert (device.last_seen_ip, device.last_seen_agent) == ("10.0.0.99", None)


async def test_what_was_not_written_yet_is_written_at_the_end(homeserver, db, alice):
    last_seen = LastSeen(db, SystemClock())
    requester = await Authentication(db, SystemClock(), last_seen).user(alice.token, None, None)
    running = asyncio.create_task(last_seen.run())
    await asyncio.sleep(0)
    last_seen.note(requester, "10.0.0.1", "agent")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    device = await db.read(find_device, requester.user_nid, requester.device_id)
    assert (device.last_seen_ip, device.last_seen_agent) == ("10.0.0.1", "agent")
