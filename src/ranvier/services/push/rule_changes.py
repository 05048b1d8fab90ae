"""Whose rules changed, and when: so that what is kept in memory of them can be brought up to date."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from ranvier.core.identifiers import UserID
from ranvier.store.database import Hint, Kind
from ranvier.store.tables.interned import Interner

MAX_USERS: Final = 10_000
"""Of the latest changes; what is older than those is out of date for everybody."""


class RuleChanges:
    """Counts the changes that hints tell of. `hear` is a subscriber of the database."""

    def __init__(self, interner: Interner) -> None:
        self._interner = interner
        self.newest = 0  # the number of the newest change
        self._oldest = 0  # before this one, anything may have changed
        self._changed: OrderedDict[UserID, int] = OrderedDict()

    def hear(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            if hint.kind is Kind.PUSH:
                self.newest += 1
                self._note(self._interner.users.name(hint.key))
            elif hint.kind is Kind.GAP:
                self.newest += 1
                self._note(None)

    def since(self, as_of: int) -> frozenset[UserID] | None:
        """Whose rules changed after the change `as_of`; None: anybody's may have."""
        if as_of < self._oldest:
            return None
        changed: set[UserID] = set()
        for user_id, number in reversed(self._changed.items()):
            if number <= as_of:
                break
            changed.add(user_id)
        return frozenset(changed)

    def _note(self, user_id: UserID | None) -> None:
        if user_id is None:
            self._oldest = self.newest
            self._changed.clear()
            return
        self._changed[user_id] = self.newest
        self._changed.move_to_end(user_id)
        if len(self._changed) > MAX_USERS:
            _, self._oldest = self._changed.popitem(last=False)
