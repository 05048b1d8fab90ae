"""Rosters that were read lately, kept in memory. Event loop only."""

from collections import OrderedDict
from typing import Final

from ranvier.services.changes import Changed, Changes
from ranvier.services.sliding.roster import Roster
from ranvier.services.sync.standing import Standing

MAX_ROSTERS: Final = 2_000
"""Users whose rosters are kept in memory; a roster of 5,000 rooms takes about 2 MB."""


class Rosters:
    """By user; the least recently used go first."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._rosters: OrderedDict[int, Roster] = OrderedDict()

    def find(self, user_nid: int, standing: Standing) -> tuple[Roster | None, Changed | None]:
        """The roster, and what changed since."""
        roster = self._rosters.get(user_nid)
        if roster is None:
            return None, None
        self._rosters.move_to_end(user_nid)
        return roster, self._changes.since(roster.position, standing.position, user_nid, standing.rooms)

    def keep(self, user_nid: int, roster: Roster) -> None:
        kept = self._rosters.get(user_nid)
        if kept is None or kept.position <= roster.position:
            self._rosters[user_nid] = roster
            if len(self._rosters) > MAX_ROSTERS:
                self._rosters.popitem(last=False)
