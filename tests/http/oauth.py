"""A client of OAuth and a person with a browser that keeps cookies, for tests."""

import html
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from .client import Answer, Client
from .homeserver import PASSWORD, AheadClock, Homeserver, User

BASE: Final = "https://matrix.test"
METADATA: Final = {
    "client_name": "Web App",
    "client_uri": "https://example.com/",
    "redirect_uris": ["https://app.example.com/callback"],
    "token_endpoint_auth_method": "none",
    "response_types": ["code"],
    "grant_types": [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
    ],
    "application_type": "web",
}
VERIFIER: Final = "v" * 43
OAUTH: Final = "/_ranvier/oauth"
FORM: Final = {"content-type": "application/x-www-form-urlencoded"}


class StillClock(AheadClock):
    """Stands still but for what a test adds: codes, polls and limits do not depend on how busy the machine is."""

    def __init__(self) -> None:
        super().__init__()
        self._start_ms = super().now_ms()

    def now_ms(self) -> int:
        return self._start_ms + self.ahead_ms

    def monotonic(self) -> float:
        return self.ahead_ms / 1000


def challenge(verifier: str = VERIFIER) -> str:
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def scope(device_id: str = "OAUTHDEVICE") -> str:
    return f"urn:matrix:client:api:* urn:matrix:client:device:{device_id}"


async def post_form(
    client: Client, path: str, headers: dict[str, str] | None = None, **fields: str
) -> Answer:
    return await client.request("POST", path, body=urlencode(fields).encode(), headers=FORM | (headers or {}))


class Browser:
    """Keeps cookies, follows no redirect by itself, and fills in forms."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.cookies: dict[str, str] = {}

    async def get(self, url: str, **query: str) -> Answer:
        return await self._send("GET", url, b"", query)

    async def submit(self, url: str, page: Answer, **fields: str) -> Answer:
        """Fill in the first form of a page, and send it to where it was."""
        filled = hidden_fields(page) | fields
        return await self._send("POST", url, urlencode(filled).encode(), {})

    async def post(self, url: str, **fields: str) -> Answer:
        """Send a form that no page showed."""
        return await self._send("POST", url, urlencode(fields).encode(), {})

    async def sign_in(self, url: str, user: str = "alice", password: str = PASSWORD) -> Answer:
        return await self.submit(url, await self.get(url), user=user, password=password)

    async def _send(self, method: str, url: str, body: bytes, query: dict[str, str]) -> Answer:
        headers = dict(FORM)
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self._client.request(method, local(url), body=body, query=query, headers=headers)
        if (cookie := answer.headers.get("set-cookie")) is not None:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
            if not value:
                del self.cookies[name]
        return answer


def local(url: str) -> str:
    """A URL of the server as a path."""
    assert not url.startswith("http") or url.startswith(BASE), url
    return url.removeprefix(BASE)


def hidden_fields(page: Answer) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.body.decode())
    return {name: html.unescape(value) for name, value in found}


def text_of(page: Answer) -> str:
    return html.unescape(page.body.decode())


def sent_to(answer: Answer) -> str:
    assert answer.status == 303, (answer.status, answer.body)
    return answer.headers["location"]


def answer_in(url: str) -> dict[str, str]:
    """What a client finds in its redirect URI."""
    parts = urlsplit(url)
    return dict(parse_qsl(parts.fragment or parts.query, strict_parsing=True))


class OAuthClient:
    """A client that registered."""

    def __init__(self, homeserver: Homeserver, client_id: str, redirect_uri: str) -> None:
        self.homeserver = homeserver
        self.client_id = client_id
        self.redirect_uri = redirect_uri

    def authorization(self, **changed: str | None) -> str:
        """The address of an authorization request; None leaves a parameter out."""
        fields = {
            "response_type": "code",
            "response_mode": "fragment",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": scope(),
            "state": "a state",
            "code_challenge": challenge(),
            "code_challenge_method": "S256",
        } | changed
        return f"{OAUTH}/authorize?{urlencode({k: v for k, v in fields.items() if v is not None})}"

    async def code(self, browser: Browser, **changed: str | None) -> str:
        """Let a person who is signed in agree."""
        address = self.authorization(**changed)
        url = sent_to(await browser.submit(address, await browser.get(address), decision="allow"))
        return answer_in(url)["code"]

    async def token(self, **fields: str) -> Answer:
        return await post_form(
            self.homeserver.client, f"{OAUTH}/token", **({"client_id": self.client_id} | fields)
        )

    async def exchange(self, code: str, /, **changed: str) -> Answer:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": VERIFIER,
        }
        return await self.token(**(fields | changed))

    async def refresh(self, refresh_token: str, **changed: str) -> Answer:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token, **changed)

    async def login(self, browser: Browser, **changed: str | None) -> dict[str, Any]:
        answer = await self.exchange(await self.code(browser, **changed))
        assert answer.status == 200, answer.body
        return answer.json

    def user(self, tokens: dict[str, Any], user_id: str = "@alice:test", device: str = "OAUTHDEVICE") -> User:
        return self.homeserver.user(
            {"access_token": tokens["access_token"], "user_id": user_id, "device_id": device}
        )


async def register_client(homeserver: Homeserver, **changed: Any) -> OAuthClient:
    metadata = METADATA | changed
    answer = await homeserver.client.post(f"{OAUTH}/register", metadata)
    assert answer.status == 201, answer.body
    uris = metadata["redirect_uris"]
    return OAuthClient(homeserver, answer.json["client_id"], uris[0] if uris else "")


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query)


@pytest.fixture
async def server(start_homeserver: Callable) -> Homeserver:
    """Alice has an account."""
    homeserver = await start_homeserver(public_base_url=BASE, replaced={"clock": StillClock()})
    await homeserver.register("alice", device_id="OLD")
    return homeserver


@pytest.fixture
async def client(server: Homeserver) -> OAuthClient:
    return await register_client(server)


@pytest.fixture
async def browser(server: Homeserver) -> Browser:
    """Alice is signed in."""
    browser = Browser(server.client)
    sent_to(await browser.sign_in("/_ranvier/sign-in"))
    return browser
