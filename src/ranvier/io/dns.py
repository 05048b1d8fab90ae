"""DNS over dnspython, with a bounded cache that keeps to each record's time to live, absence included."""

import asyncio
import ipaddress
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from ranvier.core.federation.discovery import SrvRecord
from ranvier.io.ports import TimedOut, Unreachable

T = TypeVar("T")

_CACHED_ANSWERS: Final = 20_000
_MAX_ADDRESSES: Final = 16
_MAX_QUERIES: Final = 64
_LIFETIME_S: Final = 10.0


class DnsResolver:
    """A `Resolver`. At most `_MAX_QUERIES` questions are on the way at a time; more wait."""

    def __init__(
        self,
        resolver: dns.asyncresolver.Resolver,
        hosts: Mapping[str, Sequence[str]],
        lifetime_s: float = _LIFETIME_S,
    ) -> None:
        """Args: hosts - lower-case name -> addresses, before DNS is asked; lifetime_s - of one question."""
        self._resolver = resolver
        self._hosts = hosts
        self._lifetime_s = lifetime_s
        self._slots = asyncio.Semaphore(_MAX_QUERIES)

    async def resolve_host(self, name: str) -> Sequence[str]:
        known = self._hosts.get(name.rstrip(".").lower())
        if known is not None:
            return known
        answers: Sequence[list[Any] | BaseException] = await asyncio.gather(
            self._query(name, dns.rdatatype.AAAA), self._query(name, dns.rdatatype.A), return_exceptions=True
        )
        addresses: list[str] = []
        for answer in answers:
            if not isinstance(answer, BaseException):
                addresses += [record.address for record in answer]
        # Half an answer will do, but "no address" is known only if both questions were answered.
        for answer in answers:
            if isinstance(answer, BaseException) and not addresses:
                raise answer
        return addresses[:_MAX_ADDRESSES]

    async def resolve_srv(self, name: str) -> Sequence[SrvRecord]:
        return [
            SrvRecord(record.priority, record.weight, record.port, record.target.to_text())
            for record in await self._query(name, dns.rdatatype.SRV)
        ]

    async def _query(self, name: str, kind: dns.rdatatype.RdataType) -> list[Any]:
        try:
            async with self._slots:
                # A bare name such as `mail` may be one of the local network's search domains.
                answer = await _apart(
                    self._resolver.resolve(
                        name,
                        kind,
                        search="." not in name,
                        lifetime=self._lifetime_s,
                        raise_on_no_answer=False,
                    )
                )
        except dns.resolver.NXDOMAIN:
            return []
        except dns.exception.Timeout as error:
            raise TimedOut(f"DNS did not answer for {name[:300]}") from error
        except (dns.exception.DNSException, OSError) as error:
            raise Unreachable(f"DNS failed for {name[:300]}: {error}") from error
        return [] if answer.rrset is None else list(answer.rrset)


async def _apart(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, done in a task of its own.

    dnspython waits with `asyncio.wait_for`, which in Python 3.11 loses a cancellation that comes together with an
    answer: whoever was to end would go on for ever.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        raise


def open_dns_resolver(
    hosts_file: Path = Path("/etc/hosts"), configuration: Path = Path("/etc/resolv.conf")
) -> DnsResolver:
    """A resolver that asks this machine's name servers, and its hosts file first. Where no name server is
    configured, as on a machine without network, every other look-up is Unreachable.
    """
    try:
        resolver = dns.asyncresolver.Resolver(str(configuration))
    except dns.resolver.NoResolverConfiguration:
        resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.cache = dns.resolver.LRUCache(_CACHED_ANSWERS)
    return DnsResolver(resolver, parse_hosts(hosts_file.read_text()) if hosts_file.exists() else {})


def parse_hosts(text: str) -> dict[str, list[str]]:
    """Name (lower case) -> addresses, as hosts(5) describes. Other lines are ignored."""
    hosts: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if not _is_address(address):
            continue
        for name in names:
            hosts.setdefault(name.rstrip(".").lower(), []).append(address)
    return hosts


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
