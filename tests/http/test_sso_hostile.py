"""Single sign-on among hostile browsers, and providers that are hostile or broken."""

from urllib.parse import parse_qs, quote, urlsplit

import pytest

from ranvier.io.ports import HttpResponse, TimedOut
from ranvier.services.accounts.sweeping import sweep
from ranvier.services.sso import visits
from ranvier.store.tables.sso import count_visits

from .identity_provider import CLIENT_ID, ISSUER, links
from .sso_world import APP, DAN, C, check_refusal, start_world, world

__all__ = ["start_world", "world"]

# Hostile browsers


async def test_another_browser_cannot_go_on(world):
    back = world.provider.sign_in(await world.go_to_provider(), **DAN)
    other = world.new_browser()
    check_refusal(await other.open(back), 403, "another browser")
    await world.go_to_provider(browser=other)  # with a cookie of its own
    check_refusal(await other.open(back), 403, "another browser")
    other.cookies = dict.fromkeys(world.browser.cookies, "x" * 43)
    check_refusal(await other.open(back), 403, "another browser")
    # It did no harm to the first.
    page = await world.browser.open(back)
    (link,) = links(page)
    check_refusal(await other.open(link), 403, "another browser")
    assert await world.token(page)


async def test_nothing_is_taken_twice(world):
    back = world.provider.sign_in(await world.go_to_provider(), **DAN)
    page = await world.browser.open(back)
    check_refusal(await world.browser.open(back), 403, "ended")
    (link,) = links(page)
    assert (await world.browser.open(link)).status == 302
    check_refusal(await world.browser.open(link), 403, "ended")


async def test_steps_cannot_be_mixed(world):
    state = parse_qs(urlsplit(await world.go_to_provider()).query)["state"][0]
    check_refusal(await world.browser.open(f"/_ranvier/sso/continue?visit={state}"), 403, "goes on")
    state = parse_qs(urlsplit(await world.go_to_provider()).query)["state"][0]
    page = await world.browser.submit("/_ranvier/sso/name", visit=state, user_name="dan")
    check_refusal(page, 403, "asked for a name")
    (link,) = links(await world.come_back())
    visit = parse_qs(urlsplit(link).query)["visit"][0]
    check_refusal(await world.browser.open(f"/_ranvier/sso/callback?state={visit}&code=x"), 403, "provider")


async def test_visits_are_bounded_and_swept(world, monkeypatch):
    monkeypatch.setattr(visits, "MAX_VISITS", 2)
    await world.go_to_provider()
    await world.go_to_provider()
    url = f"{C}/login/sso/redirect?redirectUrl={quote(APP, safe='')}"
    check_refusal(await world.browser.open(url), 429, "Too many")
    world.homeserver.clock.ahead_ms += visits.LIFETIME_MS
    await world.go_to_provider()
    db = world.homeserver.foundation.ports.db
    assert await db.read(count_visits) == 1
    await db.write(sweep, world.homeserver.clock.now_ms() + visits.LIFETIME_MS)
    assert await db.read(count_visits) == 0


async def test_a_visit_ends_after_a_while(world):
    back = world.provider.sign_in(await world.go_to_provider(), **DAN)
    world.homeserver.clock.ahead_ms += 15 * 60_000
    check_refusal(await world.browser.open(back), 403, "ended")


@pytest.mark.parametrize(
    "query", ["", "state=x", "state=&code=1", "state=%00&code=1", "state=" + "a" * 52 + "&code=1"]
)
async def test_a_callback_that_nobody_sent(world, query):
    answer = await world.browser.open(f"/_ranvier/sso/callback?{query}")
    assert answer.status in (400, 403)
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "https://",
        "https://user@evil.test/",
        "https://good.test\\@evil.test/",
        "//evil.test",
        "/relative",
        "",
        "https://ü.test/",
        "https://a.test/\r\nSet-Cookie: a=b",
        "https://a.test:99999/",
        "https://[::1/",
        "https://a.test/" + "x" * 5000,
    ],
)
async def test_where_no_browser_is_sent(world, url):
    answer = await world.browser.open(f"{C}/login/sso/redirect?redirectUrl={quote(url, safe='')}")
    check_refusal(answer, 400, "redirectUrl")


async def test_other_bad_requests_for_a_redirect(world):
    check_refusal(await world.browser.open(f"{C}/login/sso/redirect"), 400, "redirectUrl is missing")
    app = quote(APP, safe="")
    answer = await world.browser.open(f"{C}/login/sso/redirect/unknown?redirectUrl={app}")
    check_refusal(answer, 404, "no such identity provider")
    answer = await world.browser.open(f"{C}/login/sso/redirect?redirectUrl={app}&action=steal")
    check_refusal(answer, 400, "login or register")


async def test_pages_cannot_be_framed_or_changed(world):
    page = await world.come_back(redirect_url="https://a.test/?q='onload=1")
    policy = page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"


# Hostile and broken providers

NOT_OURS = [
    {"iss": "https://other.test"},
    {"iss": ISSUER + "/"},
    {"iss": None},
    {"aud": "another client"},
    {"aud": ["another client"]},
    {"aud": [CLIENT_ID, "another client"]},
    {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
    {"azp": "another client"},
    {"aud": None},
    {"nonce": "another"},
    {"nonce": None},
    {"nonce": 1},
    {"exp": 1},
    {"exp": "soon"},
    {"exp": None},
    {"iat": 1},
    {"iat": 2**63},
    {"iat": True},
    {"sub": ""},
    {"sub": None},
    {"sub": ["x"]},
    {"sub": "x" * 256},
    {"sub": "a\0b"},
    {"sub": "another user"},
]


@pytest.mark.parametrize("said", NOT_OURS, ids=str)
async def test_id_tokens_that_prove_nothing(world, said):
    world.provider.id_token_claims = said
    check_refusal(await world.come_back(), 502, "could not tell who you are")


@pytest.mark.parametrize(
    "said",
    [{"aud": [CLIENT_ID]}, {"azp": CLIENT_ID}, {"aud": [CLIENT_ID, "x"], "azp": CLIENT_ID}, {"more": 1}],
    ids=str,
)
async def test_id_tokens_that_do(world, said):
    world.provider.id_token_claims = said
    assert (await world.come_back()).status == 200


async def test_claims_about_somebody_else_are_not_believed(world):
    world.provider.userinfo_claims = {"sub": "root"}
    check_refusal(await world.come_back(), 502, "could not tell who you are")


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/userinfo"])
@pytest.mark.parametrize(
    "answer",
    [
        HttpResponse(200, JSON, b"not JSON"),
        HttpResponse(200, JSON, b"[]"),
        HttpResponse(200, JSON, b"{}"),
        HttpResponse(200, JSON, b"[" * 100_000),
        HttpResponse(302, {"location": "https://evil.test/"}, b"{}"),
        HttpResponse(500, {}, b""),
        HttpResponse(400, JSON, b'{"error":"invalid_grant"}'),
        HttpResponse(200, JSON, b'{"error": "bad_verification_code"}'),
        HttpResponse(200, JSON, b'{"access_token": 1, "id_token": {}}'),
        HttpResponse(200, JSON, b'{"access_token": "a\\r\\nb: c", "id_token": "a.b.c"}'),
        TimedOut("slow"),
    ],
    ids=lambda answer: f"{getattr(answer, 'body', b'slow')[:30]!r}",
)
async def test_answers_that_are_none(world, path, answer):
    if path == "/.well-known/openid-configuration":
        world.provider.answers[path] = answer
        url = f"{C}/login/sso/redirect?redirectUrl={quote(APP, safe='')}"
        check_refusal(await world.browser.open(url), 502, "could not tell who you are")
        return
    url = await world.go_to_provider()
    world.provider.answers[path] = answer
    check_refusal(await world.browser.open(world.provider.sign_in(url, **DAN)), 502, "could not tell who")


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://other.test"},
        {"token_endpoint": "http://idp.test/token"},
        {"token_endpoint": "http://127.0.0.1/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
        {"userinfo_endpoint": "ftp://idp.test/"},
        {"userinfo_endpoint": "https://user:password@idp.test/"},
        {"prompt_values_supported": "login"},
    ],
    ids=str,
)
async def test_metadata_that_cannot_be_used(world, said):
    world.provider.metadata |= said
    url = f"{C}/login/sso/redirect?redirectUrl={quote(APP, safe='')}"
    check_refusal(await world.browser.open(url), 502, "could not tell who you are")


async def test_the_issuer_in_the_answer_must_be_the_providers(world):
    back = world.provider.sign_in(await world.go_to_provider(), **DAN)
    check_refusal(await world.browser.open(back + "&iss=https%3A%2F%2Fevil.test"), 502, "could not tell")
    back = world.provider.sign_in(await world.go_to_provider(), **DAN)
    assert (await world.browser.open(back + f"&iss={quote(ISSUER, safe='')}")).status == 200


async def test_a_provider_that_promises_to_name_itself_must(start_world):
    world = await start_world()
    world.provider.metadata["authorization_response_iss_parameter_supported"] = True
    check_refusal(await world.come_back(), 502, "could not tell")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("error=access_denied", "did not sign in"),
        ("error=server_error&error_description=<script>", "did not let you"),
        ("code=", "did not let you"),
        ("code=" + "x" * 9000, "did not let you"),
        ("", "did not let you"),
    ],
)
async def test_the_provider_says_no(world, answer, words):
    state = parse_qs(urlsplit(await world.go_to_provider()).query)["state"][0]
    page = await world.browser.open(f"/_ranvier/sso/callback?state={quote(state)}&{answer}")
    check_refusal(page, 403, words)
    assert "<script>" not in page.body.decode()
