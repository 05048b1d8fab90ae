"""The names that an application service claims: users, aliases and rooms, each by regular expressions.

Spec: application service API, "Registration".
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomAlias, RoomID, ServerName, UserID

# The specification says POSIX. What is written in such files is the same for Python but for the named classes.
_CLASSES: Final = {
    "[:alnum:]": "a-zA-Z0-9",
    "[:alpha:]": "a-zA-Z",
    "[:blank:]": " \\t",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:space:]": "\\s",
    "[:upper:]": "A-Z",
    "[:xdigit:]": "0-9a-fA-F",
}


class Namespace(msgspec.Struct, frozen=True):
    """One expression. It has to match from the beginning of a name, and need not reach its end."""

    pattern: re.Pattern[str]
    is_exclusive: bool

    def has(self, name: str) -> bool:
        return self.pattern.match(name) is not None


class Namespaces(msgspec.Struct, frozen=True, kw_only=True):
    """All that one service claims. Users and aliases of other servers are nobody's here."""

    server: ServerName
    sender: UserID  # the service's own user: claimed for itself alone
    users: Sequence[Namespace] = ()
    aliases: Sequence[Namespace] = ()
    rooms: Sequence[Namespace] = ()

    def claims_user(self, user_id: UserID) -> bool:
        """Whether the service is interested in the user, and may act as the user."""
        return user_id == self.sender or (self._is_own(user_id) and _any(self.users, user_id))

    def owns_user(self, user_id: UserID) -> bool:
        """Whether nobody else may make the user."""
        return user_id == self.sender or (self._is_own(user_id) and _any_exclusive(self.users, user_id))

    def claims_alias(self, alias: RoomAlias) -> bool:
        return self._is_own(alias) and _any(self.aliases, alias)

    def owns_alias(self, alias: RoomAlias) -> bool:
        """Whether nobody else may make or delete the alias."""
        return self._is_own(alias) and _any_exclusive(self.aliases, alias)

    def claims_room(self, room_id: RoomID) -> bool:
        """Whether the service is to get everything that happens in the room."""
        return _any(self.rooms, room_id)

    def _is_own(self, name: str) -> bool:
        return name.partition(":")[2] == self.server


def compile_expression(regex: str) -> re.Pattern[str]:
    """Raises: re.error, OverflowError, RecursionError."""
    for name, members in _CLASSES.items():
        regex = regex.replace(name, members)
    return re.compile(regex)


def _any(namespaces: Sequence[Namespace], name: str) -> bool:
    return any(namespace.has(name) for namespace in namespaces)


def _any_exclusive(namespaces: Sequence[Namespace], name: str) -> bool:
    return any(namespace.is_exclusive and namespace.has(name) for namespace in namespaces)
