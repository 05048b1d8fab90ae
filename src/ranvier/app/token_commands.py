"""`ranvier token`: the tokens with which people register where `registration.mode` is token."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from ranvier.app.administer import Desk, at_desk
from ranvier.app.commands import config_option, load, mendable, tell
from ranvier.io.randomness import system_randomness
from ranvier.services.administration.registration_tokens import NewToken, TokenAdministration


@click.group(short_help="Registration tokens.")
def token() -> None:
    """Registration tokens; works also while the server is not running."""


@token.command("new")
@config_option
@click.option(
    "--uses", type=click.IntRange(1), help="How many accounts may be made with it. Without: any number."
)
@click.option("--days", type=click.IntRange(1), help="How long it is good. Without: for ever.")
@mendable
def new_token(file: Path | None, uses: int | None, days: int | None) -> None:
    """Make a token."""

    async def make(desk: Desk) -> None:
        expires_ms = None
        if days is not None:
            expires_ms = desk.clock.now_ms() + timedelta(days=days) // timedelta(milliseconds=1)
        made = await _tokens(desk).make(NewToken(uses_allowed=uses, expiry_time=expires_ms))
        click.echo(made.token)

    at_desk(load(file, {}), make)


@token.command("list", short_help="List the tokens, and how often they were used.")
@config_option
@mendable
def list_tokens(file: Path | None) -> None:
    """List the tokens: token, accounts made with it and how many may be, until when it is good."""

    async def show(desk: Desk) -> None:
        for one in await _tokens(desk).list_tokens(is_valid=None):
            uses = f"{one.completed}/{'∞' if one.uses_allowed is None else one.uses_allowed}"
            tell(one.token, uses, _date(one.expiry_time))

    at_desk(load(file, {}), show)


@token.command("delete")
@config_option
@click.argument("name", metavar="TOKEN")
@mendable
def delete_token(file: Path | None, name: str) -> None:
    """Delete a token; accounts made with it stay."""

    async def delete(desk: Desk) -> None:
        await _tokens(desk).delete(name)

    at_desk(load(file, {}), delete)


def _tokens(desk: Desk) -> TokenAdministration:
    return TokenAdministration(desk.db, desk.clock, system_randomness())


def _date(time_ms: int | None) -> str:
    if time_ms is None:
        return ""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")
