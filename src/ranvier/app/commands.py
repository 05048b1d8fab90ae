"""What all commands do alike: reading the configuration, and ending with a line for each fault."""

import os
import sys
from collections.abc import Callable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from ranvier.app.build import SetupFault
from ranvier.app.config import Config
from ranvier.app.config_load import ConfigFaults, load_config
from ranvier.app.listeners import CannotListen
from ranvier.core.errors import ServerFault

DEFAULT_FILE: Final = Path("ranvier.toml")

config_option = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="Configuration file. Default: $RANVIER_CONFIG, then ./ranvier.toml if it exists.",
)


def fail(*faults: str) -> NoReturn:
    """End with a line for each fault."""
    for fault in faults:
        click.echo(f"ranvier: {shown(fault)}", err=True)
    sys.exit(1)


def tell(*fields: object) -> None:
    """Write a line of fields."""
    click.echo("\t".join(shown(str(field)) for field in fields))


def shown(text: str) -> str:
    """What others chose, such as the name of a room, ends no line, and has no command for the terminal in it."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def load(file: Path | None, flags: Mapping[str, Any]) -> Config:
    """The configuration from file, environment and flags; ends the process with a line for each fault."""
    if file is None and "RANVIER_CONFIG" in os.environ:
        file = Path(os.environ["RANVIER_CONFIG"])
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    try:
        return load_config(file, os.environ, flags, directory=Path.cwd())
    except ConfigFaults as error:
        fail(*error.faults)


def mendable(command: Callable[..., None]) -> Callable[..., None]:
    """Turn faults that the user can mend into a line and exit code 1."""

    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (SetupFault, CannotListen, ServerFault) as error:
            fail(str(error))

    return update_wrapper(run, command)
