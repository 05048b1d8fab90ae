"""The command line. Exit codes: 0 fine, 1 faults that the user can mend (a line each on stderr), 2 usage."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ranvier import __version__
from ranvier.app.administer import administer, back_up_database, note_restored_database
from ranvier.app.build import write_signing_key
from ranvier.app.check import find_faults
from ranvier.app.commands import DEFAULT_FILE, config_option, fail, load, mendable, tell
from ranvier.app.config_file import example_file
from ranvier.app.doctor.visit import print_findings
from ranvier.app.media_commands import media
from ranvier.app.room_commands import room
from ranvier.app.serve import serve as run_server
from ranvier.app.sync_v3_proxy import ProxyConfig, serve_proxy
from ranvier.app.token_commands import token
from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import parse_server_name
from ranvier.io.randomness import system_randomness
from ranvier.services.flows.administration import Administration


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A Matrix homeserver."""


@main.command()
@config_option
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where database, media and keys are kept.")
@click.option("--server-name", help="The part of user ids behind the colon.")
@click.option(
    "--bind", multiple=True, metavar="HOST:PORT", help="Listen here, for all APIs. May be repeated."
)
@mendable
def serve(file: Path | None, data_dir: Path | None, server_name: str | None, bind: Sequence[str]) -> None:
    """Run the server until SIGTERM or SIGINT."""
    flags: dict[str, Any] = {}
    if data_dir is not None:
        flags["data_dir"] = str(data_dir.absolute())
    if server_name is not None:
        flags["server_name"] = server_name
    if bind:
        flags["listeners"] = [{"bind": address} for address in bind]
    run_server(load(file, flags))


@main.command()
@click.option(
    "--server-name", default="localhost", show_default=True, help="The part of user ids behind the colon."
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    default=DEFAULT_FILE,
    show_default=True,
    help="What to write.",
)
@mendable
def init(server_name: str, file: Path) -> None:
    """Write a commented configuration file and the signing key."""
    try:
        parse_server_name(server_name)
    except BadIdentifier as error:
        fail(str(error))
    if file.exists():
        fail(f"{file} exists; move it away to write a new one")
    try:
        # It is going to hold passwords.
        file.touch(mode=0o600)
        file.write_text(example_file(server_name), encoding="utf-8")
        click.echo(f"wrote {file}")
        config = load(file, {})
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if config.signing_key_file.exists():
            click.echo(f"kept the signing key {config.signing_key_file}")
        else:
            write_signing_key(config.signing_key_file, system_randomness())
            click.echo(f"wrote {config.signing_key_file}: keep a copy, it is this server's identity")
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")
    click.echo(f"next: ranvier user add NAME --admin --config {file} # registration is closed otherwise")
    click.echo(f"then: ranvier serve --config {file}")


@main.command(short_help="Check configuration, database and keys.")
@config_option
@mendable
def check(file: Path | None) -> None:
    """Check configuration, database and keys; a line for each fault."""
    faults = asyncio.run(find_faults(load(file, {})))
    if faults:
        fail(*faults)
    click.echo("everything is fine")


@main.command("doctor", short_help="Look at a running server as others see it.")
@config_option
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="SERVER",
    help="Another server, such as matrix.org, that is asked whether it reaches this one. May be repeated.",
)
@mendable
def doctor(file: Path | None, peers: Sequence[str]) -> None:
    """Look at a server that runs as others see it: names, certificates, proxy, clock, calls; a line for each finding.

    Exit code 1: there are faults.
    """
    try:
        names = [parse_server_name(name) for name in peers]
    except BadIdentifier as error:
        raise click.UsageError(f"--peer: {error}") from error
    if not asyncio.run(print_findings(load(file, {}), names)):
        sys.exit(1)


@main.command(short_help="Copy the SQLite database while the server runs.")
@config_option
@click.argument("target", type=click.Path(path_type=Path))
@mendable
def backup(file: Path | None, target: Path) -> None:
    """Copy the SQLite database to TARGET while the server runs, and check the copy."""
    back_up_database(load(file, {}), target)
    click.echo(f"wrote {target}")


@main.command(short_help="Make a database fit that other tools restored.")
@config_option
@mendable
def restored(file: Path | None) -> None:
    """Say that the database was restored with other tools than backup, such as pg_restore.

    While the server does not run, and once. One-time keys that may have been given out since the copy was made are
    dropped, and no position that was told to a client or another server is used again.
    """
    note_restored_database(load(file, {}))
    click.echo("done: the server may be started")


@main.group(short_help="Accounts.")
def user() -> None:
    """Accounts; works also while the server is not running."""


password_option = click.option(
    "--password", help="Without, it is asked for, or the first line of what is piped in."
)


def ask_password(given: str | None) -> str:
    """The password: from the option, typed twice, or the first line of what is piped in."""
    if given:
        return given
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@user.command("add")
@config_option
@click.argument("name")
@password_option
@click.option("--admin", is_flag=True, help="May administer this server.")
@mendable
def add_user(file: Path | None, name: str, password: str | None, admin: bool) -> None:
    """Make an account."""
    config, chosen = load(file, {}), ask_password(password)
    click.echo(administer(config, lambda accounts: accounts.add(name, chosen, is_admin=admin)))


@user.command("list")
@config_option
@mendable
def list_users(file: Path | None) -> None:
    """List the accounts: user id, kind, and what is special."""

    async def show(accounts: Administration) -> None:
        async for account in accounts.list():
            special = {
                "deactivated": account.deactivated_ms is not None,
                "locked": account.is_locked,
                "suspended": account.is_suspended,
            }
            notes = ", ".join(note for note, holds in special.items() if holds)
            tell(account.user_id, account.kind.value, notes)

    administer(load(file, {}), show)


@user.command("reset-password")
@config_option
@click.argument("name")
@password_option
@mendable
def reset_password(file: Path | None, name: str, password: str | None) -> None:
    """Set a new password and end all sessions of an account."""
    config, chosen = load(file, {}), ask_password(password)
    click.echo(administer(config, lambda accounts: accounts.reset_password(name, chosen)))


@user.command("deactivate")
@config_option
@click.argument("name")
@click.option("--erase", is_flag=True, help="Hide the messages of the account from those who come later.")
@mendable
def deactivate(file: Path | None, name: str, erase: bool) -> None:
    """Close an account for good."""
    click.echo(administer(load(file, {}), lambda accounts: accounts.deactivate(name, erase=erase)))


@user.command("promote")
@config_option
@click.argument("name")
@click.option("--demote", is_flag=True, help="The reverse: an administrator no longer.")
@mendable
def promote(file: Path | None, name: str, demote: bool) -> None:
    """Make somebody an administrator of this server."""
    click.echo(administer(load(file, {}), lambda accounts: accounts.promote(name, is_admin=not demote)))


main.add_command(room)
main.add_command(media)
main.add_command(token)


@main.command("sync-v3-proxy", short_help="Speak the sync v3 of 2021 for another homeserver.")
@click.option("--upstream", required=True, metavar="URL", help="The homeserver whose users are served.")
@click.option(
    "--database",
    default="sqlite:proxy.db",
    show_default=True,
    metavar="URL",
    help="The proxy's own database.",
)
@click.option("--bind", default="127.0.0.1:8009", show_default=True, metavar="HOST:PORT", help="Listen here.")
@mendable
def sync_v3_proxy(upstream: str, database: str, bind: str) -> None:
    """Speak the experimental sync v3 of 2021 in front of any homeserver, until SIGTERM or SIGINT."""
    serve_proxy(ProxyConfig(upstream, database, bind))


@main.command()
def version() -> None:
    """Tell which version this is."""
    click.echo(f"Ranvier {__version__}")
