"""A homeserver with an identity provider, for the tests of single sign-on."""

from urllib.parse import parse_qs, quote, urlsplit

import pytest

from ranvier.app.compose.foundation import Network
from ranvier.app.config import SsoConfig, SsoProviderConfig
from ranvier.http.endpoint import Api
from ranvier.io.dns import open_dns_resolver

from .identity_provider import CLIENT_ID, CLIENT_SECRET, ISSUER, Browser, IdentityProvider, links

C = "/_matrix/client/v3"
BASE = "https://matrix.test"
APP = "https://app.test/?no_universal_links=true&loginToken=old#/home"
DAN = {"sub": "248289", "preferred_username": "Dan", "name": "Dan D.", "email": "dan@mail.test"}


async def close():
    """Nothing was opened."""


def provider_config(**more):
    defaults = {
        "id": "oidc-idp",
        "name": "The <IdP>",
        "issuer": ISSUER,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "allow_registration": True,
    }
    return SsoProviderConfig(**(defaults | more))


class World:
    """A homeserver, a provider, and what people do with both."""

    def __init__(self, homeserver, provider):
        self.homeserver = homeserver
        self.provider = provider
        self.browser = self.new_browser()

    def new_browser(self):
        return Browser(self.homeserver.app(frozenset(Api)), BASE)

    async def go_to_provider(self, redirect_url=APP, path="", browser=None, **query):
        """What the provider's page is called."""
        url = f"{C}/login/sso/redirect{path}?redirectUrl={quote(redirect_url, safe='')}"
        url += "".join(f"&{name}={value}" for name, value in query.items())
        answer = await (browser or self.browser).open(url)
        assert answer.status == 302, answer.body
        return answer.headers["location"]

    async def come_back(self, claims=DAN, redirect_url=APP, browser=None):
        """What the browser sees after the provider."""
        url = self.provider.sign_in(await self.go_to_provider(redirect_url, browser=browser), **claims)
        return await (browser or self.browser).open(url)

    async def token(self, page):
        """From the page that asks where to go, to the login token."""
        (link,) = links(page)
        answer = await self.browser.open(link)
        assert answer.status == 302, answer.body
        return login_token(answer.headers["location"])

    async def log_in(self, token, **more):
        body = {"type": "m.login.token", "token": token} | more
        return await self.homeserver.client.post(f"{C}/login", body)

    async def sign_in_at(self, provider, claims=DAN):
        url = await self.go_to_provider(path=f"/{provider}")
        page = await self.browser.open(self.provider.sign_in(url, **claims))
        return self.homeserver.user((await self.log_in(await self.token(page))).json)

    async def sign_in(self, claims=DAN):
        """All of it; the client that is logged in."""
        answer = await self.log_in(await self.token(await self.come_back(claims)))
        assert answer.status == 200, answer.body
        return self.homeserver.user(answer.json)


def login_token(url):
    (token,) = parse_qs(urlsplit(url).query)["loginToken"]
    return token


@pytest.fixture
def start_world(start_homeserver):
    async def start(*providers, trusted=(), **settings):
        idp = IdentityProvider(lambda: world.homeserver.clock.now_ms() // 1000)
        defaults = {
            "public_base_url": BASE,
            "sso": SsoConfig(
                providers=tuple(providers or (provider_config(),)), trusted_redirects=tuple(trusted)
            ),
            "replaced": {"network": Network(idp, open_dns_resolver(), close)},
        }
        homeserver = await start_homeserver(**(defaults | settings))
        world = World(homeserver, idp)
        return world

    return start


@pytest.fixture
async def world(start_world):
    return await start_world()


def check_refusal(answer, status, words):
    assert answer.status == status, answer.body
    assert answer.headers["content-type"].startswith("text/html")
    assert words in answer.body.decode()
