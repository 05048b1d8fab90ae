"""Whose certificates outgoing connections trust, and what a certificate says."""

import asyncio
import os
import socket
import ssl
from pathlib import Path
from typing import Final

import msgspec

from ranvier.io.ports import TimedOut, Unreachable

CONNECT_TIMEOUT_S: Final = 10.0


class Certificate(msgspec.Struct, frozen=True):
    """One that is trusted for the name that was asked for."""

    valid_until_ms: int


def client_context(extra_ca_file: Path | None = None) -> ssl.SSLContext:
    """The operating system's certificate authorities, and those of a PEM file if given. TLS 1.2 or later.

    Raises: OSError when the file cannot be read, ssl.SSLError when it holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if extra_ca_file is not None:
        context.load_verify_locations(cafile=extra_ca_file)
    return context


async def fetch_certificate(context: ssl.SSLContext, address: str, port: int, name: str) -> Certificate:
    """The certificate that is shown at an address to who looks for `name`. Raises: Unreachable, also when it is not
    trusted; TimedOut."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    except TimeoutError as error:
        raise TimedOut("no answer") from error
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"the certificate is not trusted: {error.verify_message}") from error
    except OSError as error:
        raise Unreachable(_reason(error)) from error
    shown = writer.get_extra_info("peercert")
    writer.transport.abort()
    return Certificate(int(ssl.cert_time_to_seconds(shown["notAfter"]) * 1000))


async def connect(host: str, port: int) -> None:
    """See whether somebody listens there. Raises: Unreachable, TimedOut."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError as error:
        raise TimedOut("no answer") from error
    except OSError as error:
        raise Unreachable(_reason(error)) from error
    writer.transport.abort()


def _reason(error: OSError) -> str:
    """In the words of the system; those of asyncio repeat the address."""
    if error.errno is None or isinstance(error, ssl.SSLError | socket.gaierror):
        return str(error)
    return os.strerror(error.errno)
