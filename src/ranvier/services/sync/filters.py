"""From the `filter` of a request to a compiled profile, made once for equal filters."""

from typing import Final

from ranvier.core.errors import InvalidParam
from ranvier.core.filters import Filter, compile_filter, parse_filter
from ranvier.services.recent import Recent
from ranvier.services.sync.request import DEFAULT_TIMELINE_LIMIT, MAX_TIMELINE_LIMIT, Profile, StateSection
from ranvier.store.database import Database
from ranvier.store.tables.filters import find_filter

MAX_COMPILED_BYTES: Final = 2 * 1024 * 1024
"""Of the texts of filters that are kept compiled, which takes up to forty times as much."""
MAX_STORED_BYTES: Final = 8 * 1024 * 1024
_ENTRY_BYTES: Final = 300
"""What an entry takes besides, about."""

_NO_FILTER: Final = b"{}"


class SyncFilters:
    """Filters that were used lately, compiled."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._profiles: Recent[tuple[bytes, StateSection], Profile] = Recent(MAX_COMPILED_BYTES)
        self._stored: Recent[tuple[int, str], bytes] = Recent(MAX_STORED_BYTES)  # stored filters never change

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
            profile = _compile(parse_filter(raw), state)
            self._profiles.keep(key, profile, _ENTRY_BYTES + len(raw))
        return profile

    async def _find_stored(self, user_nid: int, filter_id: str) -> bytes:
        raw = self._stored.get((user_nid, filter_id))
        if raw is None:
            if filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 19:
                raw = await self._db.read(find_filter, user_nid, int(filter_id))
            if raw is None:
                raise InvalidParam("There is no filter with this id.")
            self._stored.keep((user_nid, filter_id), raw, _ENTRY_BYTES + len(raw))
        return raw


def _compile(parsed: Filter, state: StateSection) -> Profile:
    compiled = compile_filter(parsed)
    asked = compiled.timeline.limit
    limit = DEFAULT_TIMELINE_LIMIT if asked is None else min(asked, MAX_TIMELINE_LIMIT)
    return Profile(compiled, limit, state)
