"""Rosters that were read lately, kept in memory. Event loop only."""

from typing import Final

from ranvier.services.changes import Changed, Changes
from ranvier.services.recent import Recent
from ranvier.services.sliding.roster import Roster
from ranvier.services.sync.standing import Standing

MAX_ROOMS: Final = 100_000
"""In all rosters that are kept in memory: some 40 MB."""

_ROSTER_WEIGHT: Final = 10
"""A roster takes as much as so many rooms."""


class Rosters:
    """By user; the least recently used go first."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._rosters: Recent[int, Roster] = Recent(MAX_ROOMS)

    def find(self, user_nid: int, standing: Standing) -> tuple[Roster | None, Changed | None]:
        """The roster, and what changed since."""
        roster = self._rosters.get(user_nid)
        if roster is None:
            return None, None
        return roster, self._changes.since(roster.position, standing.position, user_nid, standing.rooms)

    def keep(self, user_nid: int, roster: Roster) -> None:
        kept = self._rosters.get(user_nid)
        if kept is None or kept.position <= roster.position:
            self._rosters.keep(user_nid, roster, _ROSTER_WEIGHT + len(roster.content.places))
