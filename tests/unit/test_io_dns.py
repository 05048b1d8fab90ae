"""DNS against a name server on loopback: what is there, what is not, what fails, and what is cached."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from ranvier.core.federation.discovery import SrvRecord
from ranvier.io.dns import DnsResolver, open_dns_resolver, parse_hosts
from ranvier.io.ports import TimedOut, Unreachable

ZONE = {
    "both.example. A": ["192.0.2.1", "192.0.2.2"],
    "both.example. AAAA": ["2001:db8::1"],
    "four.example. A": ["192.0.2.4"],
    "_matrix-fed._tcp.srv.example. SRV": ["10 5 8443 target.example.", "20 0 8448 ."],
    "many.example. A": [f"192.0.2.{number}" for number in range(1, 60)],
    "half.example. A": ["192.0.2.5"],
}
FAILING = {"broken.example. A", "broken.example. AAAA", "half.example. AAAA"}


class _NameServer(asyncio.DatagramProtocol):
    def __init__(self, asked: Counter[str]) -> None:
        self._asked = asked

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        key = f"{question.name.to_text().lower()} {dns.rdatatype.to_text(question.rdtype)}"
        self._asked[key] += 1
        if "silent" in key:
            return
        answer = dns.message.make_response(query)
        if key in FAILING:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif key in ZONE:
            answer.answer.append(
                dns.rrset.from_text_list(question.name, 60, "IN", question.rdtype, ZONE[key])
            )
        elif not any(known.startswith(f"{question.name} ") for known in ZONE):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), address)


@asynccontextmanager
async def _resolver(lifetime_s: float = 10.0) -> AsyncIterator[tuple[DnsResolver, Counter[str]]]:
    asked: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _NameServer(asked), ("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    resolver.timeout = lifetime_s
    resolver.cache = dns.resolver.LRUCache(100)
    try:
        yield DnsResolver(resolver, {"local": ["127.0.0.1"]}, lifetime_s), asked
    finally:
        transport.close()


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("both.example", ["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
        ("FOUR.example.", ["192.0.2.4"]),
        ("half.example", ["192.0.2.5"]),
        ("srv.example", []),
        ("nothing.example", []),
        ("local", ["127.0.0.1"]),
        ("LOCAL.", ["127.0.0.1"]),
    ],
)
async def test_hosts(name: str, addresses: list[str]) -> None:
    async with _resolver() as (resolver, _):
        found = await resolver.resolve_host(name)
        assert sorted(found) == sorted(addresses)  # a name server may shuffle those of one family
        assert [":" in address for address in found] == [":" in address for address in addresses]


async def test_srv_records() -> None:
    async with _resolver() as (resolver, _):
        records = await resolver.resolve_srv("_matrix-fed._tcp.srv.example")
        assert sorted(records, key=lambda record: record.priority) == [
            SrvRecord(10, 5, 8443, "target.example."),
            SrvRecord(20, 0, 8448, "."),
        ]
        assert list(await resolver.resolve_srv("_matrix-fed._tcp.both.example")) == []


async def test_failures_are_not_taken_for_absence() -> None:
    """Else a server with an SRV record would be looked for in the wrong place while its DNS is down."""
    async with _resolver() as (resolver, _):
        with pytest.raises(Unreachable):
            await resolver.resolve_host("broken.example")
    async with _resolver(lifetime_s=0.1) as (resolver, _):
        with pytest.raises(TimedOut):
            await resolver.resolve_host("silent.example")


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", ".".join(["abc"] * 100), "\udcff.example"])
async def test_names_that_dns_cannot_hold(name: str) -> None:
    async with _resolver() as (resolver, _):
        with pytest.raises(Unreachable):
            await resolver.resolve_host(name)


async def test_answers_are_cached_and_bounded() -> None:
    async with _resolver() as (resolver, asked):
        for _ in range(3):
            assert len(await resolver.resolve_host("many.example")) == 16
            assert list(await resolver.resolve_host("four.example")) == ["192.0.2.4"]
            assert list(await resolver.resolve_host("nothing.example")) == []
    assert asked["four.example. A"] == asked["many.example. A"] == 1


def test_a_hosts_file_is_read_as_everywhere() -> None:
    text = "127.0.0.1 localhost Alias. # comment\n::1\tlocalhost\n# x\nnonsense name\n\n10.0.0.1\n"
    assert parse_hosts(text) == {"localhost": ["127.0.0.1", "::1"], "alias": ["127.0.0.1"]}


@pytest.mark.parametrize("configuration", [None, "", "# nothing\n"])
async def test_a_machine_without_name_servers_still_has_its_hosts_file(tmp_path, configuration) -> None:
    hosts, resolv_conf = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("192.0.2.9 box\n")
    if configuration is not None:
        resolv_conf.write_text(configuration)
    resolver = open_dns_resolver(hosts, resolv_conf)
    assert list(await resolver.resolve_host("box")) == ["192.0.2.9"]
    with pytest.raises(Unreachable):
        await resolver.resolve_host("n.example")


async def test_a_machine_may_have_no_hosts_file(tmp_path) -> None:
    resolver = open_dns_resolver(tmp_path / "hosts", tmp_path / "resolv.conf")
    with pytest.raises(Unreachable):
        await resolver.resolve_host("box")


async def test_who_is_cancelled_ends_though_dns_overlooks_it() -> None:
    """As dnspython does when its answer and the cancellation come together."""
    asked = asyncio.Event()

    class Overlooking:
        async def resolve(self, *_args: object, **_options: object) -> object:
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return SimpleNamespace(rrset=None)

    task = asyncio.create_task(DnsResolver(Overlooking(), {}).resolve_srv("_matrix._tcp.a.test"))
    await asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
