"""An identity provider as the homeserver and a browser see it, honest unless a test says otherwise; and a browser."""

import base64
import hashlib
import html
import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import orjson

from ranvier.io.ports import HttpRequest, HttpResponse, Unreachable

from .client import Answer, Client

ISSUER = "https://idp.test"
CLIENT_ID = "ranvier client"
CLIENT_SECRET = "s3cret: &="


class Grant(NamedTuple):
    """What a code stands for."""

    claims: dict[str, Any]
    nonce: str | None
    challenge: str
    redirect_uri: str


class IdentityProvider:
    """Stands in for the network: `send` answers the homeserver, `sign_in` is what a person does at the provider."""

    def __init__(self, now_s: Callable[[], int], issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self.now_s = now_s
        self._grants: dict[str, Grant] = {}
        self._claims_of_token: dict[str, dict[str, Any]] = {}
        self.metadata: dict[str, Any] = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize?tenant=1",
            "token_endpoint": f"{issuer}/token",
            "userinfo_endpoint": f"{issuer}/userinfo",
            "prompt_values_supported": ["none", "login", "create"],
        }
        self.authentication = "client_secret_basic"
        self.requests: list[HttpRequest] = []
        self.id_token_claims: dict[str, Any] = {}  # what a hostile one says instead
        self.userinfo_claims: dict[str, Any] = {}
        self.answers: dict[str, HttpResponse | Exception] = {}  # path -> what comes instead

    def sign_in(self, url: str, **claims: Any) -> str:
        """Somebody with these claims signs in at the page `url`; where the browser goes then."""
        query = {name: values[-1] for name, values in parse_qs(urlsplit(url).query).items()}
        assert url.startswith(self.metadata["authorization_endpoint"])
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        code = f"code{len(self._grants)}"
        self._grants[code] = Grant(claims, query.get("nonce"), query["code_challenge"], query["redirect_uri"])
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        path = urlsplit(request.url).path
        if not request.url.startswith(self.issuer):
            raise Unreachable("no such host")
        instead = self.answers.get(path)
        if isinstance(instead, Exception):
            raise instead
        if instead is not None:
            return instead
        match path:
            case "/.well-known/openid-configuration":
                return _json(self.metadata)
            case "/token":
                return self._token(request)
            case "/userinfo":
                token = request.headers["Authorization"].removeprefix("Bearer ")
                return _json({**self._claims_of_token[token], **self.userinfo_claims})
            case _:
                return HttpResponse(404, {}, b"")

    def _token(self, request: HttpRequest) -> HttpResponse:
        form = {name: values[-1] for name, values in parse_qs((request.body or b"").decode()).items()}
        assert request.method == "POST"
        self._check_client(request, form)
        grant = self._grants.pop(form["code"])
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == grant.challenge
        assert form["redirect_uri"] == grant.redirect_uri
        assert form["grant_type"] == "authorization_code"
        token = f"access{len(self.requests)}"
        self._claims_of_token[token] = grant.claims
        now_s = self.now_s()
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "exp": now_s + 60,
            "iat": now_s,
            "nonce": grant.nonce,
            "sub": grant.claims.get("sub"),
        } | self.id_token_claims
        return _json({"access_token": token, "token_type": "Bearer", "id_token": jwt(claims)})

    def _check_client(self, request: HttpRequest, form: dict[str, str]) -> None:
        if self.authentication == "client_secret_basic":
            pair = f"{quote(CLIENT_ID, safe='')}:{quote(CLIENT_SECRET, safe='')}"
            assert request.headers["Authorization"] == f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            assert (form["client_id"], form["client_secret"]) == (CLIENT_ID, CLIENT_SECRET)


class Browser:
    """Keeps cookies, and follows no redirect by itself."""

    def __init__(self, app: Any, base: str) -> None:
        self._client = Client(app)
        self._base = base
        self.cookies: dict[str, str] = {}

    async def open(self, url: str) -> Answer:
        """GET; `url` is absolute, or a path."""
        return await self._request("GET", url)

    async def submit(self, url: str, **form: str) -> Answer:
        return await self._request("POST", url, urlencode(form).encode())

    async def _request(self, method: str, url: str, body: bytes = b"") -> Answer:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        path = url.removeprefix(self._base)
        assert path.startswith("/"), f"{url} is not on this server"
        answer = await self._client.request(method, path, body=body, headers=headers)
        if (cookie := answer.headers.get("set-cookie")) is not None:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer


def jwt(claims: dict[str, Any]) -> str:
    """Signed by nobody: over TLS nobody looks."""
    parts = (b'{"alg":"RS256"}', orjson.dumps(claims), b"?")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def links(page: Answer) -> list[str]:
    """Where the links of a page lead."""
    return [html.unescape(found) for found in re.findall(r'<a [^>]*href="([^"]+)"', page.body.decode())]


def hidden(page: Answer, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page.body.decode())
    assert found is not None, page.body
    return html.unescape(found[1])


def _json(value: Any) -> HttpResponse:
    return HttpResponse(200, {"content-type": "application/json"}, orjson.dumps(value))
