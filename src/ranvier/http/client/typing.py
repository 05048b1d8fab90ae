"""Typing notifications. Spec: client-server API, "Typing Notifications"."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.ephemeral.typing import DEFAULT_TIMEOUT_MS, Typing


class TypingBody(msgspec.Struct, frozen=True):
    typing: bool
    timeout: int | None = None  # ms


class TypingEndpoints:
    """Who types."""

    def __init__(self, typing: Typing) -> None:
        self._typing = typing

    @endpoint(
        "PUT",
        "/_matrix/client/v3/rooms/{roomId}/typing/{userId}",
        operation="setTyping",
        rate=Rate.WRITE,
    )
    async def set_typing(self, request: Request) -> JsonObject:
        body = request.body(TypingBody)
        timeout_ms = DEFAULT_TIMEOUT_MS if body.timeout is None else body.timeout
        await self._typing.set_typing(
            request.requester,
            request.room_id,
            request.path["userId"],
            timeout_ms if body.typing else None,
        )
        return {}
