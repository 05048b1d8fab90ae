"""Reading and writing state: who may, and what is shown to whom."""

import pytest

from .client import segment
from .rooms import C, create, do, get_state, put_state, say, set_state


def at(room_id, what):
    return f"{C}/rooms/{segment(room_id)}/{what}"


async def members(user, room_id, **query):
    answer = await user.get(at(room_id, "members"), **query)
    assert answer.status == 200, answer.body
    return {event["state_key"]: event["content"]["membership"] for event in answer.json["chunk"]}


async def test_state_is_set_and_got(alice):
    room_id = await create(alice)
    event_id = await set_state(alice, room_id, "org.x", {"a": [1, "ü"]}, "key/with slash")
    assert await get_state(alice, room_id, "org.x", "key/with slash") == {"a": [1, "ü"]}
    answer = await alice.get(at(room_id, f"state/org.x/{segment('key/with slash')}?format=event"))
    event = answer.json
    assert event.pop("unsigned")["age"] >= 0
    assert event.pop("origin_server_ts") > 0
    assert event == {
        "content": {"a": [1, "ü"]},
        "event_id": event_id,
        "room_id": room_id,
        "sender": "@alice:test",
        "state_key": "key/with slash",
        "type": "org.x",
    }


async def test_an_empty_key_needs_no_slash(alice):
    room_id = await create(alice)
    assert (await alice.put(at(room_id, "state/m.room.name"), {"name": "one"})).status == 200
    for path in ("state/m.room.name", "state/m.room.name/"):
        assert (await alice.get(at(room_id, path))).json == {"name": "one"}
    assert (await alice.put(at(room_id, "state/m.room.name/"), {"name": "two"})).status == 200
    assert (await alice.get(at(room_id, "state/m.room.name"))).json == {"name": "two"}


async def test_what_changes_nothing_is_not_sent_again(alice, bob):
    room_id = await create(alice, preset="public_chat", power_level_content_override={"state_default": 0})
    await do(bob, room_id, "join")
    first = await set_state(alice, room_id, "org.x", {"a": 1})
    assert await set_state(alice, room_id, "org.x", {"a": 1}) == first
    assert await set_state(alice, room_id, "org.x", {"a": True}) != first
    assert await set_state(bob, room_id, "org.x", {"a": True}) != await set_state(
        alice, room_id, "org.x", {"a": True}
    )


async def test_who_was_never_there_reads_nothing(alice, bob):
    room_id = await create(alice, invite=["@bob:test"])
    for room in (room_id, "!" + "x" * 43):
        for path in ("state", "state/m.room.create", "members", "joined_members", "aliases"):
            answer = await bob.get(at(room, path))
            assert (answer.status, answer.json) == (
                403,
                {"errcode": "M_FORBIDDEN", "error": "You are not in this room."},
            ), path
        answer = await bob.put(at(room, "state/m.room.name"), {"name": "x"})
        assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")


async def test_who_left_reads_the_state_of_then(alice, bob):
    room_id = await create(alice, preset="public_chat", name="then")
    await do(bob, room_id, "join")
    await do(bob, room_id, "leave")
    await set_state(alice, room_id, "m.room.name", {"name": "now"})
    await set_state(alice, room_id, "org.new", {})
    await do(alice, room_id, "invite", user_id="@carol:test")
    assert await get_state(bob, room_id, "m.room.name") == {"name": "then"}
    assert (await bob.get(at(room_id, "state/org.new"))).errcode == "M_NOT_FOUND"
    state = (await bob.get(at(room_id, "state"))).json
    assert {"name": "then"} in [event["content"] for event in state]
    assert await members(bob, room_id) == {"@alice:test": "join", "@bob:test": "leave"}
    assert (await bob.get(at(room_id, "joined_members"))).errcode == "M_FORBIDDEN"
    await do(alice, room_id, "ban", user_id="@bob:test")
    assert await get_state(bob, room_id, "m.room.name") == {"name": "then"}


async def test_everybody_reads_a_world_readable_room(alice, bob):
    room_id = await create(alice, name="open", room_alias_name="open")
    await set_state(alice, room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert await get_state(bob, room_id, "m.room.name") == {"name": "open"}
    assert await members(bob, room_id) == {"@alice:test": "join"}
    assert (await bob.get(at(room_id, "aliases"))).json == {"aliases": ["#open:test"]}
    assert (await bob.get(at(room_id, "joined_members"))).errcode == "M_FORBIDDEN"


async def test_members_by_membership(alice, bob):
    room_id = await create(alice, preset="public_chat", invite=["@carol:test"])
    await do(bob, room_id, "join")
    await do(bob, room_id, "leave")
    everybody = {"@alice:test": "join", "@bob:test": "leave", "@carol:test": "invite"}
    for query, shown in (
        ({}, everybody),
        ({"membership": "join"}, {"@alice:test": "join"}),
        ({"not_membership": "leave"}, {"@alice:test": "join", "@carol:test": "invite"}),
        ({"membership": "leave", "not_membership": "join"}, {"@bob:test": "leave", "@carol:test": "invite"}),
    ):
        assert await members(alice, room_id, **query) == shown
        # The same from the state at a point of the timeline.
        assert await members(alice, room_id, at=f"s{2**40}", **query) == shown
    assert (await alice.get(at(room_id, "members"), membership="dance")).errcode == "M_INVALID_PARAM"


async def test_members_at_a_point(alice, bob, homeserver):
    room_id = await create(alice, preset="public_chat")
    await say(alice, room_id, "alone")
    before = homeserver.foundation.ports.db.position()
    await do(bob, room_id, "join")
    await do(alice, room_id, "invite", user_id="@carol:test")
    assert await members(alice, room_id, at=f"s{before}") == {"@alice:test": "join"}
    # Where the timeline begins, all the same: who made the room is asked for.
    first = (await alice.get("/_matrix/client/v3/sync")).json["rooms"]["join"][room_id]["timeline"]
    for start in ("s1", first["prev_batch"]):
        assert await members(alice, room_id, at=start) == {"@alice:test": "join"}
    for token in ("x", "s-1", "s1.5", "s" + "9" * 30):
        assert (await alice.get(at(room_id, "members"), at=token)).errcode == "M_INVALID_PARAM"
    # A point after the reader left shows no more than the leaving did.
    await do(bob, room_id, "leave")
    await do(alice, room_id, "invite", user_id="@dave:test")
    now = homeserver.foundation.ports.db.position()
    assert "@dave:test" not in await members(bob, room_id, at=f"s{now}")


@pytest.mark.parametrize(
    ("event_type", "content", "status", "errcode"),
    [
        ("m.room.create", {"room_version": "11"}, 400, "M_BAD_JSON"),
        ("m.room.power_levels", {"users": {"@alice:test": 100}}, 400, "M_BAD_JSON"),
        ("m.room.power_levels", {"ban": "50"}, 403, "M_FORBIDDEN"),
        ("org.x", {"number": 1.5}, 400, "M_BAD_JSON"),
        ("org.x", {"number": 2**60}, 400, "M_BAD_JSON"),
        ("org.x", {"text": "x" * 66_000}, 413, "M_TOO_LARGE"),
        ("x" * 256, {}, 413, "M_TOO_LARGE"),
        ("org.x", [], 400, "M_BAD_JSON"),
    ],
)
async def test_state_that_cannot_be(alice, event_type, content, status, errcode):
    answer = await put_state(alice, await create(alice), event_type, content)
    assert (answer.status, answer.errcode) == (status, errcode)


async def test_state_takes_power(alice, bob):
    room_id = await create(alice, preset="public_chat", room_version="11")
    await do(bob, room_id, "join")
    assert (await put_state(bob, room_id, "m.room.name", {"name": "x"})).errcode == "M_FORBIDDEN"
    assert (await put_state(bob, room_id, "org.x", {}, "@alice:test")).errcode == "M_FORBIDDEN"
    levels = await get_state(alice, room_id, "m.room.power_levels")
    levels["users"]["@bob:test"] = 50
    await set_state(alice, room_id, "m.room.power_levels", levels)
    await set_state(bob, room_id, "m.room.name", {"name": "bob's"})
    # Nobody lifts themselves.
    levels["users"]["@bob:test"] = 100
    assert (await put_state(bob, room_id, "m.room.power_levels", levels)).errcode == "M_FORBIDDEN"


async def test_redacted_state_is_shown_as_what_is_left(alice, bob):
    room_id = await create(alice, preset="public_chat", visibility="public")
    await do(bob, room_id, "join")
    name = await set_state(alice, room_id, "m.room.name", {"name": "secret"})
    member = await set_state(
        bob, room_id, "m.room.member", {"membership": "join", "displayname": "rude"}, "@bob:test"
    )
    for number, event_id in enumerate((name, member)):
        answer = await alice.put(at(room_id, f"redact/{segment(event_id)}/{number}"), {})
        assert answer.status == 200
    assert await get_state(alice, room_id, "m.room.name") == {}
    assert await get_state(alice, room_id, "m.room.member", "@bob:test") == {"membership": "join"}
    shown = (await alice.get(at(room_id, "joined_members"))).json["joined"]["@bob:test"]
    assert shown == {"display_name": None, "avatar_url": None}
    listed = (await alice.get(f"{C}/publicRooms")).json["chunk"]
    assert "name" not in listed[0]
    # The slot does not count as saying the same any more.
    assert await set_state(alice, room_id, "m.room.name", {"name": "secret"}) != name
    assert await get_state(alice, room_id, "m.room.name") == {"name": "secret"}


async def test_redacting_takes_the_right_to(alice, bob):
    room_id = await create(alice, preset="public_chat")
    other = await create(alice)
    event_id = await say(alice, room_id, "hello")
    elsewhere = await say(alice, other, "hello")
    redact = f"redact/{segment(event_id)}/1"
    # Who is not in the room learns nothing of what is.
    for path in (redact, f"redact/{segment('$' + 'x' * 43)}/2"):
        assert (await bob.put(at(room_id, path), {})).errcode == "M_FORBIDDEN"
    await do(bob, room_id, "join")
    assert (await bob.put(at(room_id, f"redact/{segment(elsewhere)}/3"), {})).errcode == "M_NOT_FOUND"
    assert (await bob.put(at(room_id, f"redact/{segment('$' + 'x' * 43)}/4"), {})).errcode == "M_NOT_FOUND"
    own = await say(bob, room_id, "mine")
    assert (await bob.put(at(room_id, f"redact/{segment(own)}/5"), {"reason": "typo"})).status == 200
    assert (await alice.put(at(room_id, redact), {})).status == 200
