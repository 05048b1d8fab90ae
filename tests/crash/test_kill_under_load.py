"""SIGKILL while many messages are on their way: what was acknowledged is there, and repeating makes no second one.

In process tests cannot show this: only a real kill takes away what is in memory but not on disk.
"""

import asyncio
import json
import random
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from tests.clients.process import ServerProcess

SENDERS = 8
ROUNDS = 3


class Sender:
    """Sends numbered messages, remembers what was acknowledged, and after a kill repeats what was not."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.next = 0
        self.acknowledged: dict[str, str] = {}  # transaction id -> event id

    async def run(self, http: aiohttp.ClientSession, room: str, token: str) -> None:
        """Until the server is gone."""
        while True:
            txn_id = f"s{self.number}-{self.next}"
            try:
                async with http.put(
                    f"/_matrix/client/v3/rooms/{quote(room, safe='')}/send/m.room.message/{txn_id}",
                    json={"msgtype": "m.text", "body": txn_id},
                    headers={"Authorization": f"Bearer {token}"},
                ) as answer:
                    assert answer.status == 200, await answer.text()
                    self.acknowledged[txn_id] = (await answer.json())["event_id"]
            except (aiohttp.ClientError, ConnectionError, json.JSONDecodeError):
                return  # not acknowledged: the same transaction comes again after the restart
            self.next += 1


async def call(http: aiohttp.ClientSession, method: str, path: str, token: str | None = None, body=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with http.request(method, path, json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def texts_of(http: aiohttp.ClientSession, room: str, token: str) -> list[str]:
    """The body of every message in the room."""
    found: list[str] = []
    position = ""
    while True:
        page = await call(
            http,
            "GET",
            f"/_matrix/client/v3/rooms/{quote(room, safe='')}/messages?dir=b&limit=100{position}",
            token,
        )
        found += [event["content"]["body"] for event in page["chunk"] if event["type"] == "m.room.message"]
        if "end" not in page:
            return found
        position = f"&from={quote(page['end'])}"


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_and_nothing_is_doubled(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    randomness = random.Random(7)
    senders = [Sender(number) for number in range(SENDERS)]
    try:
        async with aiohttp.ClientSession(server.url) as http:
            registered = await call(
                http,
                "POST",
                "/_matrix/client/v3/register",
                body={"username": "alice", "password": "correct horse", "auth": {"type": "m.login.dummy"}},
            )
            token = registered["access_token"]
            room = (await call(http, "POST", "/_matrix/client/v3/createRoom", token, {}))["room_id"]
        for _ in range(ROUNDS):
            async with aiohttp.ClientSession(server.url) as http:
                sending = [asyncio.create_task(sender.run(http, room, token)) for sender in senders]
                await asyncio.sleep(0.3 + randomness.random() / 2)
                server.kill()
                await asyncio.gather(*sending)
            server.start()
        acknowledged = {txn_id for sender in senders for txn_id in sender.acknowledged}
        assert len(acknowledged) > SENDERS * ROUNDS, "the load was too light to show anything"
        async with aiohttp.ClientSession(server.url) as http:
            found = await texts_of(http, room, token)
            assert len(found) == len(set(found)), "a message was doubled"
            assert acknowledged <= set(found), "an acknowledged message was lost"
            await _repeat(http, room, token, senders)
            assert sorted(await texts_of(http, room, token)) == sorted(set(found) | _last_attempts(senders))
        server.stop()
        assert "Traceback" not in server.log()
    finally:
        server.kill()


def _last_attempts(senders: list[Sender]) -> set[str]:
    return {f"s{sender.number}-{sender.next}" for sender in senders}


async def _repeat(http: aiohttp.ClientSession, room: str, token: str, senders: list[Sender]) -> None:
    """What was acknowledged before a kill gets the same event again; what was not gets one."""
    for sender in senders:
        for txn_id in (*list(sender.acknowledged)[-3:], f"s{sender.number}-{sender.next}"):
            path = f"/_matrix/client/v3/rooms/{quote(room, safe='')}/send/m.room.message/{txn_id}"
            answer = await call(http, "PUT", path, token, {"msgtype": "m.text", "body": txn_id})
            assert sender.acknowledged.get(txn_id, answer["event_id"]) == answer["event_id"]
