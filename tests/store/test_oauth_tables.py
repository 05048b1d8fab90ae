"""Clients, codes, grants and browsers of OAuth, on both engines: what is used is used, and what belongs to a device,
a client or a user goes with it.
"""

import pytest

from ranvier.core.identifiers import DeviceID, ServerName, UserID
from ranvier.services.oauth.sweeping import KEPT_MS, UNUSED_CLIENT_MS, sweep_oauth
from ranvier.store.database import Database, Integrity, ReadTxn, WriteTxn
from ranvier.store.tables import accounts, devices, tokens
from ranvier.store.tables import browser_sessions as browsers
from ranvier.store.tables import oauth_clients as clients
from ranvier.store.tables import oauth_codes as codes
from ranvier.store.tables import oauth_device_codes as device_codes
from ranvier.store.tables import oauth_grants as grants
from ranvier.store.tables.interned import Interner, intern_users
from ranvier.store.tables.passing_tokens import delete_passing_tokens_of_user

ALICE = UserID("@alice:one")
PHONE = DeviceID("PHONE")
CLIENT = "client"


def make(txn: WriteTxn) -> tuple[int, int]:
    """Alice with a phone, and a client."""
    user_nid = intern_users(txn, Interner(ServerName("one")), [ALICE])[ALICE]
    accounts.insert_account(txn, user_nid, accounts.AccountKind.USER, "hash", None, 1)
    clients.insert_oauth_client(txn, CLIENT, b"{}", 1)
    return user_nid, devices.insert_device(txn, user_nid, PHONE, None, 1)


def pair(name: str) -> tokens.NewToken:
    return tokens.NewToken(
        access_hash=tokens.hash_token(f"{name}-access"),
        refresh_hash=tokens.hash_token(f"{name}-refresh"),
        created_ms=10,
    )


def grant_of(device_nid: int, family: bytes = b"family") -> grants.Grant:
    return grants.Grant(device_nid, CLIENT, "scope", family, 5)


def code_of(user_nid: int, expires_ms: int = 100) -> codes.Code:
    return codes.Code(CLIENT, user_nid, "https://example.com/", "scope", "challenge", expires_ms)


async def test_a_code_is_used_once(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid, device_nid = make(txn)
        codes.insert_code(txn, b"code", code_of(user_nid))
        assert codes.use_code(txn, b"code") == code_of(user_nid)
        codes.note_exchange(txn, b"code", device_nid)
        again = codes.use_code(txn, b"code")
        assert again is not None
        assert (again.is_used, again.device_nid) == (True, device_nid)
        assert codes.use_code(txn, b"unknown") is None
        device = devices.find_device(txn, user_nid, PHONE)
        assert device is not None
        devices.delete_devices(txn, [device])
        assert codes.use_code(txn, b"code") is None

    await db.write(run)


async def test_a_grant_belongs_to_its_device(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid, device_nid = make(txn)
        tokens.insert_token(txn, user_nid, device_nid, pair("a"))
        session = tokens.find_session(txn, tokens.hash_token("a-access"))
        assert session is not None
        assert not session.is_oauth
        grants.set_grant(txn, grant_of(device_nid, b"old"))
        grants.set_grant(txn, grant_of(device_nid))
        session = tokens.find_session(txn, tokens.hash_token("a-access"))
        assert session is not None
        assert session.is_oauth
        found = grant_of(device_nid)
        assert grants.find_grant(txn, device_nid) == found
        assert grants.find_grant_of_family(txn, b"family") == found
        assert grants.find_grant_of_family(txn, b"old") is None
        assert grants.find_grant_of_refresh_token(txn, tokens.hash_token("a-refresh")) == found
        assert grants.find_grant_of_refresh_token(txn, tokens.hash_token("a-access")) is None
        assert grants.find_owner(txn, device_nid) == (user_nid, PHONE)
        for kind in ("access", "refresh"):
            holder = grants.find_holder(txn, tokens.hash_token(f"a-{kind}"))
            assert holder is not None
            assert (holder.user_id, holder.device_id) == (ALICE, PHONE)
        device = devices.find_device(txn, user_nid, PHONE)
        assert device is not None
        devices.delete_devices(txn, [device])
        assert grants.find_grant(txn, device_nid) is None
        assert grants.find_owner(txn, device_nid) is None
        assert grants.find_holder(txn, tokens.hash_token("a-access")) is None

    await db.write(run)


async def test_a_client_with_a_session_stays(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid, device_nid = make(txn)
        clients.insert_oauth_client(txn, "older", b"{}", 2)
        clients.insert_oauth_client(txn, "newer", b"{}", 3)
        grants.set_grant(txn, grant_of(device_nid))
        codes.insert_code(txn, b"code", codes.Code("older", user_nid, "u", "s", "c", 100))
        assert clients.count_oauth_clients(txn) == 3
        assert clients.evict_oauth_client(txn)
        assert clients.find_oauth_client(txn, "older") is None
        assert codes.use_code(txn, b"code") is None
        assert clients.evict_oauth_client(txn)
        assert not clients.evict_oauth_client(txn)
        assert clients.find_oauth_client(txn, CLIENT) == b"{}"
        assert not clients.touch_oauth_client(txn, "older", 9)
        assert clients.touch_oauth_client(txn, CLIENT, 9)

    await db.write(run)


async def test_no_grant_without_a_client(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        _, device_nid = make(txn)
        grants.set_grant(txn, grants.Grant(device_nid, "unknown", "scope", b"family", 5))

    with pytest.raises(Integrity):
        await db.write(run)


async def test_a_device_code_is_decided_once(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid, _ = make(txn)
        waiting = device_codes.DeviceCode(CLIENT, "scope", 100, 5)
        assert device_codes.insert_device_code(txn, b"device", b"user", waiting)
        assert not device_codes.insert_device_code(txn, b"other", b"user", waiting)
        assert device_codes.count_device_codes(txn, 50) == 1
        assert device_codes.count_device_codes(txn, 100) == 0
        assert device_codes.find_device_code(txn, b"device") == waiting
        assert device_codes.find_by_user_code(txn, b"user", 99) == waiting
        assert device_codes.find_by_user_code(txn, b"user", 100) is None
        device_codes.note_poll(txn, b"device", 10, 60)
        assert not device_codes.decide(txn, b"user", device_codes.Decision.ALLOWED, user_nid, 100)
        assert device_codes.decide(txn, b"user", device_codes.Decision.ALLOWED, user_nid, 50)
        assert not device_codes.decide(txn, b"user", device_codes.Decision.DENIED, user_nid, 50)
        assert device_codes.find_by_user_code(txn, b"user", 50) is None
        found = device_codes.find_device_code(txn, b"device")
        assert found == device_codes.DeviceCode(
            CLIENT, "scope", 100, 10, 60, device_codes.Decision.ALLOWED, user_nid
        )
        device_codes.delete_device_code(txn, b"device")
        assert device_codes.find_device_code(txn, b"device") is None

    await db.write(run)


async def test_the_browsers_of_a_user_are_bounded(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid, _ = make(txn)
        count = browsers.MAX_BROWSERS + 3
        for number in range(count):
            browsers.insert_browser(txn, b"%d" % number, browsers.Browser(user_nid, number, 1000))
        alive = [browsers.find_browser(txn, b"%d" % number, 5) is not None for number in range(count)]
        assert alive == [False] * 3 + [True] * browsers.MAX_BROWSERS
        assert browsers.find_browser(txn, b"5", 1000) is None
        browsers.delete_browser(txn, b"5")
        assert browsers.find_browser(txn, b"5", 5) is None

    await db.write(run)


async def test_a_new_password_ends_what_was_begun(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid, device_nid = make(txn)
        codes.insert_code(txn, b"code", code_of(user_nid))
        waiting = device_codes.DeviceCode(CLIENT, "scope", 100, 5)
        for name in (b"allowed", b"pending"):
            device_codes.insert_device_code(txn, name, name, waiting)
        device_codes.decide(txn, b"allowed", device_codes.Decision.ALLOWED, user_nid, 50)
        browsers.insert_browser(txn, b"browser", browsers.Browser(user_nid, 1, 1000))
        grants.set_grant(txn, grant_of(device_nid))
        delete_passing_tokens_of_user(txn, user_nid)
        assert codes.use_code(txn, b"code") is None
        assert device_codes.find_device_code(txn, b"allowed") is None
        assert device_codes.find_device_code(txn, b"pending") is not None
        assert browsers.find_browser(txn, b"browser", 5) is None
        assert grants.find_grant(txn, device_nid) is not None

    await db.write(run)


async def test_what_has_expired_goes(db: Database) -> None:
    now_ms = 10 * UNUSED_CLIENT_MS

    def run(txn: WriteTxn) -> None:
        user_nid, _ = make(txn)
        clients.insert_oauth_client(txn, "in use", b"{}", now_ms)
        for name, expires_ms in ((b"old", now_ms - KEPT_MS - 1), (b"new", now_ms - KEPT_MS + 1)):
            code = codes.Code("in use", user_nid, "u", "s", "c", expires_ms)
            codes.insert_code(txn, name, code)
            waiting = device_codes.DeviceCode("in use", "scope", expires_ms, 5)
            device_codes.insert_device_code(txn, name, name, waiting)
        browsers.insert_browser(txn, b"old", browsers.Browser(user_nid, 1, now_ms))
        browsers.insert_browser(txn, b"new", browsers.Browser(user_nid, 1, now_ms + 1))
        sweep_oauth(txn, now_ms)

    def check(txn: ReadTxn) -> None:
        assert clients.find_oauth_client(txn, CLIENT) is None
        assert clients.find_oauth_client(txn, "in use") is not None
        assert browsers.find_browser(txn, b"old", now_ms - 1) is None
        assert browsers.find_browser(txn, b"new", now_ms - 1) is not None

    def use(txn: WriteTxn) -> None:
        for name, is_there in ((b"old", False), (b"new", True)):
            assert (codes.use_code(txn, name) is not None) is is_there
            assert (device_codes.find_device_code(txn, name) is not None) is is_there

    await db.write(run)
    await db.read(check)
    await db.write(use)
