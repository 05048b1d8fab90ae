"""The web pages on which a person logs in, or does a stage of authentication, for a client that cannot."""

import re
from urllib.parse import urlencode

import pytest

from ranvier.app.config import RegistrationConfig
from ranvier.store.tables.registration_tokens import insert_registration_token

from .homeserver import PASSWORD

C = "/_matrix/client/v3"


def page(stage):
    return f"{C}/auth/{stage}/fallback/web"


async def submit(client, stage, **form):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return await client.request("POST", page(stage), body=urlencode(form).encode(), headers=headers)


@pytest.fixture
async def alice(homeserver):
    return await homeserver.register("alice", device_id="ONE")


@pytest.fixture
async def session(alice):
    return (await alice.delete(f"{C}/devices/ONE", {})).json["session"]


def check_page(answer):
    assert answer.headers["content-type"].startswith("text/html")
    nonces = re.findall(rb'<script nonce="([^"]+)"', answer.body)
    policy = answer.headers["content-security-policy"]
    assert all(f"'nonce-{nonce.decode()}'" in policy for nonce in nonces)
    assert "frame-ancestors 'none'" in policy
    return answer.body.decode()


async def test_a_password_is_given_on_the_page(homeserver, alice, session):
    form = check_page(await homeserver.client.get(page("m.login.password"), session=session))
    assert f'value="{session}"' in form
    assert 'name="password" type="password"' in form
    wrong = await submit(homeserver.client, "m.login.password", session=session, user="alice", password="x")
    assert wrong.status == 403
    assert "Invalid username or password." in check_page(wrong)
    path, again = f"{C}/devices/ONE", {"auth": {"session": session}}
    assert (await alice.delete(path, again)).status == 401
    done = await submit(
        homeserver.client, "m.login.password", session=session, user="alice", password=PASSWORD
    )
    assert done.status == 200
    assert "onAuthDone" in check_page(done)
    assert (await alice.delete(path, again)).status == 200


async def test_another_users_password_does_not_do(homeserver, session):
    await homeserver.register("bob")
    answer = await submit(
        homeserver.client, "m.login.password", session=session, user="bob", password=PASSWORD
    )
    assert answer.status == 403


async def test_a_registration_token_is_given_on_the_page(start_homeserver):
    homeserver = await start_homeserver(registration=RegistrationConfig(mode="token"))
    await homeserver.foundation.ports.db.write(insert_registration_token, "abc", 1, None)
    wish = {"username": "alice", "password": PASSWORD}
    session = (await homeserver.client.post(f"{C}/register", wish)).json["session"]
    stage = "m.login.registration_token"
    assert (await submit(homeserver.client, stage, session=session, token="abd")).status == 401
    assert (await submit(homeserver.client, stage, session=session, token="abc")).status == 200
    answer = await homeserver.client.post(f"{C}/register", wish | {"auth": {"session": session}})
    assert answer.status == 200


async def test_the_dummy_stage_is_a_button(homeserver):
    wish = {"username": "alice", "password": PASSWORD}
    session = (await homeserver.client.post(f"{C}/register", wish)).json["session"]
    for _ in range(2):
        assert (await submit(homeserver.client, "m.login.dummy", session=session)).status == 200
    answer = await homeserver.client.post(f"{C}/register", wish | {"auth": {"session": session}})
    assert answer.status == 200


async def test_what_cannot_be_done(homeserver, session):
    client = homeserver.client
    assert (await client.get(page("m.login.magic"), session=session)).errcode == "M_NOT_FOUND"
    assert (await client.get(page("m.login.dummy"))).errcode == "M_MISSING_PARAM"
    assert (await submit(client, "m.login.dummy", session="unknown")).status == 404
    assert (await submit(client, "m.login.dummy")).status == 404
    assert (
        await client.request("POST", page("m.login.dummy"), body=b"\xff=%ff")
    ).errcode == "M_INVALID_PARAM"
    assert (await client.request("POST", page("m.login.dummy"), body=b"x" * 10_000)).errcode == "M_TOO_LARGE"


async def test_what_stands_in_the_address_cannot_become_html(homeserver):
    hostile = '"><script>alert(1)</script>'
    form = check_page(await homeserver.client.get(page("m.login.dummy"), session=hostile))
    assert "<script>" not in form


async def test_the_login_page(homeserver):
    for path in ("/_matrix/static/client/login", "/_matrix/static/client/login/"):
        login = check_page(await homeserver.client.get(path, device_id="ABC"))
        assert "window.matrixLogin.onLogin(session)" in login
