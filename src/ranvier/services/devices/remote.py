"""What is asked of other servers about the keys of their users. Federation brings the implementation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import DeviceID, ServerName, UserID, server_of
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault, TimedOut, Unreachable

DEFAULT_TIMEOUT_MS: Final = 10_000
MAX_TIMEOUT_MS: Final = 60_000
AT_ONCE: Final = 50
"""Servers that one request of a client has asked at a time; the others wait, within the same timeout."""

V = TypeVar("V")
A = TypeVar("A")

Failures = Mapping[str, JsonObject]
"""server name -> what a client is told of a server that did not answer."""

_FAILURE: Final[JsonObject] = {"status": 503, "message": "The server did not answer."}
TOO_MUCH: Final[JsonObject] = {"status": 503, "message": "This is too much at once: ask for fewer devices."}

MAX_ANSWER_BYTES: Final = 32 * 1_048_576
"""Of the keys in one answer to a client."""


class TooMuch(RemoteFault):
    """What a server told does not fit into the answer any more."""


class Allowance:
    """How many bytes an answer may still have."""

    def __init__(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes

    def spend(self, server: ServerName, size: int) -> None:
        """Raises: TooMuch, and nothing is spent."""
        if size > self._left_bytes:
            raise TooMuch(f"{server} told of {size} bytes of keys")
        self._left_bytes -= size


class RemoteKeys(msgspec.Struct, frozen=True):
    """What a server answered to a query. Only the shape was checked."""

    device_keys: Mapping[str, Mapping[str, JsonObject]] = {}
    master_keys: Mapping[str, JsonObject] = {}
    self_signing_keys: Mapping[str, JsonObject] = {}


class ClaimedRemotely(msgspec.Struct, frozen=True):
    """What a server answered to a claim: user id -> device id -> algorithm:key_id -> key."""

    one_time_keys: Mapping[str, Mapping[str, Mapping[str, object]]] = {}


class RemoteKeyServers(Protocol):
    """Other servers, as far as keys are concerned. Raises: RemoteFault, and nothing else."""

    async def query_keys(self, server: ServerName, wanted: Mapping[UserID, Sequence[DeviceID]]) -> RemoteKeys:
        """Ask for the keys of its users; no device ids: of all their devices.

        Spec: server-server API, POST /user/keys/query.
        """
        ...

    async def claim_keys(
        self, server: ServerName, claims: Mapping[UserID, Mapping[DeviceID, str]]
    ) -> ClaimedRemotely:
        """Claim a key for each device. Spec: server-server API, POST /user/keys/claim."""
        ...


class NoRemoteKeyServers:
    """Where there is no federation: nobody answers."""

    async def query_keys(self, server: ServerName, wanted: Mapping[UserID, Sequence[DeviceID]]) -> RemoteKeys:
        raise Unreachable(f"{server}: federation is off")

    async def claim_keys(
        self, server: ServerName, claims: Mapping[UserID, Mapping[DeviceID, str]]
    ) -> ClaimedRemotely:
        raise Unreachable(f"{server}: federation is off")


def group_by_server(wanted: Mapping[UserID, V]) -> dict[ServerName, dict[UserID, V]]:
    groups: dict[ServerName, dict[UserID, V]] = {}
    for user_id, value in wanted.items():
        groups.setdefault(server_of(user_id), {})[user_id] = value
    return groups


async def ask_all(
    clock: Clock,
    timeout_ms: int,
    groups: Mapping[ServerName, V],
    ask: Callable[[ServerName, V], Awaitable[A]],
) -> tuple[dict[ServerName, A], Failures]:
    """Ask every server, many at the same time: their answers, and those who gave none in time."""

    gate = asyncio.Semaphore(AT_ONCE)
    deadline = clock.monotonic() + min(timeout_ms, MAX_TIMEOUT_MS) / 1000

    async def ask_one(server: ServerName, question: V) -> A | RemoteFault:
        try:
            async with gate, clock.timeout(deadline - clock.monotonic()):
                return await ask(server, question)
        except TimeoutError:
            return TimedOut(f"{server}: no answer in {timeout_ms} ms")
        except RemoteFault as fault:
            return fault

    answers: dict[ServerName, A] = {}
    failures: dict[str, JsonObject] = {}
    for server, answer in zip(
        groups, await asyncio.gather(*(ask_one(*group) for group in groups.items())), strict=True
    ):
        if isinstance(answer, RemoteFault):
            failures[server] = TOO_MUCH if isinstance(answer, TooMuch) else _FAILURE
        else:
            answers[server] = answer
    return answers, failures
