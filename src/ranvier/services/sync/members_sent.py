"""Which members a client has got already, so that they need not be sent again.

What a response brought counts only when the client shows that response's token: a response that was lost, or
one of two requests at once, leaves nothing behind. What is forgotten here is only sent once more.

Spec: client-server API, "Lazy-loading room members".
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from ranvier.services.sync.request import Profile

MAX_CLIENTS: Final = 2_000
MAX_MEMBERS: Final = 5_000
"""Of one client; beyond that it starts anew."""

Member = tuple[int, int]
"""(room_nid, number of the member event)."""


class _Client:
    __slots__ = ("known", "pending", "token")

    def __init__(self, token: int | None) -> None:
        self.token = token
        self.known: frozenset[Member] = frozenset()
        self.pending: dict[int, frozenset[Member]] = {}


class MembersSent:
    """The memory of clients that load members lazily, by user, device and filter. Event loop only."""

    def __init__(self) -> None:
        self._clients: OrderedDict[tuple[int, str, Profile], _Client] = OrderedDict()

    def known_at(
        self, user_nid: int, device_id: str, profile: Profile, since: int | None
    ) -> frozenset[Member]:
        """What the client has that shows this token."""
        key = (user_nid, device_id, profile)
        client = self._clients.get(key)
        if client is None or since is None:
            client = self._clients[key] = _Client(since)
            if len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(key)
        if since != client.token:
            if since in client.pending:
                known = client.known | client.pending[since]
                client.known = known if len(known) <= MAX_MEMBERS else frozenset()
            else:
                client.known = frozenset()
            client.token = since
            client.pending = {}
        return client.known

    def sent(
        self,
        user_nid: int,
        device_id: str,
        profile: Profile,
        since: int | None,
        next_batch: int,
        members: Iterable[Member],
    ) -> None:
        """A response to a request with `since` brought these members, and the token `next_batch`."""
        client = self._clients.get((user_nid, device_id, profile))
        if client is not None and client.token == since:
            client.pending = {next_batch: frozenset(members)}
