"""Joins, leaves, knocks and invites by servers that do not behave, and by those that do."""

from typing import Any

import orjson
import pytest

from ranvier.core.canonical_json import encode, parse_object
from ranvier.core.events.build import EventTemplate, Placement, build_event
from ranvier.core.events.pdu import Pdu
from ranvier.core.events.template import parse_template
from ranvier.core.identifiers import EventID
from ranvier.core.room_versions import V10, V12, RoomVersion
from ranvier.core.signing import SigningKey

from ..http.client import Answer, segment
from ..http.homeserver import Homeserver, User, eventually
from .agreement import is_server_in_room
from .network import Network
from .peer import Peer, RoomCopy

FED = "/_matrix/federation"
ROOMS = "/_matrix/client/v3/createRoom"


async def make(
    peer: Peer, server: Homeserver, room_id: str, user: str, kind: str = "join", ver: str = "?ver=12"
) -> Answer:
    path = f"{FED}/v1/make_{kind}/{segment(room_id)}/{segment(user)}{ver}"
    return await peer.request(server, "GET", path)


def sign(peer: Peer, answer: Answer, version: RoomVersion = V12, **content: Any) -> Pdu:
    """The event that was offered, made the peer's own."""
    event = answer.json["event"]
    event["content"] |= content
    event_id = None if version.hash_event_ids else EventID(f"$made:{peer.name}")
    template, placement = parse_template(event, version, peer.clock.now_ms(), event_id)
    return build_event(template, placement, version, peer.name, peer.key)


async def hand_in(
    peer: Peer,
    server: Homeserver,
    pdu: Pdu,
    kind: str = "v2/send_join",
    event_id: str | None = None,
    query: str = "",
) -> Answer:
    path = f"{FED}/{kind}/{segment(pdu.room_id)}/{segment(event_id or pdu.event_id)}{query}"
    return await peer.request(server, "PUT", path, pdu.json)


@pytest.fixture
async def server(network: Network) -> Homeserver:
    return await network.server("one")


@pytest.fixture
async def alice(server: Homeserver) -> User:
    return await server.register("alice")


async def create(alice: User, **body: Any) -> str:
    answer = await alice.post(ROOMS, {"room_version": "12", "preset": "public_chat"} | body)
    assert answer.status == 200, answer.body
    return answer.json["room_id"]


async def test_join_answer_holds_the_state_before_the_join(
    network: Network, server: Homeserver, alice: User
) -> None:
    room_id, peer = await create(alice, name="Hall"), Peer(network)
    offer = await make(peer, server, room_id, peer.user("bob"))
    assert offer.json["room_version"] == "12"
    join = sign(peer, offer)
    answer = await hand_in(peer, server, join)
    assert answer.status == 200, answer.body
    state = {(pdu["type"], pdu["state_key"]) for pdu in answer.json["state"]}
    assert ("m.room.name", "") in state
    assert ("m.room.member", peer.user("bob")) not in state
    assert answer.json["members_omitted"] is False
    assert answer.json["servers_in_room"] == ["one.test"]
    assert parse_object(join.json) == answer.json["event"]
    again = await hand_in(peer, server, join)
    assert again.status == 200, "the answer may have been lost"


@pytest.mark.parametrize("name", [None, "Hall"])
async def test_join_answer_without_members(
    network: Network, server: Homeserver, alice: User, name: str | None
) -> None:
    """But with those after whom a room without name is called; and nothing twice."""
    peer = Peer(network)
    room_id = await create(alice, **({} if name is None else {"name": name}))
    for count in range(8):
        joined = sign(peer, await make(peer, server, room_id, peer.user(f"u{count}")))
        assert (await hand_in(peer, server, joined)).status == 200
    join = sign(peer, await make(peer, server, room_id, peer.user("bob")))
    answer = await hand_in(peer, server, join, query="?omit_members=true")
    assert answer.status == 200, answer.body
    assert answer.json["members_omitted"] is True
    assert set(answer.json["servers_in_room"]) == {"one.test", "peer.test"}
    members = [pdu for pdu in answer.json["state"] if pdu["type"] == "m.room.member"]
    assert 5 <= len(members) <= 6 if name is None else not members
    own = {encode(pdu) for pdu in answer.json["state"]}
    chain = {encode(pdu) for pdu in answer.json["auth_chain"]}
    assert not own & chain
    assert {"m.room.create", "m.room.power_levels", "m.room.join_rules"} <= {
        pdu["type"] for pdu in answer.json["state"]
    }
    assert alice.user_id in {pdu.get("state_key") for pdu in answer.json["auth_chain"] + members}
    assert (await hand_in(peer, server, join, query="?omit_members=7")).errcode == "M_INVALID_PARAM"


async def test_others_are_told_of_a_join_that_was_built_beside_the_head(
    network: Network, server: Homeserver, alice: User
) -> None:
    """Between the offer and the join the room moved on: the join is merged, and passed on all the same."""
    room_id, peer = await create(alice), Peer(network)
    two = await network.server("two")
    bob = await two.register("bob")
    assert (await bob.post(f"/_matrix/client/v3/join/{segment(room_id)}?server_name=one.test")).status == 200
    join = sign(peer, await make(peer, server, room_id, peer.user("cid")))
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/send/m.room.message/1"
    assert (await alice.put(path, {"body": "meanwhile", "msgtype": "m.text"})).status == 200
    assert (await hand_in(peer, server, join)).status == 200
    await eventually(lambda: is_server_in_room(two, room_id, peer.name))


async def test_make_join_refusals(network: Network, server: Homeserver, alice: User) -> None:
    room_id, peer = await create(alice), Peer(network)
    bob = peer.user("bob")
    old = await make(peer, server, room_id, bob, ver="")
    assert (old.status, old.errcode, old.json["room_version"]) == (400, "M_INCOMPATIBLE_ROOM_VERSION", "12")
    assert (await make(peer, server, room_id, "@bob:elsewhere.test")).errcode == "M_FORBIDDEN"
    assert (await make(peer, server, "!" + "x" * 43, bob)).errcode == "M_NOT_FOUND"
    private = await create(alice, preset="private_chat")
    assert (await make(peer, server, private, bob)).errcode == "M_FORBIDDEN"
    assert (await make(peer, server, private, bob, "leave", "")).errcode == "M_FORBIDDEN"
    assert (await make(peer, server, private, bob, "knock")).errcode == "M_FORBIDDEN"
    assert (await make(peer, server, private, bob, "knock", "")).errcode == "M_MISSING_PARAM"


async def test_send_join_refusals(network: Network, server: Homeserver, alice: User) -> None:
    room_id, peer = await create(alice), Peer(network)
    offer = await make(peer, server, room_id, peer.user("bob"))
    good = sign(peer, offer)
    other = sign(peer, offer, displayname="Bob")
    assert (await hand_in(peer, server, good, event_id=other.event_id)).errcode == "M_INVALID_PARAM"
    left = sign(peer, offer, membership="leave")
    assert (await hand_in(peer, server, left)).errcode == "M_INVALID_PARAM"
    assert (await hand_in(peer, server, good, kind="v2/send_leave")).errcode == "M_INVALID_PARAM"
    stranger = Peer(network, "stranger")
    assert (await hand_in(stranger, server, good)).errcode == "M_INVALID_PARAM"
    peer.key, key = SigningKey(b"f" * 32, "k1"), peer.key
    forged = sign(peer, offer)
    peer.key = key
    assert (await hand_in(peer, server, forged)).errcode == "M_INVALID_PARAM"
    path = f"{FED}/v2/send_join/{segment(room_id)}/{segment(good.event_id)}"
    assert (await peer.request(server, "PUT", path, b'{"type":7}')).errcode == "M_INVALID_PARAM"
    assert (await hand_in(peer, server, good)).status == 200, "after all that, the good one still gets in"


async def test_a_join_offered_before_a_ban_is_refused_after_it(
    network: Network, server: Homeserver, alice: User
) -> None:
    room_id, peer = await create(alice), Peer(network)
    bob = peer.user("bob")
    join = sign(peer, await make(peer, server, room_id, bob))
    ban = await alice.post(f"/_matrix/client/v3/rooms/{segment(room_id)}/ban", {"user_id": bob})
    assert ban.status == 200
    assert (await hand_in(peer, server, join)).errcode == "M_FORBIDDEN"


async def test_restricted_rooms(network: Network, server: Homeserver, alice: User) -> None:
    """Each way in which a server can be unable to vouch has its errcode."""
    peer = Peer(network)
    bob = peer.user("bob")

    async def restricted(*allowed: str) -> str:
        allow = [{"type": "m.room_membership", "room_id": room_id} for room_id in allowed]
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}
        return await create(alice, preset="private_chat", initial_state=[rules])

    here, unknown = await create(alice), "!" + "u" * 43
    assert (await make(peer, server, await restricted(here), bob)).errcode == "M_FORBIDDEN"
    assert (await make(peer, server, await restricted(unknown), bob)).errcode == "M_UNABLE_TO_AUTHORISE_JOIN"
    assert (await hand_in(peer, server, sign(peer, await make(peer, server, here, bob)))).status == 200
    room_id = await restricted(here)
    offer = await make(peer, server, room_id, bob)
    assert offer.json["event"]["content"]["join_authorised_via_users_server"] == "@alice:one.test"
    answer = await hand_in(peer, server, sign(peer, offer))
    assert answer.status == 200, answer.body
    assert set(answer.json["event"]["signatures"]) == {"one.test", "peer.test"}


def invite_event(peer: Peer, invitee: str, version: RoomVersion) -> tuple[RoomCopy, Pdu, list[Any]]:
    """A room of the peer's with an invite in it, and what it shows of itself."""
    creator = peer.user("bob")
    content = {"room_version": version.name} | (
        {"creator": creator} if version.auth.creator_in_content else {}
    )
    named = version.auth.room_id_is_create_hash
    room_id = None if named else f"!room:{peer.name}"
    create_event = build_event(
        EventTemplate(room_id=room_id, type="m.room.create", state_key="", sender=creator, content=content),
        Placement(prev_events=[], auth_events=[], depth=1, origin_server_ts=peer.clock.now_ms()),
        version,
        peer.name,
        peer.key,
    )
    room = RoomCopy(create_event.room_id, version)
    room.add(create_event)
    joined = peer.event(
        room, creator, "m.room.member", {"membership": "join"}, prev=[create_event], state_key=creator
    )
    invite = peer.event(
        room, creator, "m.room.member", {"membership": "invite"}, prev=[joined], state_key=invitee
    )
    return room, invite, [orjson.loads(pdu.json) for pdu in (create_event, joined)]


async def send_invite(
    peer: Peer, server: Homeserver, invite: Pdu, shown: list[Any], version: str, **body: Any
) -> Answer:
    content = {"event": parse_object(invite.json), "invite_room_state": shown, "room_version": version} | body
    path = f"{FED}/v2/invite/{segment(invite.room_id)}/{segment(invite.event_id)}"
    return await peer.request(server, "PUT", path, encode(content))


@pytest.mark.parametrize("version", [V10, V12], ids=lambda version: version.name)
async def test_invites_are_signed(
    network: Network, server: Homeserver, alice: User, version: RoomVersion
) -> None:
    peer = Peer(network)
    _, invite, shown = invite_event(peer, alice.user_id, version)
    answer = await send_invite(peer, server, invite, shown, version.name)
    assert answer.status == 200, answer.body
    assert set(answer.json["event"]["signatures"]) == {"one.test", "peer.test"}
    synced = (await alice.get("/_matrix/client/v3/sync")).json["rooms"]["invite"]
    assert {e["type"] for e in synced[invite.room_id]["invite_state"]["events"]} == {
        "m.room.create",
        "m.room.member",
    }


async def test_invites_that_are_refused(network: Network, server: Homeserver, alice: User) -> None:
    peer = Peer(network)
    _, invite, shown = invite_event(peer, alice.user_id, V12)
    assert (await send_invite(peer, server, invite, shown, "nope")).errcode == "M_INCOMPATIBLE_ROOM_VERSION"
    assert (await send_invite(peer, server, invite, shown[1:], "12")).errcode == "M_INVALID_PARAM"
    assert (await send_invite(peer, server, invite, [*shown, 7], "12")).errcode == "M_INVALID_PARAM"
    _, nobody, shown = invite_event(peer, "@nobody:one.test", V12)
    assert (await send_invite(peer, server, nobody, shown, "12")).errcode == "M_FORBIDDEN"
    _, elsewhere, shown = invite_event(peer, "@x:two.test", V12)
    assert (await send_invite(peer, server, elsewhere, shown, "12")).errcode == "M_INVALID_PARAM"
    stranger = Peer(network, "stranger")
    _, invite, shown = invite_event(peer, alice.user_id, V12)
    assert (await send_invite(stranger, server, invite, shown, "12")).errcode == "M_INVALID_PARAM"
    config = {"default_action": "block"}
    path = f"/_matrix/client/v3/user/{segment(alice.user_id)}/account_data/m.invite_permission_config"
    assert (await alice.put(path, config)).status == 200
    assert (await send_invite(peer, server, invite, shown, "12")).errcode == "M_INVITE_BLOCKED"


async def test_spaces(network: Network, server: Homeserver, alice: User) -> None:
    """A server is shown what its users could enter, and told of the rest that it is there."""
    peer = Peer(network)
    hall, den = await create(alice, name="Hall"), await create(alice, preset="private_chat", name="Den")
    children = [
        {"type": "m.space.child", "state_key": room_id, "content": {"via": ["one.test"]}}
        for room_id in (hall, den)
    ]
    space = await create(alice, creation_content={"type": "m.space"}, initial_state=children)
    path = f"{FED}/v1/hierarchy/{segment(space)}"
    answer = await peer.request(server, "GET", path)
    assert answer.status == 200, answer.body
    assert {child["state_key"] for child in answer.json["room"]["children_state"]} == {hall, den}
    assert [child["name"] for child in answer.json["children"]] == ["Hall"]
    assert answer.json["inaccessible_children"] == [den]
    suggested = await peer.request(server, "GET", f"{path}?suggested_only=true")
    assert suggested.json["children"] == []
    hidden = await peer.request(server, "GET", f"{FED}/v1/hierarchy/{segment(den)}")
    assert hidden.errcode == "M_NOT_FOUND"


async def test_queries_answer_for_this_server_only(network: Network, server: Homeserver, alice: User) -> None:
    await create(alice, room_alias_name="hall", visibility="public", name="Hall")
    await alice.put(f"/_matrix/client/v3/profile/{segment(alice.user_id)}/displayname", {"displayname": "A"})
    peer = Peer(network)

    async def ask(path: str) -> Answer:
        return await peer.request(server, "GET", f"{FED}/v1/{path}")

    assert (await ask("query/directory?room_alias=%23hall:one.test")).json["servers"] == ["one.test"]
    assert (await ask("query/directory?room_alias=%23hall:two.test")).errcode == "M_NOT_FOUND"
    assert (await ask("query/directory")).errcode == "M_MISSING_PARAM"
    assert (await ask("query/profile?user_id=%40alice:one.test&field=displayname")).json == {
        "displayname": "A"
    }
    assert (await ask("query/profile?user_id=%40alice:two.test")).errcode == "M_NOT_FOUND"
    assert (await ask("query/weather")).errcode == "M_UNRECOGNIZED"
    assert [room["name"] for room in (await ask("publicRooms?limit=5")).json["chunk"]] == ["Hall"]
    body = encode({"filter": {"generic_search_term": "nothing"}})
    assert (await peer.request(server, "POST", f"{FED}/v1/publicRooms", body)).json["chunk"] == []


async def test_servers_of_old_join_and_leave_in_the_first_form(
    network: Network, server: Homeserver, alice: User
) -> None:
    room_id, peer = await create(alice), Peer(network)
    user = peer.user("bob")
    wrong = await hand_in(peer, server, sign(peer, await make(peer, server, room_id, user)), "v1/send_leave")
    assert (wrong.status, wrong.errcode) == (400, "M_INVALID_PARAM")
    joined = await hand_in(peer, server, sign(peer, await make(peer, server, room_id, user)), "v1/send_join")
    assert joined.json[0] == 200
    assert {"auth_chain", "state"} <= joined.json[1].keys()
    left = await hand_in(
        peer, server, sign(peer, await make(peer, server, room_id, user, "leave")), "v1/send_leave"
    )
    assert left.json == [200, {}]
