"""Every endpoint, with what no honest client would send: nothing but a 4xx may come of it, and quickly.

Values are drawn from a fixed seed, so that a failure repeats. Real ids are among them, so that requests also get
past the first check.
"""

import asyncio
import logging
import random
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from ranvier.http.endpoint import Auth, Endpoint, collect

from .homeserver import Homeserver, User

REQUESTS_EACH = 25
SECONDS_EACH = 5

TEXTS = [
    "",
    " ",
    "a",
    "x" * 300,
    "x" * 70_000,
    "\0",
    "a\0b",
    "%",
    "%00",
    "%2F",
    "../../etc/passwd",
    "a/b",
    "@",
    "!",
    "#",
    "$",
    "@alice:test",
    "@nobody:test",
    "@alice:elsewhere.test",
    "@:test",
    "#room:test",
    "!room:test",
    "$event",
    "$" + "a" * 43,
    "m.room.message",
    "m.room.member",
    "m.room.create",
    "m.room.power_levels",
    "m.fully_read",
    "m.push_rules",
    "-1",
    "0",
    "1",
    "2147483648",
    "9223372036854775808",
    "1e400",
    "NaN",
    "true",
    "null",
    "s0",
    "t0",
    "s9223372036854775807",
    "t-9223372036854775808",
    "\ud7ff",
    "\U0001f525",
    "e\u0301",
    "\u202e",
    "mxc://test/x",
    "global",
    "override",
    "room",
    "join",
    "b",
    "f",
    "m.read",
    "[]",
    "{}",
    '{"room":{"timeline":{"limit":-1}}}',
    "*",
    "?",
    "' OR 1=1 --",
]
KEYS = [
    "membership",
    "user_id",
    "reason",
    "type",
    "content",
    "state_key",
    "filter",
    "room",
    "timeline",
    "limit",
    "types",
    "auth",
    "session",
    "identifier",
    "password",
    "new_password",
    "device_id",
    "display_name",
    "displayname",
    "keys",
    "device_keys",
    "one_time_keys",
    "messages",
    "events",
    "event_id",
    "m.read",
    "m.fully_read",
    "thread_id",
    "typing",
    "timeout",
    "presence",
    "status_msg",
    "preset",
    "name",
    "topic",
    "invite",
    "initial_state",
    "creation_content",
    "power_level_content_override",
    "room_version",
    "visibility",
    "room_alias_name",
    "actions",
    "conditions",
    "pattern",
    "kind",
    "app_id",
    "pushkey",
    "data",
    "lang",
    "aliases",
    "alias",
    "new_version",
    "search_term",
    "search_categories",
    "erase",
    "logout_devices",
    "devices",
    "token",
    "score",
    "since",
    "generic_search_term",
    "room_types",
    "users",
]


class Hostile:
    """Draws values."""

    def __init__(self, seed: str, known: list[str]) -> None:
        self._random = random.Random(seed)
        self._texts = TEXTS + known * 6

    def text(self) -> str:
        return self._random.choice(self._texts)

    def value(self, depth: int = 0) -> Any:
        kind = self._random.randrange(9 if depth < 4 else 6)
        if kind < 3:
            return self.text()
        if kind < 6:
            return self._random.choice([None, True, False, 0, -1, 2**53, 2**63, 1.5, 1e308, "", [], {}])
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self._random.randrange(4))]
        return self.object(depth + 1)

    def object(self, depth: int = 0) -> dict[str, Any]:
        count = self._random.randrange(6)
        return {self._random.choice([*KEYS, "x", self.text()[:50]]): self.value(depth) for _ in range(count)}

    def body(self) -> bytes:
        kind = self._random.randrange(12)
        if kind == 0:
            return self._random.choice(
                [b"", b"{", b"null", b"[]", b"\xff", b'"', b"{}" * 2, b"[" * 5000, b"1"]
            )
        if kind == 1:
            return b'{"a":' * 300 + b"1" + b"}" * 300
        # Python's json writes what orjson refuses, such as 2**63.
        text = re.sub(
            r'"<(\d+)>"', r"\1", orjson.dumps(_wrap(self.object()), option=orjson.OPT_NON_STR_KEYS).decode()
        )
        return text.encode()

    def path(self, template: str) -> str:
        return re.sub(r"\{[^}]*\}", lambda _: quote(self.text()[:400], safe=""), template)

    def query(self) -> dict[str, str]:
        names = [
            "limit",
            "from",
            "to",
            "dir",
            "filter",
            "since",
            "timeout",
            "ts",
            "at",
            "membership",
            "server_name",
        ]
        names += ["via", "access_token", "user_id", "full_state", "set_presence", "format", "key", "username"]
        return {name: self.text()[:400] for name in names if self._random.random() < 0.15}


def _wrap(value: Any) -> Any:
    """Integers that orjson does not write, marked, to be unwrapped in the text."""
    if isinstance(value, dict):
        return {key: _wrap(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_wrap(item) for item in value]
    return (
        f"<{value}>"
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63
        else value
    )


def operations(homeserver: Homeserver) -> Iterator[Endpoint]:
    """Every endpoint once, in a fixed order."""
    seen = {(declared.method, declared.path): declared for declared, _ in collect(homeserver.endpoints)}
    return (seen[key] for key in sorted(seen))


async def _known_ids(alice: User) -> list[str]:
    """A room with an event in it, so that some requests find something."""
    created = await alice.post("/_matrix/client/v3/createRoom", {"preset": "public_chat"})
    if created.status != 200:
        return [alice.user_id, alice.device_id]
    room = created.json["room_id"]
    sent = await alice.put(
        f"/_matrix/client/v3/rooms/{quote(room, safe='')}/send/m.room.message/1",
        {"msgtype": "m.text", "body": "x"},
    )
    return [room, sent.json["event_id"], alice.user_id, alice.device_id]


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_nothing_hostile_makes_the_server_fail(
    homeserver: Homeserver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    alice = await homeserver.register("alice")
    known = await _known_ids(alice)
    failures = []
    for declared in operations(homeserver):
        hostile = Hostile(f"{declared.method} {declared.path}", known)
        for _ in range(REQUESTS_EACH):
            # Some requests end the session: a new one, when it is gone.
            if (
                declared.auth is not Auth.NONE
                and (await alice.get("/_matrix/client/v3/account/whoami")).status != 200
            ):
                alice = await homeserver.register(f"alice{random.randrange(10**9)}")
            path, body, query = hostile.path(declared.path), hostile.body(), hostile.query()
            query.pop("access_token", None)
            query["timeout"] = "0"
            async with asyncio.timeout(SECONDS_EACH):
                answer = await alice.request(declared.method, path, body=body, query=query)
            if answer.status >= 500 and answer.status not in (502, 504):
                failures.append(f"{declared.method} {path[:300]} {query} {body[:300]!r}: {answer.status}")
    assert not failures, "\n".join(failures[:20])
    assert not caplog.records, caplog.text[-3000:]
