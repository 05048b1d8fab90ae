"""`ranvier check`: what would go wrong, before it does. One line for each fault."""

import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from ranvier.app.build import SetupFault, database_url, read_signing_keys
from ranvier.app.config import Config
from ranvier.app.registrations import read_registrations
from ranvier.core.errors import ServerFault
from ranvier.store.connect import open_database
from ranvier.store.database import SchemaTooOld
from ranvier.store.probe import probe


async def find_faults(config: Config) -> list[str]:
    """What would keep the server from starting or working. Changes nothing, but that a new database gets its schema."""
    _, registrations = read_registrations(config.appservices.registrations, config.name)
    return [*_files(config), *_keys(config), *registrations, *[fault async for fault in _database(config)]]


def _files(config: Config) -> Iterator[str]:
    named: list[tuple[str, Path | None]] = [("federation.ca_file", config.federation.ca_file)]
    for key, path in named:
        if path is not None and not path.is_file():
            yield f"{key}: there is no file {path}"
    for listener in config.listeners:
        if listener.tls_certificate is None or listener.tls_private_key is None:
            continue
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(listener.tls_certificate, listener.tls_private_key)
        except (OSError, ssl.SSLError) as error:
            yield f"listeners: cannot use {listener.tls_certificate} with {listener.tls_private_key}: {error}"


def _keys(config: Config) -> Iterator[str]:
    if not config.signing_key_file.exists():
        yield f"there is no signing key {config.signing_key_file}: `ranvier init` makes one"
        return
    try:
        read_signing_keys(config.signing_key_file)
    except SetupFault as error:
        yield str(error)


async def _database(config: Config) -> AsyncIterator[str]:
    try:
        db = await open_database(database_url(config), upgrade=False)
        try:
            await db.read(probe)
        finally:
            await db.close()
    except SchemaTooOld:
        return  # the server brings it up to date when it starts
    except (ServerFault, ValueError) as error:
        yield f"database: {error}"
