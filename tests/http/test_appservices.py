"""Application services: whom they may be, and what others may not take from them."""

import pytest

from ranvier.app.config import RateLimitsConfig, RegistrationConfig

from .appservice import AS_TOKEN, registered, registration
from .client import Client, segment
from .olm import Key, cross_signing_key

REGISTER = "/_matrix/client/v3/register"
LOGIN = "/_matrix/client/v3/login"
WHOAMI = "/_matrix/client/v3/account/whoami"
CREATE = "/_matrix/client/v3/createRoom"
TYPE = {"type": "m.login.application_service"}


def alias_path(alias: str) -> str:
    return f"/_matrix/client/v3/directory/room/{segment(alias)}"


async def add_ghost(bridge: Client, name: str, **more) -> dict:
    answer = await bridge.post(REGISTER, TYPE | {"username": name} | more)
    assert answer.status == 200, answer.body
    return answer.json


@pytest.fixture
async def homeserver(start_homeserver, tmp_path):
    other = registration(
        None,
        id="other",
        as_token="other-secret",
        sender_localpart="otherbot",
        namespaces={"users": [{"regex": "@(ghost|human)_.*", "exclusive": False}]},
    )
    return await start_homeserver(
        appservices=registered(tmp_path, registration(None), other),
        registration=RegistrationConfig(mode="closed"),
    )


@pytest.fixture
def bridge(homeserver):
    return homeserver.client.as_user(AS_TOKEN)


async def test_a_service_is_its_own_user_without_registering(bridge):
    assert (await bridge.get(WHOAMI)).json == {"user_id": "@bridgebot:test", "is_guest": False}
    assert (await bridge.get(WHOAMI, user_id="@bridgebot:test")).status == 200


async def test_a_service_registers_its_users_though_registration_is_closed(bridge):
    session = await add_ghost(bridge, "ghost_1", device_id="ONE", initial_device_display_name="Ghost")
    assert session["user_id"] == "@ghost_1:test"
    assert session["device_id"] == "ONE"
    assert (await bridge.as_user(session["access_token"]).get(WHOAMI)).json["user_id"] == "@ghost_1:test"
    quiet = await add_ghost(bridge, "ghost_2", inhibit_login=True)
    assert quiet == {"user_id": "@ghost_2:test"}
    # Names that bridges have always made.
    assert (await add_ghost(bridge, "ghost_Foo[m]"))["user_id"] == "@ghost_Foo[m]:test"
    again = await bridge.post(REGISTER, TYPE | {"username": "ghost_1"})
    assert again.errcode == "M_USER_IN_USE"


@pytest.mark.parametrize(
    ("username", "errcode"),
    [
        ("alice", "M_EXCLUSIVE"),
        ("otherbot", "M_EXCLUSIVE"),
        ("", "M_EXCLUSIVE"),
        ("ghost_:x", "M_INVALID_USERNAME"),
        ("ghost_" + "x" * 255, "M_INVALID_USERNAME"),
        (None, "M_MISSING_PARAM"),
        (5, "M_BAD_JSON"),
    ],
)
async def test_users_that_a_service_may_not_make(bridge, username, errcode):
    answer = await bridge.post(REGISTER, TYPE | {"username": username})
    assert (answer.status, answer.errcode) == (400, errcode)


async def test_an_exclusive_namespace_is_closed_to_other_services(bridge):
    other = bridge.as_user("other-secret")
    answer = await other.post(REGISTER, TYPE | {"username": "ghost_9"})
    assert (answer.status, answer.errcode) == (400, "M_EXCLUSIVE")
    assert (await other.post(REGISTER, TYPE | {"username": "human_9"})).status == 200


@pytest.mark.parametrize(
    ("path", "more"), [(REGISTER, {"username": "ghost_1"}), (LOGIN, {"user": "ghost_1"})]
)
async def test_only_services_use_their_login_type(bridge, path, more):
    missing = await bridge.as_user(None).post(path, TYPE | more)
    assert (missing.status, missing.errcode) == (401, "M_MISSING_TOKEN")
    unknown = await bridge.as_user("nonsense").post(path, TYPE | more)
    assert (unknown.status, unknown.errcode) == (401, "M_UNKNOWN_TOKEN")


async def test_a_service_logs_its_users_in(bridge):
    await add_ghost(bridge, "ghost_1", inhibit_login=True)
    flows = (await bridge.get(LOGIN)).json["flows"]
    assert TYPE in flows
    identifier = {"type": "m.id.user", "user": "ghost_1"}
    session = await bridge.post(LOGIN, TYPE | {"identifier": identifier, "device_id": "D"})
    assert session.status == 200
    ghost = bridge.as_user(session.json["access_token"])
    assert (await ghost.get(WHOAMI)).json["device_id"] == "D"
    elsewhere = await bridge.post(LOGIN, TYPE | {"identifier": identifier | {"user": "alice"}})
    assert (elsewhere.status, elsewhere.errcode) == (400, "M_EXCLUSIVE")
    nobody = await bridge.post(LOGIN, TYPE | {"identifier": identifier | {"user": "ghost_2"}})
    assert (nobody.status, nobody.errcode) == (403, "M_FORBIDDEN")


async def test_acting_as_users_and_devices(bridge):
    await add_ghost(bridge, "ghost_1", device_id="ONE")
    as_ghost = await bridge.get(WHOAMI, user_id="@ghost_1:test")
    assert as_ghost.json == {"user_id": "@ghost_1:test", "is_guest": False}
    for name in ("device_id", "org.matrix.msc3202.device_id"):
        as_device = await bridge.get(WHOAMI, user_id="@ghost_1:test", **{name: "ONE"})
        assert as_device.json["device_id"] == "ONE"
    unknown = await bridge.get(WHOAMI, user_id="@ghost_1:test", device_id="TWO")
    assert (unknown.status, unknown.errcode) == (400, "M_UNKNOWN_DEVICE")
    of_sender = await bridge.get(WHOAMI, device_id="ONE")
    assert of_sender.errcode == "M_UNKNOWN_DEVICE"
    for nobody in ("@alice:test", "@ghost_2:test", "@ghost_1:elsewhere", "ghost_1", ""):
        answer = await bridge.get(WHOAMI, user_id=nobody)
        assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN"), nobody


async def test_users_cannot_act_as_others(start_homeserver, tmp_path):
    homeserver = await start_homeserver(appservices=registered(tmp_path, registration(None)))
    alice = await homeserver.register("alice")
    answer = await alice.get(WHOAMI, user_id="@bridgebot:test", device_id="X")
    assert answer.json["user_id"] == "@alice:test"
    taken = await homeserver.client.post(
        REGISTER, {"username": "ghost_7", "password": "x" * 20, "auth": {"type": "m.login.dummy"}}
    )
    assert (taken.status, taken.errcode) == (400, "M_EXCLUSIVE")
    for name in ("ghost_7", "bridgebot"):
        answer = await homeserver.client.get(f"{REGISTER}/available", username=name)
        assert answer.errcode == "M_EXCLUSIVE"


async def test_a_device_that_is_gone_and_a_user_that_is_closed_are_known_at_once(bridge):
    await add_ghost(bridge, "ghost_1", inhibit_login=True)
    ghost = {"user_id": "@ghost_1:test"}
    made = await bridge.put("/_matrix/client/v3/devices/NEW?user_id=@ghost_1:test", {"display_name": "n"})
    assert made.status == 201
    assert (await bridge.get(WHOAMI, **ghost, device_id="NEW")).status == 200
    # No user-interactive authentication.
    gone = await bridge.delete("/_matrix/client/v3/devices/NEW", **ghost)
    assert gone.status == 200
    assert (await bridge.get(WHOAMI, **ghost, device_id="NEW")).errcode == "M_UNKNOWN_DEVICE"
    closed = await bridge.post("/_matrix/client/v3/account/deactivate", {}, **ghost)
    assert closed.status == 200, closed.body
    assert (await bridge.get(WHOAMI, **ghost)).errcode == "M_USER_DEACTIVATED"


async def test_other_cross_signing_keys_need_no_authentication(homeserver, bridge):
    session = await add_ghost(bridge, "ghost_1")
    ghost = homeserver.user(session)
    path = "/_matrix/client/v3/keys/device_signing/upload?user_id=@ghost_1:test"
    for key in (Key(1), Key(2)):
        answer = await bridge.post(path, {"master_key": cross_signing_key(ghost, "master", key)})
        assert answer.status == 200, answer.body


async def test_what_needs_a_device_says_so(bridge):
    answer = await bridge.post("/_matrix/client/v3/keys/upload", {"one_time_keys": {}})
    assert answer.status == 400, answer.body
    assert (await bridge.get("/_matrix/client/v3/sync", timeout=0)).status == 200


async def test_events_have_the_time_that_the_service_gives_them(bridge):
    room_id = (await bridge.post(CREATE, {})).json["room_id"]
    room = f"/_matrix/client/v3/rooms/{segment(room_id)}"
    sent = await bridge.put(f"{room}/send/m.room.message/1?ts=1234", {"body": "x", "msgtype": "m.text"})
    state = await bridge.put(f"{room}/state/m.room.topic?ts=5678", {"topic": "x"})
    member = await bridge.put(
        f"{room}/state/m.room.member/{segment('@bridgebot:test')}?ts=91011",
        {"membership": "join", "displayname": "Bot"},
    )
    redaction = await bridge.put(
        f"{room}/send/m.room.redaction/2?ts=1213", {"redacts": sent.json["event_id"]}
    )
    for answer, ts in ((sent, 1234), (state, 5678), (member, 91011), (redaction, 1213)):
        event = await bridge.get(f"{room}/event/{segment(answer.json['event_id'])}")
        assert event.json["origin_server_ts"] == ts, event.json
    for bad in ("-1", "x", "1.5"):
        answer = await bridge.put(f"{room}/send/m.room.message/3?ts={bad}", {"body": "x"})
        assert answer.status == 400
    invited = await bridge.put(
        f"{room}/state/m.room.member/{segment('@bob:test')}?ts=77", {"membership": "invite"}
    )
    event = await bridge.get(f"{room}/event/{segment(invited.json['event_id'])}")
    assert event.json["origin_server_ts"] == 77


async def test_users_cannot_choose_the_time(start_homeserver, tmp_path):
    homeserver = await start_homeserver()
    alice = await homeserver.register("alice")
    room_id = (await alice.post(CREATE, {})).json["room_id"]
    room = f"/_matrix/client/v3/rooms/{segment(room_id)}"
    sent = await alice.put(f"{room}/send/m.room.message/1?ts=1234", {"body": "x"})
    event = await alice.get(f"{room}/event/{segment(sent.json['event_id'])}")
    assert event.json["origin_server_ts"] > 1234


async def test_aliases_of_a_service_are_its_own(start_homeserver, tmp_path):
    homeserver = await start_homeserver(appservices=registered(tmp_path, registration(None)))
    alice = await homeserver.register("alice", admin=True)
    bridge = homeserver.client.as_user(AS_TOKEN)
    own = (await alice.post(CREATE, {})).json["room_id"]
    theirs = (await bridge.post(CREATE, {"room_alias_name": "portal_1"})).json["room_id"]
    assert (await alice.put(alias_path("#portal_2:test"), {"room_id": own})).errcode == "M_EXCLUSIVE"
    assert (await alice.post(CREATE, {"room_alias_name": "portal_2"})).errcode == "M_EXCLUSIVE"
    assert (await alice.delete(alias_path("#portal_1:test"))).errcode == "M_EXCLUSIVE"
    outside = await bridge.put(alias_path("#lounge:test"), {"room_id": theirs})
    assert (outside.status, outside.errcode) == (400, "M_EXCLUSIVE")
    assert (await bridge.post(CREATE, {"room_alias_name": "lounge"})).errcode == "M_EXCLUSIVE"
    # A ghost made it; the service manages all that is in its namespace.
    await add_ghost(bridge, "ghost_1", inhibit_login=True)
    made = await bridge.post(CREATE, {"room_alias_name": "portal_3"}, user_id="@ghost_1:test")
    assert made.status == 200
    assert (await bridge.delete(alias_path("#portal_3:test"))).status == 200


async def test_rate_limits_of_services(start_homeserver, tmp_path):
    limits = {"rate_limits": RateLimitsConfig(enabled=True)}
    counted = await start_homeserver(appservices=registered(tmp_path, registration(None)), **limits)
    bridge = counted.client.as_user(AS_TOKEN)
    for number in range(20):
        await add_ghost(bridge, f"ghost_{number}", inhibit_login=True)
    statuses = [(await bridge.get(WHOAMI, user_id="@ghost_1:test")).status for _ in range(400)]
    assert 429 in statuses
    assert {(await bridge.get(WHOAMI)).status for _ in range(400)} == {200}
    (tmp_path / "free").mkdir()
    config = registered(tmp_path / "free", registration(None, rate_limited=False))
    free = (await start_homeserver(appservices=config, **limits)).client.as_user(AS_TOKEN)
    await add_ghost(free, "ghost_1", inhibit_login=True)
    assert {(await free.get(WHOAMI, user_id="@ghost_1:test")).status for _ in range(400)} == {200}


async def test_transaction_ids_are_each_users_own(bridge):
    for name in ("ghost_1", "ghost_2"):
        await add_ghost(bridge, name, inhibit_login=True)
    room_id = (await bridge.post(CREATE, {"invite": ["@ghost_1:test", "@ghost_2:test"]})).json["room_id"]
    room = f"/_matrix/client/v3/rooms/{segment(room_id)}"
    sent = []
    for user in ("@ghost_1:test", "@ghost_2:test", "@ghost_1:test"):
        assert (await bridge.post(f"{room}/join", {}, user_id=user)).status == 200
        answer = await bridge.put(f"{room}/send/m.room.message/t", {"body": user}, user_id=user)
        sent.append(answer.json["event_id"])
    assert sent[0] == sent[2] != sent[1]
