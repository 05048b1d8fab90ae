"""Signing in by OAuth through another identity provider: the sign-in page leads there, and the browser comes back to
what it was about to agree to.
"""

import pytest

from ranvier.app.config import LoginConfig
from ranvier.services.oauth.browsers import FRESH_MS

from .oauth import BASE, Browser, answer_in, query_of, register_client, sent_to, text_of
from .sso_world import DAN, links, start_world

__all__ = ["start_world"]

C = "/_matrix/client/v3"
CALLBACK = "/_ranvier/sign-in/continue"


async def through_provider(world, browser, page):
    """From a sign-in page to where the browser is when it comes back."""
    (link,) = [one for one in links(page) if "/login/sso/redirect/" in one]
    answer = await browser.get(link)
    assert answer.status == 302, answer.body
    back = await browser.get(world.provider.sign_in(answer.headers["location"], **DAN))
    assert back.status == 302, text_of(back)
    assert back.headers["location"].startswith(f"{BASE}{CALLBACK}?")
    return back.headers["location"]


@pytest.mark.parametrize("by_password", [True, False])
async def test_a_client_signs_in_through_a_provider(start_world, by_password):
    world = await start_world(login=LoginConfig(password=by_password))
    client = await register_client(world.homeserver)
    browser = Browser(world.homeserver.client)
    sign_in = await browser.get(sent_to(await browser.get(client.authorization(prompt="create"))))
    assert ('type="password"' in text_of(sign_in)) is by_password
    consent_url = sent_to(await browser.get(await through_provider(world, browser, sign_in)))
    consent = await browser.get(consent_url)
    assert "@dan:test" in text_of(consent)
    code = answer_in(sent_to(await browser.submit(consent_url, consent, decision="allow")))["code"]
    user = client.user((await client.exchange(code)).json)
    assert (await user.get(f"{C}/account/whoami")).json["user_id"] == "@dan:test"


async def test_the_way_back_is_for_the_browser_that_left(start_world):
    world = await start_world()
    browser = Browser(world.homeserver.client)
    back = await through_provider(world, browser, await browser.get("/_ranvier/sign-in"))
    assert (await Browser(world.homeserver.client).get(back)).status == 403
    victim = Browser(world.homeserver.client)
    await victim.get("/_ranvier/sign-in")
    assert (await victim.get(back)).status == 403
    assert (await victim.get("/_ranvier/account")).status == 303
    assert sent_to(await browser.get(back)) == f"{BASE}/_ranvier/account"


async def test_who_has_no_password_proves_it_there_once_more(start_world):
    world = await start_world()
    browser = Browser(world.homeserver.client)
    sent_to(await browser.get(await through_provider(world, browser, await browser.get("/_ranvier/sign-in"))))
    account = await browser.get("/_ranvier/account")
    assert "Password" not in text_of(account)
    close = "/_ranvier/account?action=org.matrix.account_deactivate"
    assert (await browser.get(close)).status == 200
    world.homeserver.clock.ahead_ms += FRESH_MS
    sign_in = sent_to(await browser.get(close))
    assert query_of(sign_in)["next"] == [close]
    back = await through_provider(world, browser, await browser.get(sign_in))
    assert sent_to(await browser.get(back)) == f"{BASE}{close}"
    assert (await browser.get(close)).status == 200
