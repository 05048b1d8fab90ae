"""The pages on which people sign in and agree, and those who would like to agree in their place."""

import re
from urllib.parse import quote, urlencode

import pytest

from ranvier.app.config import LoginConfig, RateLimitsConfig, RegistrationConfig
from ranvier.services.oauth.browsers import LIFETIME_MS, forgery_token
from ranvier.store.tables.accounts import find_account_by_id
from ranvier.store.tables.passing_tokens import insert_login_token
from ranvier.store.tables.registration_tokens import insert_registration_token
from ranvier.store.tables.tokens import hash_token

from .homeserver import PASSWORD
from .oauth import (
    BASE,
    OAUTH,
    Browser,
    StillClock,
    answer_in,
    browser,
    client,
    hidden_fields,
    post_form,
    query_of,
    register_client,
    scope,
    sent_to,
    server,
    text_of,
)

__all__ = ["browser", "client", "server"]

C = "/_matrix/client/v3"
SIGN_IN = "/_ranvier/sign-in"
SIGN_UP = "/_ranvier/sign-up"
CONTINUE = "/_ranvier/sign-in/continue"
ACCOUNT = "/_ranvier/account"
LINK = "/_ranvier/link"


def check_page(page, status=200):
    assert page.status == status, page.body
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert b"<script" not in page.body
    return text_of(page)


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": None},
        {"client_id": "unknown"},
        {"redirect_uri": None},
        {"redirect_uri": "https://evil.org/"},
        {"redirect_uri": "https://app.example.com/callback?more"},
        {"redirect_uri": "https://app.example.com/callback#"},
    ],
)
async def test_who_is_not_known_is_not_answered(browser, client, changed):
    page = await browser.get(client.authorization(**changed))
    assert "href" not in check_page(page, 400)
    assert "location" not in page.headers


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"prompt": "none"}, "interaction_required"),
    ],
)
async def test_mistakes_lead_nowhere_by_themselves(browser, client, changed, error):
    """Anybody can register a client: a redirect without a person's will would lend this server's name to any page."""
    page = await browser.get(client.authorization(**changed))
    text = check_page(page, 400)
    assert "location" not in page.headers
    back = re.search(r'href="(https://app.example.com/callback[^"]*)"', text)[1]
    told = answer_in(back)
    assert (told["error"], told["state"], told["iss"]) == (error, "a state", f"{BASE}/")
    assert (await browser.post(client.authorization(**changed))).status == 403


NASTY = ("", "\0", "\r\nX: y", "x" * 3000, "ä\u202e", "%", "../..", "<b>", "' OR 1=1", "[]", "-1")


@pytest.mark.parametrize("value", NASTY)
async def test_no_value_breaks_anything(server, browser, client, value):
    csrf = hidden_fields(await browser.get(ACCOUNT))["csrf"]
    token_fields = [
        "grant_type",
        "code",
        "client_id",
        "redirect_uri",
        "code_verifier",
        "refresh_token",
        "device_code",
        "scope",
    ]
    forms = [dict.fromkeys(token_fields, value)]
    forms += [
        dict.fromkeys(token_fields, "x")
        | {"client_id": client.client_id, "grant_type": grant}
        | {name: value}
        for grant in ("authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code")
        for name in token_fields
        if name not in ("client_id", "grant_type")
    ]
    for form in forms:
        for path in ("token", "revoke", "device"):
            assert (await post_form(server.client, f"{OAUTH}/{path}", **form, token=value)).status < 500
    for name in ("client_id", "redirect_uri", "scope", "state", "prompt", "login_hint", "response_mode", "x"):
        address = client.authorization(**{name: value})
        assert (await browser.get(address)).status < 500
        assert (await browser.post(address, csrf=csrf, decision=value)).status < 500
    fields = (
        "action",
        "device_id",
        "session",
        "user",
        "next",
        "user_code",
        "proof",
        "loginToken",
        value[:20],
    )
    for path in (ACCOUNT, SIGN_IN, SIGN_UP, LINK, CONTINUE):
        for action in (
            "device_view",
            "device_delete",
            "cross_signing_reset",
            "account_deactivate",
            "profile",
        ):
            query = dict.fromkeys(fields, value) | {"action": f"org.matrix.{action}"}
            assert (await browser.get(path, **query)).status < 500
    names = (
        "user",
        "password",
        "again",
        "token",
        "display_name",
        "name",
        "user_code",
        "user_id",
        "current",
        "sid",
    )
    for path in (ACCOUNT, SIGN_UP, LINK, f"{ACCOUNT}?action=password"):
        answer = await browser.post(path, csrf=csrf, **dict.fromkeys(names, value))
        assert answer.status < 500
    for query in (
        "action=org.matrix.device_view&device_id=",
        "action=org.matrix.cross_signing_reset&session=",
    ):
        answer = await browser.post(f"{ACCOUNT}?{query}{quote(value)}", csrf=csrf, name=value)
        assert answer.status < 500
    assert (await browser.post(SIGN_IN, csrf=csrf, user=value, password=value)).status < 500


async def test_a_parameter_comes_once(browser, client):
    address = client.authorization()
    check_page(await browser.get(f"{address}&redirect_uri={quote('https://evil.org/')}"), 400)
    check_page(await browser.get(f"{address}&scope=openid"), 400)
    check_page(await browser.get(f"{OAUTH}/authorize?client_id=%ff"), 400)


async def test_not_agreeing(browser, client):
    address = client.authorization()
    page = await browser.get(address)
    for decision in ("deny", "", "anything"):
        url = sent_to(await browser.submit(address, page, decision=decision))
        told = answer_in(url)
        assert (told["error"], told["state"], told["iss"]) == ("access_denied", "a state", f"{BASE}/")
        assert "code" not in told


async def test_the_page_says_who_asks_and_for_what(server, browser):
    client = await register_client(
        server,
        client_name="<script>alert(1)</script>",
        tos_uri="https://example.com/tos",
        policy_uri="https://example.com/policy",
    )
    page = await browser.get(client.authorization(scope=scope("OLD")))
    assert b"<script>" not in page.body
    assert "form-action 'self' https://app.example.com;" in page.headers["content-security-policy"]
    text = text_of(page)
    for told in (
        "example.com",
        "to app.example.com",
        "@alice:test",
        "https://example.com/tos",
        "/policy",
        "OLD",
    ):
        assert told in text
    assert b"administering" not in page.body


async def test_each_agreement_is_asked_for(browser, client):
    await client.login(browser)
    assert (await browser.get(client.authorization())).status == 200


@pytest.mark.parametrize("path", ["authorize", LINK, ACCOUNT, SIGN_IN, SIGN_UP, "/_ranvier/sign-out"])
async def test_forged_forms_do_nothing(server, client, browser, path):
    address = client.authorization() if path == "authorize" else path
    fields = {
        "decision": "allow",
        "user": "alice",
        "password": PASSWORD,
        "display_name": "x",
        "again": PASSWORD,
    }
    own = hidden_fields(await browser.get(SIGN_IN))["csrf"]
    stranger = Browser(server.client)
    foreign = hidden_fields(await stranger.get(SIGN_IN))["csrf"]
    for csrf in ({}, {"csrf": ""}, {"csrf": "x" * 43}, {"csrf": foreign}, {"csrf": "ä"}):
        check_page(await browser.post(address, **fields, **csrf), 403)
    # Without its cookie a good token is worth nothing.
    check_page(await Browser(server.client).post(address, **fields, csrf=own), 403)
    # Nobody was signed out or in.
    assert "@alice:test" in text_of(await browser.get(ACCOUNT))


async def test_the_cookie(server, start_homeserver):
    page = await server.client.get(SIGN_IN)
    name, _, attributes = page.headers["set-cookie"].partition("=")
    assert name == "__Host-ranvier"
    assert {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"} <= set(attributes.split("; "))
    plain = await start_homeserver(public_base_url="http://localhost:8008")
    assert "Secure" not in (await plain.client.get(SIGN_IN)).headers["set-cookie"]


async def test_signing_in_changes_the_cookie(server):
    browser = Browser(server.client)
    await browser.get(SIGN_IN)
    before = dict(browser.cookies)
    sent_to(await browser.sign_in(SIGN_IN))
    assert browser.cookies.keys() == before.keys()
    assert browser.cookies != before
    thief = Browser(server.client)
    thief.cookies = before
    assert (await thief.get(ACCOUNT)).status == 303
    # Signing in once more ends the first one.
    first = Browser(server.client)
    first.cookies = dict(browser.cookies)
    sent_to(await browser.sign_in(SIGN_IN))
    assert (await first.get(ACCOUNT)).status == 303
    assert (await browser.get(ACCOUNT)).status == 200


async def test_signing_out(server, browser):
    kept = Browser(server.client)
    kept.cookies = dict(browser.cookies)
    page = await browser.get(ACCOUNT)
    assert sent_to(await browser.submit("/_ranvier/sign-out", page)) == f"{BASE}{SIGN_IN}"
    assert not browser.cookies
    assert (await kept.get(ACCOUNT)).status == 303


async def test_a_sign_in_does_not_last_for_ever(server, browser):
    server.clock.ahead_ms += LIFETIME_MS
    assert (await browser.get(ACCOUNT)).status == 303


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.org/",
        "//evil.org/",
        "/\\evil.org",
        "/_ranvier/account\\..",
        "/_ranvier/account@evil.org",
        "/_ranvier/accounts",
        "/_ranvier/sign-out",
        "/_matrix/client/v3/login",
        "javascript:alert(1)",
        "/_ranvier/account?x\r\nSet-Cookie: a=b",
        "/_ranvier/account?" + "x" * 9_000,
        "",
    ],
)
async def test_signing_in_leads_to_our_own_pages_alone(server, wanted):
    browser = Browser(server.client)
    address = f"{SIGN_IN}?{urlencode({'next': wanted})}"
    assert sent_to(await browser.sign_in(address)) == f"{BASE}{ACCOUNT}"


@pytest.mark.parametrize(
    ("user", "password"), [("alice", "wrong"), ("nobody", PASSWORD), ("", ""), ("@a:b", "x")]
)
async def test_wrong_passwords(server, user, password):
    browser = Browser(server.client)
    page = await browser.sign_in(SIGN_IN, user, password)
    assert "Invalid username or password." in check_page(page, 403)
    assert PASSWORD not in text_of(page)
    assert (await browser.get(ACCOUNT)).status == 303


@pytest.mark.parametrize("user", ["alice", "Alice", "@alice:test"])
async def test_names_that_people_type(server, user):
    sent_to(await Browser(server.client).sign_in(SIGN_IN, user))


async def test_guessing_is_limited_as_at_login(start_homeserver):
    server = await start_homeserver(
        public_base_url=BASE,
        rate_limits=RateLimitsConfig(enabled=True),
        replaced={"clock": StillClock()},
    )
    await server.register("alice")
    browser = Browser(server.client)
    page = await browser.get(SIGN_IN)
    for _ in range(10):
        assert (await browser.submit(SIGN_IN, page, user="alice", password="x")).status == 403
    limited = await browser.submit(SIGN_IN, page, user="alice", password=PASSWORD)
    assert "Too many requests" in check_page(limited, 429)
    assert int(limited.headers["retry-after"]) > 0
    body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "x"}
    assert (await server.client.post(f"{C}/login", body)).errcode == "M_LIMIT_EXCEEDED"


async def test_hints(client, server):
    browser = Browser(server.client)
    url = sent_to(await browser.get(client.authorization(login_hint="mxid:@alice:test")))
    assert query_of(url)["user"] == ["@alice:test"]
    assert 'value="@alice:test"' in text_of(await browser.get(url))
    hostile = await browser.get(SIGN_IN, user='"><script>x</script>')
    check_page(hostile)


async def test_prompts(client, browser, server):
    url = sent_to(await browser.get(client.authorization(prompt="login")))
    assert url.startswith(f"{BASE}{SIGN_IN}")
    back = sent_to(await browser.sign_in(url))
    assert (await browser.get(back)).status == 200
    url = sent_to(await browser.get(client.authorization(prompt="create")))
    assert url.startswith(f"{BASE}{SIGN_UP}")
    page = await browser.get(url)
    check_page(page)
    back = sent_to(await browser.submit(url, page, user="bob", password=PASSWORD, again=PASSWORD))
    consent = await browser.get(back)
    assert "@bob:test" in check_page(consent)
    answer = answer_in(sent_to(await browser.submit(back, consent, decision="allow")))
    tokens = (await client.exchange(answer["code"])).json
    assert (await client.user(tokens).get(f"{C}/account/whoami")).json["user_id"] == "@bob:test"


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"user": "alice"}, 400, "taken"),
        ({"user": "Ä"}, 400, "user name"),
        ({"user": ""}, 400, "user name"),
        ({"password": "short", "again": "short"}, 400, "at least 8"),
        ({"again": "another one"}, 400, "differ"),
    ],
)
async def test_accounts_that_cannot_be_made(server, fields, status, told):
    browser = Browser(server.client)
    page = await browser.get(SIGN_UP)
    wish = {"user": "bob", "password": PASSWORD, "again": PASSWORD} | fields
    refused = await browser.submit(SIGN_UP, page, **wish)
    assert told in check_page(refused, status)
    assert PASSWORD not in text_of(refused)
    assert (await browser.get(ACCOUNT)).status == 303


async def test_a_registration_token(start_homeserver):
    server = await start_homeserver(public_base_url=BASE, registration=RegistrationConfig(mode="token"))
    await server.foundation.ports.db.write(insert_registration_token, "abc", 1, None)
    browser = Browser(server.client)
    page = await browser.get(SIGN_UP)
    assert "Registration token" in check_page(page)
    wish = {"user": "bob", "password": PASSWORD, "again": PASSWORD}
    assert "not valid" in check_page(await browser.submit(SIGN_UP, page, **wish, token="abd"), 403)
    assert sent_to(await browser.submit(SIGN_UP, page, **wish, token="abc")) == f"{BASE}{ACCOUNT}"
    assert "@bob:test" in text_of(await browser.get(ACCOUNT))
    other = Browser(server.client)
    page = await other.get(SIGN_UP)
    wish["user"] = "carol"
    assert "not valid" in check_page(await other.submit(SIGN_UP, page, **wish, token="abc"), 403)


async def test_where_passwords_are_off(start_homeserver):
    server = await start_homeserver(public_base_url=BASE, login=LoginConfig(password=False))
    browser = Browser(server.client)
    page = await browser.get(SIGN_IN)
    assert 'type="password"' not in check_page(page)
    check_page(await browser.submit(SIGN_IN, page, user="alice", password=PASSWORD), 403)


async def give_login_token(server, token):
    def insert(txn):
        account = find_account_by_id(txn, "@alice:test")
        insert_login_token(txn, hash_token(token), account.user_nid, server.clock.now_ms() + 60_000)

    await server.foundation.ports.db.write(insert)


async def test_coming_back_from_single_sign_on(server, client):
    """The way back is good for the browser that it was shown to, and for no other."""
    browser = Browser(server.client)
    here = {"next": client.authorization(), "proof": await proof_of(browser), "loginToken": "token"}
    await give_login_token(server, "token")
    check_page(await Browser(server.client).get(CONTINUE, **here), 403)
    for proof in ("", "x", await proof_of(Browser(server.client))):
        check_page(await browser.get(CONTINUE, **(here | {"proof": proof})), 403)
    assert (await browser.get(ACCOUNT)).status == 303
    back = sent_to(await browser.get(CONTINUE, **here))
    assert back == f"{BASE}{client.authorization()}"
    assert "@alice:test" in text_of(await browser.get(back))


async def test_a_login_token_is_good_once(server):
    browser = Browser(server.client)
    await give_login_token(server, "token")
    sent_to(await browser.get(CONTINUE, proof=await proof_of(browser), loginToken="token"))
    other = Browser(server.client)
    for token in ("token", "", "unknown"):
        check_page(await other.get(CONTINUE, proof=await proof_of(other), loginToken=token), 403)


async def proof_of(browser):
    """What the sign-in page would put into its links to providers."""
    await browser.get(SIGN_IN)
    return forgery_token(next(iter(browser.cookies.values())), "continue")


async def device_codes(server, client, **changed):
    fields = {"client_id": client.client_id, "scope": scope("TV")} | changed
    return await post_form(server.client, f"{OAUTH}/device", **fields)


async def poll(client, codes):
    return await client.token(
        grant_type="urn:ietf:params:oauth:grant-type:device_code", device_code=codes["device_code"]
    )


async def test_a_device_without_a_browser(server, client):
    codes = (await device_codes(server, client)).json
    assert codes["verification_uri"] == f"{BASE}{LINK}"
    assert codes["verification_uri_complete"].startswith(f"{BASE}{LINK}?user_code=")
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", codes["user_code"])
    assert (await poll(client, codes)).json["error"] == "authorization_pending"
    assert (await poll(client, codes)).json["error"] == "slow_down"
    browser = Browser(server.client)
    sign_in = sent_to(await browser.get(codes["verification_uri_complete"]))
    back = sent_to(await browser.sign_in(sign_in))
    typed = await browser.get(back)
    assert codes["user_code"] in check_page(typed)
    asked = await browser.submit(LINK, typed, user_code=codes["user_code"].lower().replace("-", " "))
    text = check_page(asked)
    assert "Web App" in text
    assert codes["user_code"] in text
    done = await browser.submit(LINK, asked, decision="allow")
    assert "Done" in check_page(done)
    # Ten seconds after the first slow_down.
    answer = await poll(client, codes)
    assert answer.status == 200, answer.body
    user = client.user(answer.json)
    assert (await user.get(f"{C}/account/whoami")).json["device_id"] == "TV"
    assert (await poll(client, codes)).json["error"] == "invalid_grant"
    check_page(await browser.submit(LINK, asked, decision="allow"), 404)


async def test_a_device_that_polls_too_often_is_slowed_down_more_and_more(server, client):
    codes = (await device_codes(server, client)).json
    assert codes["interval"] == 5
    said = []
    for wait_s in (0, 4, 6, 10, 10, 14):
        server.clock.ahead_ms += wait_s * 1000
        said.append((await poll(client, codes)).json["error"])
    # 4 s is too early, so it is 10 s from then on; 6 s is too early, so 15 s; and so on.
    assert said == ["authorization_pending", *["slow_down"] * 5]
    server.clock.ahead_ms += 60_000
    assert (await poll(client, codes)).json["error"] == "authorization_pending"


async def test_a_person_does_not_allow_it(server, client, browser):
    codes = (await device_codes(server, client)).json
    asked = await browser.submit(LINK, await browser.get(LINK), user_code=codes["user_code"])
    assert "Not allowed" in check_page(await browser.submit(LINK, asked, decision="deny"))
    answer = await poll(client, codes)
    assert (answer.status, answer.json["error"]) == (400, "access_denied")
    assert (await poll(client, codes)).json["error"] == "invalid_grant"


async def test_a_code_of_a_device_expires(server, client, browser):
    codes = (await device_codes(server, client)).json
    server.clock.ahead_ms += codes["expires_in"] * 1000
    assert (await poll(client, codes)).json["error"] == "expired_token"
    page = await browser.submit(LINK, await browser.get(LINK), user_code=codes["user_code"])
    assert "not right" in check_page(page, 404)


async def test_nobody_decides_without_having_been_asked(server, client):
    """A link with the code in it shows a form and does nothing else, and who is not signed in decides nothing."""
    codes = (await device_codes(server, client)).json
    stranger = Browser(server.client)
    csrf = hidden_fields(await stranger.get(SIGN_IN))["csrf"]
    fields = {"csrf": csrf, "user_code": codes["user_code"], "decision": "allow"}
    assert sent_to(await stranger.post(LINK, **fields)).startswith(f"{BASE}{SIGN_IN}")
    await stranger.sign_in(SIGN_IN)
    check_page(await stranger.get(codes["verification_uri_complete"]))
    assert (await poll(client, codes)).json["error"] == "authorization_pending"


async def test_another_client_cannot_poll(server, client, browser):
    other = await register_client(server, client_name="Other")
    codes = (await device_codes(server, client)).json
    assert (await poll(other, codes)).json["error"] == "invalid_grant"
    asked = await browser.submit(LINK, await browser.get(LINK), user_code=codes["user_code"])
    await browser.submit(LINK, asked, decision="allow")
    assert (await poll(other, codes)).json["error"] == "invalid_grant"
    assert (await poll(client, codes)).status == 200


async def test_guessing_codes_of_devices_is_limited(start_homeserver):
    server = await start_homeserver(
        public_base_url=BASE,
        rate_limits=RateLimitsConfig(enabled=True),
        replaced={"clock": StillClock()},
    )
    await server.register("alice")
    browser = Browser(server.client)
    sent_to(await browser.sign_in(SIGN_IN))
    page = await browser.get(LINK)
    seen = [(await browser.submit(LINK, page, user_code="BBBBBBBB")).status for _ in range(10)]
    assert seen == [404] * 9 + [429]  # one went for the password


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"client_id": "unknown"}, "invalid_client"),
        ({"client_id": ""}, "invalid_request"),
        ({"scope": ""}, "invalid_request"),
        ({"scope": "openid"}, "invalid_scope"),
    ],
)
async def test_devices_that_get_no_code(server, client, changed, error):
    answer = await device_codes(server, client, **changed)
    assert (answer.status, answer.json["error"]) == (400, error)


async def test_a_client_that_did_not_register_for_it(server, browser):
    client = await register_client(server, grant_types=["authorization_code", "refresh_token"])
    answer = await device_codes(server, client)
    assert (answer.status, answer.json["error"]) == (400, "unauthorized_client")
    answer = await client.token(grant_type="urn:ietf:params:oauth:grant-type:device_code", device_code="x")
    assert (answer.status, answer.json["error"]) == (400, "unauthorized_client")
    device_only = await register_client(
        server,
        grant_types=["urn:ietf:params:oauth:grant-type:device_code"],
        redirect_uris=["https://example.com/"],
    )
    check_page(await browser.get(device_only.authorization()), 400)


async def test_signing_out_everywhere_ends_what_has_begun(server, client, browser):
    codes = (await device_codes(server, client)).json
    asked = await browser.submit(LINK, await browser.get(LINK), user_code=codes["user_code"])
    await browser.submit(LINK, asked, decision="allow")
    code = await client.code(browser)
    alice = await server.login("alice")
    assert (await alice.post(f"{C}/logout/all", {})).status == 200
    for answer in (await poll(client, codes), await client.exchange(code)):
        assert answer.json["error"] == "invalid_grant"
