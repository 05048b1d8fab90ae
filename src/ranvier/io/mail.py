"""Mail over SMTP."""

import asyncio
import contextlib
import re
import smtplib
import ssl
from email import policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from enum import Enum
from typing import Final

import msgspec

from ranvier.io.ports import Mail, Misbehaved, TimedOut, Unreachable

_TIMEOUT_S: Final = 30.0
# Long words in headers would be encoded to be folded, and no mail program undoes that in a List-Unsubscribe.
_POLICY: Final = policy.default.clone(max_line_length=998)
# Quoted local parts and comments are legal, unused, and a way to smuggle a second address past a check.
_PLAIN_ADDRESS: Final = re.compile(
    r"[^\s@<>()\[\],;:\\\"\x00-\x1f\x7f]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
)


class SmtpSecurity(Enum):
    """How the connection to the mail server is protected."""

    TLS = "tls"  # from the first byte, usually port 465
    STARTTLS = "starttls"  # required, usually port 587
    NONE = "none"


class SmtpServer(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail is handed over, and as whom."""

    host: str
    port: int
    security: SmtpSecurity
    username: str | None = None
    password: str | None = None
    sender: str  # the From header, such as `Example <matrix@example.org>`


class SmtpMailer:
    """A `Mailer`: one connection for each message, in a thread."""

    def __init__(self, server: SmtpServer, tls: ssl.SSLContext) -> None:
        self._server = server
        self._tls = tls

    async def send(self, mail: Mail) -> None:
        message = build_message(mail, self._server.sender)
        await asyncio.to_thread(self._deliver, message)

    def _deliver(self, message: EmailMessage) -> None:
        host = self._server.host
        try:
            connection = self._connect()
            try:
                if self._server.username is not None:
                    connection.login(self._server.username, self._server.password or "")
                connection.send_message(message)
                # The message is taken: how the server says good-bye changes nothing.
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    connection.quit()
            finally:
                connection.close()
        except TimeoutError as error:
            raise TimedOut(f"the mail server {host} took too long") from error
        except smtplib.SMTPException as error:
            raise Misbehaved(f"the mail server {host} did not take a message: {error}") from error
        except OSError as error:
            raise Unreachable(f"no connection to the mail server {host}: {error}") from error

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.security is SmtpSecurity.TLS:
            return smtplib.SMTP_SSL(server.host, server.port, timeout=_TIMEOUT_S, context=self._tls)
        connection = smtplib.SMTP(server.host, server.port, timeout=_TIMEOUT_S)
        if server.security is SmtpSecurity.STARTTLS:
            try:
                connection.starttls(context=self._tls)
            except BaseException:
                connection.close()
                raise
        return connection


def build_message(mail: Mail, sender: str) -> EmailMessage:
    """The message with its headers; plain text, and HTML beside it if there is any.

    Raises: ValueError when the recipient is not one plain address, or the subject has line breaks.
    """
    if not _PLAIN_ADDRESS.fullmatch(mail.recipient):
        raise ValueError("a mail goes to one plain address")
    message = EmailMessage(policy=_POLICY)
    message["From"] = sender
    message["To"] = mail.recipient
    message["Subject"] = mail.subject
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = make_msgid(domain=message["From"].addresses[0].domain or "localhost")
    message["Auto-Submitted"] = "auto-generated"
    if mail.unsubscribe_url is not None:  # RFC 2369, RFC 8058
        message["List-Unsubscribe"] = f"<{mail.unsubscribe_url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(mail.text, cte="quoted-printable")
    if mail.html is not None:
        message.add_alternative(mail.html, subtype="html", cte="quoted-printable")
    return message
