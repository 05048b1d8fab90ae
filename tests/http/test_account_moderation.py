"""What administrators do to accounts, and what locked and suspended users still can."""

import pytest

from ranvier.app.compose.accounts import lay_accounts
from ranvier.services.flows.administration import Administration

from .homeserver import PASSWORD

C = "/_matrix/client/v3"
V1 = "/_matrix/client/v1/admin"
WHOAMI = f"{C}/account/whoami"


@pytest.fixture
def administration(homeserver):
    ports = homeserver.foundation.ports
    accounts = lay_accounts(homeserver.foundation)
    return Administration(ports.config.name, ports.db, ports.clock, accounts.creation, accounts.passwords)


@pytest.fixture
async def root(homeserver, administration):
    client = await homeserver.register("root")
    await administration.promote("root", is_admin=True)
    return client


async def test_a_locked_user_can_only_log_out(homeserver, root, alice):
    login = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    path = f"{V1}/lock/@alice:test"
    assert (await root.get(path)).json == {"locked": False}
    assert (await root.put(path, {"locked": True})).json == {"locked": True}
    assert (await root.get(path)).json == {"locked": True}
    refused = await alice.get(WHOAMI)
    assert (refused.status, refused.errcode, refused.json["soft_logout"]) == (401, "M_USER_LOCKED", True)
    assert (await root.put(path, {"locked": False})).status == 200
    assert (await alice.get(WHOAMI)).status == 200
    session = await homeserver.client.post(f"{C}/login", login | {"refresh_token": True})
    await root.put(path, {"locked": True})
    proof = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    for endpoint, body in (
        ("login", login),
        ("refresh", {"refresh_token": session.json["refresh_token"]}),
        ("account/password", {"new_password": "another password", "auth": proof}),
        ("account/deactivate", {"auth": proof}),
    ):
        refused = await homeserver.client.post(f"{C}/{endpoint}", body)
        assert (refused.status, refused.errcode, refused.json["soft_logout"]) == (401, "M_USER_LOCKED", True)
    assert (await alice.post(f"{C}/logout")).status == 200


async def test_a_suspended_user_cannot_change_the_profile(root, alice):
    path = f"{V1}/suspend/@alice:test"
    name = f"{C}/profile/@alice:test/displayname"
    assert (await root.put(path, {"suspended": True})).json == {"suspended": True}
    assert (await root.get(path)).json == {"suspended": True}
    refused = await alice.put(name, {"displayname": "x"})
    assert (refused.status, refused.errcode) == (403, "M_USER_SUSPENDED")
    assert (await alice.delete(name)).errcode == "M_USER_SUSPENDED"
    capabilities = (await alice.get(f"{C}/capabilities")).json["capabilities"]
    assert capabilities["m.profile_fields"] == {"enabled": False}
    await root.put(path, {"suspended": False})
    assert (await alice.put(name, {"displayname": "x"})).status == 200


@pytest.mark.parametrize(("what", "flag"), [("lock", "locked"), ("suspend", "suspended")])
async def test_who_may_do_what_to_whom(homeserver, administration, root, alice, what, flag):
    await homeserver.register("other")
    await administration.promote("other", is_admin=True)
    await homeserver.register("gone")
    await administration.deactivate("gone", erase=False)
    for user_id, errcode in (
        ("@nobody:test", "M_NOT_FOUND"),
        ("@gone:test", "M_NOT_FOUND"),
        ("@bob:elsewhere", "M_INVALID_PARAM"),
        ("nonsense", "M_INVALID_PARAM"),
        ("@other:test", "M_FORBIDDEN"),
    ):
        path = f"{V1}/{what}/{user_id}"
        assert (await root.get(path)).errcode == errcode
        assert (await root.put(path, {flag: True})).errcode == errcode
        # Whoever is no administrator learns nothing about anybody.
        assert (await alice.get(path)).errcode == "M_FORBIDDEN"
        assert (await alice.put(path, {flag: True})).errcode == "M_FORBIDDEN"
        assert (await homeserver.client.get(path)).errcode == "M_MISSING_TOKEN"
    assert (await root.put(f"{V1}/{what}/@root:test", {flag: True})).errcode == "M_FORBIDDEN"
    assert (await root.put(f"{V1}/{what}/@alice:test", {})).errcode == "M_MISSING_PARAM"
    assert (await root.put(f"{V1}/{what}/@alice:test", {flag: 1})).errcode == "M_BAD_JSON"


async def test_whois_is_for_oneself_and_for_administrators(homeserver, root, alice):
    path = f"{C}/admin/whois"
    assert (await root.get(f"{path}/@alice:test")).json["user_id"] == "@alice:test"
    own = (await alice.get(f"{path}/@alice:test")).json
    assert list(own["devices"]) == [alice.device_id]
    assert (await alice.get(f"{path}/@root:test")).errcode == "M_FORBIDDEN"
    assert (await alice.get(f"{path}/@nobody:test")).errcode == "M_FORBIDDEN"
    assert (await root.get(f"{path}/@nobody:test")).errcode == "M_NOT_FOUND"
    assert (await homeserver.client.get(f"{path}/@alice:test")).errcode == "M_MISSING_TOKEN"


async def test_what_the_command_line_does(homeserver, administration):
    assert await administration.add("alice", "first password", is_admin=False) == "@alice:test"
    session = await homeserver.login("alice", "first password")
    await administration.reset_password("@alice:test", "second password")
    assert (await session.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    session = await homeserver.login("alice", "second password")
    await administration.promote("alice", is_admin=True)
    assert (await session.get(f"{V1}/lock/@alice:test")).json == {"locked": False}
    await administration.promote("alice", is_admin=False)
    assert (await session.get(f"{V1}/lock/@alice:test")).errcode == "M_FORBIDDEN"
    await administration.deactivate("alice", erase=False)
    assert (await session.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    accounts = [account async for account in administration.list()]
    assert [(account.user_id, account.deactivated_ms is None) for account in accounts] == [
        ("@alice:test", False)
    ]
