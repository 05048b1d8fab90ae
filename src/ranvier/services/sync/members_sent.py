"""Which members a client has got already, so that they need not be sent again.

What a response brought counts only when the client shows that response's token: a response that was lost, or
one of two requests at once, leaves nothing behind. What is forgotten here is only sent once more.

Spec: client-server API, "Lazy-loading room members".
"""

from collections.abc import Iterable
from typing import Final

from ranvier.services.recent import Recent
from ranvier.services.sync.request import Profile

MAX_OF_ALL: Final = 200_000
"""Members that all clients together have: some 45 MB. The clients that were not seen for longest start anew."""
MAX_MEMBERS: Final = 5_000
"""Of one client; beyond that it starts anew."""

_CLIENT_WEIGHT: Final = 5
"""A client takes as much as so many members."""

Member = tuple[int, int]
"""(room_nid, number of the member event)."""


class _Client:
    __slots__ = ("known", "pending", "token")

    def __init__(self, token: int | None) -> None:
        self.token = token
        self.known: frozenset[Member] = frozenset()
        self.pending: dict[int, frozenset[Member]] = {}

    @property
    def weight(self) -> int:
        return _CLIENT_WEIGHT + len(self.known) + sum(map(len, self.pending.values()))


class MembersSent:
    """The memory of clients that load members lazily, by user, device and filter. Event loop only."""

    def __init__(self) -> None:
        self._clients: Recent[tuple[int, str, Profile], _Client] = Recent(MAX_OF_ALL)

    def known_at(
        self, user_nid: int, device_id: str, profile: Profile, since: int | None
    ) -> frozenset[Member]:
        """What the client has that shows this token."""
        key = (user_nid, device_id, profile)
        client = self._clients.get(key)
        if client is None or since is None:
            client = _Client(since)
        if since != client.token:
            if since in client.pending:
                known = client.known | client.pending[since]
                client.known = known if len(known) <= MAX_MEMBERS else frozenset()
            else:
                client.known = frozenset()
            client.token = since
            client.pending = {}
        self._clients.keep(key, client, client.weight)
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
        key = (user_nid, device_id, profile)
        client = self._clients.get(key)
        if client is not None and client.token == since:
            client.pending = {next_batch: frozenset(members)}
            self._clients.keep(key, client, client.weight)
