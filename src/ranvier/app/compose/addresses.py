"""The URL by which browsers reach this server, where it is known."""

from typing import Final
from urllib.parse import urlsplit

from ranvier.app.config import Config
from ranvier.app.config_load import parse_bind
from ranvier.core.identifiers import split_host_port
from ranvier.services.oauth.addresses import Addresses

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def oauth_addresses(config: Config) -> Addresses | None:
    """None: this server is no OAuth server, because it is told so, or because it does not know its own URL."""
    url = config.public_base_url or _loopback_url(config)
    if url is None or config.oauth.enabled is False:
        return None
    parts = urlsplit(url)
    is_protected = parts.scheme == "https" or parts.hostname in _LOOPBACK
    return Addresses(url.rstrip("/")) if is_protected or config.oauth.enabled else None


def _loopback_url(config: Config) -> str | None:
    """Of a server that only this machine can mean, such as that of `make run`."""
    if split_host_port(config.name)[0] not in _LOOPBACK:
        return None
    for listener in config.listeners:
        host, port = parse_bind(listener.bind)
        if "client" in listener.apis and host in _LOOPBACK and listener.tls_certificate is None:
            return f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return None
