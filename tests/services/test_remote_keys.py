"""Other servers are asked for keys: each for its own users, and one that is silent holds up nobody."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from ranvier.core.identifiers import DeviceID, ServerName, UserID
from ranvier.io.clock import VirtualClock
from ranvier.io.ports import Unreachable
from ranvier.services.devices import claims as claims_module
from ranvier.services.devices import keys as keys_module
from ranvier.services.devices.claims import KeyClaims
from ranvier.services.devices.keys import Keys
from ranvier.services.devices.list_requests import bring_nothing
from ranvier.services.devices.remote import AT_ONCE, TOO_MUCH, ClaimedRemotely, RemoteKeys
from ranvier.services.devices.remote_keys import MAX_DEVICES, MAX_LIST_BYTES, pack_devices
from ranvier.services.requester import Requester
from ranvier.store.connect import open_database
from ranvier.store.database import Database
from ranvier.store.tables.device_lists import RemoteDevice, upsert_remote_device
from ranvier.store.tables.interned import Interner, intern_users

ALICE = Requester(user_id=UserID("@alice:here"), user_nid=1, device_id=None)
BOB, EVE = UserID("@bob:two"), UserID("@eve:three")


def keys_of(user_id, device_id="D"):
    return {"user_id": user_id, "device_id": device_id, "keys": {}}


def plain(answer: object):
    return msgspec.json.decode(msgspec.json.encode(answer))


class Servers:
    """The others, as a test wants them."""

    def __init__(self) -> None:
        self.asked = 0
        self.at_once = 0
        self.answers: dict[str, object] = {}
        self.is_silent = asyncio.Event()

    async def query_keys(self, server, wanted):
        return await self._answer(server)

    async def claim_keys(self, server, claims):
        return await self._answer(server)

    async def _answer(self, server):
        self.asked += 1
        self.at_once = max(self.at_once, self.asked)
        await asyncio.sleep(0)
        self.asked -= 1
        answer = self.answers.get(server)
        if answer == "silence":
            self.is_silent.set()
            await asyncio.get_running_loop().create_future()
        if answer is None:
            raise Unreachable(server)
        return answer


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:{tmp_path / 'ranvier.db'}")
    yield database
    await database.close()


async def test_a_server_answers_for_its_own_users_and_for_what_was_asked(db):
    servers, clock = Servers(), VirtualClock()
    servers.answers["two"] = RemoteKeys(
        device_keys={
            BOB: {"D": keys_of(BOB), "E": keys_of(BOB, "E"), "F": keys_of(BOB, "not F")},
            EVE: {"D": keys_of(EVE)},
            "@alice:here": {"D": keys_of("@alice:here")},
        },
        master_keys={
            BOB: {"user_id": BOB, "usage": ["master"], "keys": {}},
            EVE: {"user_id": EVE, "keys": {}},
        },
        self_signing_keys={BOB: {"user_id": EVE}},
    )
    keys = Keys(db, Interner(ServerName("here")), clock, servers, bring_nothing)
    found = await keys.query(ALICE, {BOB: [], EVE: [], ALICE.user_id: []}, 1000)
    assert found.device_keys.keys() == {BOB, ALICE.user_id}
    assert found.device_keys[BOB].keys() == {"D", "E"}
    assert found.device_keys[ALICE.user_id] == {}
    assert found.master_keys.keys() == {BOB}
    assert found.self_signing_keys == {}
    assert found.failures.keys() == {"three"}
    found = await keys.query(ALICE, {BOB: [DeviceID("E")]}, 1000)
    assert found.device_keys[BOB].keys() == {"E"}
    assert msgspec.json.decode(found.device_keys[BOB]["E"]) == keys_of(BOB, "E")


async def test_a_claim_gives_keys_of_the_algorithm_and_device_that_were_asked_for(db):
    servers, clock = Servers(), VirtualClock()
    servers.answers["two"] = ClaimedRemotely(
        {
            BOB: {"D": {"b:1": "wrong", "a:1": "right", "a:2": "too many"}, "OTHER": {"a:1": "wrong"}},
            EVE: {"D": {"a:1": "wrong"}},
            "no user": {},
        }
    )
    claims = KeyClaims(db, Interner(ServerName("here")), clock, servers)
    answer = await claims.claim({BOB: {DeviceID("D"): "a"}, EVE: {DeviceID("D"): "a"}}, 1000)
    assert plain(answer.one_time_keys) == {BOB: {"D": {"a:1": "right"}}}
    assert answer.failures.keys() == {"three"}


async def test_who_is_silent_is_a_failure_in_time(db):
    servers, clock = Servers(), VirtualClock()
    servers.answers = {"two": "silence", "three": RemoteKeys({EVE: {"D": keys_of(EVE)}})}
    keys = Keys(db, Interner(ServerName("here")), clock, servers, bring_nothing)
    asking = asyncio.create_task(keys.query(ALICE, {BOB: [], EVE: []}, 5000))
    await servers.is_silent.wait()
    await clock.advance(4.9)
    assert not asking.done()
    await clock.advance(0.2)
    found = await asking
    assert found.failures.keys() == {"two"}
    assert found.device_keys.keys() == {EVE}


async def test_not_all_servers_are_asked_at_once(db):
    servers, clock = Servers(), VirtualClock()
    keys = Keys(db, Interner(ServerName("here")), clock, servers, bring_nothing)
    wanted = {UserID(f"@u:server{number}"): [] for number in range(3 * AT_ONCE)}
    found = await keys.query(ALICE, wanted, 1000)
    assert len(found.failures) == 3 * AT_ONCE
    assert servers.at_once == AT_ONCE


LARGE, SMALL, GREEDY = (UserID(f"@{name}") for name in ("large:two", "small:three", "greedy:four"))


def devices_of(user_id, count, size):
    """So many devices, whose keys have about so many bytes each."""
    return {f"D{n}": keys_of(user_id, f"D{n}") | {"x": "y" * size} for n in range(count)}


async def test_what_servers_tell_is_bounded_for_all_of_them_together(db, monkeypatch):
    monkeypatch.setattr(keys_module, "MAX_ANSWER_BYTES", 500_000)
    servers = Servers()
    servers.answers = {
        "two": RemoteKeys({LARGE: devices_of(LARGE, 4, 50_000)}),
        "three": RemoteKeys({SMALL: devices_of(SMALL, 2, 100)}),
        "four": RemoteKeys({GREEDY: devices_of(GREEDY, 11, 50_000)}),
    }
    keys = Keys(db, Interner(ServerName("here")), VirtualClock(), servers, bring_nothing)
    found = await keys.query(ALICE, {GREEDY: [], LARGE: [], SMALL: []}, 1000)
    assert found.device_keys.keys() == {LARGE, SMALL}
    assert found.failures == {"four": TOO_MUCH}
    # A single device has no more than an event may.
    servers.answers["four"] = RemoteKeys({GREEDY: devices_of(GREEDY, 1, 70_000)})
    found = await keys.query(ALICE, {GREEDY: []}, 1000)
    assert found.device_keys == {GREEDY: {}}


async def test_keys_that_are_claimed_are_bounded(db, monkeypatch):
    monkeypatch.setattr(claims_module, "MAX_ANSWER_BYTES", 10_000)
    servers = Servers()
    servers.answers = {
        "two": ClaimedRemotely({LARGE: {"D": {"a:1": "x" * 9_000}}}),
        "four": ClaimedRemotely({GREEDY: {"D": {"a:1": "x" * 11_000}}}),
    }
    claims = KeyClaims(db, Interner(ServerName("here")), VirtualClock(), servers)
    answer = await claims.claim({LARGE: {DeviceID("D"): "a"}, GREEDY: {DeviceID("D"): "a"}}, 1000)
    assert answer.one_time_keys.keys() == {LARGE}
    assert answer.failures == {"four": TOO_MUCH}


async def test_what_is_kept_is_bounded_and_the_servers_with_most_of_it_are_left_out(db, monkeypatch):
    monkeypatch.setattr(keys_module, "MAX_ANSWER_BYTES", 500_000)
    interner = Interner(ServerName("here"))
    kept = {LARGE: (4, 50_000), SMALL: (2, 100), GREEDY: (11, 50_000)}

    def keep(txn):
        for user_id, nid in intern_users(txn, interner, kept).items():
            txn.execute(
                "INSERT INTO remote_device_lists (user_nid, stream_id, heard, needs_resync) VALUES (:nid, 1, 1, 0)",
                nid=nid,
            )
            count, size = kept[user_id]
            for device_id, keys in devices_of(user_id, count, size).items():
                device = RemoteDevice(DeviceID(device_id), None, msgspec.json.encode(keys))
                upsert_remote_device(txn, nid, 1, device)

    await db.write(keep)
    keys = Keys(db, interner, VirtualClock(), Servers(), bring_nothing)
    found = await keys.query(ALICE, {GREEDY: [], LARGE: [], SMALL: []}, 1000)
    assert {user_id: len(devices) for user_id, devices in found.device_keys.items()} == {LARGE: 4, SMALL: 2}
    assert found.failures == {"four": TOO_MUCH}


def test_a_list_that_is_too_long_is_cut(monkeypatch):
    def packed(count, size):
        told = devices_of(BOB, count, size).items()
        return pack_devices(BOB, ((DeviceID(device_id), None, keys) for device_id, keys in told))

    assert len(packed(MAX_DEVICES + 10, 10)) == MAX_DEVICES
    assert len(packed(60, 50_000)) == MAX_LIST_BYTES // 50_100
    assert list(packed(60, 50_000)) == [f"D{n}" for n in range(41)]
