"""What people do with their account in the browser, and the one request of a client that they approve there."""

import re
from io import BytesIO
from urllib.parse import urlencode

import pytest
from PIL import Image

from ranvier.app.config import MailConfig, RegistrationConfig
from ranvier.http.oauth import avatar_page
from ranvier.services.oauth.browsers import FRESH_MS

from .homeserver import PASSWORD, eventually
from .mail_server import running_mail_server
from .oauth import BASE, Browser, StillClock, hidden_fields, query_of, register_client, sent_to, text_of
from .olm import Key
from .test_cross_signing import UPLOAD, keys_of, password_of

C = "/_matrix/client/v3"
ACCOUNT = "/_ranvier/account"
SIGN_IN = "/_ranvier/sign-in"
SIGN_UP = "/_ranvier/sign-up"
FORGOT = "/_ranvier/forgot-password"
CONTACTS = "/_ranvier/account/contacts"


def account(action, **more):
    return f"{ACCOUNT}?{urlencode({'action': f'org.matrix.{action}'} | more)}"


@pytest.fixture
async def server(start_homeserver):
    return await start_homeserver(public_base_url=BASE, replaced={"clock": StillClock()})


@pytest.fixture
async def alice(server):
    return await server.register("alice", device_id="PHONE")


@pytest.fixture
async def browser(server, alice):
    """Alice is signed in."""
    browser = Browser(server.client)
    sent_to(await browser.sign_in(SIGN_IN))
    return browser


async def submit(browser, address, **fields):
    """Fill in the first form at an address."""
    return await browser.submit(address, await browser.get(address), **fields)


async def test_every_action_that_is_told_is_there(server, browser):
    found = (await server.client.get("/_matrix/client/v1/auth_metadata")).json
    actions = found["account_management_actions_supported"]
    assert set(actions) >= {
        f"org.matrix.{name}"
        for name in (
            "profile",
            "devices_list",
            "device_view",
            "device_delete",
            "account_deactivate",
            "cross_signing_reset",
        )
    }
    pages = set()
    for action in actions:
        page = await browser.get(found["account_management_uri"], action=action, device_id="PHONE")
        assert page.status == 200, action
        pages.add(
            re.search(r"<h1>(.*?)</h1>", text_of(page))[1] + str("Sign this device out</" in text_of(page))
        )
    assert len(pages) == len(actions)


@pytest.mark.parametrize("action", ["profile", "devices_list", "device_delete", "cross_signing_reset"])
async def test_who_is_not_signed_in_signs_in_first_and_comes_back(server, alice, action):
    browser = Browser(server.client)
    address = account(action, device_id="PHONE", session="x")
    sign_in = sent_to(await browser.get(address))
    assert sent_to(await browser.sign_in(sign_in)) == f"{BASE}{address}"


async def test_the_page_of_the_server_leads_there(server, homeserver):
    assert f'href="{BASE}{ACCOUNT}"' in text_of(await server.client.get("/"))
    assert ACCOUNT not in text_of(await homeserver.client.get("/"))


@pytest.mark.parametrize("old", ["session_end", "org.matrix.session_end"])
async def test_names_of_drafts(browser, old):
    page = await browser.get(ACCOUNT, action=old, device_id="PHONE")
    assert "signs the device out" in text_of(page)


async def test_the_name(server, browser, alice):
    page = await submit(browser, ACCOUNT, display_name='Alice <b>"x"</b>')
    assert "Saved." in text_of(page)
    assert b"<b>" not in page.body
    assert (await alice.get(f"{C}/profile/@alice:test/displayname")).json["displayname"] == 'Alice <b>"x"</b>'
    await submit(browser, ACCOUNT, display_name="")
    assert (await alice.get(f"{C}/profile/@alice:test/displayname")).status == 404
    refused = await submit(browser, ACCOUNT, display_name="x" * 300)
    assert refused.status == 400
    assert "at most" in text_of(refused)


async def test_devices(server, browser, alice):
    tablet = await server.login("alice", device_id="TABLET")
    text = text_of(await browser.get(account("devices_list")))
    assert text.count("Never used") == 2
    server.clock.ahead_ms += 1000
    await tablet.get(f"{C}/account/whoami")
    text = text_of(await browser.get(account("devices_list")))
    assert text.count("Never used") == 1
    assert text.index("TABLET") < text.index("PHONE")
    view = account("device_view", device_id="TABLET")
    assert "Saved." in text_of(await submit(browser, view, name="My tablet"))
    assert (await alice.get(f"{C}/devices/TABLET")).json["display_name"] == "My tablet"
    assert "My tablet" in text_of(await browser.get(view))
    assert (await submit(browser, view, name="x" * 200)).status == 400


async def test_signing_a_device_out(server, browser, alice):
    tablet = await server.login("alice", device_id="TABLET")
    address = account("device_delete", device_id="TABLET")
    # Looking at it does nothing.
    await browser.get(address)
    assert (await tablet.get(f"{C}/account/whoami")).status == 200
    assert "signed out" in text_of(await submit(browser, address))
    assert (await tablet.get(f"{C}/account/whoami")).status == 401
    assert (await alice.get(f"{C}/account/whoami")).status == 200
    gone = await browser.get(address)
    assert gone.status == 404
    assert "no such device" in text_of(gone)


async def test_nobody_elses_devices(server, browser):
    bob = await server.register("bob", device_id="BOBS")
    assert (await browser.get(account("device_view", device_id="BOBS"))).status == 404
    csrf = hidden_fields(await browser.get(ACCOUNT))["csrf"]
    for action, fields in (("device_delete", {}), ("device_view", {"name": "mine"})):
        await browser.post(account(action, device_id="BOBS"), csrf=csrf, **fields)
    device = (await bob.get(f"{C}/devices/BOBS")).json
    assert device["display_name"] != "mine"


@pytest.mark.parametrize("action", ["device_delete", "account_deactivate", "cross_signing_reset"])
async def test_what_cannot_be_undone_wants_a_fresh_proof(server, browser, alice, action):
    address = account(action, device_id="PHONE")
    page = await browser.get(address)
    assert page.status == 200
    server.clock.ahead_ms += FRESH_MS
    for answer in (await browser.get(address), await browser.submit(address, page, user_id="@alice:test")):
        assert query_of(sent_to(answer))["user"] == ["@alice:test"]
    assert (await alice.get(f"{C}/account/whoami")).status == 200
    assert (await browser.get(account("devices_list"))).status == 200
    sent_to(await browser.sign_in(sent_to(await browser.get(address))))
    assert (await browser.get(address)).status == 200


async def test_closing_the_account(server, browser, alice):
    room = (await alice.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"]
    bob = await server.register("bob")
    await bob.post(f"{C}/join/{room}", {})
    address = account("account_deactivate")
    assert (await submit(browser, address, user_id="@bob:test")).status == 400
    assert (await alice.get(f"{C}/account/whoami")).status == 200
    assert "closed" in text_of(await submit(browser, address, user_id=" @alice:test ", erase="yes"))
    assert (await alice.get(f"{C}/account/whoami")).status == 401
    assert (await browser.get(ACCOUNT)).status == 303
    refused = await browser.sign_in(SIGN_IN)
    assert "Invalid username or password." in text_of(refused)

    async def has_left():
        members = (await bob.get(f"{C}/rooms/{room}/joined_members")).json["joined"]
        return "@alice:test" not in members

    await eventually(has_left)


@pytest.mark.parametrize("ends_devices", [True, False])
async def test_changing_the_password(server, browser, alice, ends_devices):
    other = Browser(server.client)
    sent_to(await other.sign_in(SIGN_IN))
    address = f"{ACCOUNT}?action=password"
    wish = {"current": PASSWORD, "password": "a new password", "again": "a new password"}
    for wrong, told in (
        ({"current": "wrong"}, "Invalid"),
        ({"again": "other"}, "differ"),
        ({"password": "x", "again": "x"}, "at least 8"),
    ):
        refused = await submit(browser, address, **(wish | wrong))
        assert told in text_of(refused)
        assert PASSWORD not in text_of(refused)
    more = {"logout": "yes"} if ends_devices else {}
    assert sent_to(await submit(browser, address, **wish, **more)) == f"{BASE}{ACCOUNT}"
    assert (await browser.get(ACCOUNT)).status == 200
    assert (await other.get(ACCOUNT)).status == 303
    assert (await alice.get(f"{C}/account/whoami")).status == (401 if ends_devices else 200)
    assert (await Browser(server.client).sign_in(SIGN_IN)).status == 403
    sent_to(await Browser(server.client).sign_in(SIGN_IN, "alice", "a new password"))


async def waiting_for_approval(server, browser, alice):
    """A session of OAuth that wants to replace the keys of cross-signing: the session, and where to approve it."""
    client = await register_client(server)
    user = client.user(await client.login(browser))
    assert (await alice.post(UPLOAD, keys_of(alice))).status == 200
    asked = await user.post(UPLOAD, keys_of(user, Key(21), Key(22), Key(23)))
    assert asked.status == 401
    assert {"stages": ["m.oauth"]} in asked.json["flows"]
    return user, asked.json


async def test_new_keys_for_cross_signing_are_approved_on_the_page(server, browser, alice):
    user, asked = await waiting_for_approval(server, browser, alice)
    url = asked["params"]["m.oauth"]["url"]
    assert url.startswith(f"{BASE}{ACCOUNT}?")
    assert query_of(url)["action"] == ["org.matrix.cross_signing_reset"]
    assert asked["params"]["org.matrix.cross_signing_reset"] == {"url": url}
    for stage in ("m.oauth", "org.matrix.cross_signing_reset"):
        fallback = await user.get(f"{C}/auth/{stage}/fallback/web", session=asked["session"])
        assert sent_to(fallback) == url
    new = keys_of(user, Key(21), Key(22), Key(23))
    session = {"session": asked["session"]}
    for auth in (session, session | {"type": "m.oauth"}, password_of(user, asked["session"])):
        assert (await user.post(UPLOAD, new | {"auth": auth})).status == 401
    page = await browser.get(url)
    assert (await user.post(UPLOAD, new | {"auth": session})).status == 401
    assert "go on now" in text_of(await browser.submit(url, page))
    assert (await user.post(UPLOAD, new | {"auth": session})).status == 200
    # For that once.
    newer = keys_of(user, Key(31), Key(32), Key(33))
    assert (await user.post(UPLOAD, newer | {"auth": session})).status == 401
    assert (await user.post(UPLOAD, newer)).status == 401


async def test_nobody_approves_for_somebody_else(server, browser, alice):
    user, asked = await waiting_for_approval(server, browser, alice)
    await server.register("bob")
    other = Browser(server.client)
    sent_to(await other.sign_in(SIGN_IN, "bob"))
    url = asked["params"]["m.oauth"]["url"]
    assert (await submit(other, url)).status == 403
    auth = {"auth": {"session": asked["session"]}}
    assert (await user.post(UPLOAD, keys_of(user, Key(21), Key(22), Key(23)) | auth)).status == 401


async def test_nothing_else_is_approved_there(server, browser, alice):
    session = (await alice.delete(f"{C}/devices/PHONE", {})).json["session"]
    for one in (session, "unknown", ""):
        address = account("cross_signing_reset", session=one)
        csrf = hidden_fields(await browser.get(ACCOUNT))["csrf"]
        assert (await browser.post(address, csrf=csrf)).status == 404
    answer = await alice.delete(f"{C}/devices/PHONE", {"auth": {"session": session}})
    assert answer.status == 401
    assert "Begin this in your application" in text_of(await browser.get(account("cross_signing_reset")))


async def test_a_password_is_still_what_ordinary_sessions_show(server, alice):
    assert (await alice.post(UPLOAD, keys_of(alice))).status == 200
    asked = await alice.post(UPLOAD, keys_of(alice, Key(21), Key(22), Key(23)))
    assert asked.json["flows"] == [{"stages": ["m.login.password"]}]
    assert asked.json["params"] == {}


def mail_to(mails):
    return MailConfig(host="127.0.0.1", port=mails.port, security="none", sender="Test <matrix@test.example>")


async def open_mail(browser, mails):
    """Open the link in the newest mail, and press the button."""
    link = mails.link()
    assert "confirmed" in text_of(await submit(browser, link))


async def test_an_address_is_proved_before_the_account_is_made(start_homeserver):
    async with running_mail_server() as mails:
        server = await start_homeserver(
            public_base_url=BASE,
            mail=mail_to(mails),
            registration=RegistrationConfig(mode="open", require_email=True),
        )
        browser = Browser(server.client)
        first = await browser.get(SIGN_UP)
        assert 'type="password"' not in text_of(first)
        for wrong in ({"email": "nonsense", "user": "bob"}, {"email": "bob@example.org", "user": "Ä"}):
            assert (await browser.submit(SIGN_UP, first, **wrong)).status == 400
        second = await browser.submit(SIGN_UP, first, email="bob@example.org", user="bob")
        assert second.status == 200
        wish = {"user": "bob", "password": PASSWORD, "again": PASSWORD}
        early = await browser.submit(SIGN_UP, second, **wish)
        assert "open the link" in text_of(early)
        await open_mail(browser, mails)
        assert sent_to(await browser.submit(SIGN_UP, early, **wish)) == f"{BASE}{ACCOUNT}"
        assert "bob@example.org" in text_of(await browser.get(CONTACTS))


async def test_addresses(start_homeserver):
    async with running_mail_server() as mails:
        clock = StillClock()
        server = await start_homeserver(public_base_url=BASE, mail=mail_to(mails), replaced={"clock": clock})
        alice = await server.register("alice")
        browser = Browser(server.client)
        sent_to(await browser.sign_in(SIGN_IN))
        assert "There is none." in text_of(await browser.get(CONTACTS))
        assert (await submit(browser, CONTACTS, email="nonsense")).status == 400
        page = await submit(browser, CONTACTS, email="alice@example.org")
        early = await browser.submit(CONTACTS, page)
        assert "open the link" in text_of(early)
        await open_mail(browser, mails)
        assert "is added" in text_of(await browser.submit(CONTACTS, early))
        threepids = (await alice.get(f"{C}/account/3pid")).json["threepids"]
        assert [one["address"] for one in threepids] == ["alice@example.org"]
        page = await browser.get(CONTACTS)
        clock.ahead_ms += FRESH_MS
        for answer in (
            await browser.get(CONTACTS),
            await browser.submit(CONTACTS, page, forget="alice@example.org"),
        ):
            assert sent_to(answer).startswith(f"{BASE}{SIGN_IN}")
        sent_to(await browser.sign_in(SIGN_IN))
        await server.register("bob")
        other = Browser(server.client)
        sent_to(await other.sign_in(SIGN_IN, "bob"))
        assert "belongs to an account" in text_of(await submit(other, CONTACTS, email="alice@example.org"))
        await submit(other, CONTACTS, forget="alice@example.org")
        assert "alice@example.org" in text_of(await browser.get(CONTACTS))
        assert "is forgotten" in text_of(await submit(browser, CONTACTS, forget="alice@example.org"))
        assert (await alice.get(f"{C}/account/3pid")).json["threepids"] == []


async def test_addresses_where_no_mail_is_sent(server, browser):
    assert 'name="email"' not in text_of(await browser.get(CONTACTS))
    assert (await submit(browser, CONTACTS, email="alice@example.org")).status == 400


async def test_who_forgot_the_password(start_homeserver):
    async with running_mail_server() as mails:
        server = await start_homeserver(
            public_base_url=BASE,
            mail=mail_to(mails),
            registration=RegistrationConfig(mode="open", require_email=True),
        )
        browser = Browser(server.client)
        page = await submit(browser, SIGN_UP, email="bob@example.org", user="bob")
        await open_mail(browser, mails)
        sent_to(await browser.submit(SIGN_UP, page, user="bob", password=PASSWORD, again=PASSWORD))
        other = Browser(server.client)
        assert FORGOT in text_of(await other.get(SIGN_IN))
        page = await submit(other, FORGOT, email="bob@example.org")
        wish = {"password": "a new password", "again": "a new password"}
        early = await other.submit(FORGOT, page, **wish)
        assert "open the link" in text_of(early)
        await open_mail(other, mails)
        assert "differ" in text_of(await other.submit(FORGOT, early, **(wish | {"again": "x"})))
        assert sent_to(await other.submit(FORGOT, early, **wish)).startswith(f"{BASE}{SIGN_IN}")
        assert (await browser.get(ACCOUNT)).status == 303
        assert (await other.sign_in(SIGN_IN, "bob")).status == 403
        sent_to(await other.sign_in(SIGN_IN, "bob", "a new password"))
        # Whose address it is, nobody learns.
        stranger = await submit(Browser(server.client), FORGOT, email="nobody@example.org")
        assert stranger.status == 200


async def test_without_mail_nobody_can_forget_the_password(server):
    assert FORGOT not in text_of(await server.client.get(SIGN_IN))
    assert (await server.client.get(FORGOT)).status == 404


AVATAR = "/_ranvier/account/avatar"
MARK = "----mark"


async def send_picture(server, browser, picture=None, *, csrf=None, **fields):
    """As the form on the profile page does."""
    if csrf is None:
        csrf = hidden_fields(await browser.get(ACCOUNT))["csrf"]
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in {"csrf": csrf, **fields}.items()]
    if picture is not None:
        parts.append(b'name="picture"; filename="me.html"\r\nContent-Type: text/html\r\n\r\n' + picture)
    head = f"--{MARK}\r\nContent-Disposition: form-data; ".encode()
    body = b"".join(head + part + b"\r\n" for part in parts) + f"--{MARK}--\r\n".encode()
    headers = {"content-type": f"multipart/form-data; boundary={MARK}"}
    headers["cookie"] = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    return await server.client.request("POST", AVATAR, body=body, headers=headers)


def draw(color, kind="PNG"):
    stream = BytesIO()
    Image.new("RGB", (200, 120), color).save(stream, kind)
    return stream.getvalue()


async def avatar_of(user):
    return (await user.get(f"{C}/profile/{user.user_id}/avatar_url")).json.get("avatar_url")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
async def test_the_picture(server, browser, alice, kind):
    assert "<img" not in text_of(await browser.get(ACCOUNT))
    assert (await browser.get(AVATAR)).status == 404
    assert sent_to(await send_picture(server, browser, draw("red", kind))) == f"{BASE}{ACCOUNT}"
    url = await avatar_of(alice)
    found = await alice.get(f"/_matrix/client/v1/media/download/{url.removeprefix('mxc://')}")
    assert (found.body, found.headers["content-type"]) == (draw("red", kind), f"image/{kind.lower()}")
    page = await browser.get(ACCOUNT)
    (shown,) = re.findall(r'<img src="([^"]+)"', text_of(page))
    assert "img-src 'self'" in page.headers["content-security-policy"]
    small = await browser.get(shown)
    assert small.headers["content-type"].startswith("image/")
    assert small.headers["cross-origin-resource-policy"] == "same-origin"
    assert Image.open(BytesIO(small.body)).size == (96, 96)
    sent_to(await send_picture(server, browser, remove="yes"))
    assert await avatar_of(alice) is None
    assert "<img" not in text_of(await browser.get(ACCOUNT))


@pytest.mark.parametrize("picture", [b"", b"<svg/>", b"<script>", None])
async def test_what_is_no_picture_is_not_taken(server, browser, alice, picture):
    answer = await send_picture(server, browser, picture)
    assert answer.status == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert await avatar_of(alice) is None


async def test_only_ones_own_pages_send_pictures(server, browser, alice):
    assert (await send_picture(server, browser, draw("red"), csrf="")).status == 403
    assert (await send_picture(server, browser, draw("red"), csrf="x" * 43)).status == 403
    stranger = Browser(server.client)
    assert (await send_picture(server, stranger, draw("red"), csrf="")).status == 403
    assert (await stranger.get(AVATAR)).status == 403
    assert (await browser.post(AVATAR, remove="yes")).status == 400
    assert await avatar_of(alice) is None


async def test_a_picture_is_bounded(server, browser, alice):
    answer = await send_picture(server, browser, draw("red") + bytes(avatar_page.MAX_BYTES))
    assert answer.status == 413
    assert "at most 10 MiB" in text_of(answer)


async def test_a_picture_that_is_elsewhere_or_nowhere_does_no_harm(server, browser, alice):
    for url in ("mxc://gone.test/abc", "https://example.org/me.png", "mxc://test/none"):
        await alice.put(f"{C}/profile/@alice:test/avatar_url", {"avatar_url": url})
        assert (await browser.get(ACCOUNT)).status == 200
        assert (await browser.get(AVATAR)).status in (404, 502)
