"""Signing in through other identity providers: from the client's redirect to an access token."""

import asyncio
import re
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from ranvier.app.compose.foundation import Network
from ranvier.app.config import (
    LoginConfig,
    MailConfig,
    OAuthConfig,
    RegistrationConfig,
    ServerNoticesConfig,
    SsoConfig,
)
from ranvier.io.dns import open_dns_resolver

from .administrators import register_admin
from .homeserver import PASSWORD, running_homeserver
from .identity_provider import ISSUER, IdentityProvider, hidden, links
from .sso_world import (
    APP,
    BASE,
    DAN,
    C,
    World,
    check_refusal,
    close,
    login_token,
    provider_config,
    start_world,
    world,
)

__all__ = ["start_world", "world"]

# The way through


async def test_somebody_new_signs_in_and_comes_back(world):
    page = await world.come_back()
    text = page.body.decode()
    assert "@dan:test" in text
    assert "app.test" in text
    token = await world.token(page)
    dan = await world.log_in(token, device_id="ONE")
    assert dan.json["user_id"] == "@dan:test"
    user = world.homeserver.user(dan.json)
    assert (await user.get(f"{C}/profile/@dan:test")).json == {"displayname": "Dan D."}
    assert (await user.get(f"{C}/account/3pid")).json == {"threepids": []}  # nobody said that it is verified
    assert (await world.log_in(token)).errcode == "M_FORBIDDEN"
    again = await world.sign_in(DAN | {"preferred_username": "another"})
    assert again.user_id == "@dan:test"


async def test_the_client_gets_its_url_back_with_one_login_token(world):
    (link,) = links(await world.come_back())
    location = (await world.browser.open(link)).headers["location"]
    assert re.fullmatch(
        r"https://app\.test/\?no_universal_links=true&loginToken=[A-Za-z0-9_-]{43}#/home", location
    )


async def test_login_flows_name_the_providers(start_world):
    world = await start_world(
        provider_config(icon="mxc://test/icon", brand="idp"), provider_config(id="b", name="B")
    )
    flows = (await world.homeserver.client.get(f"{C}/login")).json["flows"]
    assert flows[0] == {"type": "m.login.password"}
    assert flows[1] == {
        "type": "m.login.sso",
        "identity_providers": [
            {"id": "oidc-idp", "name": "The <IdP>", "icon": "mxc://test/icon", "brand": "idp"},
            {"id": "b", "name": "B"},
        ],
    }


async def test_without_providers_there_is_no_single_sign_on(homeserver):
    flows = (await homeserver.client.get(f"{C}/login")).json["flows"]
    assert "m.login.sso" not in {flow["type"] for flow in flows}
    assert (
        await homeserver.client.get(f"{C}/login/sso/redirect", redirectUrl=APP)
    ).errcode == "M_UNRECOGNIZED"


async def test_of_several_providers_one_is_chosen(start_world):
    world = await start_world(
        provider_config(id="a", name="A"),
        provider_config(id="b", name="B"),
        provider_config(id="c", name="C"),
    )
    page = await world.browser.open(
        f"{C}/login/sso/redirect?redirectUrl={quote(APP, safe='')}&action=register"
    )
    assert page.status == 200
    assert "set-cookie" not in page.headers
    chosen = links(page)[1]
    assert chosen.startswith(f"{C}/login/sso/redirect/b?")
    assert parse_qs(urlsplit(chosen).query) == {"redirectUrl": [APP], "action": ["register"]}
    url = (await world.browser.open(chosen)).headers["location"]
    assert parse_qs(urlsplit(url).query)["prompt"] == ["create"]
    await world.log_in(await world.token(await world.browser.open(world.provider.sign_in(url, **DAN))))
    admin = await register_admin(world.homeserver, "root")
    found = await admin.get("/_synapse/admin/v1/auth_providers/b/users/248289")
    assert found.json == {"user_id": "@dan:test"}
    assert (await admin.get("/_synapse/admin/v1/auth_providers/a/users/248289")).status == 404


async def test_what_goes_to_the_provider(world):
    url = await world.go_to_provider()
    query = {name: values[-1] for name, values in parse_qs(urlsplit(url).query).items()}
    assert query["scope"] == "openid profile email"
    assert query["redirect_uri"] == f"{BASE}/_ranvier/sso/callback"
    assert query["tenant"] == "1"  # as the provider wrote it
    assert "prompt" not in query
    assert len(query["state"]) > 40
    assert len({query["state"], query["nonce"], query["code_challenge"]}) == 3


async def test_cookies_are_for_this_server_alone(world, start_world):
    answer = await world.browser.open(f"{C}/login/sso/redirect?redirectUrl={quote(APP, safe='')}")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-ranvier-sso-")
    assert cookie.endswith("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure")
    near = await start_world(public_base_url="http://localhost:8008")
    answer = await near.browser.open(f"{C}/login/sso/redirect?redirectUrl={quote(APP, safe='')}")
    assert answer.headers["set-cookie"].startswith("ranvier-sso-")
    assert "Secure" not in answer.headers["set-cookie"]


async def test_a_restart_in_the_middle_is_not_noticed(tmp_path):
    settings = {
        "public_base_url": BASE,
        "sso": SsoConfig(providers=(provider_config(user_name=""),)),
    }
    idp = IdentityProvider(lambda: 0)
    idp.now_s = lambda: world.homeserver.clock.now_ms() // 1000
    replaced = {"network": Network(idp, open_dns_resolver(), close)}

    async def at_restart(step):
        async with running_homeserver(tmp_path, replaced=replaced, **settings) as homeserver:
            nonlocal world
            cookies = world.browser.cookies if world else {}
            world = World(homeserver, idp)
            world.browser.cookies = cookies
            return await step()

    world = None
    url = await at_restart(lambda: world.go_to_provider())
    back = idp.sign_in(url, **DAN)
    page = await at_restart(lambda: world.browser.open(back))
    page = await at_restart(
        lambda: world.browser.submit("/_ranvier/sso/name", visit=hidden(page, "visit"), user_name="dan")
    )
    token = await at_restart(lambda: world.token(page))
    assert (await at_restart(lambda: world.log_in(token))).json["user_id"] == "@dan:test"


async def test_two_visits_of_one_browser_do_not_disturb_each_other(world):
    first, second = await world.go_to_provider(), await world.go_to_provider("myapp://login")
    for url, place in ((first, "app.test"), (second, "myapp:")):
        page = await world.browser.open(world.provider.sign_in(url, **DAN))
        assert page.status == 200
        assert place in page.body.decode()


@pytest.mark.parametrize("name", ["Dan", "taken"])
async def test_whoever_comes_twice_at_once_gets_one_account(world, name):
    await world.homeserver.register("taken")
    claims = DAN | {"preferred_username": name}
    browsers = [world.new_browser() for _ in range(4)]
    backs = [world.provider.sign_in(await world.go_to_provider(browser=one), **claims) for one in browsers]
    pages = await asyncio.gather(*(one.open(back) for one, back in zip(browsers, backs, strict=True)))
    if name == "taken":
        pages = await asyncio.gather(
            *(
                one.submit("/_ranvier/sso/name", visit=hidden(page, "visit"), user_name=f"dan{number}")
                for number, (one, page) in enumerate(zip(browsers, pages, strict=True))
            )
        )
    names = {re.search("@[a-z0-9]+:test", page.body.decode())[0] for page in pages}
    assert len(names) == 1
    assert names <= {"@dan:test", *(f"@dan{number}:test" for number in range(4))}


async def test_trusted_clients_are_gone_to_at_once(start_world):
    world = await start_world(trusted=["https://app.test/", "io.app:/"])
    for wanted in (APP, "io.app:/login"):
        answer = await world.come_back(redirect_url=wanted)
        assert answer.status == 302
        assert (await world.log_in(login_token(answer.headers["location"]))).status == 200
    for other in (
        "https://app.test.evil.test/",
        "https://app.test:8443/",
        "http://app.test/",
        "https://evil/",
    ):
        answer = await world.come_back(redirect_url=other)
        assert answer.status == 200
        assert "loginToken" not in answer.body.decode()


async def test_a_plain_oauth_provider(start_world):
    world = await start_world(
        provider_config(
            issuer=None,
            authorization_endpoint=f"{ISSUER}/authorize?tenant=1",
            token_endpoint=f"{ISSUER}/token",
            userinfo_endpoint=f"{ISSUER}/userinfo",
            client_authentication="client_secret_post",
            scopes=("read:user",),
            subject_claim="id",
            user_name="{login}",
        )
    )
    world.provider.authentication = "client_secret_post"
    url = await world.go_to_provider()
    assert "nonce" not in parse_qs(urlsplit(url).query)
    person = {"id": 583231, "login": "octocat", "name": None}
    page = await world.browser.open(world.provider.sign_in(url, **person))
    assert "@octocat:test" in page.body.decode()
    admin = await register_admin(world.homeserver, "root")
    shown = await admin.get("/_synapse/admin/v2/users/@octocat:test")
    assert shown.json["external_ids"] == [{"auth_provider": "oidc-idp", "external_id": "583231"}]
    assert not [one for one in world.provider.requests if "well-known" in one.url]


async def test_the_provider_is_asked_for_its_metadata_once_an_hour(world):
    def asked():
        return len([one for one in world.provider.requests if "well-known" in one.url])

    await world.sign_in()
    await world.sign_in()
    assert asked() == 1


async def test_a_provider_that_wants_its_secret_in_the_form(world):
    world.provider.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    world.provider.authentication = "client_secret_post"
    assert (await world.sign_in()).user_id == "@dan:test"


# Accounts


async def test_a_verified_address_becomes_the_accounts(start_world):
    world = await start_world()
    dan = await world.sign_in(DAN | {"email_verified": True, "email": "Dan@Mail.test"})
    (threepid,) = (await dan.get(f"{C}/account/3pid")).json["threepids"]
    assert (threepid["medium"], threepid["address"]) == ("email", "dan@mail.test")
    other = {"sub": "2", "preferred_username": "eve", "email": "dan@mail.test", "email_verified": "true"}
    eve = await world.sign_in(other)
    assert (await eve.get(f"{C}/account/3pid")).json == {"threepids": []}


async def test_an_address_may_be_demanded(start_world):
    world = await start_world(
        mail=MailConfig(host="localhost", sender="matrix@test"),
        registration=RegistrationConfig(mode="open", require_email=True),
    )
    check_refusal(await world.come_back(), 403, "confirmed e-mail address")
    check_refusal(await world.come_back(DAN | {"email": "x", "email_verified": True}), 403, "e-mail address")
    assert "@dan:test" in (await world.come_back(DAN | {"email_verified": True})).body.decode()


@pytest.mark.parametrize(
    "claims",
    [{}, {"preferred_username": ""}, {"preferred_username": 'x"><script>'}, {"preferred_username": "taken"}],
    ids=["none", "empty", "strange", "taken"],
)
async def test_a_name_is_chosen_where_the_provider_has_none(world, claims):
    await world.homeserver.register("taken")
    page = await world.come_back({"sub": "1", "name": "N"} | claims)
    if claims.get("preferred_username", "").startswith("x"):
        assert "@x=22=3e=3cscript=3e:test" in page.body.decode()
        return
    assert "The &lt;IdP&gt;" in page.body.decode()
    for wish, words in (
        ("taken", "taken"),
        ("Ü", "consists of"),
        ("", "consists of"),
        ("x" * 300, "at most"),
    ):
        page = await world.browser.submit("/_ranvier/sso/name", visit=hidden(page, "visit"), user_name=wish)
        check_refusal(page, 400, words)
    done = await world.browser.submit("/_ranvier/sso/name", visit=hidden(page, "visit"), user_name="Free")
    assert "@free:test" in done.body.decode()
    session = await world.log_in(await world.token(done))
    assert session.json["user_id"] == "@free:test"
    # The form is used up.
    again = await world.browser.submit("/_ranvier/sso/name", visit=hidden(page, "visit"), user_name="other")
    check_refusal(again, 403, "ended")


async def test_reserved_names_are_not_given(start_world):
    world = await start_world(server_notices=ServerNoticesConfig(user="dan"))
    page = await world.come_back()
    assert 'value="dan"' in page.body.decode()
    page = await world.browser.submit("/_ranvier/sso/name", visit=hidden(page, "visit"), user_name="dan")
    check_refusal(page, 400, "belongs to")


@pytest.mark.parametrize(
    ("mode", "allow", "comes_in"),
    [
        ("open", None, True),
        ("open", False, False),
        ("token", None, False),
        ("closed", None, False),
        ("closed", True, True),
    ],
)
async def test_who_may_get_an_account(start_world, mode, allow, comes_in):
    world = await start_world(
        provider_config(allow_registration=allow), registration=RegistrationConfig(mode=mode)
    )
    page = await world.come_back()
    if comes_in:
        assert "@dan:test" in page.body.decode()
    else:
        check_refusal(page, 403, "no account here")


async def test_an_account_that_exists_is_linked_only_where_the_administrator_says_so(start_world):
    world = await start_world(provider_config(link_existing=True, allow_registration=False))
    old = await world.homeserver.register("dan")
    assert (await world.sign_in()).user_id == old.user_id
    # Somebody else has that name at the provider now: not the same person.
    check_refusal(await world.come_back(DAN | {"sub": "other"}), 403, "no account here")
    # Nobody is linked to bots and to accounts that are closed.
    check_refusal(await world.come_back({"sub": "3", "preferred_username": "nobody"}), 403, "no account here")


@pytest.mark.parametrize(
    ("said", "is_trusted", "is_linked"),
    [
        ({}, False, False),
        ({"email_verified": False}, False, False),
        ({"email_verified": "nonsense"}, False, False),
        ({"email_verified": True}, False, True),
        ({"email_verified": "true"}, False, True),
        ({}, True, True),
    ],
)
async def test_an_address_links_an_account_only_if_it_is_proved(start_world, said, is_trusted, is_linked):
    named = {"user_name": "{email|localpart}", "email_is_verified": is_trusted}
    world = await start_world(provider_config(link_existing=True, **named))
    old = await world.homeserver.register("dan")
    claims = {name: value for name, value in DAN.items() if name != "preferred_username"} | said
    if is_linked:
        assert (await world.sign_in(claims)).user_id == old.user_id
    else:
        check_refusal(await world.come_back(claims), 403, "Confirm it there first")
        # Whose name is nobody's yet takes nothing from anybody.
        other = claims | {"sub": "2", "email": "erin@mail.test"}
        assert (await world.sign_in(other)).user_id == "@erin:test"


async def test_an_address_of_another_claim_is_one_too(start_world):
    world = await start_world(
        provider_config(link_existing=True, user_name="{mail|localpart}", email="{mail}")
    )
    await world.homeserver.register("dan")
    check_refusal(await world.come_back({"sub": "1", "mail": "dan@mail.test"}), 403, "Confirm it there first")


async def test_without_that_the_name_is_just_taken(world):
    await world.homeserver.register("dan")
    page = await world.come_back()
    assert "Choose your user name" in page.body.decode()


@pytest.mark.parametrize(
    ("groups", "comes_in"),
    [(["a", "matrix"], True), ("matrix", True), (["a"], False), (None, False), ({"matrix": 1}, False)],
)
async def test_claims_may_be_demanded(start_world, groups, comes_in):
    world = await start_world(provider_config(required_claims={"groups": ("matrix", "admins")}))
    page = await world.come_back(DAN | {"groups": groups})
    if comes_in:
        assert "@dan:test" in page.body.decode()
    else:
        check_refusal(page, 403, "may not be used here")


async def test_closed_and_locked_accounts_stay_outside(world):
    dan = await world.sign_in()
    admin = await register_admin(world.homeserver, "root")
    path = "/_synapse/admin/v2/users/@dan:test"
    assert (await admin.put(path, {"locked": True})).status == 200
    check_refusal(await world.come_back(), 401, "locked")
    page_before = await admin.put(path, {"locked": False})
    assert page_before.status == 200
    page = await world.come_back()
    token = await world.token(page)
    assert (await admin.put(path, {"deactivated": True})).status == 200
    assert (await world.log_in(token)).status == 403
    check_refusal(await world.come_back(), 403, "deactivated")
    assert (await dan.get(f"{C}/account/whoami")).status == 401


# Without passwords


async def test_passwords_can_be_off(start_world):
    world = await start_world(login=LoginConfig(password=False))
    client = world.homeserver.client
    flows = [flow["type"] for flow in (await client.get(f"{C}/login")).json["flows"]]
    assert flows == ["m.login.sso", "m.login.token", "m.login.application_service"]
    assert (await client.post(f"{C}/register", {"username": "alice"})).errcode == "M_FORBIDDEN"
    assert (await world.sign_in()).user_id == "@dan:test"
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": PASSWORD,
    }
    assert (await client.post(f"{C}/login", body)).errcode == "M_FORBIDDEN"
    page = (await client.get("/_matrix/static/client/login")).body.decode()
    assert 'data-provider="oidc-idp"' in page
    assert 'name="password"' not in page


async def test_single_sign_on_is_preferred_where_it_is_all_that_there_is(start_world):
    for password, preferred in ((True, None), (False, True)):
        world = await start_world(login=LoginConfig(password=password))
        flows = (await world.homeserver.client.get(f"{C}/login")).json["flows"]
        (sso,) = [flow for flow in flows if flow["type"] == "m.login.sso"]
        assert sso.get("oauth_aware_preferred") is preferred
    world = await start_world(login=LoginConfig(password=False), oauth=OAuthConfig(enabled=False))
    (sso, *_) = (await world.homeserver.client.get(f"{C}/login")).json["flows"]
    assert "oauth_aware_preferred" not in sso


async def test_the_account_pages_of_this_server_take_whom_a_provider_knows(world):
    page = await world.browser.open("/_ranvier/sign-in?next=/_ranvier/account")
    (link,) = [one for one in links(page) if "/login/sso/redirect/" in one]
    url = (await world.browser.open(link)).headers["location"]
    answer = await world.browser.open(world.provider.sign_in(url, **DAN))
    for _ in range(3):
        if answer.status not in (302, 303):
            break
        answer = await world.browser.open(answer.headers["location"])
    assert answer.status == 200, answer.body
    assert "@dan:test" in answer.body.decode()


async def test_of_the_pages_of_this_server_one_is_trusted(world):
    for path, status in (
        ("/_ranvier/sign-in/continue?next=x", 302),
        # A link to it would sign a device out, whose session the page takes over.
        ("/_matrix/static/client/login/?device_id=A", 200),
        ("/_matrix/media/v3/download/test/abc", 200),
        ("/_ranvier/sign-in/continue/../../../_matrix/media/v3/download/test/abc", 200),
        ("/_ranvier/sign-in/continue/%2e%2E/x", 200),
    ):
        assert (await world.come_back(redirect_url=BASE + path)).status == status, path
