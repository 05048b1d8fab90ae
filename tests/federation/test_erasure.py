"""What a user said who wanted it to be erased is not given to servers that come later."""

from ..http.client import segment
from ..http.homeserver import PASSWORD, eventually
from .network import Network

C = "/_matrix/client/v3"


async def test_servers_that_come_later_do_not_get_what_was_erased(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, carol, bob = await one.register("alice"), await one.register("carol"), await two.register("bob")
    room_id = (await alice.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"]
    path = f"{C}/rooms/{segment(room_id)}"
    assert (await alice.put(f"{path}/state/m.room.power_levels", {"state_default": 0})).status == 200
    assert (await carol.post(f"{C}/join/{segment(room_id)}", {})).status == 200
    secret = (await carol.put(f"{path}/send/m.room.message/1", {"body": "secret"})).json["event_id"]
    plain = (await alice.put(f"{path}/send/m.room.message/2", {"body": "plain"})).json["event_id"]
    topics = [
        (await carol.put(f"{path}/state/m.room.topic", {"topic": topic})).json["event_id"]
        for topic in ("secret topic", "topic")
    ]
    identifier = {"type": "m.id.user", "user": carol.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    closed = await carol.post(f"{C}/account/deactivate", {"erase": True, "auth": auth})
    assert closed.status == 200, closed.body

    async def has_left() -> bool:
        return carol.user_id not in (await alice.get(f"{path}/joined_members")).json["joined"]

    await eventually(has_left)  # what comes beside the join is another matter
    joined = await bob.post(f"{C}/join/{segment(room_id)}?server_name=one.test", {})
    assert joined.status == 200, joined.body
    history = (await bob.get(f"{path}/messages", dir="b", limit=50)).json["chunk"]
    contents = {event["event_id"]: event["content"] for event in history}
    assert contents[plain] == {"body": "plain"}
    assert contents[secret] == {}
    # What is the room's state now is what the room is.
    assert [contents[topic] for topic in topics] == [{}, {"topic": "topic"}]
