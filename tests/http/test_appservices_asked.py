"""What application services are asked: for users and aliases, for other networks, whether they are there."""

import asyncio

import pytest
from aiohttp import web

from ranvier.services.appservices import pinging, queries

from .appservice import AS_TOKEN, HS_TOKEN, played_appservice, registered, registration
from .client import segment
from .test_appservices import CREATE, REGISTER, TYPE, alias_path

PING = "/_matrix/client/v1/appservice/bridge/ping"
THIRD_PARTY = "/_matrix/client/v3/thirdparty"
PUBLIC = "/_matrix/client/v3/publicRooms"


@pytest.fixture
async def played():
    async with played_appservice() as one:
        yield one


@pytest.fixture
async def homeserver(start_homeserver, played, tmp_path):
    return await start_homeserver(
        appservices=registered(tmp_path, registration(played.url, protocols=["irc"]))
    )


@pytest.fixture
def bridge(homeserver):
    return homeserver.client.as_user(AS_TOKEN)


def makes_users(played, bridge):
    """Let the service make each user that it is asked for but `@ghost_not…`."""

    async def answer(request: web.Request) -> web.Response:
        user_id = request.path.rpartition("/")[2]
        if user_id.startswith("@ghost_not"):
            return web.json_response({"errcode": "M_NOT_FOUND"}, status=404)
        name = user_id[1:].partition(":")[0]
        made = await bridge.post(REGISTER, TYPE | {"username": name, "inhibit_login": True})
        assert made.status == 200
        await bridge.put(
            f"/_matrix/client/v3/profile/{segment(user_id)}/displayname?user_id={segment(user_id)}",
            {"displayname": f"Ghost {name}"},
        )
        return web.json_response({})

    played.answers["/_matrix/app/v1/users/"] = answer


async def test_an_invited_user_is_made_first(homeserver, played, bridge):
    makes_users(played, bridge)
    alice = await homeserver.register("alice")
    room_id = (await alice.post(CREATE, {"invite": ["@ghost_1:test"]})).json["room_id"]
    room = f"/_matrix/client/v3/rooms/{segment(room_id)}"
    member = await alice.get(f"{room}/state/m.room.member/{segment('@ghost_1:test')}")
    assert member.json == {"membership": "invite", "displayname": "Ghost ghost_1"}
    asked = [path for method, path in played.requests if method == "GET"]
    assert asked == ["/_matrix/app/v1/users/%40ghost_1%3Atest"]
    # Whom the service does not know may be invited as anybody who is not there; and others are not asked for.
    for nobody in ("@ghost_not:test", "@nobody:test", "@bridgebot:test"):
        assert (await alice.post(f"{room}/invite", {"user_id": nobody})).status == 200
    asked = [path for method, path in played.requests if method == "GET"]
    assert asked[1:] == ["/_matrix/app/v1/users/%40ghost_not%3Atest"]


async def test_the_profile_of_a_user_that_is_not_there_yet(homeserver, played, bridge):
    makes_users(played, bridge)
    profile = f"/_matrix/client/v3/profile/{segment('@ghost_1:test')}"
    assert (await homeserver.client.get(profile)).json == {"displayname": "Ghost ghost_1"}
    missing = await homeserver.client.get(f"/_matrix/client/v3/profile/{segment('@ghost_not:test')}")
    assert (missing.status, missing.errcode) == (404, "M_NOT_FOUND")


async def test_an_alias_is_made_when_it_is_asked_for(homeserver, played, bridge):
    async def answer(request: web.Request) -> web.Response:
        made = await bridge.post(CREATE, {"room_alias_name": "portal_1", "preset": "public_chat"})
        assert made.status == 200
        return web.json_response({})

    played.answers["/_matrix/app/v1/rooms/%23portal_1"] = answer
    alice = await homeserver.register("alice")
    joined = await alice.post(f"/_matrix/client/v3/join/{segment('#portal_1:test')}", {})
    assert joined.status == 200, joined.body
    played.say("/rooms/", {})
    played.refuse("/_matrix/app/v1/rooms/", 404)
    # It says yes, on a path of old, but has made nothing.
    assert (await alice.get(alias_path("#portal_2:test"))).errcode == "M_NOT_FOUND"
    played.refuse("/rooms/", 404)
    assert (await alice.get(alias_path("#portal_3:test"))).errcode == "M_NOT_FOUND"
    before = len(played.requests)
    assert (await alice.get(alias_path("#elsewhere:test"))).errcode == "M_NOT_FOUND"
    assert len(played.requests) == before


async def test_an_alias_of_a_service_that_does_not_answer(homeserver, played, monkeypatch):
    monkeypatch.setattr(queries, "TIMEOUT_S", 0.1)

    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    played.answers["/_matrix/app/v1/rooms/"] = hang
    answer = await homeserver.client.get(alias_path("#portal_1:test"))
    assert answer.status == 408
    assert len(played.requests) == queries.ATTEMPTS


async def test_a_ping_goes_both_ways(played, bridge):
    played.say("/_matrix/app/v1/ping", {})
    answer = await bridge.post(PING, {"transaction_id": "meow"})
    assert answer.status == 200
    assert answer.json.keys() == {"duration_ms"}
    assert isinstance(answer.json["duration_ms"], int)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_a_ping_that_is_refused(played, bridge, status):
    played.refuse("/_matrix/app/v1/ping", status, b'{"errcode":"M_OH\xff"}')
    answer = await bridge.post(PING, {})
    assert (answer.status, answer.errcode, answer.json["status"]) == (502, "M_BAD_STATUS", status)
    assert answer.json["body"].startswith('{"errcode":"M_OH')


async def test_a_ping_that_finds_nobody(start_homeserver, played, tmp_path, monkeypatch):
    (tmp_path / "away").mkdir()
    away = await start_homeserver(
        appservices=registered(tmp_path / "away", registration("http://127.0.0.1:9"))
    )
    answer = await away.client.as_user(AS_TOKEN).post(PING, {})
    assert (answer.status, answer.errcode) == (502, "M_CONNECTION_FAILED")
    without = await start_homeserver(appservices=registered(tmp_path, registration(None)))
    answer = await without.client.as_user(AS_TOKEN).post(PING, {})
    assert (answer.status, answer.errcode) == (400, "M_URL_NOT_SET")


async def test_a_ping_that_takes_too_long(played, bridge, monkeypatch):
    monkeypatch.setattr(pinging, "TIMEOUT_S", 0.1)

    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    played.answers["/_matrix/app/v1/ping"] = hang
    answer = await bridge.post(PING, {})
    assert (answer.status, answer.errcode) == (504, "M_CONNECTION_TIMEOUT")


async def test_who_may_ask_for_a_ping(homeserver, bridge):
    alice = await homeserver.register("alice")
    for client, path, status, errcode in (
        (alice, PING, 403, "M_FORBIDDEN"),
        (bridge, PING.replace("bridge", "other"), 403, "M_FORBIDDEN"),
        (bridge.as_user("nonsense"), PING, 401, "M_UNKNOWN_TOKEN"),
        (bridge.as_user(None), PING, 401, "M_MISSING_TOKEN"),
    ):
        answer = await client.post(path, {})
        assert (answer.status, answer.errcode) == (status, errcode)
    assert (await bridge.post(PING, {"transaction_id": 5})).errcode == "M_BAD_JSON"


def protocol(*networks: str) -> dict:
    return {
        "user_fields": ["nick"],
        "location_fields": ["channel"],
        "icon": "mxc://test/icon",
        "field_types": {"nick": {"regexp": ".*", "placeholder": "nick"}},
        "instances": [{"network_id": one, "desc": one, "fields": {"network": one}} for one in networks],
    }


async def test_protocols_are_merged_and_remembered(start_homeserver, tmp_path):
    async with played_appservice() as first, played_appservice() as second:
        homeserver = await start_homeserver(
            appservices=registered(
                tmp_path,
                registration(first.url, protocols=["irc", "gone"]),
                registration(
                    second.url, id="b2", as_token="t2", sender_localpart="b2", protocols=["irc", "xmpp"]
                ),
            )
        )
        first.say("/_matrix/app/v1/thirdparty/protocol/irc", protocol("libera"))
        second.say("/_matrix/app/v1/thirdparty/protocol/irc", protocol("oftc"))
        second.say("/_matrix/app/v1/thirdparty/protocol/xmpp", {"user_fields": 5})
        alice = await homeserver.register("alice")
        for _ in range(3):
            answer = await alice.get(f"{THIRD_PARTY}/protocols")
            assert answer.status == 200
            assert answer.json.keys() == {"irc"}
        irc = answer.json["irc"]
        assert [(one["network_id"], one["instance_id"]) for one in irc["instances"]] == [
            ("libera", "bridge|libera"),
            ("oftc", "b2|oftc"),
        ]
        assert (await alice.get(f"{THIRD_PARTY}/protocol/irc")).json == irc
        for unknown in ("gone", "xmpp", "nonsense"):
            missing = await alice.get(f"{THIRD_PARTY}/protocol/{unknown}")
            assert (missing.status, missing.errcode) == (404, "M_NOT_FOUND")
        assert first.requests.count(("GET", "/_matrix/app/v1/thirdparty/protocol/irc")) == 1
        assert (await homeserver.client.get(f"{THIRD_PARTY}/protocols")).errcode == "M_MISSING_TOKEN"


async def test_places_and_people_of_other_networks(homeserver, played):
    alice = await homeserver.register("alice")
    location = {"alias": "#portal_x:test", "protocol": "irc", "fields": {"channel": "#x"}}
    user = {"userid": "@ghost_x:test", "protocol": "irc", "fields": {"nick": "x"}}
    base = "/_matrix/app/v1/thirdparty"
    played.say(f"{base}/location", [location, {"alias": 5}, "nonsense"])
    played.say(f"{base}/user", [user, None])
    fields = {"channel": "#x y", "network": "ü"}
    assert (await alice.get(f"{THIRD_PARTY}/location/irc", **fields)).json == [location]
    assert played.queries[-1] == fields
    assert (await alice.get(f"{THIRD_PARTY}/user/irc?nick=x&access_token=mine")).json == [user]
    assert played.queries[-1] == {"nick": "x"}
    assert (await alice.get(f"{THIRD_PARTY}/location", alias="#portal_x:test")).json == [location]
    assert played.queries[-1] == {"alias": "#portal_x:test"}
    assert (await alice.get(f"{THIRD_PARTY}/user", userid="@ghost_x:test")).json == [user]
    asked = len(played.requests)
    for path, query in (
        ("location/xmpp", {}),
        ("user/xmpp", {}),
        ("location", {"alias": "#other:test"}),
        ("user", {"userid": "@other:test"}),
    ):
        answer = await alice.get(f"{THIRD_PARTY}/{path}", **query)
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    assert len(played.requests) == asked
    assert (await alice.get(f"{THIRD_PARTY}/location")).errcode == "M_MISSING_PARAM"
    assert (await alice.get(f"{THIRD_PARTY}/user", userid="nonsense")).errcode == "M_INVALID_PARAM"


@pytest.mark.parametrize("nonsense", [b"", b"{}", b"[1", b"5", b'[{"alias":{}}]', b"\xff"])
async def test_nonsense_about_other_networks_is_nothing(homeserver, played, nonsense):
    alice = await homeserver.register("alice")

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=nonsense)

    played.answers["/_matrix/app/v1/thirdparty"] = answer
    for path in ("location/irc", "user/irc", "protocol/irc"):
        found = await alice.get(f"{THIRD_PARTY}/{path}")
        assert (found.status, found.errcode) == (404, "M_NOT_FOUND")
    assert (await alice.get(f"{THIRD_PARTY}/protocols")).json == {}


async def test_directories_of_networks(homeserver, bridge):
    alice = await homeserver.register("alice")
    public = (await alice.post(CREATE, {"visibility": "public", "name": "own"})).json["room_id"]
    portal = (await bridge.post(CREATE, {"name": "portal"})).json["room_id"]
    path = f"/_matrix/client/v3/directory/list/appservice/libera/{segment(portal)}"

    async def names(**body) -> set[str]:
        answer = await alice.post(PUBLIC, body)
        return {one["room_id"] for one in answer.json["chunk"]}

    assert (await bridge.put(path, {"visibility": "public"})).status == 200
    assert await names() == {public}
    assert await names(third_party_instance_id="bridge|libera") == {portal}
    assert await names(include_all_networks=True) == {public, portal}
    assert (await bridge.put(path, {"visibility": "private"})).status == 200
    assert await names(include_all_networks=True) == {public}
    for client, body, status, errcode in (
        (alice, {"visibility": "public"}, 403, "M_FORBIDDEN"),
        (bridge, {}, 400, "M_MISSING_PARAM"),
        (bridge, {"visibility": "other"}, 400, "M_BAD_JSON"),
        (bridge.as_user("x"), {"visibility": "public"}, 401, "M_UNKNOWN_TOKEN"),
    ):
        answer = await client.put(path, body)
        assert (answer.status, answer.errcode) == (status, errcode)
    unknown = f"/_matrix/client/v3/directory/list/appservice/libera/{segment('!none:test')}"
    assert (await bridge.put(unknown, {"visibility": "public"})).errcode == "M_NOT_FOUND"


async def test_every_request_shows_the_token(homeserver, played, bridge):
    makes_users(played, bridge)
    await homeserver.client.get(f"/_matrix/client/v3/profile/{segment('@ghost_1:test')}")
    assert HS_TOKEN not in str(played.queries)
    assert played.requests
