"""Where to connect for a server name, as steps that ask and take answers. Each step says what it needs from
the network; the caller fetches that and hands it to `answered`, which returns the next step, until `Found`.

    step = start(name)
    while not isinstance(step, Found):
        match step:
            case FetchWellKnown(): step = step.answered(delegated server name, or None)
            case LookUpSrv(): step = step.answered(records, fraction)

Addresses are looked up when connecting: no step depends on them, and they may change while a route stays.

Spec: server-server API, "Resolving server names"; RFC 2782.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import ServerName, is_ip_literal, parse_server_name, split_host_port

DEFAULT_PORT: Final = 8448
MAX_SRV_RECORDS: Final = 20
"""Of what one name answers; further records are ignored."""

SRV_SERVICES: Final = ("_matrix-fed._tcp", "_matrix._tcp")
"""In the order in which they are tried. The second is deprecated."""


class SrvRecord(msgspec.Struct, frozen=True):
    """One record of DNS type SRV."""

    priority: int
    weight: int
    port: int
    target: str  # host name; "." says that the service is not offered


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One place to connect to, and how to behave there."""

    host: str  # a name to look up, or an IP address (IPv6 without brackets)
    port: int
    host_header: str
    certificate_name: str  # a name, or an IP address: then no SNI is sent


class Found(msgspec.Struct, frozen=True):
    """The end: routes in the order in which to try them. No route: the server has no federation."""

    routes: tuple[Route, ...]


class FetchWellKnown(msgspec.Struct, frozen=True):
    """GET `https://{host}/.well-known/matrix/server` is needed, or a cached answer of it."""

    host: str

    def answered(self, delegated: ServerName | None) -> "Step":
        """Args: delegated - the server name that the answer gives; None if it was an error or not valid."""
        # Step 3, or steps 4 to 6 when there is no valid answer.
        return _look_up(ServerName(self.host)) if delegated is None else _direct(delegated)


class LookUpSrv(msgspec.Struct, frozen=True):
    """The SRV records of `name` are needed."""

    host: str
    service: str

    @property
    def name(self) -> str:
        return f"{self.service}.{self.host}"

    def answered(self, records: Sequence[SrvRecord], fraction: Callable[[], float]) -> "Step":
        """Args: records - what DNS gives; empty if there are none (a DNS failure is not an answer);
        fraction - random numbers from 0 to 1, which spread the load among records by weight.
        """
        if not records:
            position = SRV_SERVICES.index(self.service) + 1
            if position < len(SRV_SERVICES):
                return LookUpSrv(self.host, SRV_SERVICES[position])
            # Steps 3.5 and 6: no SRV record at all.
            return Found((self._route(self.host, DEFAULT_PORT),))
        targets = [record for record in records[:MAX_SRV_RECORDS] if _is_usable(record)]
        ordered = order_by_priority_and_weight(targets, fraction)
        return Found(tuple(self._route(record.target.rstrip("."), record.port) for record in ordered))

    def _route(self, host: str, port: int) -> Route:
        # Not the SRV target: DNS is not to be trusted, so whoever answers must prove to be `self.host`.
        return Route(host=host, port=port, host_header=self.host, certificate_name=self.host)


Step = FetchWellKnown | LookUpSrv | Found


def start(name: ServerName) -> Step:
    """The first step for a parsed server name."""
    host, port = split_host_port(name)
    # Steps 1 and 2: an IP literal or a port leave nothing to discover.
    return _direct(name) if port is not None or is_ip_literal(name) else FetchWellKnown(host)


def order_by_priority_and_weight(
    records: Sequence[SrvRecord], fraction: Callable[[], float]
) -> list[SrvRecord]:
    """Lowest priority number first; within one priority at random, in proportion to the weights.

    Spec: RFC 2782, "Usage rules": weight 0 has a small chance only while others have weight.
    """
    waiting = sorted(records, key=lambda record: (record.priority, record.weight))
    ordered: list[SrvRecord] = []
    while waiting:
        group = [record for record in waiting if record.priority == waiting[0].priority]
        chosen = group[-1]
        threshold = fraction() * sum(record.weight for record in group)
        for record in group:
            threshold -= record.weight
            if threshold <= 0:
                chosen = record
                break
        waiting.remove(chosen)
        ordered.append(chosen)
    return ordered


def _direct(name: ServerName) -> Step:
    """Steps 1, 2, 3.1 and 3.2, or a look-up (3.3 to 3.5) when neither applies."""
    host, port = split_host_port(name)
    if port is None and not is_ip_literal(name):
        return _look_up(name)
    route = Route(
        host=host, port=DEFAULT_PORT if port is None else port, host_header=name, certificate_name=host
    )
    return Found((route,))


def _look_up(host: ServerName) -> Step:
    return LookUpSrv(host, SRV_SERVICES[0])


def _is_usable(record: SrvRecord) -> bool:
    """RFC 2782: a target is a name, never an address; "." is no target; port 0 cannot be connected to."""
    try:
        name = parse_server_name(record.target.rstrip("."))
    except BadIdentifier:
        return False
    return ":" not in name and not is_ip_literal(name) and 0 < record.port <= 65535
