"""What a push gateway is sent, and what it answers.

Spec: push gateway API, POST /_matrix/push/v1/notify.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.push.rules import Outcome
from ranvier.io.ports import HttpClient, HttpRequest, Misbehaved
from ranvier.store.tables.pushers import Pusher

TIMEOUT_S: Final = 15.0
MAX_ANSWER_BYTES: Final = 65_536

EVENT_ID_ONLY: Final = "event_id_only"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """An event of which a user is to be told."""

    event_nid: int
    event_id: str
    room_id: str
    type: str
    sender: str
    content: JsonObject
    is_about_user: bool  # a member event with the user's id as state_key
    outcome: Outcome
    sender_name: str | None = None
    room_name: str | None = None
    room_alias: str | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether a device should be woken at once. What is encrypted may be anything."""
        return self.outcome.highlight or self.outcome.sound is not None or self.type == "m.room.encrypted"


class Answer(msgspec.Struct, frozen=True):
    """`rejected`: push keys that the gateway does not know any more."""

    rejected: list[str] = []


def build_notification(pusher: Pusher, notice: Notice | None, unread: int) -> JsonObject:
    """The body of the request. Without a notice it only tells the number of unread messages."""
    data: JsonObject = msgspec.json.decode(pusher.keys.data)
    device = {
        "app_id": pusher.keys.app_id,
        "pushkey": pusher.keys.pushkey,
        "pushkey_ts": pusher.created_ms // 1000,
        "data": {key: value for key, value in data.items() if key != "url"},
    }
    # "Counts whose value is zero should be omitted": but a badge that is to go away has to be told.
    counts = {"unread": unread} if unread or notice is None else {}
    if notice is None:
        return {"notification": {"counts": counts, "devices": [device]}}
    device["tweaks"] = dict(notice.outcome.tweaks)
    notification: JsonObject = {
        "event_id": notice.event_id,
        "room_id": notice.room_id,
        "counts": counts,
        "devices": [device],
        "prio": "high" if notice.is_urgent else "low",
    }
    if data.get("format") != EVENT_ID_ONLY:
        notification |= _describe(notice)
    return {"notification": notification}


def _describe(notice: Notice) -> dict[str, Any]:
    optional: Mapping[str, str | None] = {
        "sender_display_name": notice.sender_name,
        "room_name": notice.room_name,
        "room_alias": notice.room_alias,
    }
    described: dict[str, Any] = {"type": notice.type, "sender": notice.sender, "content": notice.content}
    if notice.is_about_user:
        described["user_is_target"] = True
    return described | {name: text for name, text in optional.items() if text is not None}


async def send_notification(client: HttpClient, pusher: Pusher, notification: JsonObject) -> bool:
    """Deliver; False: the gateway rejects the pusher, which has to go.

    Raises: RemoteFault when it was not delivered.
    """
    data: JsonObject = msgspec.json.decode(pusher.keys.data)
    request = HttpRequest(
        method="POST",
        url=str(data["url"]),
        headers={"Content-Type": "application/json"},
        body=msgspec.json.encode(notification),
        timeout_s=TIMEOUT_S,
        max_response_bytes=MAX_ANSWER_BYTES,
    )
    response = await client.send(request)
    if response.status // 100 != 2:
        raise Misbehaved(f"the push gateway answered {response.status}")
    try:
        answer = msgspec.json.decode(response.body, type=Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # COMPAT: it took the notification, whatever it says about it.
        return True
    return pusher.keys.pushkey not in answer.rejected
