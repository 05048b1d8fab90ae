"""Addresses that are proved by mail: added to accounts, and a way back for who forgot the password."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from ranvier.app.config import MailConfig, RegistrationConfig

from .client import Answer
from .homeserver import PASSWORD, Homeserver, User
from .mail_server import MailServer, running_mail_server
from .rooms import C

ADDRESS = "alice@example.org"


@pytest.fixture
async def mails() -> AsyncIterator[MailServer]:
    async with running_mail_server() as server:
        yield server


@pytest.fixture
async def mailing(start_homeserver: Callable, mails: MailServer) -> Homeserver:
    mail = MailConfig(host="127.0.0.1", port=mails.port, security="none", sender="Test <matrix@test.example>")
    homeserver: Homeserver = await start_homeserver(mail=mail, public_base_url="https://test.example")
    return homeserver


async def request_mail(
    homeserver: Homeserver, purpose: str, email: str = ADDRESS, attempt: int = 1, **more: Any
) -> Answer:
    body = {"client_secret": "secret", "email": email, "send_attempt": attempt, **more}
    place = purpose if purpose == "register" else f"account/{purpose}"
    return await homeserver.client.post(f"{C}/{place}/email/requestToken", body)


async def open_link(homeserver: Homeserver, link: str, **changed: str) -> Answer:
    """Open the page, and press the button."""
    parts = urlsplit(link)
    shown = await homeserver.client.get(f"{parts.path}?{parts.query}")
    assert shown.status == 200
    fields = {name: values[0] for name, values in parse_qs(parts.query).items()} | changed
    for value in fields.values():
        assert changed or value in shown.body.decode()
    return await homeserver.client.request("POST", parts.path, body=urlencode(fields).encode())


async def add(user: User, sid: str) -> Answer:
    identifier = {"type": "m.id.user", "user": user.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    return await user.post(f"{C}/account/3pid/add", {"sid": sid, "client_secret": "secret", "auth": auth})


async def with_address(homeserver: Homeserver, mails: MailServer, name: str = "alice") -> User:
    """A user who has ADDRESS."""
    user = await homeserver.register(name)
    sid = (await request_mail(homeserver, "3pid")).json["sid"]
    assert (await open_link(homeserver, mails.link())).status == 200
    assert (await add(user, sid)).status == 200
    return user


async def reset(homeserver: Homeserver, sid: str, password: str = "another password") -> Answer:
    creds = {"sid": sid, "client_secret": "secret"}
    auth = {"type": "m.login.email.identity", "threepid_creds": creds}
    return await homeserver.client.post(f"{C}/account/password", {"new_password": password, "auth": auth})


async def test_an_address_is_added_once_the_link_was_opened(mailing: Homeserver, mails: MailServer) -> None:
    alice = await mailing.register("alice")
    answer = await request_mail(mailing, "3pid", "Alice@Example.org")
    assert answer.status == 200
    (mail,) = mails.mails
    assert mail["To"] == ADDRESS
    assert mail["From"] == "Test <matrix@test.example>"
    sid = answer.json["sid"]
    refused = await add(alice, sid)
    assert (refused.status, refused.errcode) == (403, "M_THREEPID_AUTH_FAILED")
    assert (await open_link(mailing, mails.link())).status == 200
    assert (await add(alice, sid)).status == 200
    (threepid,) = (await alice.get(f"{C}/account/3pid")).json["threepids"]
    assert (threepid["medium"], threepid["address"]) == ("email", ADDRESS)
    assert (await add(alice, sid)).errcode == "M_THREEPID_AUTH_FAILED", "a session is good for one use"
    capabilities = (await alice.get(f"{C}/capabilities")).json["capabilities"]
    assert capabilities["m.3pid_changes"] == {"enabled": True}


async def test_a_repeated_request_sends_no_second_mail(mailing: Homeserver, mails: MailServer) -> None:
    first = await request_mail(mailing, "3pid")
    again = await request_mail(mailing, "3pid")
    assert first.json == again.json
    assert len(mails.mails) == 1
    old_link = mails.link()
    assert (await request_mail(mailing, "3pid", attempt=2)).json["sid"] != first.json["sid"]
    assert len(mails.mails) == 2
    assert (await open_link(mailing, old_link)).status == 403


async def test_the_wrong_token_proves_nothing(mailing: Homeserver, mails: MailServer) -> None:
    alice = await mailing.register("alice")
    sid = (await request_mail(mailing, "3pid")).json["sid"]
    for _ in range(10):
        assert (await open_link(mailing, mails.link(), token="wrong")).status == 403
    assert (await open_link(mailing, mails.link())).status == 403, "after too many, not even the right one"
    assert (await add(alice, sid)).status == 403


async def test_links_expire(mailing: Homeserver, mails: MailServer) -> None:
    await request_mail(mailing, "3pid")
    mailing.clock.ahead_ms += 25 * 3_600_000  # type: ignore[attr-defined]
    assert (await open_link(mailing, mails.link())).status == 403


async def test_the_next_link_is_followed(mailing: Homeserver, mails: MailServer) -> None:
    """By the page: a redirect of the form elsewhere is what Chromium takes for a form that leads elsewhere."""
    await request_mail(mailing, "3pid", next_link='https://client.example/?a="b"&c=<d>#/x')
    answer = await open_link(mailing, mails.link())
    assert (answer.status, answer.headers.get("location")) == (200, None)
    shown = "https://client.example/?a=&#34;b&#34;&amp;c=&lt;d&gt;#/x"
    page = answer.body.decode()
    assert f'<meta http-equiv="refresh" content="0;url={shown}">' in page
    assert f'<a href="{shown}">' in page
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self'" in policy


async def test_an_address_belongs_to_one_account(mailing: Homeserver, mails: MailServer) -> None:
    bob = await mailing.register("bob")
    sid = (await request_mail(mailing, "3pid", client_secret="bobs")).json["sid"]
    await open_link(mailing, mails.link())
    await with_address(mailing, mails)
    assert (await request_mail(mailing, "3pid", attempt=9)).errcode == "M_THREEPID_IN_USE"
    identifier = {"type": "m.id.user", "user": bob.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    late = await bob.post(f"{C}/account/3pid/add", {"sid": sid, "client_secret": "bobs", "auth": auth})
    assert (late.status, late.errcode) == (400, "M_THREEPID_IN_USE")


async def test_a_forgotten_password_is_replaced(mailing: Homeserver, mails: MailServer) -> None:
    alice = await with_address(mailing, mails)
    asked = await mailing.client.post(f"{C}/account/password", {"new_password": "another password"})
    assert {"stages": ["m.login.email.identity"]} in asked.json["flows"]
    sid = (await request_mail(mailing, "password")).json["sid"]
    refused = await reset(mailing, sid)
    assert refused.status == 401
    assert refused.errcode == "M_THREEPID_AUTH_FAILED"
    assert (await open_link(mailing, mails.link())).status == 200
    assert (await reset(mailing, sid)).status == 200
    assert (await alice.get(f"{C}/account/whoami")).status == 401
    assert (await mailing.login("alice", "another password")).user_id == alice.user_id
    assert (await reset(mailing, sid, "yet another one")).status == 401, "a session is good for one use"


async def test_one_cannot_set_the_password_of_another(mailing: Homeserver, mails: MailServer) -> None:
    await with_address(mailing, mails)
    bob = await mailing.register("bob")
    sid = (await request_mail(mailing, "password")).json["sid"]
    await open_link(mailing, mails.link())
    creds = {"sid": sid, "client_secret": "secret"}
    auth = {"type": "m.login.email.identity", "threepid_creds": creds}
    answer = await bob.post(f"{C}/account/password", {"new_password": "another password", "auth": auth})
    assert answer.status == 403


async def test_an_address_for_a_new_account_proves_nothing_of_an_old_one(
    mailing: Homeserver, mails: MailServer
) -> None:
    bob = await mailing.register("bob")
    sid = (await request_mail(mailing, "register")).json["sid"]
    await open_link(mailing, mails.link())
    body = {"new_password": "another password", "auth": proof(sid)}
    answer = await bob.post(f"{C}/account/password", body)
    assert (answer.status, answer.errcode) == (401, "M_THREEPID_AUTH_FAILED")
    assert answer.json["session"], "the client is asked for something else"
    assert "completed" not in answer.json


async def test_a_link_proves_what_its_mail_said_and_nothing_else(
    mailing: Homeserver, mails: MailServer
) -> None:
    """Somebody had alice open a link for adding her address, which she then added by herself."""
    sid = (await request_mail(mailing, "3pid", client_secret="mallory")).json["sid"]
    assert (await open_link(mailing, mails.link())).status == 200
    await with_address(mailing, mails)
    auth = {
        "type": "m.login.email.identity",
        "threepid_creds": {"sid": sid, "client_secret": "mallory"},
    }
    body = {"new_password": "a password of mallory's", "auth": auth}
    answer = await mailing.client.post(f"{C}/account/password", body)
    assert (answer.status, answer.errcode) == (401, "M_THREEPID_AUTH_FAILED")


async def test_nobodys_mailbox_is_flooded(mailing: Homeserver, mails: MailServer) -> None:
    for attempt in range(1, 6):
        secret = f"secret{attempt % 2}"
        answer = await request_mail(mailing, "3pid", attempt=attempt, client_secret=secret)
        assert answer.status == 200
    refused = await request_mail(mailing, "3pid", client_secret="another")
    assert (refused.status, refused.errcode) == (429, "M_LIMIT_EXCEEDED")
    assert len(mails.mails) == 5
    assert (await request_mail(mailing, "3pid", "bob@example.org")).status == 200
    mailing.clock.ahead_ms += 3_600_000  # type: ignore[attr-defined]
    assert (await request_mail(mailing, "3pid", client_secret="another")).status == 200


async def test_nobody_learns_here_which_addresses_are_known(mailing: Homeserver, mails: MailServer) -> None:
    await with_address(mailing, mails)
    known = await request_mail(mailing, "password")
    unknown = await request_mail(mailing, "password", "nobody@example.org")
    assert (known.status, unknown.status) == (200, 200)
    assert unknown.json.keys() == known.json.keys()
    assert (await request_mail(mailing, "password", "nobody@example.org")).json == unknown.json
    mail = mails.mails[-1]
    assert mail["To"] == "nobody@example.org"
    for kind in ("plain", "html"):
        body = mail.get_body((kind,))
        assert body is not None
        assert "no account there has this address" in body.get_content()
        assert "https://" not in body.get_content()
    assert (await reset(mailing, unknown.json["sid"])).errcode == "M_THREEPID_AUTH_FAILED"


async def register(homeserver: Homeserver, auth: dict[str, Any] | None, name: str = "carol") -> Answer:
    body = {"username": name, "password": PASSWORD} | ({"auth": auth} if auth else {})
    return await homeserver.client.post(f"{C}/register", body)


def proof(sid: str, **more: Any) -> dict[str, Any]:
    creds = {"sid": sid, "client_secret": "secret"}
    return {"type": "m.login.email.identity", "threepid_creds": creds} | more


async def test_who_registers_with_an_address_has_it(mailing: Homeserver, mails: MailServer) -> None:
    asked = await register(mailing, None)
    assert asked.json["flows"] == [{"stages": ["m.login.dummy"]}, {"stages": ["m.login.email.identity"]}]
    sid = (await request_mail(mailing, "register")).json["sid"]
    session = asked.json["session"]
    early = await register(mailing, proof(sid, session=session))
    assert (early.status, early.errcode) == (401, "M_THREEPID_AUTH_FAILED")
    assert (await open_link(mailing, mails.link())).status == 200
    made = await register(mailing, proof(sid, session=session))
    assert made.status == 200
    carol = mailing.user(made.json)
    (threepid,) = (await carol.get(f"{C}/account/3pid")).json["threepids"]
    assert (threepid["medium"], threepid["address"]) == ("email", ADDRESS)
    assert (await register(mailing, proof(sid), "dave")).status == 401, "a session is good for one use"
    assert (await request_mail(mailing, "register", attempt=2)).errcode == "M_THREEPID_IN_USE"


async def test_an_address_is_proved_for_one_purpose(mailing: Homeserver, mails: MailServer) -> None:
    sid = (await request_mail(mailing, "register")).json["sid"]
    await open_link(mailing, mails.link())
    assert (await reset(mailing, sid)).errcode == "M_THREEPID_AUTH_FAILED"
    await with_address(mailing, mails)
    late = await register(mailing, proof(sid))
    assert late.status in (400, 401), "the address is another's by now"
    sid = (await request_mail(mailing, "password", attempt=5)).json["sid"]
    await open_link(mailing, mails.link())
    refused = await register(mailing, proof(sid))
    assert refused.errcode == "M_THREEPID_AUTH_FAILED"
    assert (await mailing.client.get(f"{C}/profile/@carol:test")).status == 404


@pytest.mark.parametrize(
    ("mode", "required", "flows"),
    [
        ("open", True, [["m.login.email.identity"]]),
        (
            "token",
            False,
            [["m.login.registration_token"], ["m.login.email.identity", "m.login.registration_token"]],
        ),
        ("token", True, [["m.login.email.identity", "m.login.registration_token"]]),
    ],
)
async def test_flows_of_registration(
    start_homeserver: Callable, mails: MailServer, mode: str, required: bool, flows: list[list[str]]
) -> None:
    mail = MailConfig(host="127.0.0.1", port=mails.port, security="none", sender="Test <matrix@test.example>")
    homeserver = await start_homeserver(
        mail=mail,
        public_base_url="https://test.example",
        registration=RegistrationConfig(mode=mode, require_email=required),  # type: ignore[arg-type]
    )
    asked = await register(homeserver, None)
    assert [flow["stages"] for flow in asked.json["flows"]] == flows
    if ["m.login.dummy"] not in flows:
        refused = await register(homeserver, {"type": "m.login.dummy"})
        assert refused.status == 401


async def test_closed_registration_sends_no_mail(start_homeserver: Callable, mails: MailServer) -> None:
    mail = MailConfig(host="127.0.0.1", port=mails.port, security="none", sender="Test <matrix@test.example>")
    homeserver = await start_homeserver(
        mail=mail, public_base_url="https://test.example", registration=RegistrationConfig(mode="closed")
    )
    answer = await request_mail(homeserver, "register")
    assert (answer.status, answer.errcode) == (403, "M_THREEPID_DENIED")
    assert mails.mails == []


async def test_a_mail_server_that_refuses(mailing: Homeserver, mails: MailServer) -> None:
    mails.is_refusing = True
    assert (await request_mail(mailing, "3pid")).status == 503


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "nobody"},
        {"email": "a@b\r\nBcc: c@d"},
        {"email": "ß" * 64 + "@example.org"},
        {"email": "x" * 300 + "@example.org"},
        {"client_secret": ""},
        {"client_secret": "with space"},
        {"attempt": -1},
        {"next_link": "javascript:alert(1)"},
        {"next_link": "https://x\r\nX: y"},
        {"next_link": "https://例え.example/"},
    ],
)
async def test_malformed_requests(mailing: Homeserver, mails: MailServer, wrong: dict[str, Any]) -> None:
    assert (await request_mail(mailing, "3pid", **wrong)).status == 400
    assert mails.mails == []


async def test_without_mail_nothing_is_promised(homeserver: Homeserver) -> None:
    assert (await request_mail(homeserver, "3pid")).errcode == "M_THREEPID_MEDIUM_NOT_SUPPORTED"
    assert (await request_mail(homeserver, "password")).errcode == "M_THREEPID_NOT_FOUND"
    asked = await homeserver.client.post(f"{C}/account/password", {"new_password": "another password"})
    assert asked.json["flows"] == [{"stages": ["m.login.password"]}]
    assert (await homeserver.client.get("/_ranvier/mail/confirm")).status == 404
