"""One visit of the doctor: everything is looked at, one after the other."""

from collections.abc import AsyncIterator, Sequence
from functools import partial

import click

from ranvier.app.build import SetupFault, open_network, read_signing_keys
from ranvier.app.commands import shown
from ranvier.app.config import Config
from ranvier.app.doctor.calls import examine_calls
from ranvier.app.doctor.clients import examine_clients
from ranvier.app.doctor.federation import examine_federation
from ranvier.app.doctor.findings import Finding, Instruments, Level
from ranvier.app.doctor.here import examine_here
from ranvier.core.identifiers import ServerName
from ranvier.io.clock import SystemClock
from ranvier.io.randomness import system_randomness
from ranvier.io.tls import client_context, connect, fetch_certificate


async def examine(instruments: Instruments, peers: Sequence[ServerName]) -> AsyncIterator[Finding]:
    """What is found, one after the other."""
    for findings in (
        examine_here(instruments),
        examine_federation(instruments, peers),
        examine_clients(instruments),
        examine_calls(instruments),
    ):
        async for finding in findings:
            yield finding


async def print_findings(config: Config, peers: Sequence[ServerName]) -> bool:
    """Tell what is found. Whether there is no fault. Raises: SetupFault."""
    if not config.signing_key_file.exists():
        raise SetupFault(f"there is no signing key {config.signing_key_file}: `ranvier init` makes one")
    keys = read_signing_keys(config.signing_key_file)
    network = open_network(config.federation)
    try:
        instruments = Instruments(
            config=config,
            keys=keys,
            http=network.unguarded or network.http,
            resolver=network.resolver,
            clock=SystemClock(),
            randomness=system_randomness(),
            look_at_certificate=partial(fetch_certificate, client_context(config.federation.ca_file)),
            connect=connect,
        )
        is_well = True
        async for finding in examine(instruments, peers):
            is_well = is_well and finding.level is not Level.FAULT
            click.echo(f"{finding.level.value:<6}{shown(finding.text)}")
        return is_well
    finally:
        await network.close()
