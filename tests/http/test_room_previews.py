"""Rooms as those see them who are not in them: summaries, the trees of spaces; and rooms in common, and reports."""

import pytest

from ranvier.store.tables import reports

from .client import segment
from .rooms import C, ask, create, do, say, set_state

V1 = "/_matrix/client/v1"
UNKNOWN_ROOM = "!" + "x" * 43


def summary_path(room):
    return f"{V1}/room_summary/{segment(room)}"


async def test_a_summary(alice, bob, homeserver):
    room_id = await create(
        alice,
        preset="public_chat",
        room_alias_name="pub",
        name="Pub",
        initial_state=[{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
    )
    expected = {
        "room_id": room_id,
        "name": "Pub",
        "canonical_alias": "#pub:test",
        "num_joined_members": 1,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        "room_version": "12",
        "encryption": "m.megolm.v1.aes-sha2",
    }
    assert (await homeserver.client.get(summary_path("#pub:test"))).json == expected
    assert (await bob.get(summary_path(room_id))).json == expected
    assert (await alice.get(summary_path(room_id))).json == {**expected, "membership": "join"}
    old = f"/_matrix/client/unstable/im.nheko.summary/summary/{segment(room_id)}"
    assert (await bob.get(old)).json == expected


@pytest.mark.parametrize(
    ("join_rule", "version", "seen"),
    [
        ("public", "12", True),
        ("knock", "12", True),
        ("knock_restricted", "12", True),
        ("invite", "12", False),
        ("private", "12", False),
        ("restricted", "12", False),
        ("knock", "6", False),
    ],
)
async def test_who_sees_a_summary(alice, bob, homeserver, join_rule, version, seen):
    room_id = await create(alice, room_version=version)
    await set_state(alice, room_id, "m.room.join_rules", {"join_rule": join_rule})
    for client in (bob, homeserver.client):
        answer = await client.get(summary_path(room_id))
        assert (answer.status, answer.errcode) == ((200, None) if seen else (404, "M_NOT_FOUND"))
    await do(alice, room_id, "invite", user_id="@bob:test")
    assert (await bob.get(summary_path(room_id))).json["membership"] == "invite"
    await do(alice, room_id, "ban", user_id="@bob:test")
    assert (await bob.get(summary_path(room_id))).status == 404
    await set_state(alice, room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert (await homeserver.client.get(summary_path(room_id))).status == 200


async def test_a_restricted_room_is_seen_by_whom_it_lets_in(alice, bob):
    lobby = await create(alice, preset="public_chat")
    room_id = await create(alice)
    allow = [{"type": "m.room_membership", "room_id": lobby}, {"type": "x"}, "y"]
    await set_state(alice, room_id, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    assert (await bob.get(summary_path(room_id))).status == 404
    await do(bob, lobby, "join")
    assert (await bob.get(summary_path(room_id))).json["allowed_room_ids"] == [lobby]


async def test_summaries_of_nothing(bob):
    for room in (UNKNOWN_ROOM, "#none:test"):
        assert (await bob.get(summary_path(room))).errcode == "M_NOT_FOUND"
    assert (await bob.get(summary_path("nonsense"))).errcode == "M_INVALID_PARAM"


async def make_space(user, children, **more):
    space = await create(user, creation_content={"type": "m.space"}, **more)
    for child, content in children:
        await set_state(user, space, "m.space.child", {"via": ["test"], **content}, child)
    return space


def hierarchy(room_id):
    return f"{V1}/rooms/{segment(room_id)}/hierarchy"


async def walk(user, space, **query):
    """The room ids of all pages, in order."""
    found, token = [], None
    while True:
        answer = await user.get(hierarchy(space), **query, **({"from": token} if token else {}))
        assert answer.status == 200, answer.body
        found += [room["room_id"] for room in answer.json["rooms"]]
        token = answer.json.get("next_batch")
        if token is None:
            return found


async def test_the_tree_of_a_space(alice, bob):
    public = await create(alice, preset="public_chat", name="public")
    private = await create(alice, name="private")
    leaf = await create(alice, preset="public_chat")
    inner = await make_space(alice, [(leaf, {"order": "b"}), (public, {"order": "a"})], preset="public_chat")
    space = await make_space(
        alice,
        [
            (private, {"order": "z"}),
            (inner, {"order": "a", "suggested": True}),
            (public, {}),
            (UNKNOWN_ROOM, {}),
        ],
        preset="public_chat",
    )
    await set_state(alice, inner, "m.space.child", {"via": ["test"]}, space)  # a loop
    gone = await create(alice, preset="public_chat")
    await set_state(alice, space, "m.space.child", {"via": []}, gone)

    assert await walk(alice, space) == [space, inner, public, leaf, private]
    assert await walk(bob, space) == [space, inner, public, leaf]
    assert await walk(bob, space, limit=1) == [space, inner, public, leaf]
    assert await walk(bob, space, max_depth=1) == [space, inner, public]
    assert await walk(bob, space, max_depth=0) == [space]
    assert await walk(bob, space, suggested_only="true") == [space, inner]

    first = (await bob.get(hierarchy(space), limit=1)).json["rooms"][0]
    assert first["room_type"] == "m.space"
    assert first["num_joined_members"] == 1
    assert [child["state_key"] for child in first["children_state"]] == [inner, private, public, UNKNOWN_ROOM]
    child = first["children_state"][0]
    assert child.pop("origin_server_ts") > 0
    assert child == {
        "type": "m.space.child",
        "state_key": inner,
        "sender": "@alice:test",
        "content": {"via": ["test"], "order": "a", "suggested": True},
    }


@pytest.mark.parametrize(
    "kept", [(60.0, 50_000), (60.0, 3), (-1.0, 50_000)], ids=["kept", "too large", "too late"]
)
async def test_pages_are_the_same_whether_or_not_a_walk_is_remembered(alice, bob, monkeypatch, kept):
    for name, value in zip(("KEPT_S", "MAX_KEPT_ROOMS"), kept, strict=True):
        monkeypatch.setattr(f"ranvier.services.rooms.hierarchy.{name}", value)
    inner = [
        await make_space(
            alice,
            [(await create(alice, preset="public_chat"), {"order": str(number)}) for number in range(3)],
            preset="public_chat",
        )
        for _ in range(2)
    ]
    space = await make_space(
        alice, [(one, {"order": str(number)}) for number, one in enumerate(inner)], preset="public_chat"
    )
    every = await walk(alice, space)
    assert len(every) == 9
    assert every[0] == space
    for limit in (1, 2, 4, 8, 9):
        assert await walk(alice, space, limit=limit) == every
    # A page can be asked for again, and shows what may be seen when it is asked for.
    token = (await bob.get(hierarchy(space), limit=2)).json["next_batch"]
    pages = [(await bob.get(hierarchy(space), limit=3, **{"from": token})).json for _ in range(2)]
    assert pages[0] == pages[1]
    assert [room["room_id"] for room in pages[0]["rooms"]] == every[2:5]
    await set_state(alice, every[2], "m.room.join_rules", {"join_rule": "invite"})
    later = (await bob.get(hierarchy(space), limit=3, **{"from": token})).json["rooms"]
    assert [room["room_id"] for room in later] == every[3:6]


async def test_what_is_no_tree(alice, bob):
    private = await make_space(alice, [])
    for room in (private, UNKNOWN_ROOM):
        answer = await bob.get(hierarchy(room))
        assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    for query in (
        {"limit": 0},
        {"limit": "x"},
        {"max_depth": -1},
        {"suggested_only": "maybe"},
        {"from": "x"},
        {"from": "pWyJhIl0"},
    ):
        answer = await alice.get(hierarchy(private), **query)
        assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM"), query
    assert (await alice.as_user(None).get(hierarchy(private))).errcode == "M_MISSING_TOKEN"
    child = await create(alice)
    space = await make_space(alice, [(child, {})])
    token = (await alice.get(hierarchy(space), limit=1)).json["next_batch"]
    for query in ({"max_depth": 3}, {"suggested_only": "true"}):
        assert (await alice.get(hierarchy(space), **query, **{"from": token})).errcode == "M_INVALID_PARAM"


async def test_rooms_in_common(alice, bob):
    shared = [await create(alice, preset="public_chat") for _ in range(3)]
    await create(alice)
    for room_id in shared:
        await do(bob, room_id, "join")
    await do(bob, shared[2], "leave")
    path = f"{V1}/mutual_rooms"
    assert (await alice.get(path, user_id="@bob:test")).json == {"joined": shared[:2], "count": 2}
    assert (await bob.get(path, user_id="@alice:test")).json == {"joined": shared[:2], "count": 2}
    assert (await bob.get(path, user_id="@nobody:test")).json == {"joined": [], "count": 0}
    for query in ({}, {"user_id": "bob"}, {"user_id": "@alice:test"}, {"user_id": "@bob:test", "from": "x"}):
        answer = await alice.get(path, **query)
        assert answer.status == 400
        assert answer.errcode == ("M_INVALID_PARAM" if query else "M_MISSING_PARAM")
    assert (await alice.as_user(None).get(path, user_id="@bob:test")).errcode == "M_MISSING_TOKEN"


async def test_rooms_in_common_come_in_pages(alice, bob, monkeypatch):
    monkeypatch.setattr("ranvier.services.rooms.mutual_rooms.PAGE", 2)
    shared = [await create(alice, preset="public_chat") for _ in range(5)]
    for room_id in shared:
        await do(bob, room_id, "join")
    found, token = [], None
    while True:
        query = {"from": token} if token else {}
        page = (await alice.get(f"{V1}/mutual_rooms", user_id="@bob:test", **query)).json
        assert page["count"] == 5
        found += page["joined"]
        token = page.get("next_batch")
        if token is None:
            break
    assert found == shared


async def test_reports(alice, bob, homeserver):
    room_id = await create(alice, preset="public_chat")
    event_id = await say(alice, room_id, "rude")
    report = f"report/{segment(event_id)}"
    assert (await ask(bob, room_id, report, reason="rude")).errcode == "M_NOT_FOUND"
    await do(bob, room_id, "join")
    assert (await ask(bob, room_id, report, reason="rude")).json == {}
    assert (await ask(bob, room_id, report)).json == {}
    assert (await ask(bob, room_id, "report", reason="noisy")).json == {}
    users = f"{C}/users/{segment('@alice:test')}/report"
    assert (await bob.post(users, {"reason": "who?"})).json == {}
    # Whether something is there is not told.
    assert (await ask(bob, UNKNOWN_ROOM, "report", reason="x")).json == {}
    assert (await bob.post(f"{C}/users/@nobody:test/report", {"reason": "x"})).json == {}
    every = reports.ReportFilter(subjects=(reports.EVENT, reports.ROOM, reports.USER))
    kept = await homeserver.foundation.ports.db.read(
        reports.list_reports, every, backwards=True, limit=10, offset=0
    )
    assert [(one.report.subject, one.report.reason) for one in kept] == [
        ("user", b'"who?"'),
        ("room", b'"noisy"'),
        ("event", b'""'),
        ("event", b'"rude"'),
    ]
    assert kept[3].report.user_id == "@alice:test"
    assert kept[3].report.event_id == event_id
    for answer, errcode in (
        (await ask(bob, UNKNOWN_ROOM, report, reason="x"), "M_NOT_FOUND"),
        (await ask(bob, room_id, f"report/{segment('$' + 'x' * 43)}", reason="x"), "M_NOT_FOUND"),
        (await ask(bob, room_id, "report"), "M_MISSING_PARAM"),
        (await ask(bob, room_id, "report", reason=5), "M_BAD_JSON"),
        (await ask(bob, room_id, "report", reason="x" * 10_001), "M_INVALID_PARAM"),
        (await bob.post(users, {}), "M_MISSING_PARAM"),
        (await bob.post(f"{C}/users/alice/report", {"reason": "x"}), "M_INVALID_PARAM"),
    ):
        assert answer.errcode == errcode
