"""What can be seen on this machine alone: database, disk, listeners."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from ranvier.app.build import database_url
from ranvier.app.check import find_faults
from ranvier.app.config import Config
from ranvier.app.config_load import parse_bind
from ranvier.app.doctor.findings import Finding, Instruments, fault, fine, note
from ranvier.core.errors import ServerFault
from ranvier.io.ports import RemoteFault
from ranvier.store.connect import open_database
from ranvier.store.database import SchemaTooOld
from ranvier.store.probe import find_engine_version

LOW_BYTES: Final = 2**30
LOW_SHARE: Final = 0.05

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound, but looked at


async def examine_here(instruments: Instruments) -> AsyncIterator[Finding]:
    config = instruments.config
    for text in await find_faults(config):
        yield fault(text)
    database = await _database(config)
    if database is not None:
        yield database
    yield _disk(config.data_dir)
    for listener in config.listeners:
        yield await _listener(instruments, listener.bind)
    if not any("federation" in one.apis for one in config.listeners) and config.federation.enabled:
        yield fault('no listener serves other servers: add "federation" to its apis')
    yield await _mail(instruments)


async def _database(config: Config) -> Finding | None:
    """None: that it cannot be used is told among the other faults."""
    try:
        db = await open_database(database_url(config), upgrade=False)
    except SchemaTooOld as error:
        return note(f"database: {error}")
    except (ServerFault, ValueError):
        return None
    try:
        return fine(f"database: {await db.read(find_engine_version)}")
    finally:
        await db.close()


def _disk(directory: Path) -> Finding:
    usage = shutil.disk_usage(directory)
    text = f"disk: {usage.free / 2**30:,.1f} GiB free for {directory}"
    if usage.free < max(LOW_BYTES, LOW_SHARE * usage.total):
        return fault(f"{text}: make room, `ranvier media usage` tells whose files take most")
    return fine(text)


async def _listener(instruments: Instruments, bind: str) -> Finding:
    host, port = parse_bind(bind)
    try:
        await instruments.connect(_ANYWHERE.get(host, host), port)
    except RemoteFault as error:
        return fault(f"nothing listens on {bind} ({error}): start `ranvier serve`")
    return fine(f"something listens on {bind}")


async def _mail(instruments: Instruments) -> Finding:
    mail = instruments.config.mail
    if mail.host is None or mail.sender is None:
        return note("mail: none is sent (mail.host, mail.sender): forgotten passwords cannot be reset by it")
    try:
        await instruments.connect(mail.host, mail.port)
    except RemoteFault as error:
        return fault(f"mail: {mail.host}:{mail.port} does not answer ({error})")
    if instruments.config.public_base_url is None:
        return fault("mail: links in mails need public_base_url")
    return fine(f"mail: {mail.host}:{mail.port} answers")
