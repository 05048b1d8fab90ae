"""Whether somebody is the owner of an account: name and password, and how often they may be wrong.

Requests are limited by address elsewhere; here wrong passwords are limited by account, wherever they come from.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, LimitExceeded
from ranvier.core.identifiers import ServerName, UserID
from ranvier.services.accounts.passwords import Passwords
from ranvier.services.accounts.user_identifiers import (
    check_unlocked,
    find_identified_account,
    parse_identified_user,
)
from ranvier.store.database import Database
from ranvier.store.tables.accounts import Account

WRONG_AT_ONCE: Final = 15
WRONG_PER_SECOND: Final = 1 / 30
MAX_REMEMBERED: Final = 10_000
"""Names with wrong passwords; the one not seen for longest goes first."""


class WrongPasswords:
    """Counts them, in memory, by the name that was given, whether there is such an account or not."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """`monotonic`: seconds, never going back."""
        self._monotonic = monotonic
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, user_id: UserID) -> None:
        """Raises: LimitExceeded: there were too many for this user lately."""
        over = self._count(user_id) - (WRONG_AT_ONCE - 1)
        if over > 0:
            retry_after_ms = int(over / WRONG_PER_SECOND * 1000) + 1
            raise LimitExceeded("Too many wrong passwords.", retry_after_ms=retry_after_ms)

    def add(self, user_id: UserID) -> None:
        """Note one more."""
        name = user_id.lower()
        self._counts[name] = self._count(user_id) + 1, self._monotonic()
        self._counts.move_to_end(name)
        if len(self._counts) > MAX_REMEMBERED:
            self._counts.popitem(last=False)

    def _count(self, user_id: UserID) -> float:
        """How many there are now: as time goes by, they become fewer."""
        count, noted = self._counts.get(user_id.lower(), (0.0, 0.0))
        return max(0.0, count - (self._monotonic() - noted) * WRONG_PER_SECOND)


class Owners:
    """Finds the account that a name and a password belong to."""

    def __init__(
        self, server_name: ServerName, db: Database, passwords: Passwords, wrong: WrongPasswords | None
    ) -> None:
        """`wrong` None: as many wrong passwords as one likes, where rate limits are off."""
        self._server_name = server_name
        self._db = db
        self._passwords = passwords
        self._wrong = wrong

    async def prove(self, body: JsonObject, password: str) -> Account:
        """The account that `body` names by `identifier` or `user`, if the password is its own.

        Raises: Forbidden for whatever is wrong, after the same time: who asks learns nothing about accounts;
        UserLocked; LimitExceeded; MissingParam, BadJsonValue for a malformed name.
        """
        user_id = parse_identified_user(body, self._server_name)
        if user_id is not None and self._wrong is not None:
            self._wrong.check(user_id)
        account = await self._db.read(find_identified_account, user_id)
        stored = None if account is None else account.password_hash
        is_correct = await self._passwords.is_correct(stored, password)
        if account is None or not is_correct:
            if user_id is not None and self._wrong is not None:
                self._wrong.add(user_id)
            raise Forbidden("Invalid username or password.")
        check_unlocked(account)
        return account
