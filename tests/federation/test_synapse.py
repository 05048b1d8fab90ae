"""Against a running Synapse, over HTTPS on loopback, in both directions. Skipped where it is not installed
(`bench` installs it into an environment of its own).
"""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from ..clients.process import free_port
from ..http.client import segment
from ..unit.certificates import Authority

ROOT = Path(__file__).parent.parent.parent
SYNAPSE = ROOT / ".venv-synapse" / "bin" / "python"
RANVIER = Path(sys.executable).parent / "ranvier"
C = "/_matrix/client/v3"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SYNAPSE.exists(), reason="Synapse is not installed"),
]


class Server:
    """A process with a plain listener for clients and one with TLS for servers; named by the latter, or by the port
    of what stands `before` it."""

    def __init__(self, directory: Path, authority: Authority, before: int | None = None) -> None:
        self.directory = directory
        directory.mkdir()
        self.client_port, self.port = free_port(), free_port()
        self.name = f"127.0.0.1:{before or self.port}"
        self.authority = authority
        self.certificate, self.key = authority.issue("IP:127.0.0.1")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log)

    async def wait(self, session: aiohttp.ClientSession) -> None:
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                async with session.get(f"http://127.0.0.1:{self.client_port}/_matrix/client/versions"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
        raise AssertionError((self.directory / "log").read_text()[-4000:])

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start_ranvier(directory: Path, authority: Authority, before: int | None = None) -> Server:
    server = Server(directory, authority, before)
    (directory / "ranvier.toml").write_text(f"""
server_name = "{server.name}"
data_dir = "data"
[[listeners]]
bind = "127.0.0.1:{server.client_port}"
apis = ["client", "media"]
[[listeners]]
bind = "127.0.0.1:{server.port}"
apis = ["federation"]
tls_certificate = "{server.certificate}"
tls_private_key = "{server.key}"
[registration]
mode = "open"
[rate_limits]
enabled = false
[federation]
ca_file = "{authority.ca_file}"
allow_private_addresses = ["127.0.0.0/8"]
""")
    server.start(str(RANVIER), "serve", "--config", str(directory / "ranvier.toml"))
    return server


def start_synapse(
    directory: Path, authority: Authority, before: int | None = None, more: str = "{}"
) -> Server:
    """`more`: settings (YAML) that replace those here."""
    server = Server(directory, authority, before)
    config = directory / "homeserver.yaml"
    subprocess.run(
        [
            *(str(SYNAPSE), "-m", "synapse.app.homeserver", "--generate-config", "--report-stats=no"),
            *(f"--server-name={server.name}", f"--config-path={config}", f"--data-directory={directory}"),
        ],
        check=True,
        capture_output=True,
    )
    generous = "{per_second: 100000, burst_count: 100000}"
    (directory / "more.yaml").write_text(f"""
listeners:
- {{port: {server.client_port}, bind_addresses: ["127.0.0.1"], type: http, resources: [{{names: [client]}}]}}
- {{port: {server.port}, bind_addresses: ["127.0.0.1"], type: http, tls: true, resources: [{{names: [federation]}}]}}
tls_certificate_path: {server.certificate}
tls_private_key_path: {server.key}
federation_custom_ca_list: [{authority.ca_file}]
ip_range_blacklist: []
federation_ip_range_blacklist: []
enable_registration: true
enable_registration_without_verification: true
rc_message: {generous}
rc_registration: {generous}
rc_joins: {{local: {generous}, remote: {generous}}}
rc_joins_per_room: {generous}
rc_invites: {{per_room: {generous}, per_user: {generous}, per_issuer: {generous}}}
trusted_key_servers: []
suppress_key_server_warning: true
bcrypt_rounds: 4
presence: {{enabled: false}}
caches: {{sync_response_cache_duration: 0}}
log_config: {directory}/log.yaml
""")
    (directory / "most.yaml").write_text(more)
    (directory / "log.yaml").write_text(
        "version: 1\nformatters: {f: {format: '%(asctime)s %(name)s %(levelname)s %(message)s'}}\n"
        "handlers: {h: {class: logging.StreamHandler, formatter: f}}\n"
        "root: {level: INFO, handlers: [h]}\ndisable_existing_loggers: false\n"
    )
    server.start(
        *(str(SYNAPSE), "-m", "synapse.app.homeserver"),
        *(f"--config-path={config}", f"--config-path={directory / 'more.yaml'}"),
        f"--config-path={directory / 'most.yaml'}",
    )
    return server


class Person:
    """A client of one of the servers."""

    def __init__(self, session: aiohttp.ClientSession, server: Server) -> None:
        self.session, self.server = session, server
        self.token = self.user_id = ""
        self._count = 0

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"http://127.0.0.1:{self.server.client_port}{path}"
        async with self.session.request(
            method, URL(url, encoded=True), json=body, headers=headers
        ) as response:
            answer = await response.json()
            assert response.status == 200, (method, path, response.status, answer)
            return answer

    async def register(self, name: str) -> None:
        body = {"username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"}}
        answer = await self.call("POST", f"{C}/register", body)
        self.token, self.user_id = answer["access_token"], answer["user_id"]

    async def say(self, room_id: str, text: str) -> None:
        self._count += 1
        path = f"{C}/rooms/{segment(room_id)}/send/m.room.message/{self._count}"
        await self.call("PUT", path, {"msgtype": "m.text", "body": text})

    async def texts(self, room_id: str) -> list[str]:
        answer = await self.call("GET", f"{C}/rooms/{segment(room_id)}/messages?dir=b&limit=50")
        return [e["content"].get("body", "") for e in answer["chunk"] if e["type"] == "m.room.message"]

    async def membership(self, room_id: str, user_id: str) -> str:
        answer = await self.call("GET", f"{C}/rooms/{segment(room_id)}/members")
        found = [e["content"]["membership"] for e in answer["chunk"] if e["state_key"] == user_id]
        return found[0] if found else ""

    async def invites(self) -> Any:
        return (await self.call("GET", f"{C}/sync")).get("rooms", {}).get("invite", {})

    async def reads(self, room_id: str, text: str) -> None:
        await eventually(
            lambda: self.texts(room_id), lambda texts: text in texts, f"{self.user_id} reads {text}"
        )

    async def sees(self, room_id: str, user_id: str, membership: str) -> None:
        await eventually(
            lambda: self.membership(room_id, user_id),
            lambda found: found == membership,
            f"{self.user_id} sees {user_id} {membership}",
        )


async def eventually(ask: Any, is_so: Any, what: str) -> None:
    found = None
    for _ in range(150):
        found = await ask()
        if is_so(found):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not so: {what}; but {found!r}")


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[tuple[Person, Person]]:
    """Alice of Ranvier and Sam of Synapse."""
    authority = Authority(tmp_path)
    ranvier = start_ranvier(tmp_path / "ranvier", authority)
    synapse = start_synapse(tmp_path / "synapse", authority)
    try:
        async with aiohttp.ClientSession() as session:
            await ranvier.wait(session)
            await synapse.wait(session)
            alice, sam = Person(session, ranvier), Person(session, synapse)
            await alice.register("alice")
            await sam.register("sam")
            yield alice, sam
    finally:
        ranvier.stop()
        synapse.stop()


async def live_together(owner: Person, guest: Person, version: str) -> None:
    """All that happens in a room which spans both servers."""
    body = {"room_version": version, "preset": "private_chat", "name": "Bridge"}
    room_id = (await owner.call("POST", f"{C}/createRoom", body))["room_id"]
    room = f"{C}/rooms/{segment(room_id)}"
    await owner.call("POST", f"{room}/invite", {"user_id": guest.user_id})
    await eventually(guest.invites, lambda invites: room_id in invites, "the invite arrives")
    await guest.call("POST", f"{C}/join/{segment(room_id)}?server_name={owner.server.name}", {})
    await owner.sees(room_id, guest.user_id, "join")
    await owner.say(room_id, "welcome")
    await guest.reads(room_id, "welcome")
    await guest.say(room_id, "thank you")
    await owner.reads(room_id, "thank you")
    await owner.call("PUT", f"{room}/state/m.room.topic/", {"topic": "rivers"})
    await eventually(
        lambda: guest.call("GET", f"{room}/state"),
        lambda state: any(e["content"].get("topic") == "rivers" for e in state),
        "the topic arrives",
    )
    await guest.call("POST", f"{room}/leave", {})
    await owner.sees(room_id, guest.user_id, "leave")
    await owner.call("POST", f"{room}/invite", {"user_id": guest.user_id})
    await eventually(guest.invites, lambda invites: room_id in invites, "the second invite arrives")
    await guest.call("POST", f"{room}/leave", {})
    await owner.sees(room_id, guest.user_id, "leave")
    rules = {"join_rule": "public"}
    await owner.call("PUT", f"{room}/state/m.room.join_rules/", rules)
    await guest.call("POST", f"{C}/join/{segment(room_id)}?server_name={owner.server.name}", {})
    await owner.say(room_id, "back again")
    await guest.reads(room_id, "back again")
    await owner.call("POST", f"{room}/ban", {"user_id": guest.user_id})
    await eventually(
        lambda: guest.call("GET", f"{C}/joined_rooms"),
        lambda answer: room_id not in answer["joined_rooms"],
        "the ban arrives",
    )


@pytest.mark.timeout(300)
async def test_both_ways(people: tuple[Person, Person]) -> None:
    alice, sam = people
    for version in ("10", "11", "12"):
        await live_together(alice, sam, version)
        await live_together(sam, alice, version)
