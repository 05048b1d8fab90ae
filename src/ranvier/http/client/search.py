"""Finding what was said. Spec: client-server API, "Server Side Search"."""

from collections import defaultdict
from typing import Annotated, Any, Final, Literal

import msgspec

from ranvier.core.errors import InvalidParam
from ranvier.core.filters import EventFilter
from ranvier.core.tokens import encode_list_token, encode_room_token, parse_list_token
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.http.responses import json_array, json_value
from ranvier.services.message_search.searching import MessageSearch, Place, Result, Results, Search
from ranvier.services.message_search.surroundings import ContextSize, Surroundings
from ranvier.services.message_search.words import TYPE_OF_KEY
from ranvier.services.rooms.pages import NO_FILTER

MAX_GROUPINGS: Final = 2

_Count = Annotated[int, msgspec.Meta(ge=0)]


class ContextBody(msgspec.Struct):
    before_limit: _Count = 5
    after_limit: _Count = 5
    include_profile: bool = False


class GroupBody(msgspec.Struct):
    key: Literal["room_id", "sender"]


class GroupingsBody(msgspec.Struct):
    group_by: Annotated[list[GroupBody], msgspec.Meta(max_length=MAX_GROUPINGS)] = []


class RoomEventsBody(msgspec.Struct):
    search_term: str
    keys: list[Literal["content.body", "content.name", "content.topic"]] | None = None
    filter: EventFilter = NO_FILTER
    order_by: Literal["recent", "rank"] = "rank"
    event_context: ContextBody | None = None
    include_state: bool = False
    groupings: GroupingsBody = msgspec.field(default_factory=GroupingsBody)


class CategoriesBody(msgspec.Struct):
    room_events: RoomEventsBody | None = None


class SearchBody(msgspec.Struct):
    search_categories: CategoriesBody


class ServerSideSearch:
    """Full text search."""

    def __init__(self, search: MessageSearch) -> None:
        self._search = search

    @endpoint("POST", "/_matrix/client/v3/search", operation="search")
    async def search(self, request: Request) -> dict[str, Any]:
        asked = request.body(SearchBody).search_categories.room_events
        if asked is None:
            return {"search_categories": {}}
        place = _parse_place(request.query().text("next_batch"))
        found = await self._search.search(request.requester, _search_of(asked), place)
        return {"search_categories": {"room_events": _answer(asked, found, place)}}


def _search_of(asked: RoomEventsBody) -> Search:
    context = asked.event_context
    return Search(
        term=asked.search_term,
        keys=tuple(TYPE_OF_KEY) if asked.keys is None else asked.keys,
        filter=asked.filter,
        by_rank=asked.order_by == "rank",
        context=None
        if context is None
        else ContextSize(
            before=context.before_limit, after=context.after_limit, with_profiles=context.include_profile
        ),
        with_state=asked.include_state,
    )


def _answer(asked: RoomEventsBody, found: Results, place: Place | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "count": found.count,
        "highlights": found.words,
        "results": [_encode_result(result) for result in found.results],
    }
    offset = place.offset if place is not None else 0
    if found.has_more:
        group = place.group if place is not None else None
        answer["next_batch"] = _encode_place(Place(found.upto, offset + len(found.results), group))
    if asked.include_state:
        answer["state"] = {room_id: json_array(events) for room_id, events in found.state.items()}
    if asked.groupings.group_by:
        answer["groups"] = {group.key: _group(group.key, found) for group in asked.groupings.group_by}
    return answer


def _encode_result(result: Result) -> dict[str, Any]:
    encoded: dict[str, Any] = {"rank": result.rank, "result": json_value(result.event)}
    if result.surroundings is not None:
        encoded["context"] = _encode_surroundings(result.surroundings)
    return encoded


def _encode_surroundings(around: Surroundings) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "start": encode_room_token(around.start),
        "end": encode_room_token(around.end),
        "events_before": json_array(around.before),
        "events_after": json_array(around.after),
    }
    if around.profiles is not None:
        encoded["profile_info"] = around.profiles
    return encoded


def _group(key: str, found: Results) -> dict[str, Any]:
    """The results of this page by room or by sender, in the order of the first of each."""
    members: defaultdict[str, list[str]] = defaultdict(list)
    for result in found.results:
        members[result.room_id if key == "room_id" else result.sender].append(result.event_id)
    known = found.by_room if key == "room_id" else found.by_sender
    groups: dict[str, Any] = {}
    for order, (value, event_ids) in enumerate(members.items()):
        groups[value] = {"order": order, "results": event_ids}
        if known[value].shown < known[value].total:
            place = Place(found.upto, known[value].shown, (key, value))
            groups[value]["next_batch"] = _encode_place(place)
    return groups


def _encode_place(place: Place) -> str:
    key, value = place.group or ("", "")
    return encode_list_token(place.upto, place.offset, key, value)


def _parse_place(token: str | None) -> Place | None:
    """Raises: BadToken, InvalidParam."""
    if token is None:
        return None
    upto, offset, key, value = parse_list_token(token, (int, int, str, str))
    if not isinstance(upto, int) or not isinstance(offset, int) or offset < 0:
        raise InvalidParam("This is no token of a search.")
    if key not in ("", "room_id", "sender"):
        raise InvalidParam("This is no token of a search.")
    return Place(upto, offset, (str(key), str(value)) if key else None)
