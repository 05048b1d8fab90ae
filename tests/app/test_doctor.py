"""The doctor: a healthy server has no faults, and whatever is wrong is one line that says what to do."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from ranvier.app.build import load_signing_keys
from ranvier.app.config import Config, FederationConfig, ListenerConfig, MailConfig, RtcConfig, TurnConfig
from ranvier.app.doctor.findings import Instruments, Level
from ranvier.app.doctor.visit import examine
from ranvier.core.canonical_json import encode
from ranvier.core.federation.discovery import SrvRecord
from ranvier.core.federation.server_keys import OWN_VALIDITY_MS, build_key_document
from ranvier.core.identifiers import ServerName
from ranvier.core.signing import SigningKey
from ranvier.io.clock import SystemClock
from ranvier.io.ports import HttpRequest, HttpResponse, Unreachable
from ranvier.io.randomness import system_randomness
from ranvier.io.tls import Certificate

from ..unit.certificates import Authority

NAME, PEER = ServerName("example.org"), ServerName("peer.example")
BASE = "https://matrix.example.org"
CORS = {"access-control-allow-origin": "*"}
CLOCK = SystemClock()
DAY_MS = 86_400_000


def answer(body: Any, status: int = 200, headers: Mapping[str, str] = CORS) -> HttpResponse:
    return HttpResponse(status, dict(headers), body if isinstance(body, bytes) else orjson.dumps(body))


class World:
    """The network around a healthy server; tests spoil parts of it."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        now_ms = CLOCK.now_ms()
        self.document = build_key_document(NAME, keys, {}, now_ms + OWN_VALIDITY_MS)
        self.answers: dict[str, HttpResponse] = {
            "https://example.org/.well-known/matrix/server": answer({"m.server": "matrix.example.org:443"}),
            "https://matrix.example.org:443/_matrix/key/v2/server": answer(encode(self.document)),
            "https://example.org/.well-known/matrix/client": answer(
                {"m.homeserver": {"base_url": f"{BASE}/"}}
            ),
            f"{BASE}/_matrix/client/versions": answer({"versions": ["v1.11"]}),
            f"{BASE}/_matrix/client/v3/directory/room/%23doctor%2Fslash%3Aexample.org": answer(
                {"errcode": "M_NOT_FOUND", "error": ""}, 404
            ),
            "https://peer.example:8448/_matrix/federation/v1/version": answer(
                {}, headers={"date": formatdate(now_ms / 1000, usegmt=True)}
            ),
            "https://livekit.example.org/rtc/validate": answer(b"success"),
        }
        self.notary = answer({"server_keys": [self.document]})
        self.srv: dict[str, list[SrvRecord]] = {}
        self.addresses = {"matrix.example.org": ["8.8.8.8", "2001:4860::8888"], "example.org": ["8.8.4.4"]}
        self.certificates = dict.fromkeys(("8.8.8.8", "2001:4860::8888", "8.8.4.4"), 60.5)  # days left
        self.open = {("127.0.0.1", 8008), ("mail.example.org", 587)}
        self.asked: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.asked.append(request)
        url = request.url.partition("?")[0]
        if url == "https://peer.example:8448/_matrix/key/v2/query/example.org":
            return self.notary
        if url not in self.answers:
            if ".well-known" in url or url.startswith(f"{BASE}/"):
                return answer({"errcode": "M_UNRECOGNIZED", "error": ""}, 404)
            raise Unreachable(f"no connection to {url}")
        return self.answers[url]

    async def resolve_host(self, name: str) -> Sequence[str]:
        return self.addresses.get(name, [])

    async def resolve_srv(self, name: str) -> Sequence[SrvRecord]:
        return self.srv.get(name, [])

    async def look_at_certificate(self, address: str, port: int, name: str) -> Certificate:
        if address not in self.certificates:
            raise Unreachable("the certificate is not trusted: self-signed certificate")
        return Certificate(CLOCK.now_ms() + round(self.certificates[address] * DAY_MS))

    async def connect(self, host: str, port: int) -> None:
        if (host, port) not in self.open:
            raise Unreachable("Connection refused")


CONFIG = Config(
    server_name=NAME,
    public_base_url=BASE,
    mail=MailConfig(host="mail.example.org", sender="x@example.org"),
    rtc=RtcConfig(livekit_url="wss://livekit.example.org", livekit_key="k", livekit_secret="s"),
    turn=TurnConfig(uris=("turn:turn.example.org",), shared_secret="s"),
)
Spoil = Callable[[World], object]


async def visit(
    tmp_path: Path, spoil: Spoil = lambda world: None, peers: Sequence[ServerName] = (PEER,), **settings: Any
) -> tuple[list[tuple[str, str]], World]:
    """What the doctor says, as (level, text)."""
    config = msgspec.structs.replace(CONFIG, data_dir=tmp_path, **settings)
    keys = load_signing_keys(config.signing_key_file, system_randomness())
    world = World(keys)
    spoil(world)
    instruments = Instruments(
        config=config,
        keys=keys,
        http=world,
        resolver=world,
        clock=CLOCK,
        randomness=system_randomness(),
        look_at_certificate=world.look_at_certificate,
        connect=world.connect,
    )
    return [(one.level.value, one.text) async for one in examine(instruments, peers)], world


async def test_a_healthy_server_has_no_faults(tmp_path: Path) -> None:
    findings, world = await visit(tmp_path)
    assert {level for level, _ in findings} == {"ok"}, findings
    told = "\n".join(text for _, text in findings)
    for part in (
        "SQLite 3",
        "GiB free",
        "leads to matrix.example.org:443",
        "[2001:4860::8888]:443: the certificate for matrix.example.org is good for 60 days",
        "answers with the keys of this server",
        "peer.example can be reached",
        "clock: as that of peer.example",
        "peer.example reaches this server",
        "leads clients to https://matrix.example.org",
        "takes our tokens",
    ):
        assert part in told
    keys = next(one for one in world.asked if one.url.endswith("/_matrix/key/v2/server"))
    assert (keys.headers["Host"], keys.certificate_name) == ("matrix.example.org:443", "matrix.example.org")
    assert all("\n" not in text for _, text in findings)


def answers(url: str, *given: Any, **more: Any) -> Spoil:
    return lambda world: world.answers.update({url: answer(*given, **more)})


def silent(url: str) -> Spoil:
    return lambda world: world.answers.pop(url)


def off_by(seconds: int) -> Spoil:
    def spoil(world: World) -> None:
        date = formatdate(CLOCK.now_ms() / 1000 - seconds, usegmt=True)
        world.answers[VERSION] = answer({}, headers={"date": date})

    return spoil


def stale(world: World) -> None:
    world.notary = answer({"server_keys": [world.document | {"valid_until_ts": 1}]})


def other_keys(world: World) -> None:
    keys = [SigningKey(b"x" * 32, "other")]
    document = build_key_document(NAME, keys, {}, CLOCK.now_ms() + OWN_VALIDITY_MS)
    world.answers["https://matrix.example.org:443/_matrix/key/v2/server"] = answer(encode(document))


WELL_KNOWN = "https://example.org/.well-known/matrix/server"
KEYS = "https://matrix.example.org:443/_matrix/key/v2/server"
VERSION = "https://peer.example:8448/_matrix/federation/v1/version"
CLIENT = "https://example.org/.well-known/matrix/client"
VERSIONS = f"{BASE}/_matrix/client/versions"
SLASH = f"{BASE}/_matrix/client/v3/directory/room/%23doctor%2Fslash%3Aexample.org"

SPOILED: Mapping[str, tuple[Spoil, str, str]] = {
    "not started": (lambda w: w.open.remove(("127.0.0.1", 8008)), "fault", "start `ranvier serve`"),
    "no mail": (lambda w: w.open.remove(("mail.example.org", 587)), "fault", "mail.example.org:587 does not"),
    "bad delegation": (answers(WELL_KNOWN, b"<html>"), "fault", "is not understood"),
    "bad name": (answers(WELL_KNOWN, {"m.server": "a b"}), "fault", "is not understood"),
    "no address": (lambda w: w.addresses.clear(), "fault", "add an A or AAAA record"),
    "private": (lambda w: w.addresses.update({"matrix.example.org": ["10.0.0.1"]}), "note", "public address"),
    "port shut": (lambda w: w.certificates.pop("2001:4860::8888"), "fault", "open the port"),
    "expires": (lambda w: w.certificates.update({"8.8.8.8": 3.5}), "note", "good for 3 days"),
    "federation shut": (silent(KEYS), "fault", "does not answer other servers"),
    "not handed over": (answers(KEYS, b"no", 404), "fault", "let the proxy hand /_matrix over"),
    "somebody else": (answers(KEYS, {"server_name": "other"}), "fault", "is not this server"),
    "other keys": (other_keys, "fault", "has other keys than"),
    "no way out": (silent(VERSION), "fault", "the way out"),
    "clock ahead": (off_by(120), "fault", "s ahead of that of peer.example: let it be set by NTP"),
    "clock behind": (off_by(-3600), "fault", "s behind that"),
    "no date": (
        answers(VERSION, {}, headers={"date": "Fri, 31 Dec 9999 23:59:59 -0100"}),
        "ok",
        "peer.example can be reached",
    ),
    "unreached": (stale, "fault", "does not reach this server"),
    "nothing known": (lambda w: setattr(w, "notary", answer({"server_keys": []})), "fault", "does not reach"),
    "no notary": (lambda w: setattr(w, "notary", answer({}, 404)), "note", "does not tell"),
    "nonsense": (lambda w: setattr(w, "notary", answer({"server_keys": [1, None, {}]})), "fault", "reach"),
    "clients shut out": (answers(VERSIONS, b"", 502), "fault", "answers 502"),
    "no CORS": (answers(VERSIONS, {"versions": []}, headers={}), "fault", "Access-Control-Allow-Origin"),
    "slashes": (answers(SLASH, {"errcode": "M_UNRECOGNIZED"}, 404), "fault", "%2F as it came"),
    "admin": (answers(f"{BASE}/_synapse/admin/v1/server_version", {}, 401), "note", "block it"),
    "metrics": (answers(f"{BASE}/metrics", b"x"), "note", "block it"),
    "no well-known": (answers(CLIENT, b"", 404), "fault", "do not find this server by its name"),
    "other base": (
        answers(CLIENT, {"m.homeserver": {"base_url": "https://x"}}),
        "fault",
        "leads clients to https://x",
    ),
    "well-known CORS": (
        answers(CLIENT, {"m.homeserver": {"base_url": BASE}}, headers={}),
        "fault",
        "needs the header",
    ),
    "livekit keys": (
        answers("https://livekit.example.org/rtc/validate", b"", 401),
        "fault",
        "does not take tokens",
    ),
    "livekit away": (silent("https://livekit.example.org/rtc/validate"), "fault", "does not answer"),
    "livekit ill": (answers("https://livekit.example.org/rtc/validate", b"", 503), "fault", "answers 503"),
}


@pytest.mark.parametrize("name", SPOILED)
async def test_what_is_wrong_is_told(tmp_path: Path, name: str) -> None:
    spoil, level, part = SPOILED[name]
    findings, _ = await visit(tmp_path, spoil)
    assert any(one == level and part in text for one, text in findings), findings
    if level == "fault":
        assert len([text for one, text in findings if one == "fault"]) <= 2, findings


async def test_the_way_by_srv_records_and_port_8448(tmp_path: Path) -> None:
    def without_file(world: World) -> None:
        del world.answers[WELL_KNOWN]
        world.answers["https://example.org:8448/_matrix/key/v2/server"] = answer(encode(world.document))
        world.answers["https://matrix.example.org:1234/_matrix/key/v2/server"] = answer(
            encode(world.document)
        )

    findings, _ = await visit(tmp_path, without_file)
    assert ("ok", "example.org:8448 answers with the keys of this server") in findings

    def with_record(world: World) -> None:
        without_file(world)
        world.srv["_matrix-fed._tcp.example.org"] = [SrvRecord(1, 1, 1234, "matrix.example.org.")]

    findings, world = await visit(tmp_path, with_record)
    assert ("ok", "DNS: _matrix-fed._tcp.example.org leads to matrix.example.org:1234") in findings
    assert ("ok", "matrix.example.org:1234 answers with the keys of this server") in findings
    # Who answers has to be the name, not the target.
    asked = next(one for one in world.asked if ":1234" in one.url)
    assert (asked.headers["Host"], asked.certificate_name) == ("example.org", "example.org")

    def with_refusal(world: World) -> None:
        without_file(world)
        world.srv["_matrix-fed._tcp.example.org"] = [SrvRecord(1, 1, 1234, ".")]

    findings, _ = await visit(tmp_path, with_refusal)
    assert any(level == "fault" and "mend them" in text for level, text in findings)


UNSET: Mapping[str, tuple[dict[str, Any], str, str]] = {
    "no base": ({"public_base_url": None}, "note", "public_base_url is not set"),
    "no federation": ({"federation": FederationConfig(enabled=False)}, "note", "federation: off"),
    "no listener": ({"listeners": (ListenerConfig(apis=("client",)),)}, "fault", 'add "federation"'),
    "no calls": ({"rtc": RtcConfig()}, "note", "rtc.livekit_url"),
    "half of calls": ({"rtc": RtcConfig(livekit_key="k")}, "fault", "livekit_secret"),
    "no relay": ({"turn": TurnConfig()}, "note", "turn.uris"),
    "half of a relay": ({"turn": TurnConfig(uris=("turn:x",))}, "fault", "turn.shared_secret"),
    "no mail": ({"mail": MailConfig()}, "note", "mail: none"),
    "a port": ({"server_name": "example.org:8448"}, "note", "no well-known file"),
}


async def test_without_a_peer_nobody_else_is_asked(tmp_path: Path) -> None:
    findings, world = await visit(tmp_path, peers=())
    assert any(level == "note" and "--peer" in text for level, text in findings)
    assert not [one.url for one in world.asked if PEER in one.url]


@pytest.mark.parametrize("name", UNSET)
async def test_what_is_not_set_up_is_told(tmp_path: Path, name: str) -> None:
    settings, level, part = UNSET[name]
    findings, _ = await visit(tmp_path, **settings)
    assert any(one == level and part in text for one, text in findings), findings


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_a_real_server_with_a_real_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("IP:127.0.0.1")
    port = _free_port()
    base = f"https://127.0.0.1:{port}"
    (tmp_path / "ranvier.toml").write_text(
        f"""
        server_name = "127.0.0.1:{port}"
        public_base_url = "{base}"
        federation = {{ ca_file = "{authority.ca_file}", allow_private_addresses = ["127.0.0.0/8"] }}
        [[listeners]]
        bind = "127.0.0.1:{port}"
        apis = ["client", "federation", "media"]
        tls_certificate = "{certificate}"
        tls_private_key = "{key}"
        """
    )
    ranvier = Path(sys.executable).parent / "ranvier"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RANVIER")}

    def doctor() -> subprocess.CompletedProcess[str]:
        args = [ranvier, "doctor", "--peer", f"127.0.0.1:{port}"]
        return subprocess.run(args, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    subprocess.run([ranvier, "user", "list"], cwd=tmp_path, env=environment, check=True, timeout=60)
    assert doctor().returncode == 1  # there is no signing key yet
    with subprocess.Popen(
        [ranvier, "serve"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    ) as server:
        try:
            _wait_for(f"{base}/_matrix/client/versions", ssl.create_default_context(cafile=authority.ca_file))
            ended = doctor()
        finally:
            server.send_signal(signal.SIGTERM)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    lines = ended.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {Level.FINE.value, Level.NOTE.value}
    assert f"ok    127.0.0.1:{port} reaches this server: it has just got its keys" in lines
    assert f"ok    127.0.0.1:{port} answers with the keys of this server" in lines
    assert any(
        line.startswith("ok    TLS at") and line.endswith("is good for 1 days") for line in lines
    ) or any(line.startswith("note  TLS at") for line in lines)
    ended = doctor()
    assert ended.returncode == 1
    assert f"fault nothing listens on 127.0.0.1:{port}" in ended.stdout


def _wait_for(url: str, context: ssl.SSLContext) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, context=context, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
