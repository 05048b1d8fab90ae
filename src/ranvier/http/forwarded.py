"""Who asks, where a reverse proxy passes a request on."""

import ipaddress
from collections.abc import Sequence
from typing import Final

MAX_HOPS: Final = 20
"""Proxies that are looked back through."""


def is_proxy(ip: str) -> bool:
    """Whether what is said from an address about others is true: a proxy runs on this machine."""
    address = _parse(ip)
    return address is not None and address.is_loopback


def find_client(values: Sequence[bytes]) -> str | None:
    """Whom a proxy of this machine names: the last address in X-Forwarded-For that is not a proxy itself. What stands
    before it, anybody may have made up. None: nobody who can be understood.
    """
    last = None
    hops = b",".join(values).rsplit(b",", MAX_HOPS)[-MAX_HOPS:]
    for hop in reversed(hops):
        address = _parse(_without_port(hop.decode("latin-1").strip()))
        if address is None:
            break
        last = str(address)
        if not address.is_loopback:
            break
    return last


def _without_port(text: str) -> str:
    """An address as proxies write it: bare, in brackets, or with a port behind it."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
