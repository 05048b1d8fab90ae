"""An administrator for tests, and the paths of the administration API."""

from typing import Any, Final

from ranvier.store.tables.accounts import AccountKind, find_account_by_id, set_kind

from .homeserver import Homeserver, User

V1: Final = "/_synapse/admin/v1"
V2: Final = "/_synapse/admin/v2"
V3: Final = "/_synapse/admin/v3"
CLIENT: Final = "/_matrix/client/v3"


async def register_admin(homeserver: Homeserver, name: str = "admin") -> User:
    user = await homeserver.register(name)
    await homeserver.foundation.ports.db.write(promote, user.user_id)
    return await homeserver.login(name)


def promote(txn: Any, user_id: str) -> None:
    account = find_account_by_id(txn, user_id)
    assert account is not None
    set_kind(txn, account.user_nid, AccountKind.ADMIN)


async def create_room(user: User, **wish: Any) -> str:
    answer = await user.post(f"{CLIENT}/createRoom", wish)
    assert answer.status == 200, answer.body
    return str(answer.json["room_id"])


async def send(user: User, room_id: str, body: str, txn_id: str | None = None) -> str:
    path = f"{CLIENT}/rooms/{room_id}/send/m.room.message/{txn_id or body}"
    answer = await user.put(path, {"msgtype": "m.text", "body": body})
    assert answer.status == 200, answer.body
    return str(answer.json["event_id"])


async def join(user: User, room_id: str) -> None:
    answer = await user.post(f"{CLIENT}/rooms/{room_id}/join", {})
    assert answer.status == 200, answer.body
