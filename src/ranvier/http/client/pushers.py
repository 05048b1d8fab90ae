"""Pushers. Spec: client-server API, "Push Notifications"."""

from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.push.pushers import Pushers, parse_pusher

_PUSHER_BYTES: Final = 32_768


class PusherEndpoints:
    """Where a user's devices are told of events."""

    def __init__(self, pushers: Pushers) -> None:
        self._pushers = pushers

    @endpoint("GET", "/_matrix/client/v3/pushers", operation="getPushers")
    async def get_pushers(self, request: Request) -> JsonObject:
        return {"pushers": await self._pushers.list_of(request.requester)}

    @endpoint(
        "POST",
        "/_matrix/client/v3/pushers/set",
        operation="postPusher",
        rate=Rate.WRITE,
        max_body_bytes=_PUSHER_BYTES,
    )
    async def post_pusher(self, request: Request) -> JsonObject:
        await self._pushers.set(request.requester, parse_pusher(request.json()))
        return {}
