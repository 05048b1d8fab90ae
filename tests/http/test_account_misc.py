"""OpenID tokens, capabilities, addresses, and calls."""

import pytest

from .homeserver import PASSWORD

C = "/_matrix/client/v3"


async def test_an_openid_token_proves_who_somebody_is(homeserver, alice):
    path = f"{C}/user/@alice:test/openid/request_token"
    token = (await alice.post(path, {})).json
    assert (token["token_type"], token["matrix_server_name"], token["expires_in"]) == ("Bearer", "test", 3600)
    userinfo = "/_matrix/federation/v1/openid/userinfo"
    for _ in range(2):
        answer = await homeserver.client.get(userinfo, access_token=token["access_token"])
        assert answer.json == {"sub": "@alice:test"}
    # It opens nothing else, and an access token proves nothing there.
    assert (await alice.as_user(token["access_token"]).get(f"{C}/devices")).errcode == "M_UNKNOWN_TOKEN"
    wrong = await homeserver.client.get(userinfo, access_token=alice.token)
    assert (wrong.status, wrong.errcode) == (401, "M_UNKNOWN_TOKEN")
    assert (await homeserver.client.get(userinfo)).errcode == "M_MISSING_TOKEN"
    homeserver.clock.ahead_ms += 3_600_000
    late = await homeserver.client.get(userinfo, access_token=token["access_token"])
    assert late.errcode == "M_UNKNOWN_TOKEN"
    assert (await alice.post(f"{C}/user/@bob:test/openid/request_token", {})).errcode == "M_FORBIDDEN"
    assert (await homeserver.client.post(path, {})).errcode == "M_MISSING_TOKEN"


async def test_capabilities(homeserver, alice):
    capabilities = (await alice.get(f"{C}/capabilities")).json["capabilities"]
    versions = capabilities["m.room_versions"]
    assert versions["available"][versions["default"]] == "stable"
    assert capabilities["m.change_password"] == {"enabled": True}
    assert capabilities["m.3pid_changes"] == {"enabled": False}
    assert "m.account_moderation" not in capabilities
    assert (await homeserver.client.get(f"{C}/capabilities")).errcode == "M_MISSING_TOKEN"


async def test_there_is_no_turn_server(homeserver, alice):
    assert (await alice.get(f"{C}/voip/turnServer")).json == {}
    assert (await homeserver.client.get(f"{C}/voip/turnServer")).errcode == "M_MISSING_TOKEN"


async def test_addresses_cannot_be_proved_here(homeserver, alice):
    assert (await alice.get(f"{C}/account/3pid")).json == {"threepids": []}
    proof = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    body = {"sid": "1", "client_secret": "secret"}
    assert (await alice.post(f"{C}/account/3pid/add", body)).status == 401
    added = await alice.post(f"{C}/account/3pid/add", body | {"auth": proof})
    assert (added.status, added.errcode) == (403, "M_THREEPID_AUTH_FAILED")
    for path in ("3pid", "3pid/bind"):
        assert (await alice.post(f"{C}/account/{path}", {})).errcode == "M_SERVER_NOT_TRUSTED"
    address = {"medium": "email", "address": "a@b.c"}
    for path in ("3pid/delete", "3pid/unbind"):
        answer = await alice.post(f"{C}/account/{path}", address)
        assert answer.json == {"id_server_unbind_result": "no-support"}
        assert (await alice.post(f"{C}/account/{path}", {})).errcode == "M_MISSING_PARAM"


@pytest.mark.parametrize(
    ("path", "status", "errcode"),
    [
        ("register", 403, "M_THREEPID_DENIED"),
        ("account/password", 400, "M_THREEPID_NOT_FOUND"),
        ("account/3pid", 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED"),
    ],
)
@pytest.mark.parametrize("medium", ["email", "msisdn"])
async def test_nothing_is_sent_to_addresses(homeserver, path, status, errcode, medium):
    answer = await homeserver.client.post(f"{C}/{path}/{medium}/requestToken", {})
    assert (answer.status, answer.errcode) == (status, errcode)
