"""Who may redact what."""

from .administrators import register_admin
from .rooms import C, create, do, say, set_state


async def redact(user, room_id, event_id, txn_id="1"):
    return await user.put(f"{C}/rooms/{room_id}/redact/{event_id}/{txn_id}", {})


async def content(user, room_id, event_id):
    return (await user.get(f"{C}/rooms/{room_id}/event/{event_id}")).json["content"]


async def test_users_redact_their_own_events_and_not_those_of_others_on_their_server(alice, bob):
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    hers, his = await say(alice, room_id, "hers"), await say(bob, room_id, "his")
    for refused in (
        await redact(bob, room_id, hers),
        await bob.put(f"{C}/rooms/{room_id}/send/m.room.redaction/1", {"redacts": hers}),
    ):
        assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")
    assert (await content(bob, room_id, hers))["body"] == "hers"
    assert (await redact(bob, room_id, his)).status == 200
    assert await content(alice, room_id, his) == {}


async def test_moderators_redact_the_events_of_others(alice, bob):
    room_id = await create(alice, preset="public_chat", power_level_content_override={"redact": 20})
    await do(bob, room_id, "join")
    hers, his = await say(alice, room_id, "hers"), await say(bob, room_id, "his")
    assert (await redact(alice, room_id, his)).status == 200
    assert await content(bob, room_id, his) == {}
    assert (await redact(bob, room_id, hers)).status == 403
    await set_state(alice, room_id, "m.room.power_levels", {"redact": 20, "users": {bob.user_id: 20}})
    assert (await redact(bob, room_id, hers, "2")).status == 200
    assert await content(alice, room_id, hers) == {}
    # What has not arrived here yet may be redacted, too.
    assert (await redact(alice, room_id, "$unknown")).status == 200


async def test_administrators_redact_what_users_of_their_server_sent(homeserver, alice):
    admin = await register_admin(homeserver)
    room_id = await create(alice, preset="public_chat")
    await do(admin, room_id, "join")
    hers = await say(alice, room_id, "hers")
    assert (await redact(admin, room_id, hers)).status == 200
    assert await content(alice, room_id, hers) == {}
