"""Single sign-on over sockets: the real HTTP client, and a provider on loopback."""

from urllib.parse import quote

import pytest
from aiohttp import web

from ranvier.app.config import SsoConfig
from ranvier.io.ports import HttpRequest, HttpResponse
from ranvier.services.sso import upstream

from .identity_provider import IdentityProvider
from .sso_world import APP, BASE, DAN, C, World, check_refusal, provider_config


@pytest.fixture
async def idp():
    """Honest, and reached at its `issuer`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked = HttpRequest(
            method=request.method,
            url=f"{provider.issuer}{request.path_qs}",
            headers=dict(request.headers),
            body=body or None,
        )
        found = await provider.send(asked)
        return web.Response(status=found.status, headers=dict(found.headers), body=found.body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    provider = IdentityProvider(lambda: 0, f"http://127.0.0.1:{port}")
    yield provider
    await runner.cleanup()


@pytest.fixture
def start_world(start_homeserver, idp):
    async def start(**more):
        config = provider_config(issuer=idp.issuer, **more)
        homeserver = await start_homeserver(public_base_url=BASE, sso=SsoConfig(providers=(config,)))
        idp.now_s = lambda: homeserver.clock.now_ms() // 1000
        return World(homeserver, idp)

    return start


async def test_a_provider_on_loopback(start_world):
    world = await start_world(allow_private_address=True)
    assert (await world.sign_in()).user_id == "@dan:test"


async def test_nobody_is_asked_inside_the_network_unless_the_administrator_says_so(start_world, caplog):
    world = await start_world()
    answer = await world.browser.open(f"{C}/login/sso/redirect?redirectUrl={quote(APP, safe='')}")
    check_refusal(answer, 502, "could not tell who you are")
    assert not world.provider.requests
    assert "is not allowed" in caplog.text


@pytest.mark.parametrize("path", ["/token", "/userinfo"])
@pytest.mark.parametrize("fault", ["huge", "elsewhere", "slow"])
async def test_hostile_answers(start_world, monkeypatch, path, fault):
    world = await start_world(allow_private_address=True)
    url = await world.go_to_provider()
    if fault == "slow":
        monkeypatch.setattr(upstream, "TIMEOUT_S", 0.0)
    else:
        body = b"x" * (upstream.MAX_ANSWER_BYTES + 1) if fault == "huge" else b"{}"
        headers = {"location": f"{world.provider.issuer}/elsewhere"}
        status = 200 if fault == "huge" else 302
        world.provider.answers[path] = HttpResponse(status, headers, body)
    page = await world.browser.open(world.provider.sign_in(url, **DAN))
    check_refusal(page, 502, "could not tell who you are")
    assert not [one for one in world.provider.requests if one.url.endswith("/elsewhere")]
