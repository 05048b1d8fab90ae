"""Who a token of the upstream belongs to. A token is a device of its own, and is known by its hash alone."""

import asyncio
import hashlib
import re
from collections import OrderedDict
from typing import Final, Protocol

from ranvier.core.errors import Forbidden, MatrixError, Unavailable, UnknownToken
from ranvier.core.identifiers import UserID
from ranvier.historical.sync_v3.proxy.upstream import TokenRefused, UpstreamFault
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.store.database import Database
from ranvier.store.tables import sync_v3_proxy as table
from ranvier.store.tables.sync_v3_proxy import Device

MAX_KNOWN: Final = 10_000
"""Devices kept in memory; others are read again."""

MAX_ASKING: Final = 20
"""Tokens about which the upstream is asked at once: anybody can make tokens up."""

MAX_WAITING: Final = 500
"""Tokens that wait for their turn; one more is told to come again."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")


class UpstreamUnavailable(MatrixError):
    """Nothing can be told before the upstream has answered."""

    status = 502
    errcode = "M_UNKNOWN"


class Naming(Protocol):
    """The upstream's `whoami`."""

    async def whoami(self, token: str) -> UserID: ...


class Following(Protocol):
    """What is behind a device: `pollers.Pollers`."""

    async def follow(self, device_nid: int, token: str) -> None: ...


class Devices:
    """Implements `http.guards.Authenticator`."""

    def __init__(self, db: Database, upstream: Naming, following: Following, clock: Clock) -> None:
        self._db = db
        self._upstream = upstream
        self._following = following
        self._clock = clock
        self._known: OrderedDict[str, Device] = OrderedDict()
        self._finding: dict[str, asyncio.Task[Device]] = {}
        self._asking = asyncio.Semaphore(MAX_ASKING)

    async def user(self, token: str, acting_as: str | None, device_id: str | None) -> Requester:
        """Whose token it is; returns when the upstream has told something of them.

        Raises: UnknownToken, Forbidden, UpstreamUnavailable, Unavailable.
        """
        if acting_as is not None:
            raise Forbidden("Nobody can act for others here.")
        if not _TOKEN.fullmatch(token):
            raise UnknownToken("This is no access token.")
        device = await self._find(token)
        await self._following.follow(device.device_nid, token)
        return Requester(
            user_id=UserID(device.user_id),
            user_nid=device.device_nid,
            device_id=None,
            device_nid=device.device_nid,
        )

    def seen(self, requester: Requester, ip: str, agent: str | None) -> None:
        """Nothing is kept of addresses."""

    async def appservice(self, token: str) -> Requester:
        """Raises: Forbidden."""
        raise Forbidden("This is not for application services.")

    async def appservice_or_none(self, token: str) -> Requester | None:
        """None is one here."""
        return None

    async def _find(self, token: str) -> Device:
        token_hash = hashlib.sha256(token.encode("ascii")).hexdigest()
        device = self._known.get(token_hash)
        if device is None:
            # Requests that come together ask once, and who goes away leaves the others their answer.
            task = self._finding.get(token_hash)
            if task is None:
                if len(self._finding) >= MAX_WAITING:
                    raise Unavailable("Too many tokens are being looked up. Try again later.")
                task = self._finding[token_hash] = asyncio.create_task(self._identify(token, token_hash))
                task.add_done_callback(lambda _: self._finding.pop(token_hash, None))
            device = await asyncio.shield(task)
        self._known[token_hash] = device
        self._known.move_to_end(token_hash)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return device

    async def _identify(self, token: str, token_hash: str) -> Device:
        device = await self._db.read(table.find_device, token_hash)
        if device is not None:
            return device
        try:
            async with self._asking:
                user_id = await self._upstream.whoami(token)
        except TokenRefused as error:
            raise UnknownToken("The homeserver does not know this access token.") from error
        except UpstreamFault as error:
            raise UpstreamUnavailable("The homeserver does not answer.") from error
        return await self._db.write(table.insert_device, token_hash, user_id, self._clock.now_ms())

    def forget(self, device_nids: set[int]) -> None:
        """These devices are no more."""
        for token_hash in [key for key, one in self._known.items() if one.device_nid in device_nids]:
            del self._known[token_hash]
