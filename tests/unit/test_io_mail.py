"""Mail: what is handed to a mail server, and that nobody can add a header or a recipient to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.io.mail import SmtpMailer, SmtpSecurity, SmtpServer, build_message
from ranvier.io.ports import Mail, Misbehaved, Unreachable
from ranvier.io.tls import client_context
from tests.unit.certificates import Authority

SENDER = "Example <matrix@a.example>"
MAIL = Mail(recipient="u@b.example", subject="Grüße", text="Hello", html="<p>Hello</p>")


@asynccontextmanager
async def _mail_server(
    replies: dict[str, str], context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that answers 250 to everything but what `replies` says; gives its port and what it heard."""
    heard: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            heard.append(line)
            verb = line.partition(" ")[0].upper()
            writer.write(f"{replies.get(verb, '354 go on' if verb == 'DATA' else '250 fine')}\r\n".encode())
            if verb == "STARTTLS":
                await writer.drain()
                await writer.start_tls(context)
            if verb == "DATA" and "DATA" not in replies:
                heard.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                writer.write(b"250 taken\r\n")
            if verb == "QUIT":
                break
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heard


def _mailer(port: int, security: SmtpSecurity = SmtpSecurity.NONE, **options: str) -> SmtpMailer:
    server = SmtpServer(host="127.0.0.1", port=port, security=security, sender=SENDER, **options)
    return SmtpMailer(server, client_context())


async def test_a_mail_is_handed_over_with_login() -> None:
    async with _mail_server({"EHLO": "250-x\r\n250 AUTH PLAIN", "AUTH": "235 in"}) as (port, heard):
        await _mailer(port, username="u", password="p").send(MAIL)
    commands = [line.partition(" ")[0].upper() for line in heard if "\n" not in line]
    assert commands == ["EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"]
    (content,) = [line for line in heard if "\n" in line]
    message = message_from_bytes(content.encode())
    assert message["To"] == "u@b.example"
    assert message["From"] == SENDER
    assert message["Message-ID"].endswith("@a.example>")
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]


async def test_starttls_is_required_if_it_is_configured() -> None:
    async with _mail_server({}) as (port, heard):
        with pytest.raises(Misbehaved):
            await _mailer(port, SmtpSecurity.STARTTLS).send(MAIL)
    assert not any(line.startswith("mail") for line in heard), "nothing in the clear"


async def test_starttls_checks_the_certificate(tmp_path) -> None:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("IP:127.0.0.1"))
    replies = {"EHLO": "250-x\r\n250 STARTTLS", "STARTTLS": "220 go"}
    async with _mail_server(replies, context) as (port, heard):
        server = SmtpServer(host="127.0.0.1", port=port, security=SmtpSecurity.STARTTLS, sender=SENDER)
        with pytest.raises(Unreachable):
            await SmtpMailer(server, client_context()).send(MAIL)
        assert not any("\n" in line for line in heard)
        await SmtpMailer(server, client_context(authority.ca_file)).send(MAIL)
    assert any("\n" in line for line in heard)


async def test_a_refusal_and_a_closed_port_are_remote_faults() -> None:
    async with _mail_server({"RCPT": "550 no such user"}) as (port, _):
        with pytest.raises(Misbehaved):
            await _mailer(port).send(MAIL)
    with pytest.raises(Unreachable):
        await _mailer(port).send(MAIL)


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "u",
        "u@",
        "@b",
        "a@b,c@d",
        "a@b\nBcc: c@d",
        "a@b\r\n",
        "<a@b>",
        "x <a@b>",
        '"a b"@c',
        "a@b c",
        "a@[1.2.3.4]",
    ],
)
def test_a_recipient_is_one_plain_address(recipient: str) -> None:
    with pytest.raises(ValueError, match="one plain address"):
        build_message(Mail(recipient=recipient, subject="x", text="x"), SENDER)


def test_a_subject_cannot_start_a_header() -> None:
    with pytest.raises(ValueError, match="linefeed"):
        build_message(Mail(recipient="a@b.example", subject="x\r\nBcc: c@d", text="x"), SENDER)


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text(), st.text())
def test_whatever_is_mailed_has_one_recipient_and_our_headers(
    recipient: str, subject: str, text: str
) -> None:
    for address in (recipient, "u@b.example", f"{recipient}@b.example"):
        try:
            message = build_message(Mail(recipient=address, subject=subject, text=text), SENDER)
            parsed = message_from_bytes(message.as_bytes())
        except (ValueError, UnicodeError):
            continue
        assert sorted(parsed.keys())[:3] == ["Auto-Submitted", "Content-Transfer-Encoding", "Content-Type"]
        assert parsed.get_all("To") is not None
        assert len(parsed.get_all("To")) == 1
        assert "Bcc" not in parsed
