"""Bundled aggregations, /relations, /threads, /timestamp_to_event."""

from typing import Any

import pytest

from ranvier.store.tables.account_data import set_ignored_users

from .client import Answer
from .homeserver import Homeserver, User
from .scripted_room import Room


@pytest.fixture
async def room(homeserver: Homeserver, alice: User, bob: User) -> Room:
    room = await Room.create(homeserver, alice)
    await room.join(bob)
    return room


async def relations_of(user: User, room: Room, event_id: str) -> dict[str, Any]:
    """`m.relations`, which must be the same wherever the event is shown."""
    event = await user.get(f"{room.path}/event/{event_id}")
    assert event.status == 200, event.body
    found: dict[str, Any] = event.json["unsigned"].get("m.relations", {})
    page = (await user.get(f"{room.path}/messages", dir="b", limit=100)).json["chunk"]
    context = (await user.get(f"{room.path}/context/{event_id}")).json["event"]
    for other in (*(one for one in page if one["event_id"] == event_id), context):
        assert _without_age(other["unsigned"].get("m.relations", {})) == _without_age(found)
    return found


def _without_age(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_age(inner) for key, inner in value.items() if key != "age"}
    return [_without_age(inner) for inner in value] if isinstance(value, list) else value


async def ignore(homeserver: Homeserver, user: User, ignored: User) -> None:
    foundation = homeserver.foundation
    nids = [foundation.interner.users.number(one.user_id) for one in (user, ignored)]
    await foundation.ports.db.write(set_ignored_users, nids[0], [nids[1]])


async def test_the_newest_edit_is_bundled_whole(alice: User, bob: User, room: Room) -> None:
    event_id = await room.say(alice, "one")
    await room.edit(alice, event_id, "two", ts=1000)
    newest = await room.edit(alice, event_id, "three", ts=2000)
    edit = (await relations_of(bob, room, event_id))["m.replace"]
    assert edit["event_id"] == newest
    assert edit["content"]["m.new_content"] == {"body": "three"}
    assert edit["room_id"] == room.room_id
    assert edit["unsigned"]["membership"] == "join"
    await room.redact(alice, newest)
    edit = (await relations_of(bob, room, event_id))["m.replace"]
    assert edit["content"]["m.new_content"] == {"body": "two"}
    # The content of the event itself stays.
    assert (await bob.get(f"{room.path}/event/{event_id}")).json["content"]["body"] == "one"


async def test_the_newest_edit_is_that_with_the_newest_time(alice: User, room: Room) -> None:
    event_id = await room.say(alice, "one")
    relation = {"rel_type": "m.replace", "event_id": event_id}
    content = {"m.new_content": {"body": "x"}, "m.relates_to": relation}
    newest = await room.post(alice, "m.room.message", content, ts=10**14)
    await room.post(alice, "m.room.message", content | {"n": 2}, ts=10**13)
    assert (await relations_of(alice, room, event_id))["m.replace"]["event_id"] == newest


@pytest.mark.parametrize("fault", ["sender", "type", "content", "state", "redacted"])
async def test_edits_that_are_none(alice: User, bob: User, room: Room, fault: str) -> None:
    event_id = await room.say(alice, "one")
    relation = {"m.relates_to": {"rel_type": "m.replace", "event_id": event_id}}
    new = {"m.new_content": {"body": "two"}}
    match fault:
        case "sender":
            await room.edit(bob, event_id, "two")
        case "type":
            await room.post(alice, "m.room.other", {**relation, **new})
        case "content":
            await room.post(alice, "m.room.message", relation)
        case "state":
            await room.set_state(alice, "m.room.message", {**relation, **new})
        case "redacted":
            await room.edit(alice, event_id, "two")
            await room.redact(alice, event_id)
    assert await relations_of(alice, room, event_id) == {}


async def test_an_edit_cannot_be_edited(alice: User, room: Room) -> None:
    event_id = await room.say(alice, "one")
    edit = await room.edit(alice, event_id, "two")
    await room.edit(alice, edit, "three")
    assert await relations_of(alice, room, edit) == {}


async def test_an_encrypted_edit_keeps_its_new_content_to_itself(alice: User, room: Room) -> None:
    event_id = await room.post(alice, "m.room.encrypted", {"ciphertext": "x"})
    relation = {"rel_type": "m.replace", "event_id": event_id}
    edit = await room.post(alice, "m.room.encrypted", {"ciphertext": "y", "m.relates_to": relation})
    assert (await relations_of(alice, room, event_id))["m.replace"]["event_id"] == edit


async def test_references_are_named(alice: User, bob: User, room: Room) -> None:
    event_id = await room.say(alice, "one")
    names = [await room.relate(user, event_id, "m.reference") for user in (alice, bob)]
    bundle = await relations_of(bob, room, event_id)
    assert bundle == {"m.reference": {"chunk": [{"event_id": name} for name in names]}}


async def test_annotations_are_not_bundled(alice: User, room: Room) -> None:
    event_id = await room.say(alice, "one")
    relation = {"rel_type": "m.annotation", "event_id": event_id, "key": "x"}
    await room.post(alice, "m.reaction", {"m.relates_to": relation})
    assert await relations_of(alice, room, event_id) == {}


async def test_a_thread_is_summed_up(alice: User, bob: User, room: Room) -> None:
    root = await room.say(alice, "root")
    await room.relate(alice, root, "m.thread", body="one")
    latest = await room.relate(alice, root, "m.thread", body="two")
    await room.edit(alice, latest, "three")
    thread = (await relations_of(bob, room, root))["m.thread"]
    assert (thread["count"], thread["current_user_participated"]) == (2, False)
    assert thread["latest_event"]["event_id"] == latest
    inner = thread["latest_event"]["unsigned"]["m.relations"]["m.replace"]
    assert inner["content"]["m.new_content"] == {"body": "three"}
    assert (await relations_of(alice, room, root))["m.thread"]["current_user_participated"] is True
    await room.relate(bob, root, "m.thread", body="four")
    thread = (await relations_of(bob, room, root))["m.thread"]
    assert (thread["count"], thread["current_user_participated"]) == (3, True)


async def test_there_is_no_thread_below_a_child(alice: User, room: Room) -> None:
    root = await room.say(alice, "root")
    child = await room.relate(alice, root, "m.thread")
    await room.relate(alice, child, "m.thread")
    assert await relations_of(alice, room, child) == {}


async def test_ignored_users_do_not_count(homeserver: Homeserver, alice: User, bob: User, room: Room) -> None:
    root = await room.say(alice, "root")
    latest = await room.relate(alice, root, "m.thread")
    await room.relate(bob, root, "m.thread")
    await room.relate(bob, root, "m.reference")
    await ignore(homeserver, alice, bob)
    bundle = await relations_of(alice, room, root)
    assert set(bundle) == {"m.thread"}
    assert bundle["m.thread"]["count"] == 1
    assert bundle["m.thread"]["latest_event"]["event_id"] == latest


async def test_bundles_hold_nothing_that_is_not_visible(alice: User, bob: User, room: Room) -> None:
    root = await room.say(alice, "root")
    reply = await room.relate(bob, root, "m.thread")
    await room.leave(bob)
    await room.edit(alice, root, "secret")
    await room.relate(alice, root, "m.thread", body="secret")
    await room.relate(alice, root, "m.reference", body="secret")
    bundle = await relations_of(bob, room, root)
    assert set(bundle) == {"m.thread"}
    assert bundle["m.thread"]["count"] == 1
    assert bundle["m.thread"]["latest_event"]["event_id"] == reply


async def test_state_events_have_no_bundles(alice: User, room: Room) -> None:
    event_id = await room.set_state(alice, "m.room.topic", {"topic": "x"})
    await room.relate(alice, event_id, "m.reference")
    assert await relations_of(alice, room, event_id) == {}


async def read_relations(user: User, path: str, **query: Any) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        answer = await user.get(path, **query, **({"from": token} if token else {}))
        assert answer.status == 200, answer.body
        assert answer.json.get("prev_batch") == token
        found += [event["event_id"] for event in answer.json["chunk"]]
        token = answer.json.get("next_batch")
        if token is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_relations_in_pages(alice: User, room: Room, limit: int) -> None:
    root = await room.say(alice, "root")
    replies = [await room.relate(alice, root, "m.thread", body=str(number)) for number in range(4)]
    other = await room.relate(alice, root, "m.reference")
    notice = await room.post(alice, "m.notice", {"m.relates_to": {"rel_type": "m.thread", "event_id": root}})
    everything = [*replies, other, notice]
    path = f"{room.path_v1}/relations/{root}"
    assert await read_relations(alice, path, limit=limit) == everything[::-1]
    assert await read_relations(alice, path, limit=limit, dir="f") == everything
    assert await read_relations(alice, f"{path}/m.thread", limit=limit, dir="f") == [*replies, notice]
    assert await read_relations(alice, f"{path}/m.thread/m.notice", limit=limit) == [notice]
    unstable = path.replace("/v1/", "/unstable/")
    assert await read_relations(alice, f"{unstable}/m.reference", limit=limit) == [other]


async def test_relations_between_two_places(alice: User, room: Room) -> None:
    root = await room.say(alice, "root")
    first = await room.relate(alice, root, "m.reference", body="1")
    place = (await alice.get(f"{room.path}/messages", dir="b", limit=1)).json["start"]
    second = await room.relate(alice, root, "m.reference", body="2")
    path = f"{room.path_v1}/relations/{root}"
    assert await read_relations(alice, path, to=place) == [second]
    assert await read_relations(alice, path, to=place, dir="f") == [first]


async def test_relations_of_relations(alice: User, room: Room) -> None:
    root = await room.say(alice, "root")
    levels = [root]
    for number in range(4):
        levels.append(await room.relate(alice, levels[-1], "m.reference", body=str(number)))
    path = f"{room.path_v1}/relations/{root}"
    assert await read_relations(alice, path, dir="f", recurse="true") == levels[1:4]
    assert await read_relations(alice, path, dir="f", recurse="false") == levels[1:2]
    assert (await alice.get(path, recurse="true")).json["recursion_depth"] == 3
    assert "recursion_depth" not in (await alice.get(path)).json
    # What hangs on something that the filter leaves out is left out.
    thread = await room.relate(alice, root, "m.thread")
    await room.relate(alice, thread, "m.reference")
    assert await read_relations(alice, f"{path}/m.thread", recurse="true") == [thread]


async def test_relations_are_bundled_and_visible(alice: User, bob: User, room: Room) -> None:
    root = await room.say(alice, "root")
    child = await room.relate(alice, root, "m.thread")
    await room.edit(alice, child, "edited")
    path = f"{room.path_v1}/relations/{root}"
    event = (await alice.get(path)).json["chunk"][0]
    assert "m.replace" in event["unsigned"]["m.relations"]
    await room.leave(bob)
    await room.relate(alice, root, "m.thread", body="secret")
    assert await read_relations(bob, path) == [child]


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ("dir=x", "M_INVALID_PARAM"),
        ("limit=0", "M_INVALID_PARAM"),
        ("from=x", "M_INVALID_PARAM"),
        ("recurse=x", "M_INVALID_PARAM"),
    ],
)
async def test_relations_that_cannot_be_asked_for(alice: User, room: Room, query: str, errcode: str) -> None:
    root = await room.say(alice, "root")
    answer = await alice.get(f"{room.path_v1}/relations/{root}?{query}")
    assert (answer.status, answer.errcode) == (400, errcode)


@pytest.mark.parametrize("path", ["a%00b", "m.thread/a%00b"])
async def test_types_that_none_can_be(alice: User, room: Room, path: str) -> None:
    root = await room.say(alice, "root")
    answer = await alice.get(f"{room.path_v1}/relations/{root}/{path}")
    assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")


async def test_relations_of_what_is_not_there(homeserver: Homeserver, alice: User, room: Room) -> None:
    carol = await homeserver.register("carol")
    root = await room.say(alice, "root")
    for user, event_id in ((alice, "$nothing"), (carol, root)):
        answer = await user.get(f"{room.path_v1}/relations/{event_id}")
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    answer = await alice.as_user(None).get(f"{room.path_v1}/relations/{root}")
    assert answer.errcode == "M_MISSING_TOKEN"


async def list_roots(user: User, room: Room, **query: Any) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        answer = await user.get(f"{room.path_v1}/threads", **query, **({"from": token} if token else {}))
        assert answer.status == 200, answer.body
        found += [event["event_id"] for event in answer.json["chunk"]]
        assert all("m.thread" in event["unsigned"]["m.relations"] for event in answer.json["chunk"])
        token = answer.json.get("next_batch")
        if token is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 10])
async def test_threads_by_activity(alice: User, bob: User, room: Room, limit: int) -> None:
    roots = [await room.say(alice, str(number)) for number in range(4)]
    for root in (roots[0], roots[1], roots[2], roots[0]):
        await room.relate(alice, root, "m.thread")
    assert await list_roots(alice, room, limit=limit) == [roots[0], roots[2], roots[1]]
    assert await list_roots(bob, room, limit=limit, include="participated") == []
    await room.relate(bob, roots[1], "m.thread")
    assert await list_roots(bob, room, limit=limit, include="participated") == [roots[1]]
    own = await room.say(bob, "mine")
    await room.relate(alice, own, "m.thread")
    assert await list_roots(bob, room, limit=limit, include="participated") == [own, roots[1]]


async def test_the_root_of_an_ignored_user_is_shown_redacted(
    homeserver: Homeserver, alice: User, bob: User, room: Room
) -> None:
    root = await room.say(bob, "noise")
    await room.relate(alice, root, "m.thread")
    await ignore(homeserver, alice, bob)
    (event,) = (await alice.get(f"{room.path_v1}/threads")).json["chunk"]
    assert (event["event_id"], event["content"]) == (root, {})
    (event,) = (await bob.get(f"{room.path_v1}/threads")).json["chunk"]
    assert event["content"]["body"] == "noise"


async def test_threads_that_cannot_be_listed(homeserver: Homeserver, alice: User, room: Room) -> None:
    carol = await homeserver.register("carol")
    path = f"{room.path_v1}/threads"
    assert (await carol.get(path)).errcode == "M_FORBIDDEN"
    assert (await carol.get("/_matrix/client/v1/rooms/!nowhere:test/threads")).status == 403
    for query in ("from=x", "include=x", "limit=0"):
        answer = await alice.get(f"{path}?{query}")
        assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")


async def test_the_event_nearest_to_a_time(homeserver: Homeserver, alice: User, room: Room) -> None:
    path = f"{room.path_v1}/timestamp_to_event"
    # Before this room was made; not in the order of the timeline.
    ids = {ts: await room.post(alice, "m.note", {"n": ts}, ts=ts) for ts in (3000, 1000, 2000)}
    for ts, direction, expected in (
        (1500, "f", 2000),
        (1500, "b", 1000),
        (2000, "f", 2000),
        (2000, "b", 2000),
        (0, "f", 1000),
    ):
        answer = await alice.get(path, ts=ts, dir=direction)
        assert answer.json == {"event_id": ids[expected], "origin_server_ts": expected}
    answer = await alice.get(path, ts=999, dir="b")
    assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    for query, errcode in (
        ("dir=f", "M_MISSING_PARAM"),
        ("ts=1", "M_MISSING_PARAM"),
        ("ts=x&dir=f", "M_INVALID_PARAM"),
        ("ts=1&dir=x", "M_INVALID_PARAM"),
    ):
        answer = await alice.get(f"{path}?{query}")
        assert (answer.status, answer.errcode) == (400, errcode)
    carol = await homeserver.register("carol")
    assert (await carol.get(path, ts=1, dir="f")).errcode == "M_FORBIDDEN"


async def test_a_time_leads_to_something_visible(homeserver: Homeserver, alice: User, bob: User) -> None:
    room = await Room.create(homeserver, alice, visibility="joined")
    for ts in range(1000, 1020):
        await room.post(alice, "m.note", {"n": ts}, ts=ts)
    await room.join(bob)
    found = (await bob.get(f"{room.path_v1}/timestamp_to_event", ts=1000, dir="f")).json
    assert (await bob.get(f"{room.path}/event/{found['event_id']}")).json["type"] != "m.note"
    assert (await bob.get(f"{room.path_v1}/timestamp_to_event", ts=1019, dir="b")).status == 404


async def send(user: User, room: Room, type_: str, relation: Any, txn_id: str) -> Answer:
    path = f"{room.path}/send/{type_}/{txn_id}"
    return await user.put(path, {"body": "x", "m.relates_to": relation})


async def test_nobody_annotates_twice_in_the_same_way(alice: User, bob: User, room: Room) -> None:
    target = await room.say(alice, "one")
    thumb = {"rel_type": "m.annotation", "event_id": target, "key": "+"}
    first = await send(alice, room, "m.reaction", thumb, "1")
    assert first.status == 200
    again = await send(alice, room, "m.reaction", thumb, "2")
    assert (again.status, again.errcode) == (400, "M_DUPLICATE_ANNOTATION")
    # The same request once more is no second annotation.
    repeated = await send(alice, room, "m.reaction", thumb, "1")
    assert repeated.json == first.json
    for user, type_, relation in (
        (alice, "m.reaction", thumb | {"key": "-"}),
        (alice, "m.other", thumb),
        (bob, "m.reaction", thumb),
    ):
        assert (await send(user, room, type_, relation, "3")).status == 200
    await room.redact(alice, first.json["event_id"])
    assert (await send(alice, room, "m.reaction", thumb, "4")).status == 200


async def test_no_thread_is_begun_below_a_child(alice: User, room: Room) -> None:
    root = await room.say(alice, "root")
    child = await room.relate(alice, root, "m.thread")
    refused = await send(alice, room, "m.room.message", {"rel_type": "m.thread", "event_id": child}, "1")
    assert (refused.status, refused.errcode) == (400, "M_UNKNOWN")
    for target in (root, "$unknown"):
        relation = {"rel_type": "m.thread", "event_id": target}
        assert (await send(alice, room, "m.room.message", relation, f"2{target}")).status == 200
    # A plain reply is no child: it has no rel_type.
    reply = await room.say(alice, "reply", **{"m.relates_to": {"m.in_reply_to": {"event_id": root}}})
    relation = {"rel_type": "m.thread", "event_id": reply}
    assert (await send(alice, room, "m.room.message", relation, "3")).status == 200
