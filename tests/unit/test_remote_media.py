"""Fetching media of other servers leaves room for everything else that is asked of servers."""

import asyncio
from typing import Any, cast

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import ServerName
from ranvier.services.media import remote
from ranvier.services.media.remote import RemoteMedia
from ranvier.services.turns import ASKER


class SlowFiles:
    """Servers that do not answer before they are told to."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.may_answer = asyncio.Event()

    async def take(self, _file: object, _take: object) -> Any:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.may_answer.wait()
        self.under_way -= 1
        raise NotFound("no")


async def test_slow_servers_do_not_use_up_all_connections() -> None:
    files, nothing, limits = SlowFiles(), cast(Any, None), cast(Any, _Limits())
    media = RemoteMedia(cast(Any, files), nothing, nothing, nothing, limits)

    async def fetch(number: int) -> Any:
        ASKER.set(f"@user{number}:test")
        return await media.fetch(ServerName(f"{number}.test"), "file", 1_000)

    asked = [asyncio.create_task(fetch(number)) for number in range(remote.AT_ONCE + 50)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert files.under_way == remote.AT_ONCE
    files.may_answer.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, NotFound) for one in answers)
    assert files.most == remote.AT_ONCE


class _Limits:
    max_remote_bytes = 1_000
