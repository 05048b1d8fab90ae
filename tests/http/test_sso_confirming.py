"""Confirming at an identity provider what a client is about to do: the stage m.login.sso."""

from urllib.parse import parse_qs, urlsplit

from ranvier.app.config import SsoConfig

from .administrators import register_admin
from .homeserver import PASSWORD
from .identity_provider import hidden, links
from .sso_world import BASE, DAN, C, check_refusal, provider_config, start_world, world

__all__ = ["start_world", "world"]


async def delete_device(user, device_id, auth=None):
    return await user.delete(f"{C}/devices/{device_id}", {} if auth is None else {"auth": auth})


async def confirm(world, session, claims=DAN, browser=None):
    """To the provider, and back to the page that asks."""
    browser = browser or world.browser
    answer = await browser.open(f"{C}/auth/m.login.sso/fallback/web?session={session}")
    assert answer.status == 302, answer.body
    url = answer.headers["location"]
    assert parse_qs(urlsplit(url).query)["prompt"] == ["login"]
    return await browser.open(world.provider.sign_in(url, **claims))


async def allow(world, page, browser=None):
    return await (browser or world.browser).submit("/_ranvier/sso/allow", visit=hidden(page, "visit"))


async def test_a_request_is_confirmed_at_the_provider(world):
    dan = await world.sign_in()
    asked = await delete_device(dan, dan.device_id)
    assert asked.status == 401
    assert asked.json["flows"] == [{"stages": ["m.login.sso"]}]
    session = asked.json["session"]
    early = await delete_device(dan, dan.device_id, {"session": session, "type": "m.login.sso"})
    assert early.status == 401
    page = await confirm(world, session)
    assert "sign out one of your devices" in page.body.decode()
    assert "@dan:test" in page.body.decode()
    # Signing in says who it is, not that it is wanted.
    assert (await delete_device(dan, dan.device_id, {"session": session})).status == 401
    check_refusal(await allow(world, page, world.new_browser()), 403, "another browser")
    done = await allow(world, page)
    assert done.status == 200
    assert "onAuthDone" in done.body.decode()
    check_refusal(await allow(world, page), 403, "ended")
    # For nothing else:
    assert (await delete_device(dan, "OTHER", {"session": session})).status == 401
    assert (await delete_device(dan, dan.device_id, {"session": session})).status == 200


async def test_only_the_user_can_confirm(world):
    dan = await world.sign_in()
    eve = {"sub": "2", "preferred_username": "eve"}
    await world.sign_in(eve)
    session = (await delete_device(dan, dan.device_id)).json["session"]
    check_refusal(await confirm(world, session, eve), 403, "not how @dan:test signs in")
    check_refusal(await confirm(world, session, {"sub": "nobody"}), 403, "not how @dan:test signs in")
    assert (await delete_device(dan, dan.device_id, {"session": session})).status == 401


async def test_who_may_not_come_in_any_more_confirms_nothing(start_world):
    world = await start_world(provider_config(required_claims={"groups": ("matrix",)}))
    dan = await world.sign_in(DAN | {"groups": ["matrix"]})
    session = (await delete_device(dan, dan.device_id)).json["session"]
    check_refusal(await confirm(world, session, DAN | {"groups": []}), 403, "may not be used here")


async def test_consent_is_for_the_request_that_was_shown(world):
    dan = await world.sign_in()
    session = (await delete_device(dan, dan.device_id)).json["session"]
    page = await confirm(world, session)
    visit = hidden(page, "visit")
    check_refusal(await world.browser.open(f"/_ranvier/sso/continue?visit={visit}"), 403, "goes on")
    page = await confirm(world, session)
    name = await world.browser.submit("/_ranvier/sso/name", visit=hidden(page, "visit"), user_name="x")
    check_refusal(name, 403, "asked for a name")
    (link,) = links(await world.come_back())
    visit = parse_qs(urlsplit(link).query)["visit"][0]
    check_refusal(await world.browser.submit("/_ranvier/sso/allow", visit=visit), 403, "asked for consent")
    check_refusal(await world.browser.submit("/_ranvier/sso/allow"), 403, "ended")


async def test_who_has_several_providers_chooses(start_world):
    world = await start_world(
        provider_config(), provider_config(id="b", name="B"), provider_config(id="c", name="C")
    )
    dan = await world.sign_in_at("b")
    admin = await register_admin(world.homeserver, "root")
    ids = [{"auth_provider": one, "external_id": DAN["sub"]} for one in ("b", "c", "gone")]
    await admin.put("/_synapse/admin/v2/users/@dan:test", {"external_ids": ids})
    session = (await delete_device(dan, dan.device_id)).json["session"]
    page = await world.browser.open(f"{C}/auth/m.login.sso/fallback/web?session={session}")
    assert [parse_qs(urlsplit(link).query)["provider"] for link in links(page)] == [["b"], ["c"]]
    url = (await world.browser.open(links(page)[1])).headers["location"]
    done = await allow(world, await world.browser.open(world.provider.sign_in(url, **DAN)))
    assert "onAuthDone" in done.body.decode()
    assert (await delete_device(dan, dan.device_id, {"session": session})).status == 200


async def test_who_has_a_password_is_asked_for_it(world):
    alice = await world.homeserver.register("alice")
    asked = await delete_device(alice, alice.device_id)
    assert asked.json["flows"] == [{"stages": ["m.login.password"]}]
    page = await world.browser.open(f"{C}/auth/m.login.sso/fallback/web?session={asked.json['session']}")
    check_refusal(page, 404, "No identity provider")
    check_refusal(await world.browser.open(f"{C}/auth/m.login.sso/fallback/web?session=x"), 404, "unknown")
    check_refusal(
        await world.browser.open("/_ranvier/sso/confirm?provider=oidc-idp&session=x"), 404, "unknown"
    )


async def test_a_password_can_be_set_after_confirming(world):
    dan = await world.sign_in()
    body = {"new_password": PASSWORD}
    session = (await dan.post(f"{C}/account/password", body)).json["session"]
    page = await confirm(world, session)
    assert "set a new password" in page.body.decode()
    await allow(world, page)
    answer = await dan.post(f"{C}/account/password", body | {"auth": {"session": session}})
    assert answer.status == 200, answer.body
    again = await world.homeserver.login("dan")
    flows = (await delete_device(again, again.device_id)).json["flows"]
    assert flows == [{"stages": ["m.login.password"]}, {"stages": ["m.login.sso"]}]


async def test_an_account_is_closed_after_confirming(world):
    dan = await world.sign_in()
    session = (await dan.post(f"{C}/account/deactivate", {})).json["session"]
    page = await confirm(world, session)
    assert "close your account" in page.body.decode()
    await allow(world, page)
    assert (await dan.post(f"{C}/account/deactivate", {"auth": {"session": session}})).status == 200
    check_refusal(await world.come_back(), 403, "deactivated")


async def test_pictures_of_providers_are_for_those_who_are_not_signed_in(start_homeserver, tmp_path):
    icon = "mxc://test/" + "i" * 24
    homeserver = await start_homeserver(
        public_base_url=BASE, sso=SsoConfig(providers=(provider_config(icon=icon),))
    )
    alice = await homeserver.register("alice")
    uploaded = (await alice.request("POST", "/_matrix/media/v3/upload", body=b"GIF89a")).json["content_uri"]
    path = "/_matrix/media/v3/download/test/"
    other = uploaded.rpartition("/")[2]
    assert (await homeserver.client.get(path + other)).status == 404
    endpoint = next(
        one for one in homeserver.endpoints if type(one).__name__ == "UnauthenticatedDownloadEndpoints"
    )
    assert endpoint._always_open == {("test", "i" * 24)}
    endpoint._always_open = {("test", other)}
    assert (await homeserver.client.get(path + other)).body == b"GIF89a"
