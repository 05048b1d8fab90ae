"""Logging in and out, going on with a session, and what an access token is good for meanwhile."""

import pytest

from ranvier.app.compose.accounts import lay_accounts
from ranvier.app.config import RateLimitsConfig
from ranvier.core.errors import Forbidden, LimitExceeded
from ranvier.services.accounts.owners import WRONG_AT_ONCE
from ranvier.services.accounts.passwords import PasswordCost, Passwords
from ranvier.store.tables.accounts import find_account_by_id, set_password_hash
from ranvier.store.tables.cross_signing import CrossSigningKey, set_cross_signing_keys

from .homeserver import PASSWORD

C = "/_matrix/client/v3"
WHOAMI = f"{C}/account/whoami"


def password_login(user, password=PASSWORD, **more):
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    } | more


async def test_from_registration_to_logout(homeserver):
    alice = await homeserver.register("alice")
    assert alice.user_id == "@alice:test"
    who = await alice.get(WHOAMI)
    assert who.json == {"user_id": "@alice:test", "device_id": alice.device_id, "is_guest": False}
    phone = await homeserver.login("alice", device_id="PHONE")
    assert phone.device_id == "PHONE"
    assert (await phone.post(f"{C}/logout", {})).json == {}
    assert (await phone.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    assert (await alice.get(f"{C}/devices/PHONE")).status == 404
    assert (await alice.get(WHOAMI)).status == 200
    laptop = await homeserver.login("@alice:test")
    assert (await laptop.post(f"{C}/logout/all")).status == 200
    for client in (alice, laptop):
        assert (await client.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"


async def test_the_login_types(homeserver):
    flows = (await homeserver.client.get(f"{C}/login")).json["flows"]
    assert {"type": "m.login.password"} in flows
    assert {"type": "m.login.token", "get_login_token": True} in flows


@pytest.mark.parametrize(
    "body",
    [
        password_login("alice"),
        password_login("@alice:test"),
        password_login("ALICE"),
        {"type": "m.login.password", "user": "alice", "password": PASSWORD},
        {"type": "m.login.password", "user": "@alice:test", "password": PASSWORD},
    ],
)
async def test_the_ways_to_name_oneself(homeserver, body):
    await homeserver.register("alice")
    answer = await homeserver.client.post(f"{C}/login", body)
    assert (answer.status, answer.json["user_id"]) == (200, "@alice:test")


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        (password_login("alice", "wrong"), 403, "M_FORBIDDEN"),
        (password_login("alice", "x" * 100_000), 403, "M_FORBIDDEN"),
        (password_login("nobody"), 403, "M_FORBIDDEN"),
        (password_login("@alice:elsewhere"), 403, "M_FORBIDDEN"),
        (password_login("@:"), 403, "M_FORBIDDEN"),
        (password_login("alice", device_id=""), 400, "M_INVALID_PARAM"),
        (password_login("alice", device_id="x" * 300), 400, "M_INVALID_PARAM"),
        (password_login("alice", initial_device_display_name="x" * 101), 400, "M_INVALID_PARAM"),
        (password_login("alice", 17), 400, "M_BAD_JSON"),
        (password_login("alice") | {"identifier": []}, 400, "M_BAD_JSON"),
        (password_login("alice") | {"identifier": {"type": "m.id.x"}}, 400, "M_BAD_JSON"),
        (password_login("alice") | {"identifier": {"type": "m.id.user"}}, 400, "M_MISSING_PARAM"),
        (
            password_login("alice")
            | {"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "a@b.c"}},
            403,
            "M_FORBIDDEN",
        ),
        (password_login("alice") | {"identifier": {"type": "m.id.phone"}}, 403, "M_FORBIDDEN"),
        ({"type": "m.login.password", "password": PASSWORD}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "user": "alice"}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.token"}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.token", "token": "wrong"}, 403, "M_FORBIDDEN"),
        ({"type": "m.login.magic"}, 400, "M_UNKNOWN"),
        ({}, 400, "M_MISSING_PARAM"),
    ],
)
async def test_logins_that_fail(homeserver, body, status, errcode):
    await homeserver.register("alice")
    answer = await homeserver.client.post(f"{C}/login", body)
    assert (answer.status, answer.errcode) == (status, errcode)


async def test_a_login_on_a_device_takes_the_place_of_the_one_before(homeserver):
    first = await homeserver.register("alice", device_id="PHONE", initial_device_display_name="Old name")
    second = await homeserver.login("alice", device_id="PHONE", initial_device_display_name="New name")
    assert (await first.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    device = (await second.get(f"{C}/devices/PHONE")).json
    assert device["display_name"] == "Old name"


async def test_the_same_text_is_the_same_password_however_it_was_composed(homeserver):
    await homeserver.register("alice", password="Zo\u00eb's password")
    await homeserver.login("alice", "Zoe\u0308's password")


async def refreshable(homeserver):
    answer = await homeserver.client.post(
        f"{C}/register",
        {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}, "refresh_token": True},
    )
    return answer.json


async def test_an_access_token_that_expires_is_refreshed(homeserver):
    session = await refreshable(homeserver)
    alice = homeserver.user(session)
    assert (await alice.get(WHOAMI)).status == 200
    homeserver.clock.ahead_ms += session["expires_in_ms"]
    expired = await alice.get(WHOAMI)
    assert (expired.status, expired.errcode, expired.json["soft_logout"]) == (401, "M_UNKNOWN_TOKEN", True)
    fresh = (await alice.post(f"{C}/refresh", {"refresh_token": session["refresh_token"]})).json
    assert fresh["expires_in_ms"] == session["expires_in_ms"]
    assert (await alice.as_user(fresh["access_token"]).get(WHOAMI)).json["device_id"] == session["device_id"]


async def test_the_old_refresh_token_is_good_until_the_new_pair_is_used(homeserver):
    session = await refreshable(homeserver)
    client = homeserver.client
    old = {"refresh_token": session["refresh_token"]}
    lost = (await client.post(f"{C}/refresh", old)).json
    assert (await homeserver.user(session).get(WHOAMI)).status == 200
    kept = (await client.post(f"{C}/refresh", old)).json
    # The answer that never arrived is void; the one that did is good, and ends what was before.
    assert (await client.as_user(lost["access_token"]).get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    assert (await client.as_user(kept["access_token"]).get(WHOAMI)).status == 200
    assert (await homeserver.user(session).get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    used = await client.post(f"{C}/refresh", old)
    assert (used.status, used.errcode, used.json["soft_logout"]) == (401, "M_UNKNOWN_TOKEN", False)


async def test_an_access_token_is_no_refresh_token(homeserver):
    alice = await homeserver.register("alice")
    assert (await alice.post(f"{C}/refresh", {"refresh_token": alice.token})).errcode == "M_UNKNOWN_TOKEN"
    assert (await alice.post(f"{C}/refresh", {})).errcode == "M_MISSING_PARAM"
    session = await homeserver.login("alice", refresh_token=True)
    assert (await session.get(WHOAMI)).status == 200


async def test_a_refresh_token_ends_with_its_session(homeserver):
    session = await refreshable(homeserver)
    await homeserver.user(session).post(f"{C}/logout")
    body = {"refresh_token": session["refresh_token"]}
    assert (await homeserver.client.post(f"{C}/refresh", body)).errcode == "M_UNKNOWN_TOKEN"


async def test_somebody_logged_in_lets_another_client_in_once(homeserver):
    alice = await homeserver.register("alice")
    path = "/_matrix/client/v1/login/get_token"
    asked = await alice.post(path, {})
    assert (asked.status, asked.json["flows"]) == (401, [{"stages": ["m.login.password"]}])
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": PASSWORD,
        "session": asked.json["session"],
    }
    given = (await alice.post(path, {"auth": auth})).json
    assert given["expires_in_ms"] == 120_000
    login = {"type": "m.login.token", "token": given["login_token"], "device_id": "TV"}
    session = await homeserver.client.post(f"{C}/login", login)
    assert (session.json["user_id"], session.json["device_id"]) == ("@alice:test", "TV")
    assert (await homeserver.client.post(f"{C}/login", login)).errcode == "M_FORBIDDEN"
    assert (await homeserver.client.post(path, {})).errcode == "M_MISSING_TOKEN"


async def test_a_login_token_expires(homeserver):
    alice = await homeserver.register("alice")
    auth = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    token = (await alice.post("/_matrix/client/v1/login/get_token", {"auth": auth})).json["login_token"]
    homeserver.clock.ahead_ms += 120_000
    answer = await homeserver.client.post(f"{C}/login", {"type": "m.login.token", "token": token})
    assert answer.errcode == "M_FORBIDDEN"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "account/whoami"), ("POST", "logout"), ("POST", "logout/all")]
)
@pytest.mark.parametrize(("token", "errcode"), [(None, "M_MISSING_TOKEN"), ("wrong", "M_UNKNOWN_TOKEN")])
async def test_without_a_token(homeserver, method, path, token, errcode):
    answer = await homeserver.client.as_user(token).request(method, f"{C}/{path}")
    assert (answer.status, answer.errcode) == (401, errcode)


async def test_a_device_cannot_be_called_like_a_cross_signing_key(homeserver):
    alice = await homeserver.register("alice")
    db = homeserver.foundation.ports.db
    account = await db.read(find_account_by_id, alice.user_id)
    key = CrossSigningKey("master", "base64+public/key", b"{}")
    await db.write(set_cross_signing_keys, account.user_nid, [key])
    body = password_login("alice", device_id="base64+public/key")
    refused = await homeserver.client.post(f"{C}/login", body)
    assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")


async def test_passwords_cannot_be_guessed_without_end(start_homeserver):
    homeserver = await start_homeserver(rate_limits=RateLimitsConfig(enabled=True))
    await homeserver.register("alice")
    owners = lay_accounts(homeserver.foundation).owners

    async def guess(user, password):
        try:
            return (await owners.prove({"user": user}, password)).user_id
        except (Forbidden, LimitExceeded) as error:
            return error.errcode

    # Whether there is such an account makes no difference.
    for user in ("alice", "nobody"):
        guesses = [await guess(user, f"guess {number}") for number in range(WRONG_AT_ONCE + 1)]
        assert guesses == ["M_FORBIDDEN"] * WRONG_AT_ONCE + ["M_LIMIT_EXCEEDED"]
    assert await guess("alice", PASSWORD) == "M_LIMIT_EXCEEDED"
    bob = await homeserver.register("bob")
    assert await guess("bob", PASSWORD) == bob.user_id


async def test_all_addresses_of_one_subscriber_count_as_one(start_homeserver):
    homeserver = await start_homeserver(rate_limits=RateLimitsConfig(enabled=True))
    client = homeserver.client

    async def login_from(ip):
        client.ip = ip
        return (await client.post(f"{C}/login", password_login("nobody"))).status

    assert 429 in [await login_from(f"2001:db8:1:2::{number}") for number in range(1, 13)]
    assert await login_from("2001:db8:1:3::1") == 403


async def test_a_hash_of_another_cost_is_renewed_by_logging_in(homeserver):
    alice = await homeserver.register("alice")
    db = homeserver.foundation.ports.db
    account = await db.read(find_account_by_id, alice.user_id)
    old = await Passwords(PasswordCost(memory_kib=16, iterations=2)).hash(PASSWORD)
    await db.write(set_password_hash, account.user_nid, old)
    await homeserver.login("alice")
    renewed = (await db.read(find_account_by_id, alice.user_id)).password_hash
    assert renewed != old
    await homeserver.login("alice")
    assert (await db.read(find_account_by_id, alice.user_id)).password_hash == renewed
