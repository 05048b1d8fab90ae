"""Clients of sync v3, and ways to homeservers: in this process, or over sockets."""

import secrets
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from yarl import URL

from ranvier.io.ports import HttpRequest, HttpResponse

from ...http.client import Answer, Client

PATH = "/_matrix/client/v3/sync"


class V3:
    """Asks as one user. It remembers nothing but where to ask."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def ask(self, body: Any = None, since: str | None = None, wait_ms: Any = None) -> Answer:
        return await self.client.post(PATH, {} if body is None else body, since=since, timeout=wait_ms)

    async def sync(self, body: Any = None, since: str | None = None, wait_ms: Any = None) -> dict[str, Any]:
        """The answer, which has to be a good one."""
        answer = await self.ask(body, since, wait_ms)
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"] == "application/json"
        return answer.json


class AppHttp:
    """The HTTP client of a proxy whose upstream is an application in this process. Implements `HttpClient`."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.asked: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.asked.append(request)
        parts = urlsplit(request.url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        answer = await Client(self.app).request(request.method, path, headers=dict(request.headers))
        return HttpResponse(answer.status, answer.headers, answer.body)

    def stream(self, request: HttpRequest) -> Any:
        raise NotImplementedError


class RemoteServer:
    """A homeserver in another process, with the face of the one in this process."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self._run = secrets.token_hex(4)

    async def register(self, name: str, **_more: Any) -> "RemoteUser":
        """With a name that no other test uses."""
        body = {
            "username": f"{name}-{self._run}",
            "password": "correct horse battery",
            "auth": {"type": "m.login.dummy"},
        }
        answer = await RemoteUser(self.session, self.url).post("/_matrix/client/v3/register", body)
        assert answer.status == 200, answer.body
        user = RemoteUser(self.session, self.url, answer.json["access_token"])
        user.user_id, user.device_id = answer.json["user_id"], answer.json["device_id"]
        return user

    def http(self, base: str) -> "RemoteHttp":
        return RemoteHttp(self.session, base, self.url)


class RemoteUser(Client):
    """A client that is logged in there."""

    user_id = device_id = ""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str | None = None) -> None:
        super().__init__(None, token)
        self._session, self._url = session, url

    def as_user(self, token: str | None) -> "RemoteUser":
        return RemoteUser(self._session, self._url, token)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        data = body if body is not None else (None if json is None else orjson.dumps(json))
        url = URL(self._url + path, encoded=True)
        url = url.extend_query({key: str(value) for key, value in (query or {}).items() if value is not None})
        async with self._session.request(method, url, data=data, headers=sent) as response:
            plain = {key.lower(): value for key, value in response.headers.items()}
            return Answer(response.status, plain, await response.read())


class RemoteHttp:
    """The HTTP client of a proxy whose upstream is another process. Implements `HttpClient`."""

    def __init__(self, session: aiohttp.ClientSession, base: str, url: str) -> None:
        self._session, self._base, self._url = session, base, url

    async def send(self, request: HttpRequest) -> HttpResponse:
        url = URL(request.url.replace(self._base, self._url, 1), encoded=True)
        async with self._session.get(url, headers=request.headers) as response:
            return HttpResponse(response.status, {}, await response.read())

    def stream(self, request: HttpRequest) -> Any:
        raise NotImplementedError


def names(stream: dict[str, Any]) -> list[str]:
    """Of whom a stream of members speaks."""
    return [event["state_key"].partition(":")[0].partition("-")[0] for event in stream["events"]]
