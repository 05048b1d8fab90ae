"""Reads the registration files of application services."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from ranvier.core.appservices.registration import BadRegistration, Registration, parse_registration
from ranvier.core.identifiers import ServerName

MAX_FILE_BYTES: Final = 1_048_576


def read_registrations(
    paths: Iterable[Path], server: ServerName
) -> tuple[Sequence[Registration], Sequence[str]]:
    """What can be used, and a sentence for each file that cannot."""
    good: list[Registration] = []
    faults: list[str] = []
    for path in paths:
        try:
            registration = _read(path, server)
        except BadRegistration as error:
            faults.append(f"appservices.registrations: {path}: {error}")
            continue
        doubles = [f"appservices.registrations: {path}: {fault}" for fault in _doubles(registration, good)]
        faults += doubles
        if not doubles:
            good.append(registration)
    return good, faults


def _read(path: Path, server: ServerName) -> Registration:
    """Raises: BadRegistration."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadRegistration(f"cannot be read: {error.strerror}") from error
    if len(text) > MAX_FILE_BYTES:
        raise BadRegistration(f"has more than {MAX_FILE_BYTES} bytes")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadRegistration(f"is no YAML: {' '.join(str(error).split())}") from error
    return parse_registration(value, server)


def _doubles(registration: Registration, others: Iterable[Registration]) -> Iterator[str]:
    """Spec: "each as_token and id MUST be unique per application service"; two services that are one user would
    each take what is meant for the other."""
    for other in others:
        if registration.id == other.id:
            yield f"the id {registration.id!r} is in another file, too"
        if registration.token_hash == other.token_hash:
            yield f"the as_token is that of {other.id!r}, too"
        if registration.sender == other.sender:
            yield f"the sender_localpart is that of {other.id!r}, too"
