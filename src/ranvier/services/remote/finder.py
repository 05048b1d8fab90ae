"""Where a server is: drives `core.federation.discovery`, and remembers what well-known files delegate to."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from ranvier.core.federation.discovery import FetchWellKnown, Found, LookUpSrv, Route, Step, start
from ranvier.core.federation.well_known import (
    MAX_BODY_BYTES,
    MAX_REDIRECTS,
    PATH,
    Delegation,
    remember_answer,
    remember_silence,
)
from ranvier.core.identifiers import ServerName, parse_server_name, split_host_port
from ranvier.io.clock import Clock
from ranvier.io.ports import HttpClient, HttpRequest, RemoteFault, Resolver, Unreachable
from ranvier.io.randomness import Randomness
from ranvier.services.remote.flights import Flights

MAX_DELEGATIONS: Final = 50_000
"""Hosts whose well-known file is remembered; the one not asked for longest goes first."""

WELL_KNOWN_TIMEOUT_S: Final = 10.0


class Finder:
    """Finds routes to servers. `addresses`: server name -> HOST:PORT, where nothing is to be discovered."""

    def __init__(
        self,
        http: HttpClient,
        resolver: Resolver,
        clock: Clock,
        randomness: Randomness,
        addresses: Mapping[str, str],
    ) -> None:
        """Raises: BadIdentifier when an address is no HOST or HOST:PORT."""
        self._http = http
        self._resolver = resolver
        self._clock = clock
        self._randomness = randomness
        self._fixed = {name: _fixed_route(name, address) for name, address in addresses.items()}
        self._delegations: OrderedDict[str, Delegation] = OrderedDict()
        self._flights: Flights[str, Delegation] = Flights()

    async def find_routes(self, server: ServerName) -> Sequence[Route]:
        """Where to connect, in the order in which to try; never empty.

        Cost: nothing when remembered, but for SRV records, which DNS remembers.
        Raises: RemoteFault.
        """
        fixed = self._fixed.get(server)
        if fixed is not None:
            return (fixed,)
        step: Step = start(server)
        while not isinstance(step, Found):
            match step:
                case FetchWellKnown():
                    step = step.answered((await self._delegation(step.host)).server)
                case LookUpSrv():
                    records = await self._resolver.resolve_srv(step.name)
                    step = step.answered(records, self._randomness.fraction)
        if not step.routes:
            raise Unreachable(f"{server} says in DNS that it does not federate")
        return step.routes

    async def _delegation(self, host: str) -> Delegation:
        known = self._delegations.get(host)
        if known is not None and self._clock.now_ms() < known.valid_until_ms:
            self._delegations.move_to_end(host)
            return known
        return await self._flights.fly(host, lambda: self._fetch(host))

    async def _fetch(self, host: str) -> Delegation:
        previous = self._delegations.get(host)
        request = HttpRequest(
            method="GET",
            url=f"https://{host}{PATH}",
            timeout_s=WELL_KNOWN_TIMEOUT_S,
            max_response_bytes=MAX_BODY_BYTES,
            max_redirects=MAX_REDIRECTS,
        )
        try:
            response = await self._http.send(request)
        except RemoteFault:
            # Most servers have no well-known file, and many nothing at all at this port.
            found = remember_silence(previous=previous, now_ms=self._clock.now_ms())
        else:
            found = remember_answer(
                response.status,
                response.headers,
                response.body,
                previous=previous,
                now_ms=self._clock.now_ms(),
            )
        self._delegations[host] = found
        self._delegations.move_to_end(host)
        while len(self._delegations) > MAX_DELEGATIONS:
            self._delegations.popitem(last=False)
        return found


def _fixed_route(name: str, address: str) -> Route:
    host, port = split_host_port(parse_server_name(address))
    certificate_name, _ = split_host_port(parse_server_name(name))
    return Route(
        host=host,
        port=8448 if port is None else port,
        host_header=name,
        certificate_name=certificate_name,
    )
