"""Threads that a user follows. Spec: MSC4306, MSC4308."""

from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import EventID, RoomID, parse_event_id
from ranvier.core.tokens import parse_sliding_token
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.thread_subscriptions.listing import (
    MAX_CHANGES,
    SubscriptionsPage,
    ThreadSubscriptionList,
)
from ranvier.services.thread_subscriptions.subscribing import ThreadSubscribing

_SUBSCRIPTION: Final = (
    "/_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription"
)


class SubscribeBody(msgspec.Struct, frozen=True):
    automatic: str | None = None  # the event that made the client do it


class ThreadSubscriptions:
    """One thread's subscription, and all of them."""

    def __init__(self, subscribing: ThreadSubscribing, listing: ThreadSubscriptionList) -> None:
        self._subscribing = subscribing
        self._listing = listing

    @endpoint("GET", _SUBSCRIPTION, operation="getThreadSubscription")
    async def get(self, request: Request) -> dict[str, bool]:
        found = await self._subscribing.get(request.requester, *_thread(request))
        return {"automatic": found.is_automatic}

    @endpoint("PUT", _SUBSCRIPTION, operation="subscribeToThread", rate=Rate.WRITE)
    async def subscribe(self, request: Request) -> JsonObject:
        body = request.body(SubscribeBody, empty_is_object=True)
        cause = None if body.automatic is None else parse_event_id(body.automatic)
        await self._subscribing.subscribe(request.requester, *_thread(request), cause)
        return {}

    @endpoint("DELETE", _SUBSCRIPTION, operation="unsubscribeFromThread", rate=Rate.WRITE)
    async def unsubscribe(self, request: Request) -> JsonObject:
        await self._subscribing.unsubscribe(request.requester, *_thread(request))
        return {}

    @endpoint(
        "GET",
        "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions",
        operation="listThreadSubscriptions",
    )
    async def list(self, request: Request) -> dict[str, Any]:
        query = request.query()
        query.choice("dir", ("b",))
        since, before = query.text("to"), query.text("from")
        page = await self._listing.list(
            request.requester,
            0 if since is None else parse_sliding_token(since).position,
            None if before is None else _position(before),
            query.integer("limit", MAX_CHANGES, least=1),
        )
        answer = describe_page(page)
        if page.earlier is not None:
            answer["end"] = str(page.earlier)
        return answer


def describe_page(page: SubscriptionsPage) -> dict[str, Any]:
    """The changes by what they are, room and thread."""
    subscribed: dict[str, dict[str, Any]] = {}
    unsubscribed: dict[str, dict[str, Any]] = {}
    for one in page.changes:
        told: dict[str, Any] = {"bump_stamp": one.position}
        if one.is_subscribed:
            told["automatic"] = one.is_automatic
        by_room = subscribed if one.is_subscribed else unsubscribed
        by_room.setdefault(one.room_id, {})[one.root_event_id] = told
    answer: dict[str, Any] = {}
    if subscribed:
        answer["subscribed"] = subscribed
    if unsubscribed:
        answer["unsubscribed"] = unsubscribed
    return answer


def _thread(request: Request) -> tuple[RoomID, EventID]:
    return request.room_id, request.event_id


def _position(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidParam("from is what an earlier response called end or prev_batch.")
    return int(text)
