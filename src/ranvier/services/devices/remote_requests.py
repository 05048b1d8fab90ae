"""Keys of other servers' users, asked for by signed requests.

Spec: server-server API, "End-to-End Encryption".
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import DeviceID, ServerName, UserID
from ranvier.io.ports import Misbehaved
from ranvier.services.devices.remote import ClaimedRemotely, RemoteKeys
from ranvier.services.remote.requests import Requests
from ranvier.services.turns import ASKER, Turns

AT_ONCE: Final = 100
ASKED_FOR_ONE: Final = 50
"""Of one user, however many requests that are."""

_PREFIX: Final = "/_matrix/federation/v1/user/keys"

T = TypeVar("T")


class RemoteKeyRequests:
    """Asks the users' own servers. See `remote.RemoteKeyServers`."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._askers: Turns[str] = Turns(ASKED_FOR_ONE)
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def query_keys(self, server: ServerName, wanted: Mapping[UserID, Sequence[DeviceID]]) -> RemoteKeys:
        """Raises: RemoteFault."""
        question: JsonObject = {
            "device_keys": {user_id: list(devices) for user_id, devices in wanted.items()}
        }
        return _decode(server, await self._post(server, "query", question), RemoteKeys)

    async def claim_keys(
        self, server: ServerName, claims: Mapping[UserID, Mapping[DeviceID, str]]
    ) -> ClaimedRemotely:
        """Raises: RemoteFault."""
        question: JsonObject = {
            "one_time_keys": {user_id: dict(devices) for user_id, devices in claims.items()}
        }
        return _decode(server, await self._post(server, "claim", question), ClaimedRemotely)

    async def _post(self, server: ServerName, what: str, question: JsonObject) -> JsonObject:
        async with self._askers.take(ASKER.get()), self._slots:
            return await self._requests.post(server, f"{_PREFIX}/{what}", question)


def _decode(server: ServerName, answer: JsonObject, shape: type[T]) -> T:
    try:
        decoded: Any = msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise Misbehaved(f"{server} told of keys in a form that is none: {error}") from error
    return decoded  # type: ignore[no-any-return]  # it is a T: that was just checked
