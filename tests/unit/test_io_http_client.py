"""The HTTP client against real servers on loopback: certificates, names, bounds, redirects, and the guard."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from ranvier.core.federation.discovery import SrvRecord
from ranvier.io.address_guard import AddressGuard
from ranvier.io.http_client import AiohttpClient, open_http_client
from ranvier.io.ports import (
    AddressRefused,
    HttpRequest,
    Misbehaved,
    TimedOut,
    Unreachable,
)
from ranvier.io.tls import client_context
from tests.unit.certificates import Authority

OPEN_GUARD = AddressGuard(allowed=["127.0.0.0/8", "::1/128"])


class Names:
    """A resolver with a fixed table."""

    def __init__(self, **addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve_host(self, name: str) -> Sequence[str]:
        if name == "broken":
            raise Unreachable("DNS is down")
        return self._addresses.get(name, ())

    async def resolve_srv(self, name: str) -> Sequence[SrvRecord]:
        return ()


@dataclass
class Server:
    port: int = 0
    seen: list[tuple[str, str, str, str]] = field(default_factory=list)  # method, target, Host, Authorization
    sni: list[str | None] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("DNS:n.example,DNS:m.example,IP:127.0.0.1")


def _tls_server(certificate: tuple[Path, Path], server: Server) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda _socket, name, _context: server.sni.append(name)
    return context


@asynccontextmanager
async def _serve(
    certificate: tuple[Path, Path] | None, answer: Callable[[web.BaseRequest], object] | None = None
) -> AsyncIterator[Server]:
    """`answer` gives a response, or None for a small one."""
    server = Server()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        server.connections.add(request.transport)
        target = request.raw_path
        server.seen.append(
            (request.method, target, request.headers["Host"], request.headers.get("Authorization", ""))
        )
        response = None if answer is None else answer(request)
        if asyncio.iscoroutine(response):
            response = await response
        return response or web.Response(body=b"hello " + await request.read())

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    context = None if certificate is None else _tls_server(certificate, server)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _client(
    ca_file: Path | None = None, guard: AddressGuard = OPEN_GUARD, names: Names | None = None
) -> AsyncIterator[AiohttpClient]:
    async with open_http_client(
        resolver=names or Names(), guard=guard, tls=client_context(ca_file), user_agent="Test/1"
    ) as client:
        yield client


def _get(url: str, **options: object) -> HttpRequest:
    return HttpRequest(method="GET", url=url, **options)


async def test_the_request_arrives_as_it_was_signed(certificate, authority) -> None:
    """Percent-encoding is part of what is signed: nothing may decode and encode it anew."""
    target = "/_matrix/a%2Fb/%21x%3Ay/%C3%A9~?q=%20+&r=a%2fb&empty="
    async with _serve(certificate) as server, _client(authority.ca_file) as client:
        response = await client.send(
            HttpRequest(
                method="PUT",
                url=f"https://127.0.0.1:{server.port}{target}",
                headers={"Host": "n.example", "Authorization": "X-Matrix a=b"},
                body=b"{}",
                certificate_name="n.example",
            )
        )
    assert server.seen == [("PUT", target, "n.example", "X-Matrix a=b")]
    assert server.sni == ["n.example"]
    assert (response.status, response.body) == (200, b"hello {}")
    assert response.headers["content-type"] == "application/octet-stream"


async def test_a_certificate_for_an_address_is_asked_for_without_sni(certificate, authority) -> None:
    async with _serve(certificate) as server, _client(authority.ca_file) as client:
        url = f"https://127.0.0.1:{server.port}/"
        await client.send(_get(url))
        await client.send(_get(url, certificate_name="127.0.0.1"))
    assert set(server.sni) == {None}


@pytest.mark.parametrize("name", ["other.example", "x.n.example", "127.0.0.2"])
async def test_a_certificate_for_another_name_is_refused(certificate, authority, name: str) -> None:
    async with _serve(certificate) as server, _client(authority.ca_file) as client:
        with pytest.raises(Unreachable):
            await client.send(_get(f"https://127.0.0.1:{server.port}/", certificate_name=name))
    assert server.seen == [], "nothing is sent before the other side has proven who it is"


async def test_an_unknown_authority_is_refused(certificate) -> None:
    async with _serve(certificate) as server, _client() as client:
        with pytest.raises(Unreachable):
            await client.send(_get(f"https://127.0.0.1:{server.port}/", certificate_name="n.example"))
    assert server.seen == []


async def test_connections_are_kept_but_not_shared_between_certificate_names(certificate, authority) -> None:
    """Else what was proven for one server would count for another on the same address."""
    async with _serve(certificate) as server, _client(authority.ca_file) as client:
        for name in ("n.example", "n.example", "m.example"):
            await client.send(_get(f"https://127.0.0.1:{server.port}/", certificate_name=name))
    assert server.sni == ["n.example", "m.example"]
    assert len(server.connections) == 2


@pytest.mark.parametrize(
    "names", [("127.0.0.1",), ("::ffff:127.0.0.1", "127.0.0.1"), ("169.254.169.254", "0.0.0.0")]
)
async def test_the_guard_sees_where_a_name_really_leads(names: tuple[str, ...]) -> None:
    async with _serve(None) as server, _client(guard=AddressGuard(), names=Names(evil=names)) as client:
        with pytest.raises(AddressRefused):
            await client.send(_get(f"http://evil:{server.port}/"))
    assert server.connections == set()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0"])
async def test_the_guard_sees_literal_addresses_too(host: str) -> None:
    async with _serve(None) as server, _client(guard=AddressGuard()) as client:
        with pytest.raises(AddressRefused):
            await client.send(_get(f"http://{host}:{server.port}/"))
    assert server.connections == set()


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "127.0.0.1.", "１２７.0.0.1"]
)
async def test_odd_notations_of_an_address_are_only_names(host: str) -> None:
    async with _serve(None) as server, _client(guard=AddressGuard()) as client:
        with pytest.raises(Unreachable):
            await client.send(_get(f"http://{host}:{server.port}/"))
    assert server.connections == set()


async def test_an_allowed_address_of_a_name_is_found_behind_a_refused_one() -> None:
    names = Names(mixed=("10.0.0.1", "127.0.0.1"))
    async with _serve(None) as server, _client(names=names) as client:
        assert (await client.send(_get(f"http://mixed:{server.port}/"))).status == 200


@pytest.mark.parametrize(
    "url",
    ["http://broken/", "http://unknown/", "http://127.0.0.1:1/", "http://[::1", "ftp://a/", "/x", "http:///"],
)
async def test_what_cannot_be_connected_to_is_unreachable(url: str) -> None:
    async with _client() as client:
        with pytest.raises(Unreachable):
            await client.send(_get(url))


async def _in_pieces(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(30):
        await response.write(b"x" * 1000)
    return response


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: web.Response(body=b"x" * 20_001),
        _in_pieces,
        lambda request: web.Response(
            body=gzip.compress(bytes(5_000_000)), headers={"Content-Encoding": "gzip"}
        ),
    ],
    ids=["length", "chunked", "compressed"],
)
async def test_a_body_above_the_bound_is_cut_off(answer) -> None:
    async with _serve(None, answer) as server, _client() as client:
        with pytest.raises(Misbehaved):
            await client.send(_get(f"http://127.0.0.1:{server.port}/", max_response_bytes=20_000))


async def test_a_body_of_exactly_the_bound_is_fine_and_can_be_streamed() -> None:
    async with _serve(None, _in_pieces) as server, _client() as client:
        request = _get(f"http://127.0.0.1:{server.port}/", max_response_bytes=30_000)
        async with client.stream(request) as response:
            assert sum([len(chunk) async for chunk in response.chunks()]) == 30_000
        async with client.stream(request) as response:
            assert response.status == 200, "a body need not be read"
        assert (await client.send(request)).body == b"x" * 30_000


async def test_the_deadline_covers_silence_before_and_within_the_body() -> None:
    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path == "/body":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"x")
        await asyncio.Event().wait()
        raise AssertionError

    async with _serve(None, silent) as server, _client() as client:
        for path in ("/head", "/body"):
            with pytest.raises(TimedOut):
                await client.send(_get(f"http://127.0.0.1:{server.port}{path}", timeout_s=0.1))


async def test_the_faults_of_the_reader_stay_its_own() -> None:
    async with _serve(None) as server, _client() as client:
        for fault in (OSError("disk full"), TimeoutError("its own"), ValueError("x")):
            with pytest.raises(type(fault), match=str(fault)):
                async with client.stream(_get(f"http://127.0.0.1:{server.port}/")):
                    raise fault


def _redirects(request: web.BaseRequest) -> web.Response | None:
    locations = {
        "/relative": "/end",
        "/loop": "/loop",
        "/user": f"https://u:p@127.0.0.1:{request.url.port}/end",
        "/file": "file:///etc/passwd",
        "/bad": "https://[::1",
    }
    location = locations.get(request.raw_path)
    return None if location is None else web.Response(status=307, headers={"Location": location})


async def test_redirects_are_followed_if_wanted_and_leave_credentials_behind(certificate, authority) -> None:
    async with _serve(certificate, _redirects) as server, _client(authority.ca_file) as client:
        url = f"https://127.0.0.1:{server.port}/relative"
        assert (await client.send(_get(url))).status == 307
        headers = {"Host": "n.example", "Authorization": "secret"}
        followed = await client.send(
            _get(url, headers=headers, certificate_name="n.example", max_redirects=1)
        )
    assert followed.status == 200
    assert server.seen[1:] == [
        ("GET", "/relative", "n.example", "secret"),
        ("GET", "/end", f"127.0.0.1:{server.port}", ""),
    ]


@pytest.mark.parametrize("path", ["/loop", "/user", "/file", "/bad"])
async def test_redirects_in_a_loop_or_to_what_is_no_web_page_are_refused(
    certificate, authority, path: str
) -> None:
    async with _serve(certificate, _redirects) as server, _client(authority.ca_file) as client:
        with pytest.raises(Misbehaved):
            await client.send(_get(f"https://127.0.0.1:{server.port}{path}", max_redirects=3))
    assert len(server.seen) == (4 if path == "/loop" else 1)


async def test_a_redirect_must_prove_its_own_name(certificate, authority) -> None:
    async with _serve(certificate, _redirects) as server, _client(authority.ca_file) as client:
        url = f"https://127.0.0.1:{server.port}/relative"
        await client.send(_get(url, certificate_name="n.example", max_redirects=1))
    assert server.sni == ["n.example", None]


async def test_a_redirect_from_https_to_http_is_refused(certificate, authority) -> None:
    async with _serve(None) as plain:

        def to_plain(request: web.BaseRequest) -> web.Response:
            return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{plain.port}/"})

        async with _serve(certificate, to_plain) as server, _client(authority.ca_file) as client:
            with pytest.raises(Misbehaved):
                await client.send(_get(f"https://127.0.0.1:{server.port}/", max_redirects=3))
    assert plain.seen == []


async def test_the_guard_also_stands_behind_redirects(certificate, authority) -> None:
    """A public server must not be able to send us to the metadata service of the machine's cloud."""

    def to_metadata(request: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": "https://169.254.169.254/latest/"})

    async with _serve(certificate, to_metadata) as server, _client(authority.ca_file) as client:
        with pytest.raises(AddressRefused):
            await client.send(_get(f"https://127.0.0.1:{server.port}/", max_redirects=3))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff\n\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_misbehavior(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server, _client() as client:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Misbehaved):
            await client.send(_get(f"http://127.0.0.1:{port}/"))
