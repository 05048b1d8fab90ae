"""Whole rooms that were read before and still hold: for first windows. Event loop only."""

from collections.abc import Mapping
from typing import Final

from ranvier.services.sliding.request import SlidingRequest
from ranvier.services.sliding.rooms import CachedSlices, Profiles, SharedSlices
from ranvier.services.sliding.roster import Roster
from ranvier.services.sync.request import Profile
from ranvier.services.sync.slice_cache import SliceCache
from ranvier.services.sync.slices import Slice
from ranvier.services.sync.standing import Standing

MAX_LOOKED_UP: Final = 200
"""Of a user's newest rooms: windows begin with them."""


class WarmRooms:
    """The cache of classic sync, as sliding sync asks it."""

    def __init__(self, cache: SliceCache, profiles: Profiles) -> None:
        self._cache = cache
        self._profiles = profiles

    def find(self, request: SlidingRequest, roster: Roster | None, standing: Standing) -> CachedSlices:
        """Those of the user's newest rooms that are here, in the forms that the request asks for."""
        if roster is None:
            return {}
        newest = [nid for nid in roster.content.newest_first[:MAX_LOOKED_UP] if nid in standing.rooms]
        found: dict[tuple[Profile, int], Slice] = {}
        for limit in set(request.limits):
            profile = self._profiles[limit]
            for nid, part in self._cache.find(profile, newest, standing.position).items():
                found[profile, nid] = part
        return found

    def keep(self, slices: SharedSlices, position: int) -> None:
        """Keep whole rooms that were read."""
        by_profile: dict[Profile, dict[int, Slice]] = {}
        for (profile, window), part in slices.items():
            if window.since is None and window.until <= position:
                by_profile.setdefault(profile, {})[window.room_nid] = part
        for profile, parts in by_profile.items():
            untils: dict[int, dict[int, Slice]] = {}
            for nid, part in parts.items():
                untils.setdefault(part.window.until, {})[nid] = part
            for alike in untils.values():
                self._keep(profile, alike, position)

    def _keep(self, profile: Profile, slices: Mapping[int, Slice], position: int) -> None:
        self._cache.keep(profile, slices.values(), position)
