"""A client that speaks to an ASGI application in the same process: no sockets, no threads."""

from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import orjson


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def errcode(self) -> str | None:
        return self.json.get("errcode") if self.body.startswith(b"{") else None


class Client:
    """Sends requests as one user. `token` goes into the Authorization header; `ip` is where they come from."""

    def __init__(self, app: Any, token: str | None = None, *, ip: str = "127.0.0.1") -> None:
        self._app = app
        self.token = token
        self.ip = ip

    def as_user(self, token: str | None) -> "Client":
        return Client(self._app, token)

    async def get(self, path: str, **query: Any) -> Answer:
        return await self.request("GET", path, query=query)

    async def delete(self, path: str, json: Any = None, **query: Any) -> Answer:
        return await self.request("DELETE", path, json=json, query=query)

    async def post(self, path: str, json: Any = None, **query: Any) -> Answer:
        return await self.request("POST", path, json=json, query=query)

    async def put(self, path: str, json: Any = None, **query: Any) -> Answer:
        return await self.request("PUT", path, json=json, query=query)

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
        """`path` is percent-encoded as it stands on the wire; see `segment` for its parts."""
        payload = body if body is not None else (b"" if json is None else orjson.dumps(json))
        plain = {key: value for key, value in (query or {}).items() if value is not None}
        raw_path, _, in_path = path.partition("?")
        query_string = "&".join(part for part in (in_path, urlencode(plain, doseq=True)) if part)
        sent = {"host": "localhost", "content-length": str(len(payload)), "content-type": "application/json"}
        if self.token is not None:
            sent["authorization"] = f"Bearer {self.token}"
        sent |= headers or {}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw_path,
            "raw_path": raw_path.encode("ascii"),
            "query_string": query_string.encode("ascii"),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": (self.ip, 50000),
            "server": ("127.0.0.1", 8008),
        }
        return await self._run(scope, payload)

    async def _run(self, scope: dict[str, Any], payload: bytes) -> Answer:
        incoming = [{"type": "http.request", "body": payload, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return incoming.pop() if incoming else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start = sent[0]
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], headers, b"".join(part.get("body", b"") for part in sent[1:]))


def segment(text: str) -> str:
    """One path segment, percent-encoded."""
    return quote(text, safe="")
