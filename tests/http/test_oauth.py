"""The OAuth 2.0 API from registration to revocation, as clients see it."""

import asyncio

import pytest

from ranvier.app.config import OAuthConfig, RegistrationConfig
from ranvier.app.config_load import ConfigFaults, load_config
from ranvier.services.oauth import clients as clients_service
from ranvier.services.oauth.sweeping import UNUSED_CLIENT_MS, sweep_oauth
from ranvier.store.tables.accounts import find_account_by_id, set_locked

from .homeserver import PASSWORD, running_homeserver
from .oauth import (
    BASE,
    METADATA,
    OAUTH,
    Browser,
    OAuthClient,
    answer_in,
    browser,
    client,
    post_form,
    register_client,
    scope,
    sent_to,
    server,
)

__all__ = ["browser", "client", "server"]

C = "/_matrix/client/v3"
WHOAMI = f"{C}/account/whoami"
METADATA_PATH = "/_matrix/client/v1/auth_metadata"


def error_of(answer):
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json["error_description"]
    return answer.status, answer.json["error"]


async def test_from_registration_to_revocation(server, client):
    browser = Browser(server.client)
    address = client.authorization()
    sign_in = sent_to(await browser.get(address))
    assert sign_in.startswith(f"{BASE}/_ranvier/sign-in?")
    back = sent_to(await browser.sign_in(sign_in))
    consent = await browser.get(back)
    assert consent.status == 200
    assert "Web App" in consent.body.decode()
    url = sent_to(await browser.submit(back, consent, decision="allow"))
    assert url.startswith("https://app.example.com/callback#")
    told = answer_in(url)
    assert told.keys() == {"code", "state", "iss"}
    assert (told["state"], told["iss"]) == ("a state", f"{BASE}/")
    answer = await client.exchange(told["code"])
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", scope())
    assert 0 < tokens["expires_in"] <= 900
    user = client.user(tokens)
    me = {"user_id": "@alice:test", "device_id": "OAUTHDEVICE", "is_guest": False}
    assert (await user.get(WHOAMI)).json == me
    device = (await user.get(f"{C}/devices/OAUTHDEVICE")).json
    assert device["display_name"] == "Web App"
    refreshed = (await client.refresh(tokens["refresh_token"])).json
    assert refreshed["scope"] == scope()
    again = client.user(refreshed)
    assert (await again.get(WHOAMI)).json == me
    assert (await user.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    revoked = await post_form(server.client, f"{OAUTH}/revoke", token=refreshed["refresh_token"])
    assert revoked.status == 200
    assert (await again.get(WHOAMI)).json["errcode"] == "M_UNKNOWN_TOKEN"
    assert error_of(await client.refresh(refreshed["refresh_token"])) == (400, "invalid_grant")
    devices = (await (await server.login("alice")).get(f"{C}/devices")).json["devices"]
    assert "OAUTHDEVICE" not in [one["device_id"] for one in devices]


async def test_what_clients_read_first(server):
    answer = await server.client.get(METADATA_PATH)
    found = answer.json
    assert "max-age" in answer.headers["cache-control"]
    assert found["issuer"] == f"{BASE}/"
    assert all(found[name].startswith(f"{BASE}/") for name in found if name.endswith(("_endpoint", "_uri")))
    assert found["response_types_supported"] == ["code"]
    assert set(found["response_modes_supported"]) == {"query", "fragment"}
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert found["prompt_values_supported"] == ["create"]
    assert found["authorization_response_iss_parameter_supported"] is True
    assert "urn:ietf:params:oauth:grant-type:device_code" in found["grant_types_supported"]
    old = await server.client.get("/_matrix/client/unstable/org.matrix.msc2965/auth_metadata")
    assert old.json == found


@pytest.mark.parametrize(
    ("settings", "is_on"),
    [
        ({"public_base_url": BASE}, True),
        ({}, False),
        ({"public_base_url": BASE, "oauth": OAuthConfig(enabled=False)}, False),
        ({"public_base_url": "http://matrix.test"}, False),
        ({"public_base_url": "http://localhost:8008"}, True),
        ({"public_base_url": "http://matrix.test", "oauth": OAuthConfig(enabled=True)}, True),
        ({"server_name": "localhost"}, True),
        ({"server_name": "localhost", "oauth": OAuthConfig(enabled=False)}, False),
    ],
)
async def test_where_it_is_on(start_homeserver, settings, is_on):
    server = await start_homeserver(**settings)
    answer = await server.client.get(METADATA_PATH)
    assert answer.status == (200 if is_on else 404)
    if not is_on:
        assert answer.errcode == "M_UNRECOGNIZED"
        assert (await server.client.get("/_ranvier/account")).errcode == "M_UNRECOGNIZED"


def test_it_is_not_switched_on_without_a_url(tmp_path):
    flags = {"server_name": "test", "oauth": {"enabled": True}}
    with pytest.raises(ConfigFaults, match=r"oauth\.enabled: needs public_base_url"):
        load_config(None, {}, flags, directory=tmp_path)
    load_config(None, {}, flags | {"public_base_url": BASE}, directory=tmp_path)


async def test_no_account_can_be_made_where_registration_is_closed(start_homeserver):
    server = await start_homeserver(public_base_url=BASE, registration=RegistrationConfig(mode="closed"))
    assert "prompt_values_supported" not in (await server.client.get(METADATA_PATH)).json
    assert (await server.client.get("/_ranvier/sign-up")).status == 404


async def test_registrations_of_one_client_are_one(server):
    first = await server.client.post(f"{OAUTH}/register", METADATA)
    assert first.status == 201
    assert first.json["redirect_uris"] == METADATA["redirect_uris"]
    second = await server.client.post(f"{OAUTH}/register", METADATA | {"contacts": ["x"]})
    assert second.json == first.json
    other = await server.client.post(f"{OAUTH}/register", METADATA | {"client_name": "Other"})
    assert other.json["client_id"] != first.json["client_id"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "invalid_client_metadata"),
        (b"[]", "invalid_client_metadata"),
        (b"", "invalid_client_metadata"),
        (b"{}", "invalid_client_metadata"),
        (
            b'{"client_uri":"https://example.com","redirect_uris":["https://evil.org"]}',
            "invalid_redirect_uri",
        ),
    ],
)
async def test_what_cannot_be_registered(server, body, error):
    answer = await server.client.request("POST", f"{OAUTH}/register", body=body)
    assert error_of(answer) == (400, error)


async def test_registrations_are_bounded(server, monkeypatch, browser):
    huge = await server.client.post(f"{OAUTH}/register", METADATA | {"x": "x" * 20_000})
    assert huge.status == 413
    used = await register_client(server, client_name="used")
    await used.login(browser)
    monkeypatch.setattr(clients_service, "MAX_CLIENTS", 3)
    made = []
    for number in range(5):
        server.clock.ahead_ms += 1
        made.append(await register_client(server, client_name=str(number)))
    # The one with a session stays; of the others, those registered last.
    alive = [(await Browser(server.client).get(one.authorization())).status == 303 for one in [used, *made]]
    assert alive == [True, False, False, False, True, True]


async def test_clients_without_sessions_are_forgotten(server, browser):
    used = await register_client(server, client_name="used")
    unused = await register_client(server, client_name="unused")
    await used.login(browser)
    server.clock.ahead_ms += UNUSED_CLIENT_MS + 1
    await server.foundation.ports.db.write(sweep_oauth, server.clock.now_ms())
    assert (await Browser(server.client).get(used.authorization())).status == 303
    assert (await Browser(server.client).get(unused.authorization())).status == 400


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code": "unknown"}, "invalid_grant"),
        ({"client_id": "unknown"}, "invalid_client"),
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_grant"),
        ({"redirect_uri": "https://app.example.com/other"}, "invalid_grant"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
        ({"code": ""}, "invalid_request"),
        ({"redirect_uri": ""}, "invalid_request"),
        ({"client_id": ""}, "invalid_request"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"code": "\0"}, "invalid_request"),
    ],
)
async def test_a_wrong_token_request(client, browser, changed, error):
    code = await client.code(browser)
    assert error_of(await client.exchange(code, **changed)) == (400, error)


@pytest.mark.parametrize(
    "body",
    [b"\xff", b"a=b&a=c&grant_type=x", b"grant_type=a&grant_type=a", b"x=%ff", b"&".join([b"a=b"] * 100)],
)
async def test_a_malformed_token_request(server, body):
    answer = await server.client.request("POST", f"{OAUTH}/token", body=body)
    assert error_of(answer) == (400, "invalid_request")


async def test_a_client_has_no_secret(server, client, browser):
    code = await client.code(browser)
    basic = {"authorization": "Basic eDp5"}
    answer = await post_form(
        server.client, f"{OAUTH}/token", basic, grant_type="authorization_code", code=code, client_id="x"
    )
    assert error_of(answer) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic")


async def test_a_code_expires(server, client, browser):
    code = await client.code(browser)
    server.clock.ahead_ms += 120_000
    assert error_of(await client.exchange(code)) == (400, "invalid_grant")


async def test_a_code_shown_twice_ends_what_it_began(client, browser):
    code = await client.code(browser)
    tokens = (await client.exchange(code)).json
    user = client.user(tokens)
    assert (await user.get(WHOAMI)).status == 200
    assert error_of(await client.exchange(code)) == (400, "invalid_grant")
    assert (await user.get(WHOAMI)).json["errcode"] == "M_UNKNOWN_TOKEN"
    assert error_of(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


@pytest.mark.parametrize("changed", [{"code_verifier": "w" * 43}, {"redirect_uri": "https://example.com/"}])
async def test_a_code_is_good_for_one_attempt(client, browser, changed):
    code = await client.code(browser)
    assert error_of(await client.exchange(code, **changed)) == (400, "invalid_grant")
    assert error_of(await client.exchange(code)) == (400, "invalid_grant")


async def test_another_client_cannot_use_a_code_or_a_refresh_token(server, client, browser):
    other = await register_client(server, client_name="Other")
    stolen = await client.code(browser)
    assert error_of(await other.exchange(stolen)) == (400, "invalid_grant")
    tokens = await client.login(browser)
    assert error_of(await other.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    assert (await client.refresh(tokens["refresh_token"])).status == 200


async def test_of_two_who_show_a_code_at_once_neither_gets_in(client, browser):
    code = await client.code(browser)
    answers = await asyncio.gather(*(client.exchange(code) for _ in range(5)))
    good = [answer.json for answer in answers if answer.status == 200]
    assert len(good) == 1
    assert (await client.user(good[0]).get(WHOAMI)).status == 401


async def test_a_refresh_can_be_repeated_until_the_new_token_is_used(client, browser):
    tokens = await client.login(browser)
    lost = (await client.refresh(tokens["refresh_token"])).json
    kept = (await client.refresh(tokens["refresh_token"])).json
    assert (await client.user(lost).get(WHOAMI)).status == 401
    assert (await client.user(tokens).get(WHOAMI)).status == 200
    assert (await client.user(kept).get(WHOAMI)).status == 200
    assert (await client.user(tokens).get(WHOAMI)).status == 401


async def test_a_spent_refresh_token_ends_the_session(client, browser, caplog):
    tokens = await client.login(browser)
    new = (await client.refresh(tokens["refresh_token"])).json
    assert (await client.user(new).get(WHOAMI)).status == 200
    assert error_of(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    assert (await client.user(new).get(WHOAMI)).status == 401
    assert "device OAUTHDEVICE is signed out" in caplog.text
    assert tokens["refresh_token"] not in caplog.text
    assert error_of(await client.refresh(new["refresh_token"])) == (400, "invalid_grant")


async def test_a_refresh_asks_for_no_more_than_was_granted(client, browser):
    tokens = await client.login(browser)
    for wider in (scope("OTHER"), scope() + " urn:synapse:admin:*"):
        answer = await client.refresh(tokens["refresh_token"], scope=wider)
        assert error_of(answer) == (400, "invalid_scope")
    assert (await client.refresh(tokens["refresh_token"], scope=scope())).json["scope"] == scope()


async def test_access_expires_and_is_refreshed(server, client, browser):
    tokens = await client.login(browser)
    server.clock.ahead_ms += tokens["expires_in"] * 1000
    answer = await client.user(tokens).get(WHOAMI)
    assert (answer.errcode, answer.json["soft_logout"]) == ("M_UNKNOWN_TOKEN", True)
    new = (await client.refresh(tokens["refresh_token"])).json
    assert (await client.user(new).get(WHOAMI)).status == 200


async def test_the_two_ways_of_refreshing_do_not_mix(server, client, browser):
    tokens = await client.login(browser)
    legacy = await server.client.post(f"{C}/refresh", {"refresh_token": tokens["refresh_token"]})
    assert legacy.errcode == "M_UNKNOWN_TOKEN"
    assert (await client.refresh(tokens["refresh_token"])).status == 200
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": PASSWORD,
        "refresh_token": True,
    }
    session = (await server.client.post(f"{C}/login", body)).json
    assert error_of(await client.refresh(session["refresh_token"])) == (400, "invalid_grant")
    answer = await server.client.post(f"{C}/refresh", {"refresh_token": session["refresh_token"]})
    assert answer.status == 200


async def test_a_device_is_taken_over(server, client, browser):
    old = await server.login("alice", device_id="SHARED")
    consent = await browser.get(client.authorization(scope=scope("SHARED")))
    assert "SHARED" in consent.body.decode()
    tokens = await client.login(browser, scope=scope("SHARED"))
    assert (await old.get(WHOAMI)).status == 401
    user = client.user(tokens)
    assert (await user.get(WHOAMI)).json["device_id"] == "SHARED"
    # And back: a login without OAuth makes it an ordinary device.
    legacy = await server.login("alice", device_id="SHARED")
    assert (await user.get(WHOAMI)).status == 401
    assert (await legacy.delete(f"{C}/devices/OLD", {})).json["flows"] == [{"stages": ["m.login.password"]}]


async def test_the_scope_of_older_clients(client, browser):
    wanted = "openid urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:ABCDEFGHIJ"
    tokens = await client.login(browser, scope=wanted)
    assert tokens["scope"] == wanted.removeprefix("openid ")
    assert (await client.user(tokens).get(WHOAMI)).json["device_id"] == "ABCDEFGHIJ"


async def test_a_native_client_on_loopback(server, browser):
    client = await register_client(
        server, application_type="native", redirect_uris=["http://127.0.0.1/callback", "com.example.app:/cb"]
    )
    for uri in ("http://127.0.0.1:43210/callback", "com.example.app:/cb"):
        one = OAuthClient(server, client.client_id, uri)
        address = one.authorization(response_mode=None)
        page = await browser.get(address)
        assert uri.split("/callback")[0].split("/cb")[0] in page.headers["content-security-policy"]
        url = sent_to(await browser.submit(address, page, decision="allow"))
        assert url.startswith(f"{uri}?")
        assert (await one.exchange(answer_in(url)["code"])).status == 200


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
@pytest.mark.parametrize("more", [{}, {"client_id": "another"}, {"token_type_hint": "access_token"}])
async def test_revoking(server, client, browser, which, more):
    tokens = await client.login(browser)
    answer = await post_form(server.client, f"{OAUTH}/revoke", token=tokens[which], **more)
    assert answer.status == 200
    assert (await client.user(tokens).get(WHOAMI)).status == 401
    assert (await client.refresh(tokens["refresh_token"])).status == 400
    again = await post_form(server.client, f"{OAUTH}/revoke", token=tokens[which])
    assert again.status == 200


async def test_revoking_what_was_refreshed_meanwhile(server, client, browser):
    tokens = await client.login(browser)
    new = (await client.refresh(tokens["refresh_token"])).json
    await post_form(server.client, f"{OAUTH}/revoke", token=tokens["access_token"])
    assert (await client.user(new).get(WHOAMI)).status == 401


async def test_a_leaked_token_of_any_session_can_be_revoked(server):
    user = await server.login("alice")
    assert (await post_form(server.client, f"{OAUTH}/revoke", token=user.token)).status == 200
    assert (await user.get(WHOAMI)).status == 401


@pytest.mark.parametrize(
    ("fields", "error"),
    [({}, "invalid_request"), ({"token": "x", "token_type_hint": "id_token"}, "unsupported_token_type")],
)
async def test_wrong_revocations(server, fields, error):
    assert error_of(await post_form(server.client, f"{OAUTH}/revoke", **fields)) == (400, error)


async def test_what_takes_proof_is_not_for_sessions_of_oauth(client, browser):
    user = client.user(await client.login(browser))
    for method, path, body in (
        ("DELETE", "/devices/OLD", {}),
        ("POST", "/delete_devices", {"devices": ["OLD"]}),
        ("POST", "/account/password", {"new_password": "another password"}),
        ("POST", "/account/deactivate", {}),
        ("POST", "/account/3pid/add", {"sid": "x", "client_secret": "x"}),
    ):
        # Not even with the password.
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": PASSWORD,
        }
        for more in ({}, {"auth": auth}):
            answer = await user.request(method, C + path, json=body | more)
            assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED"), path
    token = await user.post("/_matrix/client/v1/login/get_token", {})
    assert (token.status, token.errcode) == (404, "M_UNRECOGNIZED")
    capabilities = (await user.get(f"{C}/capabilities")).json["capabilities"]
    for name in ("m.change_password", "m.get_login_token", "m.3pid_changes"):
        assert capabilities[name] == {"enabled": False}


@pytest.mark.parametrize("path", ["/logout", "/logout/all"])
async def test_logging_out_as_of_old(client, browser, path):
    tokens = await client.login(browser)
    user = client.user(tokens)
    assert (await user.post(C + path, {})).status == 200
    assert (await user.get(WHOAMI)).status == 401
    assert (await client.refresh(tokens["refresh_token"])).status == 400
    is_signed_in = (await browser.get(client.authorization())).status == 200
    assert is_signed_in is (path == "/logout")


async def test_a_locked_account_keeps_its_session(server, client, browser):
    tokens = await client.login(browser)
    code = await client.code(browser, scope=scope("ANOTHER"))
    db = server.foundation.ports.db
    await db.write(lock, "@alice:test", True)
    assert (await client.user(tokens).get(WHOAMI)).errcode == "M_USER_LOCKED"
    assert error_of(await client.exchange(code)) == (400, "invalid_grant")
    assert (await browser.get(client.authorization())).status == 303  # to sign in, which does not work
    new = (await client.refresh(tokens["refresh_token"])).json
    assert (await client.user(new).get(WHOAMI)).errcode == "M_USER_LOCKED"
    await db.write(lock, "@alice:test", False)
    assert (await client.user(new).get(WHOAMI)).status == 200


def lock(txn, user_id, is_locked):
    account = find_account_by_id(txn, user_id)
    set_locked(txn, account.user_nid, is_locked=is_locked)


async def test_a_changed_password_ends_what_was_begun(server, client, browser):
    code = await client.code(browser)
    body = {
        "new_password": "another password",
        "auth": {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": PASSWORD,
        },
    }
    assert (await server.client.post(f"{C}/account/password", body)).status == 200
    assert error_of(await client.exchange(code)) == (400, "invalid_grant")
    assert (await browser.get(client.authorization())).status == 303


async def test_a_restart_in_the_middle(tmp_path):
    async with running_homeserver(tmp_path / "data", public_base_url=BASE) as server:
        await server.register("alice")
        client = await register_client(server)
        browser = Browser(server.client)
        await browser.sign_in("/_ranvier/sign-in")
        code = await client.code(browser)
        tokens = await client.login(browser, scope=scope("SECOND"))
    async with running_homeserver(tmp_path / "data", public_base_url=BASE) as server:
        client = OAuthClient(server, client.client_id, client.redirect_uri)
        assert (await client.exchange(code)).status == 200
        assert (await client.refresh(tokens["refresh_token"])).status == 200
        again = Browser(server.client)
        again.cookies = browser.cookies
        assert (await again.get(client.authorization())).status == 200
