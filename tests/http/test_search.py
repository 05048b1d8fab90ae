"""POST /search: what was said is found by who may see it."""

from typing import Any

import pytest

from ranvier.core.words import fold, split_words
from ranvier.services.message_search.words import words_of

from .homeserver import Homeserver, User
from .scripted_room import Room

PATH = "/_matrix/client/v3/search"


async def search(user: User, term: str, token: str | None = None, **criteria: Any) -> dict[str, Any]:
    body = {"search_categories": {"room_events": {"search_term": term, **criteria}}}
    answer = await user.request("POST", PATH, json=body, query={"next_batch": token})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json["search_categories"]["room_events"]
    return found


def ids(found: dict[str, Any]) -> list[str]:
    return [result["result"]["event_id"] for result in found["results"]]


@pytest.fixture
async def room(homeserver: Homeserver, alice: User) -> Room:
    return await Room.create(homeserver, alice)


async def test_all_words_are_needed(homeserver: Homeserver, alice: User, room: Room) -> None:
    first = await room.say(alice, "Martians and men")
    second = await room.say(alice, "martians, only martians! MEN too")
    await room.say(alice, "men alone")
    found = await search(alice, "men MARTIANS", order_by="recent")
    assert ids(found) == [second, first]
    assert found["count"] == 2
    assert set(found["highlights"]) == {"men", "martians"}
    # By rank, how much of the text the words are counts.
    ranked = await search(alice, "men martians")
    assert ids(ranked) == [first, second]
    assert ranked["results"][0]["rank"] > ranked["results"][1]["rank"]
    assert ids(await search(alice, "mart")) == []
    assert ids(await search(alice, "  ")) == []
    assert ranked["results"][0]["result"]["room_id"] == room.room_id


async def test_names_and_topics(homeserver: Homeserver, alice: User, room: Room) -> None:
    said = await room.say(alice, "apples")
    name = await room.set_state(alice, "m.room.name", {"name": "Apples"})
    forms = {"m.text": [{"body": "<b>no</b>", "mimetype": "text/html"}, {"body": "pears"}]}
    topic = await room.set_state(alice, "m.room.topic", {"topic": "apples", "m.topic": forms})
    assert set(ids(await search(alice, "apples"))) == {said, name, topic}
    assert ids(await search(alice, "pears")) == [topic]
    assert ids(await search(alice, "no")) == []
    assert ids(await search(alice, "apples", keys=["content.name"])) == [name]
    assert ids(await search(alice, "apples", keys=["content.body"])) == [said]
    assert ids(await search(alice, "apples", filter={"types": ["m.room.topic"]})) == [topic]
    assert ids(await search(alice, "apples", filter={"not_rooms": [room.room_id]})) == []


async def test_nobody_finds_what_they_may_not_see(homeserver: Homeserver, alice: User, bob: User) -> None:
    room = await Room.create(homeserver, alice, visibility="joined")
    await room.say(alice, "secret before")
    await room.join(bob)
    seen = await room.say(alice, "secret between")
    await room.leave(bob)
    await room.say(alice, "secret after")
    assert ids(await search(bob, "secret")) == [seen]
    assert (await search(alice, "secret"))["count"] == 3
    carol = await homeserver.register("carol")
    assert ids(await search(carol, "secret")) == []


async def test_encrypted_rooms_are_not_searched(homeserver: Homeserver, alice: User, room: Room) -> None:
    await room.say(alice, "plain")
    await room.set_state(alice, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    assert ids(await search(alice, "plain")) == []


async def test_what_was_redacted_is_not_found(homeserver: Homeserver, alice: User, room: Room) -> None:
    before = await room.say(alice, "regret one")
    assert ids(await search(alice, "regret")) == [before]
    await room.redact(alice, before)
    assert ids(await search(alice, "regret")) == []
    after = await room.say(alice, "regret two")
    await room.redact(alice, after)
    assert ids(await search(alice, "regret")) == []

    def words(txn: Any) -> list[Any]:
        found: list[Any] = txn.all("SELECT word FROM message_words WHERE word = :word", word="regret")
        return found

    assert await homeserver.foundation.ports.db.read(words) == []


@pytest.mark.parametrize("order_by", ["recent", "rank"])
async def test_pages(homeserver: Homeserver, alice: User, room: Room, order_by: str) -> None:
    said = [await room.say(alice, "word " + "x " * number) for number in range(7)]
    found: list[str] = []
    token = None
    while True:
        page = await search(alice, "word", token, order_by=order_by, filter={"limit": 3})
        found += ids(page)
        assert page["count"] == 7
        token = page.get("next_batch")
        if token is None:
            break
        # What comes in between does not move the pages.
        await room.say(alice, "word")
    assert found == (said[::-1] if order_by == "recent" else said)


async def test_groups(homeserver: Homeserver, alice: User, bob: User, room: Room) -> None:
    await room.join(bob)
    other = await Room.create(homeserver, alice)
    one, two = await room.say(alice, "word 1"), await room.say(bob, "word 2")
    three = await other.say(alice, "word 3")
    four = await room.say(bob, "word 4")
    groupings = {"group_by": [{"key": "room_id"}, {"key": "sender"}]}
    criteria: dict[str, Any] = {"order_by": "recent", "groupings": groupings}
    found = await search(alice, "word", **criteria)
    assert found["groups"]["room_id"] == {
        room.room_id: {"order": 0, "results": [four, two, one]},
        other.room_id: {"order": 1, "results": [three]},
    }
    assert found["groups"]["sender"]["@bob:test"] == {"order": 0, "results": [four, two]}
    first = await search(alice, "word", **criteria, filter={"limit": 2})
    assert ids(first) == [four, three]
    groups = first["groups"]
    assert "next_batch" not in groups["room_id"][other.room_id]
    assert "next_batch" not in await search(alice, "word", **criteria, filter={"limit": 5})
    rest = await search(alice, "word", groups["room_id"][room.room_id]["next_batch"], **criteria)
    assert ids(rest) == [two, one]
    rest = await search(alice, "word", groups["sender"]["@bob:test"]["next_batch"], **criteria)
    assert ids(rest) == [two]
    assert ids(await search(alice, "word", first["next_batch"], **criteria)) == [two, one]


async def test_context_profiles_and_state(homeserver: Homeserver, alice: User, room: Room) -> None:
    await room.set_membership(alice, alice, "join", displayname="Alice")
    before = [await room.say(alice, str(number)) for number in range(3)]
    hit = await room.say(alice, "needle")
    after = await room.say(alice, "hay")
    context = {"before_limit": 2, "after_limit": 2, "include_profile": True}
    found = await search(alice, "needle", event_context=context, include_state=True)
    around = found["results"][0]["context"]
    assert [event["event_id"] for event in around["events_before"]] == before[:0:-1]
    assert [event["event_id"] for event in around["events_after"]] == [after]
    assert around["profile_info"] == {alice.user_id: {"displayname": "Alice"}}
    older = await alice.get(f"{room.path}/messages", dir="b", limit=1, **{"from": around["start"]})
    assert older.json["chunk"][0]["event_id"] == before[0]
    types = {event["type"] for event in found["state"][room.room_id]}
    assert {"m.room.create", "m.room.member"} <= types
    assert "context" not in (await search(alice, "needle"))["results"][0]
    assert ids(found) == [hit]


async def test_results_are_bundled(homeserver: Homeserver, alice: User, room: Room) -> None:
    hit = await room.say(alice, "needle")
    await room.edit(alice, hit, "other")
    (result,) = (await search(alice, "needle"))["results"]
    assert "m.replace" in result["result"]["unsigned"]["m.relations"]


@pytest.mark.parametrize(
    ("body", "query", "errcode"),
    [
        ({}, "", "M_MISSING_PARAM"),
        ({"search_categories": {"room_events": {}}}, "", "M_MISSING_PARAM"),
        ({"search_categories": {"room_events": {"search_term": 1}}}, "", "M_BAD_JSON"),
        ({"search_categories": {"room_events": {"search_term": "x", "order_by": "x"}}}, "", "M_BAD_JSON"),
        ({"search_categories": {"room_events": {"search_term": "x"}}}, "next_batch=x", "M_INVALID_PARAM"),
    ],
)
async def test_questions_that_cannot_be_answered(
    alice: User, body: dict[str, Any], query: str, errcode: str
) -> None:
    answer = await alice.post(f"{PATH}?{query}", body)
    assert (answer.status, answer.errcode) == (400, errcode)
    assert (await alice.as_user(None).post(PATH, body)).errcode == "M_MISSING_TOKEN"


async def test_no_category_no_result(alice: User) -> None:
    assert (await alice.post(PATH, {"search_categories": {}})).json == {"search_categories": {}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Straße, ÉCOLE – ﬁn", ["strasse", "ecole", "fin"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("한글 abc中d", ["한", "글", "abc", "中", "d"]),
        ("a_b-c.d", ["a_b", "c", "d"]),
        ("x" * 100, ["x" * 64]),
        ("a\0b", ["ab"]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(fold(text)) == words


@pytest.mark.parametrize("content", [{}, {"body": 1}, {"body": None}, {"body": ["x"]}])
def test_events_without_text(content: dict[str, Any]) -> None:
    assert words_of("m.room.message", content) == []
    assert words_of("m.room.other", {"body": "x"}) == []
    for block in (1, {}, {"m.text": 1}, {"m.text": [1, {"body": 1}]}):
        assert words_of("m.room.topic", {"m.topic": block}) == []
