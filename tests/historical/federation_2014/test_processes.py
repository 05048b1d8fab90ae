"""The same with real processes, sockets and signals: two servers as an administrator would start them."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pytest

from ...clients.process import RANVIER, ServerProcess
from .network import OLD, VERSION

C = "/_matrix/client/v3"


class Named(ServerProcess):
    """A server with a name of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir()
        super().__init__(directory)
        self.name = name

    def know(self, peer: "Named") -> None:
        settings = f'{{ enabled = true, peers = {{ "{peer.name}" = "{peer.url}" }} }}'
        self._environment["RANVIER__HISTORICAL__FEDERATION_2014"] = settings
        self._environment["RANVIER__FEDERATION__ENABLED"] = "false"

    def start(self) -> None:
        command = [
            *(str(RANVIER), "serve", "--server-name", self.name),
            *("--data-dir", str(self.directory / "data"), "--bind", f"127.0.0.1:{self.port}"),
        ]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.directory, env=self._environment, stdout=log, stderr=log
            )
        self._wait_for_answer()

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def register(self, name: str) -> str:
        body = {"username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"}}
        return str(self.ask("POST", f"{C}/register", body)["access_token"])

    def texts(self, token: str, room_id: str) -> list[str]:
        page = self.ask("GET", f"{C}/rooms/{room_id}/messages?dir=b&limit=100", None, token)
        return [one["content"]["body"] for one in page["chunk"] if one["type"] == "m.room.message"][::-1]

    def say(self, token: str, room_id: str, text: str) -> None:
        path = f"{C}/rooms/{room_id}/send/m.room.message/{quote(text)}"
        self.ask("PUT", path, {"msgtype": "m.text", "body": text}, token)


def wait(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Named, Named]]:
    red, blue = Named(tmp_path / "red", "red"), Named(tmp_path / "blue", "blue")
    red.know(blue)
    blue.know(red)
    red.start()
    blue.start()
    yield red, blue
    red.kill()
    blue.kill()


def test_two_processes_chat_and_one_is_killed_in_the_middle(pair: tuple[Named, Named]) -> None:
    red, blue = pair
    ann, bob = red.register("ann"), blue.register("bob")
    wish = {"room_version": VERSION, "preset": "public_chat", "room_alias_name": "room"}
    room_id = red.ask("POST", f"{C}/createRoom", wish, ann)["room_id"]
    red.say(ann, room_id, "before")
    assert blue.ask("POST", f"{C}/join/{quote('#room:red')}", {}, bob)["room_id"] == room_id
    red.say(ann, room_id, "hello")
    wait(lambda: blue.texts(bob, room_id) == ["before", "hello"])
    blue.say(bob, room_id, "hi")
    wait(lambda: red.texts(ann, room_id) == ["before", "hello", "hi"])
    blue.kill()
    red.say(ann, room_id, "while you were away")
    blue.start()
    wait(lambda: blue.texts(bob, room_id)[-1:] == ["while you were away"])
    red.kill()
    blue.say(bob, room_id, "and you")
    red.start()
    wait(lambda: red.texts(ann, room_id)[-1:] == ["and you"])
    assert red.texts(ann, room_id) == blue.texts(bob, room_id)
    state = red.ask("GET", f"{OLD}/state/{quote(room_id)}/")
    assert {pdu["origin"] for pdu in state["pdus"]} == {"red"}
    with pytest.raises(HTTPError) as refused:
        red.ask("PUT", f"{OLD}/send/t/", {"origin": "green", "ts": 1, "pdus": []})
    assert refused.value.code == 403
    refused.value.close()
