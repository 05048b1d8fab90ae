"""Which servers a room's m.room.server_acl lets take part.

Spec: client-server API, "Server Access Control Lists (ACLs) for rooms"; MSC4436 (upper and lower case are
the same).
"""

import ipaddress
from collections.abc import Mapping
from typing import Any

from ranvier.core.globs import Matcher, compile_host_globs


class ServerAcl:
    """The ACL of a room, compiled once. A room without m.room.server_acl has none, and allows everyone."""

    __slots__ = ("_allows_ip_literals", "_matches_allow", "_matches_deny")

    def __init__(self, *, allow: Matcher, deny: Matcher, allows_ip_literals: bool) -> None:
        self._matches_allow = allow
        self._matches_deny = deny
        self._allows_ip_literals = allows_ip_literals

    def allows(self, server_name: str) -> bool:
        """Whether the server may take part. Never raises, whatever the name. The port does not count.

        Cost: two set lookups and two searches; at most a few ms for an ACL of 64 KiB made to be slow.
        """
        host = _host_of(server_name.lower())
        # 2. If the server name is an IP address literal, and allow_ip_literals is present and false, deny.
        if not self._allows_ip_literals and _is_ip_literal(host):
            return False
        # 3. If it matches an entry in the deny list, deny. 4. In the allow list, allow. 5. Otherwise, deny.
        return not self._matches_deny(host) and self._matches_allow(host)


def parse_server_acl(content: Mapping[str, Any]) -> ServerAcl:
    """The ACL that the content of an m.room.server_acl event means. Never raises.

    What is not a list counts as an empty one, what is not a string in it is skipped, and allow_ip_literals
    is true unless it is false itself. So a broken ACL shuts everybody out, as the text demands of a
    missing allow list.
    """
    return ServerAcl(
        allow=compile_host_globs(_lower_strings(content.get("allow"))),
        deny=compile_host_globs(_lower_strings(content.get("deny"))),
        allows_ip_literals=content.get("allow_ip_literals") is not False,
    )


def _lower_strings(value: object) -> list[str]:
    return [entry.lower() for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def _host_of(name: str) -> str:
    """The name without its port; the brackets of an IPv6 address stay, as they do in the entries of an
    ACL.
    """
    if name.startswith("["):
        address, bracket, _ = name.partition("]")
        return address + bracket
    return name.partition(":")[0]


def _is_ip_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
