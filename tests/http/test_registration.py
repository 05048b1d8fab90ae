"""Who may make an account, what they have to show, and which names they can have."""

import hashlib
import hmac

import pytest

from ranvier.app.config import RateLimitsConfig, RegistrationConfig
from ranvier.store.tables.registration_tokens import find_registration_token, insert_registration_token

from .homeserver import PASSWORD

C = "/_matrix/client/v3"
REGISTER = f"{C}/register"
DUMMY = {"type": "m.login.dummy"}


def body(username="alice", **more):
    return {"username": username, "password": PASSWORD, "auth": DUMMY} | more


async def test_registration_asks_for_authentication_first(homeserver):
    asked = await homeserver.client.post(REGISTER, {"username": "alice", "password": PASSWORD})
    assert asked.status == 401
    assert asked.json["flows"] == [{"stages": ["m.login.dummy"]}]
    assert "errcode" not in asked.json
    done = await homeserver.client.post(REGISTER, body(auth=DUMMY | {"session": asked.json["session"]}))
    assert done.status == 200
    assert set(done.json) == {"user_id", "device_id", "access_token"}


async def test_what_a_client_asks_for_it_gets(homeserver):
    session = (await homeserver.client.post(REGISTER, body(device_id="PHONE", refresh_token=True))).json
    assert session["device_id"] == "PHONE"
    assert session["expires_in_ms"] > 0
    assert session["refresh_token"] != session["access_token"]
    inhibited = (await homeserver.client.post(REGISTER, body("bob", inhibit_login=True))).json
    assert inhibited == {"user_id": "@bob:test"}
    await homeserver.login("bob")


async def test_a_name_is_made_up_if_none_is_given(homeserver):
    wish = {"password": PASSWORD, "auth": DUMMY}
    first, second = [(await homeserver.client.post(REGISTER, wish)).json["user_id"] for _ in range(2)]
    assert first != second
    await homeserver.login(first)


async def test_how_long_a_password_must_be_is_the_administrators_choice(start_homeserver):
    settings = RegistrationConfig(mode="open", min_password_length=12)
    homeserver = await start_homeserver(registration=settings)
    assert (await homeserver.client.post(REGISTER, body(password="x" * 11))).errcode == "M_WEAK_PASSWORD"
    await homeserver.register("alice", password="x" * 12)


async def test_capital_letters_become_small(homeserver):
    assert (await homeserver.register("ALICE")).user_id == "@alice:test"


@pytest.mark.parametrize(
    ("wish", "errcode"),
    [
        ({"username": "taken"}, "M_USER_IN_USE"),
        ({"username": "Taken"}, "M_USER_IN_USE"),
        ({"username": ""}, "M_INVALID_USERNAME"),
        ({"username": "with space"}, "M_INVALID_USERNAME"),
        ({"username": "with:colon"}, "M_INVALID_USERNAME"),
        ({"username": "héloïse"}, "M_INVALID_USERNAME"),
        ({"username": "x" * 250}, "M_INVALID_USERNAME"),
        ({"username": 7}, "M_BAD_JSON"),
        ({"password": "short"}, "M_WEAK_PASSWORD"),
        ({"password": "x" * 513}, "M_INVALID_PARAM"),
        ({"device_id": ""}, "M_INVALID_PARAM"),
        ({"auth": "dummy"}, "M_BAD_JSON"),
        ({"auth": {"type": 1}}, "M_BAD_JSON"),
    ],
)
async def test_what_cannot_be_registered_is_refused_before_authentication(homeserver, wish, errcode):
    await homeserver.register("taken")
    wish = body() | wish
    answer = await homeserver.client.post(REGISTER, wish)
    assert (answer.status, answer.errcode) == (400, errcode)
    if isinstance(wish["auth"], dict) and wish["auth"] == DUMMY:
        before = await homeserver.client.post(REGISTER, {key: wish[key] for key in wish if key != "auth"})
        assert (before.status, before.errcode) == (400, errcode)


async def test_a_password_is_needed_in_the_end(homeserver):
    # Clients find out the flows with an empty body.
    asked = await homeserver.client.post(REGISTER, {})
    assert asked.status == 401
    answer = await homeserver.client.post(REGISTER, {"auth": DUMMY | {"session": asked.json["session"]}})
    assert answer.errcode == "M_MISSING_PARAM"


async def test_whether_a_name_is_free(homeserver):
    await homeserver.register("taken")
    path = f"{REGISTER}/available"
    assert (await homeserver.client.get(path, username="free")).json == {"available": True}
    assert (await homeserver.client.get(path, username="taken")).errcode == "M_USER_IN_USE"
    assert (await homeserver.client.get(path, username="a b")).errcode == "M_INVALID_USERNAME"
    assert (await homeserver.client.get(path)).errcode == "M_MISSING_PARAM"


async def test_registration_may_be_closed(start_homeserver):
    homeserver = await start_homeserver(registration=RegistrationConfig(mode="closed"))
    answer = await homeserver.client.post(REGISTER, body())
    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    path = "/_matrix/client/v1/register/m.login.registration_token/validity"
    assert (await homeserver.client.get(path, token="x")).errcode == "M_FORBIDDEN"
    assert (await homeserver.client.get(f"{REGISTER}/available", username="x")).errcode == "M_FORBIDDEN"
    guest = await homeserver.client.post(f"{REGISTER}?kind=guest", {})
    assert (guest.status, guest.errcode) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    assert (await homeserver.client.post(f"{REGISTER}?kind=alien", {})).errcode == "M_INVALID_PARAM"


async def test_a_registration_token_is_good_for_as_many_accounts_as_it_says(start_homeserver):
    homeserver = await start_homeserver(registration=RegistrationConfig(mode="token"))
    db = homeserver.foundation.ports.db
    await db.write(insert_registration_token, "abc", 1, None)
    path = "/_matrix/client/v1/register/m.login.registration_token/validity"
    assert (await homeserver.client.get(path, token="abc")).json == {"valid": True}
    assert (await homeserver.client.get(path, token="abd")).json == {"valid": False}

    async def attempt(username, token):
        asked = await homeserver.client.post(REGISTER, {"username": username, "password": PASSWORD})
        assert asked.json["flows"] == [{"stages": ["m.login.registration_token"]}]
        auth = {"type": "m.login.registration_token", "token": token, "session": asked.json["session"]}
        return await homeserver.client.post(REGISTER, body(username, auth=auth))

    refused = await attempt("alice", "abd")
    assert (refused.status, refused.errcode) == (401, "M_UNAUTHORIZED")
    assert (await attempt("alice", "abc")).status == 200
    assert (await db.read(find_registration_token, "abc")).completed == 1
    assert (await attempt("bob", "abc")).errcode == "M_UNAUTHORIZED"
    assert (await homeserver.client.get(path, token="abc")).json == {"valid": False}
    # The dummy stage alone does not do.
    dummy = await homeserver.client.post(REGISTER, body("bob"))
    assert (dummy.status, dummy.errcode) == (401, "M_FORBIDDEN")


async def test_a_token_that_expired_is_good_for_nothing(start_homeserver):
    homeserver = await start_homeserver(registration=RegistrationConfig(mode="token"))
    await homeserver.foundation.ports.db.write(
        insert_registration_token, "abc", None, homeserver.clock.now_ms() + 1000
    )
    homeserver.clock.ahead_ms += 1000
    auth = {"type": "m.login.registration_token", "token": "abc"}
    assert (await homeserver.client.post(REGISTER, body(auth=auth))).errcode == "M_UNAUTHORIZED"


async def test_guests_need_no_authentication_and_cannot_do_everything(start_homeserver):
    homeserver = await start_homeserver(registration=RegistrationConfig(mode="closed", guests=True))
    wish = {"device_id": "MINE", "username": "me", "initial_device_display_name": "Browser"}
    session = (await homeserver.client.post(f"{REGISTER}?kind=guest", wish)).json
    assert session["device_id"] != "MINE"
    guest = homeserver.user(session)
    assert (await guest.get(f"{C}/account/whoami")).json["is_guest"] is True
    assert (await guest.get(f"{C}/devices")).json["devices"][0]["display_name"] == "Browser"
    assert (await guest.get(f"{C}/account/3pid")).errcode == "M_GUEST_ACCESS_FORBIDDEN"


def sign(secret, nonce, username, password, *, admin):
    text = "\0".join((nonce, username, password, "admin" if admin else "notadmin"))
    return hmac.new(secret.encode(), text.encode(), hashlib.sha1).hexdigest()


async def test_who_knows_the_shared_secret_makes_accounts(start_homeserver):
    settings = RegistrationConfig(mode="closed", shared_secret="tell nobody")
    homeserver = await start_homeserver(registration=settings)
    path = "/_synapse/admin/v1/register"
    nonce = (await homeserver.client.get(path)).json["nonce"]
    wish = {"nonce": nonce, "username": "root", "password": "pw", "admin": True, "displayname": "Root"}
    wrong = await homeserver.client.post(path, wish | {"mac": sign("guess", nonce, "root", "pw", admin=True)})
    assert (wrong.status, wrong.errcode) == (403, "M_FORBIDDEN")
    lesser = await homeserver.client.post(
        path, wish | {"mac": sign("tell nobody", nonce, "root", "pw", admin=False)}
    )
    assert lesser.errcode == "M_FORBIDDEN"
    wish |= {"mac": sign("tell nobody", nonce, "root", "pw", admin=True)}
    session = (await homeserver.client.post(path, wish)).json
    assert session["user_id"] == "@root:test"
    root = homeserver.user(session)
    assert "m.account_moderation" in (await root.get(f"{C}/capabilities")).json["capabilities"]
    assert (await root.get(f"{C}/profile/@root:test")).json == {"displayname": "Root"}
    assert (await homeserver.client.post(path, wish)).errcode == "M_USER_IN_USE"
    homeserver.clock.ahead_ms += 60_000
    assert (await homeserver.client.post(path, wish)).errcode == "M_INVALID_PARAM"


@pytest.mark.parametrize("nonce", ["", ".", "x.y", "9999999999999.abc.def", "9" * 5000, "1.\udfff"[:2] + "é"])
async def test_a_nonce_that_is_none(start_homeserver, nonce):
    settings = RegistrationConfig(mode="closed", shared_secret="tell nobody")
    homeserver = await start_homeserver(registration=settings)
    wish = {"nonce": nonce, "username": "a", "password": "b", "mac": "c"}
    assert (await homeserver.client.post("/_synapse/admin/v1/register", wish)).errcode == "M_INVALID_PARAM"


async def test_without_a_shared_secret_there_is_no_such_endpoint(homeserver):
    assert (await homeserver.client.get("/_synapse/admin/v1/register")).errcode == "M_UNRECOGNIZED"


async def test_a_family_signs_up_from_one_address_as_web_clients_do(start_homeserver):
    homeserver = await start_homeserver(rate_limits=RateLimitsConfig(enabled=True))
    for name in ("grandma", "dad", "mum", "kid", "baby"):
        for length in range(3, len(name) + 1):
            typed = {"username": name[:length]}
            assert (await homeserver.client.get(f"{C}/register/available", **typed)).status == 200
        wish = {"username": name, "password": PASSWORD}
        assert (await homeserver.client.post(f"{C}/register", {})).status == 401
        asked = await homeserver.client.post(f"{C}/register", wish)
        assert asked.status == 401
        proof = {"type": "m.login.dummy", "session": asked.json["session"]}
        assert (await homeserver.client.post(f"{C}/register", {**wish, "auth": proof})).status == 200
    last = [(await homeserver.client.post(f"{C}/register", {})).status for _ in range(30)]
    assert last[-1] == 429
