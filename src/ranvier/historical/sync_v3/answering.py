"""One answer: every stream that is asked for, over what lies after the client's token, from one snapshot."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from ranvier.core.errors import InvalidParam
from ranvier.historical.sync_v3.port import PageOf, Source, Span, Viewer, Waker
from ranvier.historical.sync_v3.requests import ACCOUNT_DATA, MEMBERS, ROOMS, TO_DEVICE, TYPING, Stream
from ranvier.historical.sync_v3.sessions import Opened
from ranvier.historical.sync_v3.tokens import Page, Positions, encode_page
from ranvier.store.database import ReadTxn

_OF_EVENTS = frozenset((MEMBERS, ROOMS, ACCOUNT_DATA))


class Part(msgspec.Struct, frozen=True):
    """What one stream has to say."""

    body: dict[str, Any]
    has_news: bool
    up_to: int  # complete up to here


class Answer(msgspec.Struct, frozen=True):
    parts: dict[str, dict[str, Any]]  # by the names that the client uses
    positions: Positions
    has_news: bool
    wakers: frozenset[Waker]


def answer(txn: ReadTxn, source: Source, viewer: Viewer, opened: Opened) -> Answer:
    """Run the streams that are asked for over (since, now].

    Raises: InvalidParam (a page that does not exist).
    """
    streams = opened.wanted.streams
    reading = _Reading(txn, source, viewer, opened.since)
    parts: dict[str, Part | None] = {}
    if TYPING in streams:
        parts[TYPING] = reading.typing(streams[TYPING])
    if TO_DEVICE in streams:
        parts[TO_DEVICE] = reading.to_device(streams[TO_DEVICE])
    parts |= reading.of_events(streams)
    told = {streams[name].answered_as: part.body for name, part in parts.items() if part is not None}
    return Answer(
        told,
        reading.positions(streams, parts),
        any(part is not None and part.has_news for part in parts.values()),
        source.wakers(txn, viewer, list(streams.values())),
    )


class _Reading:
    """The reading of one answer."""

    def __init__(self, txn: ReadTxn, source: Source, viewer: Viewer, since: Positions) -> None:
        self._txn = txn
        self._source = source
        self._viewer = viewer
        self._since = since
        self._now = txn.position
        self._events_up_to = self._now

    def typing(self, stream: Stream) -> Part | None:
        assert stream.room_id is not None, "it was checked"
        since = None if stream.is_fresh or not self._since.typing else self._since.typing
        users = self._source.typing(self._txn, self._viewer, stream.room_id, Span(since, self._now))
        if users is None:
            return None
        event = {"type": "m.typing", "room_id": stream.room_id, "content": {"user_ids": users}}
        return Part({"events": [event], "user_ids": users}, True, self._now)

    def to_device(self, stream: Stream) -> Part:
        since = self._since.to_device
        found = self._source.to_device(self._txn, self._viewer, since, self._now, stream.limit)
        up_to = found[-1][0] if len(found) == stream.limit else self._now
        return Part(
            {**stream.negotiated, "events": [orjson.Fragment(message) for _, message in found]},
            bool(found),
            up_to,
        )

    def of_events(self, streams: Mapping[str, Stream]) -> dict[str, Part | None]:
        """Members, rooms and account data, which share a position.

        A further page belongs to the client's snapshot: it tells nothing new, and the position stays. So
        streams that are not paged have to wait for the next request.
        """
        wanted = [streams[name] for name in (MEMBERS, ROOMS, ACCOUNT_DATA) if name in streams]
        if any(stream.page is not None and stream.page.index for stream in wanted) and self._since.events:
            self._events_up_to = self._since.events
            wanted = [stream for stream in wanted if stream.page is not None]
        parts: dict[str, Part | None] = {}
        for stream in wanted:
            part = self._one_of_events(stream)
            parts[stream.name] = part
            # Members are cut to a limit, and come first: the others then tell what lies before that, too.
            if part is not None:
                self._events_up_to = min(self._events_up_to, part.up_to)
        return parts

    def _one_of_events(self, stream: Stream) -> Part | None:
        if stream.name == MEMBERS:
            return self._members(stream)
        return self._rooms(stream) if stream.name == ROOMS else self._account_data(stream)

    def _members(self, stream: Stream) -> Part | None:
        room_id = stream.room_id
        assert room_id is not None, "it was checked"
        joined_since = self._source.joined_since(self._txn, self._viewer, room_id)
        if joined_since is None:
            return None
        since = self._since.events
        if stream.page is None and not stream.is_fresh and joined_since <= since:
            span = Span(since, self._events_up_to)
            changes = self._source.member_changes(self._txn, self._viewer, room_id, span, stream.limit)
            events = [orjson.Fragment(event) for event in changes.events]
            return Part({**stream.negotiated, "events": events}, bool(events), changes.up_to)
        page = self._page(stream)
        if joined_since > page.position:
            # What was before the user came is not theirs to see.
            return None
        found = self._source.members(self._txn, self._viewer, room_id, page)
        return self._page_part(stream, page, "events", found.entries, found.total)

    def _rooms(self, stream: Stream) -> Part:
        since = self._since.events
        if stream.page is None and since and not stream.is_fresh:
            changes = self._source.room_changes(self._txn, self._viewer, Span(since, self._events_up_to))
            body = stream.negotiated | {"rooms": [orjson.Fragment(room) for room in changes.changed]}
            if changes.gone:
                body["del_rooms"] = list(changes.gone)
            return Part(body, bool(changes.changed or changes.gone), self._events_up_to)
        page = self._page(stream)
        found = self._source.rooms(self._txn, self._viewer, page)
        return self._page_part(stream, page, "rooms", found.entries, found.total)

    def _account_data(self, stream: Stream) -> Part:
        since = None if stream.is_fresh or not self._since.events else self._since.events
        span = Span(since, self._events_up_to)
        found = self._source.account_data(self._txn, self._viewer, stream.room_id, span)
        events = [orjson.Fragment(event) for event in found]
        return Part({"events": events}, bool(events), self._events_up_to)

    def _page(self, stream: Stream) -> PageOf:
        """The page that is asked for, or else the first. The first is of now, a further one of the snapshot."""
        page = stream.page or Page(0)
        position = self._now
        if page.index:
            position = page.position or self._since.events or self._now
        if position > self._now:
            raise InvalidParam("There is no such page.")
        return PageOf(position, page.index * stream.limit, stream.limit, stream.sort)

    def _page_part(
        self, stream: Stream, page: PageOf, name: str, entries: Sequence[bytes], total: int
    ) -> Part:
        if page.start and page.start >= total:
            raise InvalidParam("There is no such page.")
        p = stream.negotiated
        if page.start + page.count < total:
            # A client that keeps its old token while it pages still pages through one snapshot.
            elsewhere = self._since.events and page.position != self._since.events
            following = Page(page.start // page.count + 1, page.position if elsewhere else None)
            p["next"] = encode_page(following)
        body = {**stream.negotiated, name: [orjson.Fragment(entry) for entry in entries], "p": p}
        return Part(body, True, self._events_up_to)

    def positions(self, streams: Mapping[str, Stream], parts: Mapping[str, Part | None]) -> Positions:
        """Where the client is after this. What was not asked for stays where it was."""
        since = self._since
        to_device = parts.get(TO_DEVICE)
        return Positions(
            self._events_up_to if not _OF_EVENTS.isdisjoint(streams) else since.events,
            self._now if TYPING in streams else since.typing,
            since.to_device if to_device is None else to_device.up_to,
        )
