"""Two homeservers of this program, peers by the protocol of 2014, as their users see it through their clients."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from ranvier.app.config import FederationConfig, PresenceConfig
from ranvier.http.endpoint import Api

from ...http.homeserver import Homeserver, User, eventually
from .network import OLD, VERSION, Peers, historical

C = "/_matrix/client/v3"


async def create(user: User, **more: Any) -> str:
    body = {"room_version": VERSION, "preset": "public_chat", "room_alias_name": "room"} | more
    answer = await user.post(f"{C}/createRoom", body)
    assert answer.status == 200, answer.body
    return answer.json["room_id"]


async def join(user: User, room: str) -> str:
    answer = await user.post(f"{C}/join/{quote(room, safe='')}", {})
    assert answer.status == 200, answer.body
    return answer.json["room_id"]


async def say(user: User, room_id: str, text: str, **more: Any) -> str:
    content = {"msgtype": "m.text", "body": text} | more
    answer = await user.put(f"{C}/rooms/{room_id}/send/m.room.message/{text}", content)
    assert answer.status == 200, answer.body
    return answer.json["event_id"]


async def history(user: User, room_id: str) -> list[dict[str, Any]]:
    """All messages that the user can page back to, newest first."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"dir": "b", "limit": 20}
    for _ in range(50):
        answer = await user.get(f"{C}/rooms/{room_id}/messages", **query)
        assert answer.status == 200, answer.body
        found += answer.json["chunk"]
        if "end" not in answer.json:
            return found
        query["from"] = answer.json["end"]
    raise AssertionError("the history has no end")


async def texts(user: User, room_id: str) -> list[str]:
    events = await history(user, room_id)
    return [one["content"].get("body") for one in reversed(events) if one["type"] == "m.room.message"]


async def state_of(user: User, room_id: str, event_type: str, state_key: str = "") -> Any:
    answer = await user.get(f"{C}/rooms/{room_id}/state/{event_type}/{state_key}")
    return answer.json if answer.status == 200 else None


async def set_topic(user: User, room_id: str, topic: str) -> None:
    answer = await user.put(f"{C}/rooms/{room_id}/state/m.room.topic/", {"topic": topic})
    assert answer.status == 200, answer.body


async def topic(user: User, room_id: str) -> str | None:
    found = await state_of(user, room_id, "m.room.topic")
    return None if found is None else found["topic"]


async def reads(user: User, room_id: str, *said: str) -> None:
    """Wait until these are the last messages that the user reads."""

    async def check() -> bool:
        return tuple(await texts(user, room_id))[-len(said) :] == said

    await eventually(check)


async def members(user: User, room_id: str) -> set[str]:
    answer = await user.get(f"{C}/rooms/{room_id}/joined_members")
    return set(answer.json["joined"])


async def meet(one: Homeserver, two: Homeserver) -> tuple[User, User, str]:
    """Ann of one.test and Bob of two.test in a room that Ann made."""
    ann, bob = await one.register("ann"), await two.register("bob")
    room_id = await create(ann)
    assert await join(bob, "#room:one.test") == room_id
    return ann, bob, room_id


async def test_a_room_is_joined_by_alias_and_written_to_from_both_sides(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    await say(ann, room_id, "hello")
    await reads(bob, room_id, "hello")
    await say(bob, room_id, "hi")
    await reads(ann, room_id, "hello", "hi")
    assert await texts(ann, room_id) == await texts(bob, room_id) == ["hello", "hi"]
    assert await members(ann, room_id) == await members(bob, room_id) == {"@ann:one.test", "@bob:two.test"}


async def test_who_joins_sees_the_state_and_true_user_ids(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob = await one.register("ann"), await two.register("bob")
    room_id = await create(ann, topic="news", name="Room")
    await join(bob, "#room:one.test")
    answer = await bob.get(f"{C}/rooms/{room_id}/state")
    state = {(event["type"], event["state_key"]): event for event in answer.json}
    assert state["m.room.topic", ""]["content"]["topic"] == "news"
    assert state["m.room.name", ""]["sender"] == "@ann:one.test"
    assert state["m.room.create", ""]["content"]["room_version"] == VERSION
    assert state["m.room.member", "@ann:one.test"]["content"]["membership"] == "join"
    synced = (await bob.get(f"{C}/sync")).json["rooms"]["join"][room_id]
    assert synced["summary"]["m.joined_member_count"] == 2
    assert synced["timeline"]["events"][-1]["sender"] == "@bob:two.test"


async def test_events_have_the_same_ids_on_both_sides(peers: Peers) -> None:
    """So that replies, reactions and redactions find what they mean."""
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    said = await say(ann, room_id, "question")
    await reads(bob, room_id, "question")
    relation = {"m.relates_to": {"m.in_reply_to": {"event_id": said}}}
    await say(bob, room_id, "answer", **relation)
    await reads(ann, room_id, "question", "answer")
    reply = (await history(ann, room_id))[0]
    assert reply["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == said
    assert said in [event["event_id"] for event in await history(bob, room_id)]


async def test_a_redaction_takes_effect_on_both_sides(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    said = await say(bob, room_id, "oops")
    await reads(ann, room_id, "oops")
    await ann.put(f"{C}/rooms/{room_id}/redact/{quote(said)}/r", {})

    async def is_gone() -> bool:
        found = {event["event_id"]: event for event in await history(bob, room_id)}
        return found[said]["content"] == {}

    await eventually(is_gone)


async def test_state_that_was_set_on_both_sides_at_once_settles_alike(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    levels = await state_of(ann, room_id, "m.room.power_levels")
    levels["users"] = {"@ann:one.test": 100, "@bob:two.test": 100}
    await ann.put(f"{C}/rooms/{room_id}/state/m.room.power_levels/", levels)
    await set_topic(ann, room_id, "common")

    async def bob_has(text: str) -> bool:
        return await topic(bob, room_id) == text

    await eventually(lambda: bob_has("common"))
    for number in range(4):
        peers.cut("one", "two")
        await set_topic(ann, room_id, f"ann's {number}")
        await set_topic(bob, room_id, f"bob's {number}")
        await say(ann, room_id, f"a{number}")
        await say(bob, room_id, f"b{number}")
        peers.heal()
        peers.clock.skip(3_600)

        async def both_have_all(number: int = number) -> bool:
            ours, theirs = await texts(ann, room_id), await texts(bob, room_id)
            return f"b{number}" in ours and f"a{number}" in theirs

        await eventually(both_have_all)
        peers.clock.skip(3_600)
        settled = await topic(ann, room_id)
        assert settled in (f"ann's {number}", f"bob's {number}")
        await eventually(lambda settled=settled: bob_has(settled))


async def test_a_server_that_was_down_gets_what_it_missed(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    await say(ann, room_id, "before")
    await reads(bob, room_id, "before")
    await peers.stop("two")
    for number in range(60):
        await say(ann, room_id, f"missed {number}")
    await set_topic(ann, room_id, "while you were away")
    two = await peers.server("two")
    bob = await two.login("bob")
    peers.clock.skip(3_600)
    await reads(bob, room_id, *(f"missed {number}" for number in range(60)))

    async def has_topic() -> bool:
        return await topic(bob, room_id) == "while you were away"

    await eventually(has_topic)
    assert (await texts(bob, room_id)).count("missed 7") == 1


async def test_what_was_said_before_a_restart_goes_out_after_it(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    peers.cut("one", "two")
    await say(ann, room_id, "kept")
    await peers.stop("one")
    peers.heal()
    one = await peers.server("one")
    await reads(bob, room_id, "kept")
    ann = await one.login("ann")
    await say(ann, room_id, "and more")
    await say(bob, room_id, "got it")
    await eventually(lambda: _has(ann, room_id, "got it"))
    await eventually(lambda: _has(bob, room_id, "and more"))


async def _has(user: User, room_id: str, text: str) -> bool:
    return text in await texts(user, room_id)


async def test_a_repeated_transaction_has_the_same_id(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    await asyncio.sleep(0.1)
    peers.log.clear()
    peers.disturb(seed=1, loss=0.5)
    for number in range(5):
        await say(ann, room_id, f"m{number}")

    async def arrived() -> bool:
        peers.clock.skip(10)
        return (await texts(bob, room_id))[-5:] == [f"m{number}" for number in range(5)]

    await eventually(arrived)
    peers.heal()
    sent = [request.url for asker, request in peers.log if "/send/" in request.url and asker == "one.test"]
    bodies = {request.url: request.body for _, request in peers.log if "/send/" in request.url}
    assert len(sent) > len(set(sent)), "the loss made it repeat"
    assert all(request.body == bodies[request.url] for _, request in peers.log if request.url in bodies)
    assert sent == sorted(sent, key=sent.index), "one after the other"


async def test_history_from_before_the_join_is_fetched_when_it_is_paged_to(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob = await one.register("ann"), await two.register("bob")
    room_id = await create(ann)
    for number in range(130):
        await say(ann, room_id, f"old {number}")
    await join(bob, "#room:one.test")
    await say(ann, room_id, "new")
    await reads(bob, room_id, "new")
    assert await texts(bob, room_id) == [f"old {number}" for number in range(130)] + ["new"]
    assert await texts(bob, room_id) == [f"old {number}" for number in range(130)] + ["new"]
    types = [event["type"] for event in await history(bob, room_id)]
    assert types[-1] == "m.room.create"


async def test_who_left_and_comes_back_reads_what_was_said_meanwhile(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    await say(ann, room_id, "first")
    await reads(bob, room_id, "first")
    assert (await bob.post(f"{C}/rooms/{room_id}/leave", {})).status == 200

    async def is_alone() -> bool:
        return await members(ann, room_id) == {"@ann:one.test"}

    await eventually(is_alone)
    await say(ann, room_id, "alone")
    await join(bob, "#room:one.test")
    await say(ann, room_id, "again")
    await reads(bob, room_id, "first", "alone", "again")


async def test_an_invite_is_accepted(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob = await one.register("ann"), await two.register("bob")
    room_id = await create(ann, preset="private_chat", name="Secret")
    assert (await bob.post(f"{C}/join/{room_id}", {})).status == 403
    answer = await ann.post(f"{C}/rooms/{room_id}/invite", {"user_id": bob.user_id})
    assert answer.status == 200, answer.body

    async def is_invited() -> bool:
        return room_id in (await bob.get(f"{C}/sync")).json.get("rooms", {}).get("invite", {})

    await eventually(is_invited)
    shown = (await bob.get(f"{C}/sync")).json["rooms"]["invite"][room_id]["invite_state"]["events"]
    assert {"name": "Secret"} in [event["content"] for event in shown]
    await join(bob, room_id)
    await say(bob, room_id, "thanks")
    await reads(ann, room_id, "thanks")


async def test_an_invite_is_declined(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob = await one.register("ann"), await two.register("bob")
    room_id = await create(ann, preset="private_chat", invite=[bob.user_id])

    async def is_invited() -> bool:
        return room_id in (await bob.get(f"{C}/sync")).json.get("rooms", {}).get("invite", {})

    await eventually(is_invited)
    assert (await bob.post(f"{C}/rooms/{room_id}/leave", {})).status == 200

    async def is_declined() -> bool:
        member = await state_of(ann, room_id, "m.room.member", bob.user_id)
        return member["membership"] == "leave"

    await eventually(is_declined)
    assert (await bob.post(f"{C}/join/{room_id}", {})).status == 403


async def test_who_is_kicked_or_banned_is_out_on_both_sides(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    answer = await ann.post(f"{C}/rooms/{room_id}/ban", {"user_id": bob.user_id, "reason": "spam"})
    assert answer.status == 200, answer.body

    async def is_out() -> bool:
        synced = (await bob.get(f"{C}/sync", filter='{"room":{"include_leave":true}}')).json
        return room_id in synced["rooms"].get("leave", {})

    await eventually(is_out)
    assert (await bob.put(f"{C}/rooms/{room_id}/send/m.room.message/x", {"body": "x"})).status == 403
    assert (await bob.post(f"{C}/join/{room_id}", {"via": ["one.test"]})).status == 403


async def test_a_room_of_three_servers(peers: Peers) -> None:
    servers = [
        await peers.server(name, historical=historical(*({"one", "two", "three"} - {name})))
        for name in ("one", "two", "three")
    ]
    ann, bob, cec = [await server.register(name) for server, name in zip(servers, "abc", strict=True)]
    room_id = await create(ann)
    await join(bob, "#room:one.test")
    await join(cec, "#room:one.test")

    async def is_whole(user: User) -> bool:
        return await members(user, room_id) == {ann.user_id, bob.user_id, cec.user_id}

    for user in (ann, bob, cec):
        await eventually(lambda user=user: is_whole(user))
    for user in (ann, bob, cec):
        await say(user, room_id, user.user_id)
    for user in (ann, bob, cec):
        for other in (ann, bob, cec):
            await eventually(lambda user=user, other=other: _has(user, room_id, other.user_id))


async def test_a_second_user_of_a_server_joins_without_asking(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, _, room_id = await meet(one, two)
    dan = await two.register("dan")
    await join(dan, room_id)
    await say(dan, room_id, "me too")
    await reads(ann, room_id, "me too")


async def test_typing_and_presence_are_seen_on_the_other_side(peers: Peers) -> None:
    one, two = await peers.pair(presence=PresenceConfig(enabled=True))
    ann, bob, room_id = await meet(one, two)
    answer = await bob.put(f"{C}/rooms/{room_id}/typing/{bob.user_id}", {"typing": True, "timeout": 30000})
    assert answer.status == 200

    async def types(expected: list[str]) -> bool:
        room = (await ann.get(f"{C}/sync")).json["rooms"]["join"][room_id]
        typing = [e["content"]["user_ids"] for e in room["ephemeral"]["events"] if e["type"] == "m.typing"]
        return (typing or [[]])[0] == expected

    await eventually(lambda: types([bob.user_id]))
    await bob.put(f"{C}/rooms/{room_id}/typing/{bob.user_id}", {"typing": False})
    await eventually(lambda: types([]))
    status = {"presence": "unavailable", "status_msg": "tea"}
    await bob.put(f"{C}/presence/{bob.user_id}/status", status)

    async def is_seen() -> bool:
        answer = await ann.get(f"{C}/presence/{bob.user_id}/status")
        return answer.json.get("presence") == "unavailable" and answer.json.get("status_msg") == "tea"

    await eventually(is_seen)
    stored = await two.client.get(f"{OLD}/context/{quote(room_id, safe='')}/")
    assert "typing" not in stored.body.decode()


async def test_a_profile_is_asked_of_its_server(peers: Peers) -> None:
    one, two = await peers.pair()
    ann, bob = await one.register("ann"), await two.register("bob")
    await bob.put(f"{C}/profile/{bob.user_id}/displayname", {"displayname": "Bob"})
    answer = await ann.get(f"{C}/profile/{bob.user_id}")
    assert answer.json == {"displayname": "Bob"}
    assert (await ann.get(f"{C}/profile/@nobody:two.test")).status == 404


async def test_an_alias_that_leads_nowhere(peers: Peers) -> None:
    one, two = await peers.pair()
    bob = await two.register("bob")
    await one.register("ann")
    assert (await bob.post(f"{C}/join/%23nope:one.test", {})).status == 404


async def test_the_version_is_offered_only_where_the_protocol_is_spoken(peers: Peers) -> None:
    one = await peers.server("one", historical=historical("two"))
    off = await peers.server("off", federation=FederationConfig(enabled=False))
    for server, status in ((one, 200), (off, 400)):
        user = await server.register("ann")
        answer = await user.get(f"{C}/capabilities")
        versions = answer.json["capabilities"]["m.room_versions"]["available"]
        assert versions.get(VERSION) == ("unstable" if status == 200 else None)
        answer = await user.post(f"{C}/createRoom", {"room_version": VERSION})
        assert answer.status == status
        if status == 400:
            assert answer.errcode == "M_UNSUPPORTED_ROOM_VERSION"


@pytest.mark.parametrize("seed", range(3))
async def test_a_bad_line_loses_nothing(peers: Peers, seed: int) -> None:
    one, two = await peers.pair()
    ann, bob, room_id = await meet(one, two)
    peers.disturb(seed=seed, delay_s=0.01, loss=0.3)
    for number in range(12):
        await say(ann if number % 2 else bob, room_id, f"m{number}")

    async def all_there() -> bool:
        peers.clock.skip(5)
        wanted = {f"m{number}" for number in range(12)}
        return wanted == set(await texts(ann, room_id)) == set(await texts(bob, room_id))

    await eventually(all_there)
    peers.heal()
    assert len(await texts(ann, room_id)) == len(await texts(bob, room_id)) == 12


async def test_such_rooms_are_none_for_the_federation_of_today(peers: Peers) -> None:
    on = FederationConfig(enabled=True)
    one = await peers.server("one", historical=historical("two"), federation=on)
    two = await peers.server("two", historical=historical("one"), federation=on)
    for server in (one, two):
        peers.add(server.server_name, server.app(frozenset({Api.CLIENT, Api.FEDERATION, Api.ALWAYS})))
    ann, bob = await one.register("ann"), await two.register("bob")
    room_id = await create(ann, visibility="public")
    await join(bob, "#room:one.test")
    await say(ann, room_id, "hello")
    await reads(bob, room_id, "hello")
    await ann.post(f"{C}/rooms/{room_id}/kick", {"user_id": bob.user_id})
    await asyncio.sleep(0.2)
    today = [request.url for _, request in peers.log if "/_matrix/federation/" in request.url]
    assert [url for url in today if "query" not in url] == []
    answer = await bob.post(f"{C}/publicRooms", {}, server="one.test")
    assert answer.json["chunk"] == []
    answer = await ann.post(f"{C}/publicRooms", {})
    assert [room["room_id"] for room in answer.json["chunk"]] == [room_id]
