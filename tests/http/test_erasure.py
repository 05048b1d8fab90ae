"""What a user said who wanted it to be erased."""

import pytest

from .homeserver import PASSWORD
from .rooms import C, create, do, say


async def close(user, *, erase):
    identifier = {"type": "m.id.user", "user": user.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    answer = await user.post(f"{C}/account/deactivate", {"erase": erase, "auth": auth})
    assert answer.status == 200, answer.body


async def read_everywhere(user, room_id, event_id):
    """The contents of an event in /messages, /event, /context, /sync and sliding sync."""
    path = f"{C}/rooms/{room_id}"
    messages = (await user.get(f"{path}/messages", dir="b", limit=100)).json["chunk"]
    first = (await user.get(f"{C}/sync")).json["rooms"]["join"][room_id]["timeline"]["events"]
    lists = {"all": {"ranges": [[0, 9]], "timeline_limit": 20, "required_state": []}}
    sliding = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
    slid = (await user.post(sliding, {"conn_id": "1", "lists": lists})).json["rooms"][room_id]["timeline"]
    found = [event for part in (messages, first, slid) for event in part if event["event_id"] == event_id]
    assert len(found) == 3
    found.append((await user.get(f"{path}/event/{event_id}")).json)
    found.append((await user.get(f"{path}/context/{event_id}")).json["event"])
    return [event["content"] for event in found]


@pytest.mark.parametrize("erase", [True, False])
async def test_who_was_not_there_does_not_get_what_was_erased(alice, bob, carol, erase):
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    secret = await say(bob, room_id, "secret")
    told = {"msgtype": "m.text", "body": "secret"}
    await close(bob, erase=erase)
    await do(carol, room_id, "join")
    assert await read_everywhere(alice, room_id, secret) == [told] * 5
    assert await read_everywhere(carol, room_id, secret) == [{} if erase else told] * 5


async def test_what_replaced_something_erased_does_not_tell_it(alice, bob, carol):
    """An old topic of Bob's, as `prev_content` of the one that came after it."""
    room_id = await create(
        alice, preset="public_chat", power_level_content_override={"events": {}, "state_default": 0}
    )
    await do(bob, room_id, "join")
    path = f"{C}/rooms/{room_id}/state/m.room.topic"
    old = (await bob.put(path, {"topic": "secret"})).json["event_id"]
    new = (await alice.put(path, {"topic": "new"})).json["event_id"]
    await close(bob, erase=True)
    await do(carol, room_id, "join")

    async def read(user):
        """The old topic, and what the new one tells of it."""
        chunk = (await user.get(f"{C}/rooms/{room_id}/messages", dir="b", limit=100)).json["chunk"]
        found = {event["event_id"]: event for event in chunk}
        first = (await user.get(f"{C}/sync")).json["rooms"]["join"][room_id]
        synced = {event["event_id"]: event for event in first["timeline"]["events"]}
        one = (await user.get(f"{C}/rooms/{room_id}/event/{new}")).json
        told = [event["unsigned"].get("prev_content") for event in (found[new], synced[new], one)]
        return found[old]["content"], told

    assert await read(alice) == ({"topic": "secret"}, [{"topic": "secret"}] * 3)
    assert await read(carol) == ({}, [None] * 3)


async def test_the_state_of_a_room_outlives_whoever_set_it(alice, bob, carol):
    """Newcomers would else write in the clear."""
    room_id = await create(
        alice, preset="public_chat", power_level_content_override={"events": {}, "state_default": 0}
    )
    await do(bob, room_id, "join")
    encryption = {"algorithm": "m.megolm.v1.aes-sha2"}
    path = f"{C}/rooms/{room_id}/state"
    await bob.put(f"{path}/m.room.encryption", encryption)
    await close(bob, erase=True)
    await do(carol, room_id, "join")
    assert (await carol.get(f"{path}/m.room.encryption")).json == encryption
    first = (await carol.get(f"{C}/sync")).json["rooms"]["join"][room_id]
    told = [*first["state"]["events"], *first["timeline"]["events"]]
    contents = [event["content"] for event in told if event["type"] == "m.room.encryption"]
    assert contents == [encryption]
