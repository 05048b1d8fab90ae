"""Which addresses this server may connect to on behalf of others: none that is inside its own network, unless
the operator allows it. The address itself is judged, after DNS: a name can change its mind.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# IANA special-purpose address registries (RFC 6890 and successors): what is not global unicast, and the
# transition prefixes through which an IPv6 address could smuggle any IPv4 address (6to4, Teredo).
INTERNAL_NETWORKS: Final[tuple[str, ...]] = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class AddressGuard:
    """Decides by address alone. An allowed network wins over a denied one, so that exceptions can be made."""

    def __init__(self, *, denied: Iterable[str] = INTERNAL_NETWORKS, allowed: Iterable[str] = ()) -> None:
        """Networks in CIDR form. Raises: ValueError when one is not."""
        self._denied = [ipaddress.ip_network(network) for network in denied]
        self._allowed = [ipaddress.ip_network(network) for network in allowed]

    def is_allowed(self, address: str) -> bool:
        """Whether `address`, in the form that a socket takes, may be connected to. Anything else may not."""
        try:
            parsed = _embedded_ipv4(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        return _in_any(parsed, self._allowed) or not _in_any(parsed, self._denied)


def _embedded_ipv4(address: Address) -> Address:
    """The IPv4 address that the kernel or a translator would really talk to, if there is one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _in_any(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
