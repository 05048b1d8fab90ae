"""From a file, the environment and flags to a checked `Config`. Each fault is one line that names its key."""

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ranvier.app.config import Config, Federation2014Config, FederationConfig, SupportConfig
from ranvier.app.config_sso import check_sso, read_client_secrets
from ranvier.app.config_words import say_mismatch
from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import parse_server_name, parse_user_id
from ranvier.core.room_versions import ROOM_VERSIONS
from ranvier.services.mail_texts import find_template_faults

ENVIRONMENT_PREFIX: Final = "RANVIER__"


class ConfigFaults(Exception):
    """What is wrong with the configuration, a line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def load_config(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any], *, directory: Path
) -> Config:
    """Read, merge (flags win over the environment, that over the file) and check.

    `flags` has the shape of the file. `directory`: what relative paths count from when there is no file.

    Raises: ConfigFaults with every fault found.
    """
    values = _read(file) if file is not None else {}
    _merge(values, _from_environment(environment))
    _merge(values, flags)
    faults = list(_unknown_keys(values, msgspec.inspect.type_info(Config), ""))
    if not faults and "server_name" not in values:
        faults = ["server_name is missing: set it in the file, or give --server-name"]
    if faults:
        raise ConfigFaults(faults)
    try:
        config = msgspec.convert(values, Config, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigFaults([say_mismatch(error)]) from error
    faults = list(_check(config))
    if faults:
        raise ConfigFaults(faults)
    here = file.parent if file is not None else directory
    try:
        config = read_client_secrets(_with_absolute_paths(config, here), here)
    except OSError as error:
        raise ConfigFaults([f"cannot read {error.filename}: {error.strerror}"]) from error
    faults = [] if config.mail.templates is None else list(find_template_faults(config.mail.templates))
    if faults:
        raise ConfigFaults([f"mail.templates: {fault}" for fault in faults])
    return config


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFaults([f"cannot read {file}: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = "; text stands in quotation marks" if str(error).startswith("Invalid value") else ""
        raise ConfigFaults([f"{file} is not valid TOML: {error}{hint}"]) from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """RANVIER__SECTION__KEY=value; the value is TOML, or else plain text."""
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        *sections, key = name[len(ENVIRONMENT_PREFIX) :].lower().split("__")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
        value = _toml_value(text)
        table[key] = value if isinstance(value, str) or not _is_text((*sections, key)) else text
    return values


def _is_text(path: Sequence[str]) -> bool:
    """Whether a setting is declared as text: a password of digits is no number."""
    shape: msgspec.inspect.Type = msgspec.inspect.type_info(Config)
    for key in path:
        fields = shape.fields if isinstance(shape, msgspec.inspect.StructType) else ()
        found = next((field.type for field in fields if field.encode_name == key), None)
        if found is None:
            return False
        # A declared description wraps the type that it is about.
        shape = found.type if isinstance(found, msgspec.inspect.Metadata) else found
    kinds = shape.types if isinstance(shape, msgspec.inspect.UnionType) else (shape,)
    return all(isinstance(kind, msgspec.inspect.StrType | msgspec.inspect.NoneType) for kind in kinds)


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(values: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = dict(value) if isinstance(value, Mapping) else value


def _unknown_keys(value: object, shape: msgspec.inspect.Type, place: str) -> Iterator[str]:
    """A line for each key that no declaration knows, with the nearest one that does."""
    if isinstance(shape, msgspec.inspect.StructType) and isinstance(value, Mapping):
        known = {field.encode_name: field.type for field in shape.fields}
        for key, item in value.items():
            if key in known:
                yield from _unknown_keys(item, known[key], f"{place}{key}.")
            else:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
                hint = f"; did you mean {place}{near[0]}?" if near else f"; there are {', '.join(known)}"
                yield f"{place}{key} is not a known setting{hint}"
    elif isinstance(shape, msgspec.inspect.VarTupleType) and isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from _unknown_keys(item, shape.item_type, f"{place[:-1]}[{number}].")


def _decode(wanted: type, value: object) -> object:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"Expected {wanted.__name__}")


def _check(config: Config) -> Iterator[str]:
    """What types alone cannot say."""
    yield from _check_name(config.server_name)
    if config.public_base_url is not None and urlsplit(config.public_base_url).scheme not in (
        "http",
        "https",
    ):
        yield "public_base_url: must be a URL that starts with https:// (or http://)"
    if not config.database.url.startswith(("sqlite:", "postgresql://", "postgres://")):
        yield 'database.url: must start with "sqlite:" or "postgresql://"'
    for number, listener in enumerate(config.listeners, 1):
        try:
            parse_bind(listener.bind)
        except ValueError as error:
            yield f"listeners[{number}].bind: {error}"
        if (listener.tls_certificate is None) != (listener.tls_private_key is None):
            yield f"listeners[{number}]: tls_certificate and tls_private_key go together"
    if config.rooms.default_version not in ROOM_VERSIONS:
        yield f"rooms.default_version: {config.rooms.default_version!r} is none of {', '.join(ROOM_VERSIONS)}"
    yield from _check_federation(config.federation)
    yield from _check_peers(config.historical.federation_2014)
    yield from _check_support(config.support)
    yield from _check_calls(config)
    yield from _check_mail(config)
    if config.oauth.enabled and config.public_base_url is None:
        yield "oauth.enabled: needs public_base_url, at which people see its pages"
    yield from check_sso(config)


def _check_name(name: str) -> Iterator[str]:
    try:
        parse_server_name(name)
    except BadIdentifier as error:
        is_url = "/" in name
        yield f"server_name: {'is a name such as example.org, not a URL' if is_url else error}"
        return
    if name != name.lower():
        # Others compare it as it is written, and people write what they like.
        yield f"server_name: must be in small letters: {name.lower()}"


def _check_support(support: SupportConfig) -> Iterator[str]:
    if support.page is not None and urlsplit(support.page).scheme not in ("http", "https"):
        yield "support.page: must be a URL that starts with https:// (or http://)"
    for name in ("admin_matrix_id", "security_matrix_id"):
        user_id = getattr(support, name)
        try:
            if user_id is not None:
                parse_user_id(user_id)
        except BadIdentifier as error:
            yield f"support.{name}: {error}"


def _check_mail(config: Config) -> Iterator[str]:
    mail = config.mail
    if (mail.host is None) != (mail.sender is None):
        yield "mail: host and sender go together"
    if mail.host is not None and config.public_base_url is None:
        yield "mail: needs public_base_url, below which the links in mails are"
    if config.registration.require_email and mail.host is None:
        yield "registration.require_email: needs mail, with which addresses are proved"
    if mail.sender is not None and (not mail.sender.isprintable() or not parseaddr(mail.sender)[1]):
        yield 'mail.sender: must be an address such as "Example <matrix@example.org>"'


def _check_calls(config: Config) -> Iterator[str]:
    if bool(config.turn.uris) != (config.turn.shared_secret is not None):
        yield "turn: uris and shared_secret go together"
    for uri in config.turn.uris:
        if not uri.startswith(("turn:", "turns:", "stun:", "stuns:")):
            yield f"turn.uris: {uri!r} is no URI such as turn:turn.example.org"
    rtc = config.rtc
    named = [one is not None for one in (rtc.livekit_url, rtc.livekit_key, rtc.livekit_secret)]
    if any(named) and not all(named):
        yield "rtc: livekit_url, livekit_key and livekit_secret go together"
    if rtc.livekit_url is not None and urlsplit(rtc.livekit_url).scheme not in ("ws", "wss"):
        yield "rtc.livekit_url: must be a URL that starts with wss:// (or ws://)"
    if any(named) and config.public_base_url is None:
        yield "rtc: needs public_base_url, below which clients ask for their tokens"


def _check_federation(federation: FederationConfig) -> Iterator[str]:
    for network in federation.allow_private_addresses:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield f"federation.allow_private_addresses: {network!r} is no network such as 127.0.0.0/8"
    for name, address in federation.addresses.items():
        try:
            parse_server_name(name)
            parse_bind(address)
        except (BadIdentifier, ValueError) as error:
            yield f"federation.addresses.{name}: {error}"
    for key in ("trusted_notaries", "past_notaries"):
        for name in getattr(federation, key):
            try:
                parse_server_name(name)
            except BadIdentifier as error:
                yield f"federation.{key}: {error}"


def _check_peers(federation: Federation2014Config) -> Iterator[str]:
    for name, address in federation.peers.items():
        try:
            parse_server_name(name)
        except BadIdentifier as error:
            yield f"historical.federation_2014.peers.{name}: {error}"
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.netloc or url.query or url.fragment:
            yield f"historical.federation_2014.peers.{name}: {address!r} is no URL such as http://127.0.0.1:9001"


def parse_bind(bind: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT, an IPv6 host in brackets. Raises: ValueError."""
    host, colon, port = bind.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{bind!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _with_absolute_paths(config: Config, directory: Path) -> Config:
    replace = msgspec.structs.replace

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.abspath(directory / path))

    return replace(
        config,
        data_dir=absolute(config.data_dir),
        listeners=tuple(
            replace(
                listener,
                tls_certificate=absolute(listener.tls_certificate),
                tls_private_key=absolute(listener.tls_private_key),
            )
            for listener in config.listeners
        ),
        federation=replace(config.federation, ca_file=absolute(config.federation.ca_file)),
        mail=replace(config.mail, templates=absolute(config.mail.templates)),
        appservices=replace(
            config.appservices,
            registrations=tuple(absolute(path) for path in config.appservices.registrations),
        ),
    )
