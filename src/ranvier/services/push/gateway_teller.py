"""Telling push gateways: each notification by itself, at once and in order.

Spec: push gateway API, "Homeserver behaviour".
"""

from typing import Final

from ranvier.io.ports import HttpClient, RemoteFault
from ranvier.services.push.gateway import Notice, build_notification, send_notification
from ranvier.services.push.notices import Notices
from ranvier.services.push.telling import Told
from ranvier.services.recent import Recent
from ranvier.store.tables.pushers import Pusher

MAX_BADGES: Final = 100_000
"""Pushers of which it is remembered what they show."""


class GatewayTeller:
    """A `Teller` of pushers of kind http."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        # pusher_nid -> the unread count that was told last
        self._badges: Recent[int, int] = Recent(MAX_BADGES)

    def when(self, found: Notices, now_ms: int) -> int | None:
        return now_ms if found.notices or self._is_badge_old(found) else None

    async def tell(self, found: Notices) -> Told:
        pusher = found.pusher
        pushed_nid = pusher.pushed_nid
        try:
            for notice in found.notices:
                if not await self._send(pusher, notice, found.unread):
                    return Told(pushed_nid=pushed_nid, is_rejected=True)
                pushed_nid = notice.event_nid
            if self._is_badge_old(found) and not await self._send(pusher, None, found.unread):
                return Told(pushed_nid=pushed_nid, is_rejected=True)
        except RemoteFault as fault:
            return Told(pushed_nid=pushed_nid, fault=str(fault))
        return Told(pushed_nid=found.up_to)

    def _is_badge_old(self, found: Notices) -> bool:
        """Whether the device shows another count than the true one. What it shows after a restart of ours is
        not known, and not worth waking it."""
        shown = self._badges.get(found.pusher.pusher_nid)
        return shown is not None and shown != found.unread

    async def _send(self, pusher: Pusher, notice: Notice | None, unread: int) -> bool:
        """False: the gateway rejected the pusher. Raises: RemoteFault."""
        if await send_notification(self._client, pusher, build_notification(pusher, notice, unread)):
            self._badges.keep(pusher.pusher_nid, unread, 1)
            return True
        self._badges.forget(pusher.pusher_nid)
        return False
