"""What tests of rooms do again and again."""

from typing import Any

from .client import Answer, segment
from .homeserver import User

C = "/_matrix/client/v3"


async def create(user: User, **body: Any) -> str:
    """A new room of the user."""
    answer = await user.post(f"{C}/createRoom", body)
    assert answer.status == 200, answer.body
    return answer.json["room_id"]


async def ask(user: User, room_id: str, action: str, **body: Any) -> Answer:
    """POST /rooms/{roomId}/{action}."""
    return await user.post(f"{C}/rooms/{segment(room_id)}/{action}", body)


async def do(user: User, room_id: str, action: str, **body: Any) -> None:
    """The same, which has to succeed."""
    answer = await ask(user, room_id, action, **body)
    assert answer.status == 200, answer.body


async def put_state(user: User, room_id: str, event_type: str, content: Any, state_key: str = "") -> Answer:
    return await user.put(
        f"{C}/rooms/{segment(room_id)}/state/{segment(event_type)}/{segment(state_key)}", content
    )


async def set_state(user: User, room_id: str, event_type: str, content: Any, state_key: str = "") -> str:
    """The event's id."""
    answer = await put_state(user, room_id, event_type, content, state_key)
    assert answer.status == 200, answer.body
    return answer.json["event_id"]


async def get_state(user: User, room_id: str, event_type: str, state_key: str = "") -> Any:
    """The content."""
    answer = await user.get(f"{C}/rooms/{segment(room_id)}/state/{segment(event_type)}/{segment(state_key)}")
    assert answer.status == 200, answer.body
    return answer.json


async def membership(user: User, room_id: str, user_id: str) -> str:
    """The membership of `user_id`, as `user` sees it."""
    return (await get_state(user, room_id, "m.room.member", user_id))["membership"]


async def say(user: User, room_id: str, body: str, txn_id: str | None = None) -> str:
    """Send a message; its event id."""
    path = f"{C}/rooms/{segment(room_id)}/send/m.room.message/{segment(txn_id or body)}"
    answer = await user.put(path, {"msgtype": "m.text", "body": body})
    assert answer.status == 200, answer.body
    return answer.json["event_id"]
