"""Mails about what is unread: batched, seldom, only to one's own address, and others' words stay words."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ranvier.app.config import MailConfig
from ranvier.core.identifiers import UserID
from ranvier.services.mail_texts import MailTexts
from ranvier.services.push.delivery import PushDelivery
from ranvier.services.push.mail_teller import MAX_GAP_MS, MailTeller
from ranvier.services.push.unsubscribing import Unsubscribing
from ranvier.store.tables.accounts import find_account_by_id
from ranvier.store.tables.threepids import Threepid, insert_threepid

from ..federation.network import SkippingClock
from .homeserver import Homeserver, User, eventually, running_homeserver
from .mail_server import MailServer, running_mail_server
from .rooms import C
from .scripted_room import Room

ADDRESS = "bob@example.org"
MINUTE = 60


@pytest.fixture
async def mails() -> AsyncIterator[MailServer]:
    async with running_mail_server() as server:
        yield server


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


@pytest.fixture
def settings(mails: MailServer, clock: SkippingClock) -> dict[str, Any]:
    mail = MailConfig(host="127.0.0.1", port=mails.port, security="none", sender="Test <matrix@test.example>")
    return {"mail": mail, "public_base_url": "https://test.example", "replaced": {"clock": clock}}


@pytest.fixture
async def homeserver(start_homeserver: Callable, settings: dict[str, Any]) -> Homeserver:
    started: Homeserver = await start_homeserver(**settings)
    return started


@pytest.fixture
async def bob(homeserver: Homeserver) -> User:
    return await with_mails(homeserver)


@pytest.fixture
async def room(homeserver: Homeserver, alice: User, bob: User) -> Room:
    room = await Room.create(homeserver, alice)
    await room.join(bob)
    return room


async def give_address(homeserver: Homeserver, user: User, address: str = ADDRESS) -> None:
    def insert(txn: Any) -> None:
        account = find_account_by_id(txn, UserID(user.user_id))
        assert account is not None
        insert_threepid(txn, account.user_nid, Threepid("email", address, 1, 1))

    await homeserver.foundation.ports.db.write(insert)


def pusher(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "email",
        "app_id": "m.email",
        "pushkey": ADDRESS,
        "app_display_name": "Email Notifications",
        "device_display_name": ADDRESS,
        "lang": "en",
        "data": {"brand": "x"},
        "append": True,
    } | fields


async def with_mails(homeserver: Homeserver) -> User:
    bob = await homeserver.register("bob")
    await give_address(homeserver, bob)
    answer = await bob.post(f"{C}/pushers/set", pusher())
    assert (answer.status, answer.json) == (200, {})
    return bob


async def pass_time(homeserver: Homeserver, clock: SkippingClock, minutes: float) -> None:
    """Let the delivery look at what came, then move on."""
    await settle(homeserver)
    clock.skip(minutes * MINUTE)
    await settle(homeserver)


async def settle(homeserver: Homeserver, *others: PushDelivery) -> None:
    """Until every delivery has looked at all hints there are, and waits."""
    own = [worker for worker in homeserver.workers if isinstance(worker, PushDelivery)]
    clock = homeserver.clock
    idle = 0

    async def is_idle() -> bool:
        nonlocal idle
        clock.skip(0.2)  # type: ignore[attr-defined]
        is_waiting = all(
            not one._news.came.is_set() and one._news.came._waiters and not one._under_way  # type: ignore[attr-defined]
            for one in (*own, *others)
        )
        idle = idle + 1 if is_waiting else 0
        return idle > 3

    await eventually(is_idle)


def text(mails: MailServer, kind: str = "plain") -> str:
    body = mails.mails[-1].get_body((kind,))
    assert body is not None
    content: str = body.get_content()
    return content


async def read_all(room: Room, user: User, event_id: str) -> None:
    assert (await user.post(f"{room.path}/receipt/m.read/{event_id}", {})).status == 200


async def test_what_is_new_comes_in_one_mail_after_a_while(homeserver, mails, clock, alice, bob, room):
    await room.set_state(alice, "m.room.name", {"name": "Tea"})
    await room.set_membership(alice, alice, "join", displayname="Alice")
    await room.say(alice, "first")
    await pass_time(homeserver, clock, 8)
    await room.say(alice, "second")
    await room.post(alice, "m.room.encrypted", {"ciphertext": "SECRET", "algorithm": "x"})
    await settle(homeserver)
    assert mails.mails == [], "who is there has read it within ten minutes"
    await pass_time(homeserver, clock, 3)
    (mail,) = mails.mails
    assert (mail["To"], mail["Subject"]) == (ADDRESS, "3 unread messages on test")
    shown = text(mails)
    assert "Tea\n  Alice: first\n  Alice: second\n  Alice sent an encrypted message" in shown.replace(
        "\r", ""
    )
    assert "SECRET" not in str(mail)
    assert "<b>Alice</b>: first" in text(mails, "html")
    await pass_time(homeserver, clock, 24 * 60)
    assert len(mails.mails) == 1, "nothing is told twice"


async def test_what_was_read_is_not_told(homeserver, mails, clock, alice, bob, room):
    await read_all(room, bob, await room.say(alice, "read"))
    await pass_time(homeserver, clock, 30)
    event_id = await room.say(alice, "read a little later")
    await pass_time(homeserver, clock, 5)
    await read_all(room, bob, event_id)
    await pass_time(homeserver, clock, 30)
    assert mails.mails == []
    await room.say(alice, "news")
    await pass_time(homeserver, clock, 5)
    assert mails.mails == [], "the wait begins anew"
    await pass_time(homeserver, clock, 6)
    assert "read" not in text(mails).split("in all.")[1]
    assert "news" in text(mails)


async def test_mails_become_ever_more_seldom_while_nothing_is_read(
    homeserver, mails, clock, alice, bob, room
):
    await room.say(alice, "x")
    await pass_time(homeserver, clock, 11)
    gap = 30
    for count in range(1, 8):
        assert len(mails.mails) == count
        last = await room.say(alice, "x")
        await pass_time(homeserver, clock, gap - 2)
        assert len(mails.mails) == count, gap
        await pass_time(homeserver, clock, 3)
        gap = min(2 * gap, MAX_GAP_MS // 60_000)
    assert len(mails.mails) == 8
    last = await room.say(alice, "x")
    await settle(homeserver)
    await read_all(room, bob, last)
    await pass_time(homeserver, clock, 30)
    await room.say(alice, "after reading")
    await pass_time(homeserver, clock, 11)
    assert len(mails.mails) == 9, "who reads is told soon again"


async def test_a_restart_forgets_nothing(tmp_path: Path, mails, clock, settings):
    data = tmp_path / "data"
    async with running_homeserver(data, **settings) as first:
        alice, bob = await first.register("alice"), await with_mails(first)
        room = await Room.create(first, alice)
        await room.join(bob)
        await room.say(alice, "before")
        await settle(first)
        clock.skip(9 * MINUTE)
    async with running_homeserver(data, **settings) as second:
        await settle(second)
        assert mails.mails == []
        await pass_time(second, clock, 2)
        assert len(mails.mails) == 1
        assert "before" in text(mails)
    async with running_homeserver(data, **settings) as third:
        await pass_time(third, clock, 60)
        assert len(mails.mails) == 1


async def test_a_mail_server_that_is_down_is_tried_again(homeserver, mails, clock, alice, bob, room):
    mails.is_refusing = True
    await room.say(alice, "hello")
    await pass_time(homeserver, clock, 11)
    assert mails.mails == []
    mails.is_refusing = False
    await pass_time(homeserver, clock, 60)
    assert "hello" in text(mails)
    assert len(mails.mails) == 1


async def test_two_processes_send_one_mail(homeserver, mails, clock, alice, bob, room):
    ports = homeserver.foundation.ports
    unsubscribing = Unsubscribing(ports.db, ports.signing_keys, "https://test.example")
    tellers = {"email": MailTeller(ports.mailer, MailTexts(ports.config.name), unsubscribing)}
    other = PushDelivery(ports.db, homeserver.foundation.interner, clock, tellers)
    task = asyncio.create_task(other.run())
    try:
        for minutes in (11, 30, 60):
            await room.say(alice, "hello")
            await settle(homeserver, other)
            clock.skip(minutes * MINUTE)
            await settle(homeserver, other)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(mails.mails) == 3


async def test_others_words_stay_words(homeserver, mails, clock, alice, bob, room):
    evil = 'x\r\nBcc: eve@example.org\r\n\r\n<script>alert(1)</script>\u202e"&\0'
    await room.set_state(alice, "m.room.name", {"name": evil})
    await room.set_membership(alice, alice, "join", displayname=evil)
    await room.say(alice, evil + "y" * 5000)
    await pass_time(homeserver, clock, 11)
    (mail,) = mails.mails
    assert mail["Bcc"] is None
    assert set(mail.keys()) <= {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "List-Unsubscribe",
        "List-Unsubscribe-Post", "MIME-Version", "Content-Type",
    }  # fmt: skip
    assert all(not line.startswith("Bcc") for line in text(mails).splitlines())
    html = text(mails, "html")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "\u202e" not in html + text(mails)
    assert len(html) < 3000


async def test_unsubscribing(homeserver, mails, clock, alice, bob, room):
    await room.say(alice, "hello")
    await pass_time(homeserver, clock, 11)
    mail = mails.mails[-1]
    url = mails.link()
    assert mail["List-Unsubscribe"] == f"<{url}>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert url.startswith("https://test.example/_ranvier/mail/unsubscribe?")
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}"
    for wrong in (
        path[:-20] + 20 * "A",
        path.replace("pusher=", "pusher=1"),
        path.replace("token=", "token=%00"),
    ):
        assert (await homeserver.client.get(wrong)).status == 403
        assert (await homeserver.client.request("POST", wrong)).status == 403
    assert (await homeserver.client.get(parts.path)).status == 400
    page = await homeserver.client.get(path)
    assert page.status == 200
    assert b'<form method="post">' in page.body
    assert len((await bob.get(f"{C}/pushers")).json["pushers"]) == 1, "to look at it ends nothing"
    for _ in range(2):
        done = await homeserver.client.request("POST", path, body=b"List-Unsubscribe=One-Click")
        assert done.status == 200
        assert (await bob.get(f"{C}/pushers")).json["pushers"] == []
    await room.say(alice, "more")
    await pass_time(homeserver, clock, 60)
    assert len(mails.mails) == 1


@pytest.mark.parametrize("how", ["logout", "address", "pusher", "deactivate"])
async def test_mails_end_with_what_they_hang_on(homeserver, mails, clock, alice, bob, room, how):
    await room.say(alice, "hello")
    await settle(homeserver)
    if how == "logout":
        answer = await bob.post(f"{C}/logout", {})
    elif how == "address":
        answer = await bob.post(f"{C}/account/3pid/delete", {"medium": "email", "address": ADDRESS})
        assert (await bob.get(f"{C}/pushers")).json["pushers"] == []
    elif how == "pusher":
        answer = await bob.post(f"{C}/pushers/set", pusher(kind=None))
    else:
        identifier = {"type": "m.id.user", "user": bob.user_id}
        auth = {"type": "m.login.password", "identifier": identifier, "password": "correct horse battery"}
        answer = await bob.post(f"{C}/account/deactivate", {"auth": auth})
    assert answer.status == 200
    await pass_time(homeserver, clock, 60)
    assert mails.mails == []


async def test_only_ones_own_address(homeserver, alice, bob):
    for address in (ADDRESS, "nobody@example.org", "x\r\nBcc: y@example.org"):
        answer = await alice.post(f"{C}/pushers/set", pusher(pushkey=address))
        assert (answer.status, answer.errcode) == (400, "M_THREEPID_NOT_FOUND")
    assert (await alice.get(f"{C}/pushers")).json["pushers"] == []
    (kept,) = (await bob.get(f"{C}/pushers")).json["pushers"]
    assert (kept["kind"], kept["pushkey"]) == ("email", ADDRESS)


async def test_an_invite_is_told(homeserver, mails, clock, alice, bob):
    room = await Room.create(homeserver, alice)
    await room.set_membership(alice, bob, "invite")
    await pass_time(homeserver, clock, 11)
    assert "@alice:test invites you" in text(mails)


async def test_without_mail_there_are_no_such_pushers(start_homeserver):
    homeserver = await start_homeserver()
    carol = await homeserver.register("carol")
    answer = await carol.post(f"{C}/pushers/set", pusher())
    assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")
    assert (await homeserver.client.get("/_ranvier/mail/unsubscribe?pusher=1&token=x")).status == 404
