"""The other homeserver, asked with the user's own token: who that is, and what its classic sync tells.

Spec: client-server API, "GET /account/whoami", "GET /sync".
"""

import asyncio
from typing import Final
from urllib.parse import quote

import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import UserID, parse_user_id
from ranvier.io.ports import HttpClient, HttpRequest, HttpResponse, RemoteFault

POLL_MS: Final = 30_000
SYNC_TIMEOUT_S: Final = 300.0
"""A first sync of a large account takes its time."""

WHOAMI_TIMEOUT_S: Final = 30.0
MAX_SYNC_BYTES: Final = 256 * 1024 * 1024
MAX_WHOAMI_BYTES: Final = 65_536
INLINE_BYTES: Final = 262_144
"""Longer answers are decoded on a thread, so that nobody else waits meanwhile."""

_FILTER: Final = orjson.dumps(
    {
        "presence": {"limit": 1, "not_types": ["*"]},
        "room": {
            "timeline": {"limit": 20, "lazy_load_members": False},
            "state": {"lazy_load_members": False},
            "ephemeral": {"types": ["m.typing"]},
        },
    }
).decode()


class UpstreamFault(Exception):
    """The upstream did not answer, or not as it should. Later it may. Its text is for our log."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TokenRefused(Exception):
    """The upstream does not know the access token (any more)."""


class SinceRefused(Exception):
    """The upstream does not take its own sync token any more."""


class Upstream:
    """The API that a proxy needs. Implements `pollers.Syncing` and `devices.Naming`."""

    def __init__(self, http: HttpClient, base_url: str) -> None:
        """`base_url`: without a slash at its end."""
        self._http = http
        self._base_url = base_url

    async def whoami(self, token: str) -> UserID:
        """Whose token it is. Raises: TokenRefused, UpstreamFault."""
        response = await self._get("/account/whoami", token, WHOAMI_TIMEOUT_S, MAX_WHOAMI_BYTES)
        user_id = (await _read(response)).get("user_id")
        try:
            return parse_user_id(user_id)
        except BadIdentifier as error:
            raise UpstreamFault("whoami named no user") from error

    async def sync(self, token: str, since: str | None, *, at_once: bool) -> JsonObject:
        """What is new. `at_once`: do not wait for it.

        Raises: TokenRefused, SinceRefused, UpstreamFault.
        """
        query = f"timeout={0 if at_once else POLL_MS}&set_presence=offline&filter={quote(_FILTER)}"
        if since is not None:
            query += f"&since={quote(since, safe='')}"
        response = await self._get(f"/sync?{query}", token, SYNC_TIMEOUT_S, MAX_SYNC_BYTES)
        if response.status == 400 and since is not None:
            raise SinceRefused
        answer = await _read(response)
        if not isinstance(answer.get("next_batch"), str):
            raise UpstreamFault("an answer to /sync without next_batch")
        return answer

    async def _get(self, path: str, token: str, timeout_s: float, max_bytes: int) -> HttpResponse:
        request = HttpRequest(
            method="GET",
            url=f"{self._base_url}/_matrix/client/v3{path}",
            headers={"Authorization": f"Bearer {token}"},
            timeout_s=timeout_s,
            max_response_bytes=max_bytes,
        )
        try:
            response = await self._http.send(request)
        except RemoteFault as error:
            raise UpstreamFault(str(error)) from error
        if response.status == 401:
            raise TokenRefused
        return response


async def _read(response: HttpResponse) -> JsonObject:
    """The answer, which has to be an object with status 200. Raises: UpstreamFault."""
    if response.status != 200:
        raise UpstreamFault(f"status {response.status}", _retry_after_s(response))
    try:
        if len(response.body) <= INLINE_BYTES:
            answer = orjson.loads(response.body)
        else:
            answer = await asyncio.to_thread(orjson.loads, response.body)
    except orjson.JSONDecodeError as error:
        raise UpstreamFault("an answer that is not JSON") from error
    if type(answer) is not dict:
        raise UpstreamFault("an answer that is no object")
    return answer


def _retry_after_s(response: HttpResponse) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
