"""Profiles of users of other servers: asked of those, and remembered for a minute.

Spec: server-server API, GET /query/profile.
"""

import asyncio
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadGateway, NotFound
from ranvier.core.identifiers import UserID, server_of
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.recent import Recent
from ranvier.services.remote.requests import Ask, Refused, Requests
from ranvier.services.turns import ASKER, Turns

LIFETIME_MS: Final = 60_000
MAX_REMEMBERED_BYTES: Final = 8 * 1024 * 1024
_ENTRY_BYTES: Final = 300
"""What an entry takes besides, about."""
MAX_RESPONSE_BYTES: Final = 131_072
"""A profile has at most 64 KiB, in whatever form its server writes it."""
TIMEOUT_S: Final = 10.0
# No account is needed to ask.
AT_ONCE: Final = 50
ASKED_FOR_ONE: Final = 10
WAITING_FOR_ONE: Final = 200
_TEXTS: Final = ("displayname", "avatar_url")


class RemoteProfiles:
    """Asks other servers."""

    def __init__(self, requests: Requests, clock: Clock) -> None:
        self._requests = requests
        self._clock = clock
        self._askers: Turns[str] = Turns(ASKED_FOR_ONE, WAITING_FOR_ONE)
        self._slots = asyncio.Semaphore(AT_ONCE)
        # As texts: parsed, what another server says may take twenty times as much.
        self._remembered: Recent[UserID, tuple[int, bytes]] = Recent(MAX_REMEMBERED_BYTES)

    async def fetch(self, user_id: UserID) -> JsonObject:
        """The profile of a user of another server.

        Raises: NotFound: that server says so; BadGateway: it cannot be asked; LimitExceeded.
        """
        now_ms = self._clock.now_ms()
        known = self._remembered.get(user_id)
        if known is not None and now_ms - known[0] < LIFETIME_MS:
            return msgspec.json.decode(known[1], type=JsonObject)
        profile = _checked(await self._ask(user_id))
        text = msgspec.json.encode(profile)
        self._remembered.keep(user_id, (now_ms, text), _ENTRY_BYTES + len(text))
        return profile

    async def _ask(self, user_id: UserID) -> JsonObject:
        ask = Ask(
            method="GET",
            path="/_matrix/federation/v1/query/profile",
            query=[("user_id", user_id)],
            timeout_s=TIMEOUT_S,
            max_response_bytes=MAX_RESPONSE_BYTES,
        )
        try:
            async with self._askers.take(ASKER.get()), self._slots:
                return await self._requests.ask(server_of(user_id), ask)
        except Refused as error:
            if error.status in (403, 404):
                raise NotFound("There is no such user.") from error
            raise BadGateway("The user's server does not tell the profile.") from error
        except RemoteFault as error:
            raise BadGateway("The user's server cannot be reached.") from error


def _checked(profile: JsonObject) -> JsonObject:
    """Without what clients would stumble over."""
    return {field: value for field, value in profile.items() if field not in _TEXTS or isinstance(value, str)}
