"""Who may invite a user, as the user's account data says.

Spec: client-server API, "Invite permission" (v1.18). MSC4155 says more: which users and servers may, which are
refused, and of which the user wants to see nothing.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.globs import Matcher, compile_glob
from ranvier.core.identifiers import UserID

PERMISSION: Final = "m.invite_permission_config"
FILTERING: Final = "org.matrix.msc4155.invite_permission_config"
TYPES: Final = (PERMISSION, FILTERING)
"""The types of account data that say it."""

MAX_PATTERN: Final = 255
"""Characters: what is longer matches no user."""


class Verdict(Enum):
    """What becomes of an invite."""

    ALLOW = "allow"
    IGNORE = "ignore"  # it stands, and the user hears nothing of it
    BLOCK = "block"


class InvitePermission(msgspec.Struct, frozen=True):
    """What one user wants."""

    blocks_all: bool = False
    rules: tuple[tuple[Matcher, Callable[[UserID], str], Verdict], ...] = ()  # the first that matches decides

    def decide(self, sender: UserID) -> Verdict:
        """What becomes of an invite of `sender`."""
        if self.blocks_all:
            return Verdict.BLOCK
        for matches, subject, verdict in self.rules:
            if matches(subject(sender)):
                return verdict
        return Verdict.ALLOW


ALLOW_ALL: Final = InvitePermission()


def parse_invite_permission(account_data: Mapping[str, JsonObject]) -> InvitePermission:
    """What the contents say (by type). What is not as it should be says nothing.

    Spec: MSC4155: rules for users come before those for servers, and of each, who is allowed comes first.
    """
    filtering = account_data.get(FILTERING, {})
    rules = [
        (compile_glob(pattern), subject, verdict)
        for names, subject in (("users", _user), ("servers", _server))
        for word, verdict in (
            ("allowed", Verdict.ALLOW),
            ("ignored", Verdict.IGNORE),
            ("blocked", Verdict.BLOCK),
        )
        for pattern in _patterns(filtering.get(f"{word}_{names}"))
    ]
    blocks_all = account_data.get(PERMISSION, {}).get("default_action") == "block"
    return InvitePermission(blocks_all, tuple(rules)) if rules or blocks_all else ALLOW_ALL


def _user(user_id: UserID) -> str:
    return user_id


def _server(user_id: UserID) -> str:
    # The earliest protocols do not promise that there is one.
    return user_id.partition(":")[2]


def _patterns(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    return [one for one in value if isinstance(one, str) and 0 < len(one) <= MAX_PATTERN]
