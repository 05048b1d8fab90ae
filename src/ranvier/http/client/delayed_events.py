"""Events that are sent later: scheduled, looked up, restarted, sent at once, canceled. Spec: MSC4140."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam
from ranvier.core.limits import MAX_SAFE_INTEGER
from ranvier.http.client.room_send import dated
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.delayed_events.scheduling import DelayedEvents, DelayWish
from ranvier.services.delayed_events.sending import DelayedSending

_UNSTABLE: Final = "/_matrix/client/unstable/org.matrix.msc4140"
_EVENTS: Final = _UNSTABLE + "/delayed_events"
_EVENT: Final = _EVENTS + "/{delayId}"


class DelayedBody(msgspec.Struct, frozen=True):
    delay_ms: Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)]
    content: JsonObject
    state_key: str | None = None


class ActionBody(msgspec.Struct, frozen=True):
    action: str


class DelayedEventEndpoints:
    """A token is not asked for where the delay id is the proof; if one is given it must be the owner's."""

    def __init__(self, delayed: DelayedEvents, sending: DelayedSending) -> None:
        self._delayed = delayed
        self._sending = sending

    @endpoint(
        "PUT",
        _UNSTABLE + "/rooms/{roomId}/delayed_event/{eventType}/{txnId}",
        operation="scheduleDelayedEvent",
        rate=Rate.MESSAGE,
        guests=True,
    )
    async def schedule(self, request: Request) -> dict[str, str]:
        body = request.body(DelayedBody)
        wish = DelayWish(
            room_id=request.room_id,
            type=request.path["eventType"],
            state_key=body.state_key,
            content=body.content,
            delay_ms=body.delay_ms,
            txn_id=request.path["txnId"],
            origin_server_ts=dated(request),
        )
        return {"delay_id": await self._delayed.schedule(request.requester, wish)}

    @endpoint("GET", _EVENTS, operation="listDelayedEvents", guests=True)
    async def list(self, request: Request) -> JsonObject:
        return {"delayed_events": await self._delayed.list(request.requester)}

    @endpoint("GET", _EVENT, operation="getDelayedEvent", guests=True)
    async def get(self, request: Request) -> JsonObject:
        return await self._delayed.get(request.requester, request.path["delayId"])

    @endpoint(
        "POST",
        _EVENT + "/restart",
        operation="restartDelayedEvent",
        auth=Auth.OPTIONAL,
        rate=Rate.WRITE,
        guests=True,
    )
    async def restart(self, request: Request) -> JsonObject:
        await self._delayed.restart(request.requester_or_none, request.path["delayId"])
        return {}

    @endpoint(
        "POST",
        _EVENT + "/cancel",
        operation="cancelDelayedEvent",
        auth=Auth.OPTIONAL,
        rate=Rate.WRITE,
        guests=True,
    )
    async def cancel(self, request: Request) -> JsonObject:
        await self._delayed.cancel(request.requester_or_none, request.path["delayId"])
        return {}

    @endpoint(
        "POST",
        _EVENT + "/send",
        operation="sendDelayedEvent",
        auth=Auth.OPTIONAL,
        rate=Rate.MESSAGE,
        guests=True,
    )
    async def send(self, request: Request) -> JsonObject:
        await self._sending.send_now(request.requester_or_none, request.path["delayId"])
        return {}

    @endpoint(
        "POST",
        _EVENT,
        operation="updateDelayedEvent",
        auth=Auth.OPTIONAL,
        rate=Rate.MESSAGE,
        guests=True,
    )
    async def update(self, request: Request) -> JsonObject:
        """As clients before 2026 do it: the action stands in the body."""
        actions = {"restart": self.restart, "cancel": self.cancel, "send": self.send}
        action = actions.get(request.body(ActionBody).action)
        if action is None:
            raise InvalidParam(f"The action must be one of: {', '.join(actions)}.")
        return await action(request)
