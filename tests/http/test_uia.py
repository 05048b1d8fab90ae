"""User-interactive authentication: sessions are good for one request of one user, and once."""

import pytest

from .homeserver import PASSWORD

C = "/_matrix/client/v3"


def proof(user="alice", password=PASSWORD, **more):
    identifier = {"type": "m.id.user", "user": user}
    return {"type": "m.login.password", "identifier": identifier, "password": password} | more


async def delete(client, device_id, auth=None):
    return await client.delete(f"{C}/devices/{device_id}", {} if auth is None else {"auth": auth})


@pytest.fixture
async def alice(homeserver):
    client = await homeserver.register("alice")
    for device_id in ("ONE", "TWO"):
        await homeserver.login("alice", device_id=device_id)
    return client


async def test_the_first_answer_says_what_to_do(alice):
    asked = await delete(alice, "ONE")
    assert asked.status == 401
    assert asked.json["flows"] == [{"stages": ["m.login.password"]}]
    assert asked.json["params"] == {}
    assert "completed" not in asked.json
    assert "errcode" not in asked.json
    assert (await delete(alice, "ONE", proof(session=asked.json["session"]))).json == {}


async def test_a_wrong_proof_may_be_mended_in_the_same_session(alice):
    session = (await delete(alice, "ONE")).json["session"]
    refused = await delete(alice, "ONE", proof(password="wrong", session=session))
    assert (refused.status, refused.errcode, refused.json["session"]) == (401, "M_FORBIDDEN", session)
    assert refused.json["error"]
    assert (await delete(alice, "ONE", proof(session=session))).status == 200


async def test_another_users_password_proves_nothing(homeserver, alice):
    await homeserver.register("bob")
    refused = await delete(alice, "ONE", proof("bob"))
    assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")
    assert "flows" not in refused.json
    assert (await alice.get(f"{C}/devices/ONE")).status == 200


async def test_another_stage_proves_nothing(alice):
    for type_ in ("m.login.dummy", "m.login.registration_token", "m.login.sso", "x" * 5000):
        refused = await delete(alice, "ONE", {"type": type_, "token": "x"})
        assert (refused.status, refused.errcode) == (401, "M_FORBIDDEN")
    assert (await alice.get(f"{C}/devices/ONE")).status == 200


async def test_a_session_is_not_good_for_another_request_or_user(homeserver, alice):
    bob = await homeserver.register("bob")
    session = (await delete(alice, "ONE")).json["session"]
    for client, device_id, user in ((alice, "TWO", "alice"), (bob, "ONE", "bob")):
        refused = await delete(client, device_id, proof(user, session=session))
        assert (refused.status, refused.errcode) == (401, "M_FORBIDDEN")
        assert refused.json["session"] != session


async def test_a_session_is_good_once_and_for_a_day(homeserver, alice):
    session = (await delete(alice, "ONE")).json["session"]
    assert (await delete(alice, "ONE", proof(session=session))).status == 200
    assert (await delete(alice, "ONE", proof(session=session))).status == 401
    late = (await delete(alice, "TWO")).json["session"]
    homeserver.clock.ahead_ms += 24 * 3_600_000
    assert (await delete(alice, "TWO", proof(session=late))).status == 401


async def test_a_session_alone_completes_nothing(alice):
    session = (await delete(alice, "ONE")).json["session"]
    again = await delete(alice, "ONE", {"session": session})
    assert (again.status, again.json["session"]) == (401, session)
    assert (await delete(alice, "ONE", {})).status == 401


@pytest.mark.parametrize(
    ("auth", "errcode"),
    [
        ({"type": 5}, "M_BAD_JSON"),
        ({"type": "m.login.password", "session": []}, "M_BAD_JSON"),
        ({"type": "m.login.password"}, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "password": "x"}, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "password": "x", "identifier": 1}, "M_BAD_JSON"),
        ([], "M_BAD_JSON"),
    ],
)
async def test_proofs_that_are_malformed(alice, auth, errcode):
    answer = await delete(alice, "ONE", auth)
    assert (answer.status, answer.errcode) == (400, errcode)
