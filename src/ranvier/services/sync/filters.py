"""From the `filter` of a request to a compiled profile, made once for equal filters."""

from collections import OrderedDict
from typing import Final

from ranvier.core.errors import InvalidParam
from ranvier.core.filters import Filter, compile_filter, parse_filter
from ranvier.services.sync.request import DEFAULT_TIMELINE_LIMIT, MAX_TIMELINE_LIMIT, Profile, StateSection
from ranvier.store.database import Database
from ranvier.store.tables.filters import find_filter

MAX_PROFILES: Final = 2_000
MAX_STORED: Final = 20_000

_NO_FILTER: Final = b"{}"


class SyncFilters:
    """Filters that were used lately, compiled."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._profiles: OrderedDict[tuple[bytes, StateSection], Profile] = OrderedDict()
        self._stored: OrderedDict[tuple[int, str], bytes] = OrderedDict()  # stored filters never change

    async def find_profile(
        self, user_nid: int, text: str | None, state: StateSection = StateSection.BEFORE
    ) -> Profile:
        """The profile for a filter given as JSON, by the id of a stored one, or not at all.

        Cost: nothing for a filter that was used lately; else 1 query for a stored one.
        Raises: NotJson, BadJsonValue (no filter); InvalidParam (no such stored filter).
        """
        if text is None or text == "":
            raw = _NO_FILTER
        elif text.startswith("{"):
            raw = text.encode()
        else:
            raw = await self._find_stored(user_nid, text)
        key = (raw, state)
        profile = self._profiles.get(key)
        if profile is None:
            profile = self._profiles[key] = _compile(parse_filter(raw), state)
            if len(self._profiles) > MAX_PROFILES:
                self._profiles.popitem(last=False)
        else:
            self._profiles.move_to_end(key)
        return profile

    async def _find_stored(self, user_nid: int, filter_id: str) -> bytes:
        raw = self._stored.get((user_nid, filter_id))
        if raw is None:
            if filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 19:
                raw = await self._db.read(find_filter, user_nid, int(filter_id))
            if raw is None:
                raise InvalidParam("There is no filter with this id.")
            self._stored[(user_nid, filter_id)] = raw
            if len(self._stored) > MAX_STORED:
                self._stored.popitem(last=False)
        return raw


def _compile(parsed: Filter, state: StateSection) -> Profile:
    compiled = compile_filter(parsed)
    asked = compiled.timeline.limit
    limit = DEFAULT_TIMELINE_LIMIT if asked is None else min(asked, MAX_TIMELINE_LIMIT)
    return Profile(compiled, limit, state)
