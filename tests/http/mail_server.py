"""A mail server on loopback that takes every mail: as much of SMTP (RFC 5321) as a client needs."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage

DOT = b".\r\n"


class MailServer:
    """The mails that came, the oldest first."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.port = 0
        self.is_refusing = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def answer(line: str) -> None:
            writer.write(f"{line}\r\n".encode())

        answer("220 mail.test")
        while line := await reader.readline():
            command = line.split(b" ")[0].strip().upper()
            if command == b"QUIT":
                answer("221 bye")
                break
            if command == b"RCPT" and self.is_refusing:
                answer("550 nobody of that name")
            elif command == b"DATA":
                answer("354 go on")
                self.mails.append(await self._read_mail(reader))
                answer("250 taken")
            else:
                answer("250 ok")
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _read_mail(self, reader: asyncio.StreamReader) -> EmailMessage:
        lines = []
        while (line := await reader.readline()) not in (DOT, b""):
            lines.append(line[1:] if line.startswith(b".") else line)
        mail = message_from_bytes(b"".join(lines), policy=policy.default)
        assert isinstance(mail, EmailMessage)
        return mail

    def link(self) -> str:
        """The link in the newest mail."""
        body = self.mails[-1].get_body(("plain",))
        assert body is not None
        found = re.search(r"https://\S+", body.get_content())
        assert found is not None
        return found[0]


@asynccontextmanager
async def running_mail_server() -> AsyncIterator[MailServer]:
    mails = MailServer()
    server = await asyncio.start_server(mails.serve, "127.0.0.1", 0)
    mails.port = server.sockets[0].getsockname()[1]
    try:
        yield mails
    finally:
        server.close()
        await server.wait_closed()
