"""The HTTP floor without a homeserver behind it: routing, checks, errors, limits."""

import asyncio

import msgspec
import pytest

from ranvier.core.errors import Forbidden, UnknownToken
from ranvier.core.identifiers import DeviceID, UserID
from ranvier.http import body_budget
from ranvier.http.asgi import Guards, build_app
from ranvier.http.body_budget import BodyBudget
from ranvier.http.endpoint import Api, Auth, Endpoint, Rate, endpoint
from ranvier.http.ratelimit import DEFAULT_ALLOWANCES, NoLimits, TokenBuckets
from ranvier.http.request import Request
from ranvier.services.requester import Requester
from ranvier.store.database import Unavailable

from .client import Client, segment

ALICE = Requester(user_id=UserID("@alice:test"), user_nid=1, device_id=DeviceID("D"))
USERS = {
    "alice": ALICE,
    "guest": msgspec.structs.replace(ALICE, is_guest=True),
    "locked": msgspec.structs.replace(ALICE, is_locked=True),
    "root": msgspec.structs.replace(ALICE, is_admin=True),
}


class Body(msgspec.Struct):
    limit: int
    name: str = ""


class Things:
    @endpoint("GET", "/things/{roomId}/state/{eventType}/{stateKey}", operation="getThing")
    async def get_thing(self, request: Request) -> dict[str, str]:
        return dict(request.path)

    @endpoint("PUT", "/things/{id}", operation="putThing", max_body_bytes=1000)
    async def put_thing(self, request: Request) -> Body:
        return request.body(Body)

    @endpoint("GET", "/_matrix/client/v3/things", operation="listThings", guests=True, locked=True)
    async def list_things(self, request: Request) -> bytes:
        query = request.query()
        return b"[%d,%d]" % (query.integer("limit", 10, most=50), query.boolean("deep"))

    @endpoint("POST", "/fail/{how}", operation="fail", auth=Auth.NONE)
    async def fail(self, request: Request) -> None:
        raise {
            "forbidden": Forbidden("No.", extra_field=1),
            "bug": RuntimeError("secret detail"),
            "store": Unavailable("disk full"),
        }[request.path["how"]]

    @endpoint("GET", "/admin", operation="admin", auth=Auth.ADMIN, api=Api.ADMIN)
    async def admin(self, _request: Request) -> dict[str, str]:
        return {}

    @endpoint("GET", "/login", operation="login", auth=Auth.NONE, rate=Rate.LOGIN)
    async def login(self, _request: Request) -> dict[str, str]:
        return {}


class Tokens:
    async def user(self, token: str, acting_as: str | None, device_id: str | None) -> Requester:
        if token not in USERS:
            raise UnknownToken("Unknown token.", soft_logout=False)
        return USERS[token]

    def seen(self, requester: Requester, ip: str, agent: str | None) -> None:
        return

    async def appservice(self, token: str) -> Requester:
        raise UnknownToken("Unknown token.")


class Counts:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def answered(self, endpoint: Endpoint, status: int, seconds: float) -> None:
        self.seen.append((endpoint.operation, status))


@pytest.fixture
def counts():
    return Counts()


@pytest.fixture
def client(counts):
    guards = Guards(Tokens(), None, NoLimits(), counts)
    return Client(build_app([Things()], guards, frozenset(Api)), "alice")


async def test_path_segments_are_decoded_one_by_one(client):
    answer = await client.get(f"/things/{segment('!a/b:c')}/state/m.x/{segment('#ü/%')}")
    assert answer.json == {"roomId": "!a/b:c", "eventType": "m.x", "stateKey": "#ü/%"}
    assert (await client.get("/things/r/state/m.x/")).json["stateKey"] == ""


@pytest.mark.parametrize("octet", ["%ff", "%00"])
async def test_a_path_that_is_not_text_is_refused(client, octet):
    answer = await client.get(f"/things/{octet}/state/a/b")
    assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("method", "path", "status", "errcode"),
    [
        ("GET", "/nowhere", 404, "M_UNRECOGNIZED"),
        ("GET", "/_matrix/client/v3/nowhere", 404, "M_UNRECOGNIZED"),
        ("POST", "/things/x", 405, "M_UNRECOGNIZED"),
        ("PATCH", "/things/x", 405, "M_UNRECOGNIZED"),
    ],
)
async def test_what_is_not_there(client, method, path, status, errcode):
    answer = await client.request(method, path)
    assert (answer.status, answer.errcode) == (status, errcode)
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_browsers_may_ask_before_they_ask(client):
    for path in ("/things/x", "/nowhere"):
        answer = await client.as_user(None).request("OPTIONS", path)
        assert answer.status == 200
        assert "Authorization" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("token", "status", "errcode"),
    [
        (None, 401, "M_MISSING_TOKEN"),
        ("wrong", 401, "M_UNKNOWN_TOKEN"),
        ("guest", 403, "M_GUEST_ACCESS_FORBIDDEN"),
        ("locked", 401, "M_USER_LOCKED"),
    ],
)
async def test_who_may_call(client, token, status, errcode):
    answer = await client.as_user(token).put("/things/x", {"limit": 1})
    assert (answer.status, answer.errcode) == (status, errcode)


async def test_guests_and_locked_users_where_they_are_let_in(client):
    for token in ("guest", "locked"):
        assert (await client.as_user(token).get("/_matrix/client/v3/things")).status == 200


async def test_a_token_may_stand_in_the_query(client):
    answer = await client.as_user(None).get("/_matrix/client/v3/things", access_token="alice")
    assert answer.status == 200


async def test_only_administrators_reach_what_is_theirs(client):
    assert (await client.get("/admin")).errcode == "M_FORBIDDEN"
    assert (await client.as_user("root").get("/admin")).status == 200


class LargeThings:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    @endpoint("PUT", "/large/{id}", operation="putLarge", auth=Auth.NONE)
    async def put_large(self, _request: Request) -> dict[str, str]:
        await self.may_answer.wait()
        return {}


async def test_large_bodies_take_no_more_memory_than_they_may(monkeypatch):
    """Of all together, and of those of one network; who was answered has given back what they took."""
    monkeypatch.setattr(body_budget, "UNCOUNTED_BYTES", 10)
    things = LargeThings()
    guards = Guards(Tokens(), None, NoLimits(), Counts(), BodyBudget(max_bytes=300, max_of_one=200))
    app = build_app([things], guards, frozenset(Api))
    one, other = Client(app, None, ip="10.0.0.1"), Client(app, None, ip="10.0.0.2")

    async def put(client: Client, size: int) -> int:
        return (await client.request("PUT", "/large/x", body=b"x" * size)).status

    for _ in range(3):
        things.may_answer.clear()
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(put(one, 90)), tasks.create_task(put(one, 90))]
            await asyncio.sleep(0)
            assert await put(one, 90) == 429  # its network has two already
            waiting += [tasks.create_task(put(one, 10)), tasks.create_task(put(other, 90))]
            await asyncio.sleep(0)
            assert await put(other, 90) == 429  # all together have three
            things.may_answer.set()
        assert [task.result() for task in waiting] == [200, 200, 200, 200]


async def test_a_listener_without_an_api_does_not_know_it():
    app = build_app([Things()], Guards(Tokens(), None, NoLimits(), Counts()), frozenset({Api.CLIENT}))
    assert (await Client(app, "root").get("/admin")).errcode == "M_UNRECOGNIZED"


@pytest.mark.parametrize(
    ("body", "errcode", "words"),
    [
        (b"", "M_NOT_JSON", "JSON"),
        (b"{", "M_NOT_JSON", "JSON"),
        (b"[]", "M_BAD_JSON", "object"),
        (b'{"limit":NaN}', "M_NOT_JSON", "JSON"),
        (b"\xff\xfe", "M_NOT_JSON", "JSON"),
        (b'{"limit":"x"}', "M_BAD_JSON", "limit"),
        (b"{}", "M_MISSING_PARAM", "limit"),
        (b'{"limit":1,"name":' + b"[" * 300 + b"]" * 300 + b"}", "M_NOT_JSON", ""),
    ],
)
async def test_bodies_that_do_not_fit(client, body, errcode, words):
    answer = await client.request("PUT", "/things/x", body=body)
    assert (answer.status, answer.errcode) == (400, errcode)
    assert words in answer.json["error"]


async def test_a_body_above_its_bound_is_refused(client):
    answer = await client.request("PUT", "/things/x", body=b'{"limit":1,"name":"%s"}' % (b"x" * 1000))
    assert (answer.status, answer.errcode) == (413, "M_TOO_LARGE")


async def test_a_struct_is_answered(client):
    assert (await client.put("/things/x", {"limit": 3, "other": 1})).json == {"limit": 3, "name": ""}


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=-1", "limit=1.5", "limit=" + "9" * 30, "deep=yes", "limit=%ff"]
)
async def test_queries_that_do_not_fit(client, query):
    answer = await client.get(f"/_matrix/client/v3/things?{query}")
    assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")


async def test_a_limit_is_cut_down(client):
    assert (await client.get("/_matrix/client/r0/things", limit=1000, deep="true")).json == [50, 1]


async def test_errors_become_what_the_specification_says(client, caplog):
    forbidden = await client.post("/fail/forbidden", {})
    assert (forbidden.status, forbidden.json) == (
        403,
        {"errcode": "M_FORBIDDEN", "error": "No.", "extra_field": 1},
    )
    assert (await client.post("/fail/store", {})).status == 503
    bug = await client.post("/fail/bug", {})
    assert (bug.status, bug.errcode) == (500, "M_UNKNOWN")
    assert "secret" not in bug.json["error"]
    number = bug.json["error"].rstrip(".").split()[-1]
    assert number in caplog.text
    assert "secret detail" in caplog.text


async def test_every_answer_is_counted(client, counts):
    await client.put("/things/x", {"limit": 3})
    await client.post("/fail/bug", {})
    assert counts.seen == [("putThing", 200), ("fail", 500)]


async def test_a_caller_who_asks_too_often_is_told_when_to_come_back():
    now = [100.0]
    limiter = TokenBuckets(lambda: now[0], DEFAULT_ALLOWANCES)
    client = Client(build_app([Things()], Guards(Tokens(), None, limiter, Counts()), frozenset(Api)))
    statuses = [(await client.get("/login")).status for _ in range(11)]
    assert statuses == [200] * 10 + [429]
    refused = await client.get("/login")
    assert refused.errcode == "M_LIMIT_EXCEEDED"
    assert refused.json["retry_after_ms"] > 0
    assert int(refused.headers["retry-after"]) * 1000 >= refused.json["retry_after_ms"]
    now[0] += refused.json["retry_after_ms"] / 1000
    assert (await client.get("/login")).status == 200


def test_two_endpoints_cannot_claim_one_path():
    with pytest.raises(ValueError, match="twice"):
        build_app([Things(), Things()], Guards(Tokens(), None, NoLimits(), Counts()), frozenset(Api))
