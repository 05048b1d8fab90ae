"""What local users do that passes: typing, reading, being online; for the servers in their rooms.

Spec: server-server API, "Typing Notifications", "Receipts", "Presence".
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import msgspec

from ranvier.core.federation.edus import PresenceItem, Receipt, Typing
from ranvier.core.identifiers import RoomID, UserID, server_of
from ranvier.io.clock import Clock
from ranvier.store.database import ReadTxn
from ranvier.store.tables import memberships, presence, receipts, typing
from ranvier.store.tables.interned import Interner, find_server_nids, list_user_ids

MAX_RECEIPTS: Final = 1_000
"""In one read; if there are more, the newest are told."""

Unit = Typing | Receipt | PresenceItem
Passing = Sequence[tuple[Collection[int], Unit]]
"""Units, each with the servers (server_nid) that it concerns."""

ServersOfRoom = Callable[[ReadTxn, int], tuple[RoomID, Collection[int]]]
"""room_nid -> its id, and the other servers in it."""


class PassingReader:
    """Reads it. Keeps who was told to be typing, so that the end of it can be told."""

    def __init__(self, interner: Interner, clock: Clock, *, tells_presence: bool) -> None:
        self._interner = interner
        self._clock = clock
        self._tells_presence = tells_presence
        self._typing: dict[int, frozenset[UserID]] = {}  # room_nid -> local users

    def read(
        self,
        txn: ReadTxn,
        after: int,
        upto: int,
        room_nids: Collection[int],
        servers_of: ServersOfRoom,
    ) -> Passing:
        """What happened in (after, upto]; `room_nids` are the rooms in which anything did.

        Cost: 2 queries, and 1 for presence; 2 for each room in which somebody types or reads.
        """
        return [
            *self._read_typing(txn, after, upto, room_nids, servers_of),
            *self._read_receipts(txn, after, upto, servers_of),
            *(self._read_presence(txn, after, upto) if self._tells_presence else ()),
        ]

    def _read_typing(
        self,
        txn: ReadTxn,
        after: int,
        upto: int,
        room_nids: Collection[int],
        servers_of: ServersOfRoom,
    ) -> Iterator[tuple[Collection[int], Unit]]:
        changed = typing.list_rooms_typing_changed(txn, room_nids, after, upto) if room_nids else []
        now = typing.list_typing(txn, changed) if changed else {}
        names = list_user_ids(txn, self._interner, {nid for nids in now.values() for nid in nids})
        for room_nid, user_nids in now.items():
            room_id, servers = servers_of(txn, room_nid)
            users = frozenset(names[nid] for nid in user_nids if self._is_own(names[nid]))
            before = self._typing.pop(room_nid, frozenset())
            if users:
                self._typing[room_nid] = users
            if servers:
                # The same set again: somebody goes on, and would be forgotten.
                for user_id in users ^ before or users:
                    yield servers, Typing(room_id, user_id, user_id in users)

    def _read_receipts(
        self, txn: ReadTxn, after: int, upto: int, servers_of: ServersOfRoom
    ) -> Iterator[tuple[Collection[int], Unit]]:
        stored = receipts.list_receipts_to_send(txn, after, upto, MAX_RECEIPTS)
        names = list_user_ids(txn, self._interner, {one.receipt.user_nid for one in stored})
        for one in stored:
            receipt = one.receipt
            room_id, servers = servers_of(txn, receipt.room_nid)
            if servers:
                yield (
                    servers,
                    Receipt(
                        room_id,
                        names[receipt.user_nid],
                        receipt.event_id,
                        receipt.ts_ms,
                        receipt.thread_id or None,
                    ),
                )

    def _read_presence(self, txn: ReadTxn, after: int, upto: int) -> Iterator[tuple[Collection[int], Unit]]:
        changed = [one for one in presence.list_presence_changes(txn, after, upto) if one.is_local]
        names = list_user_ids(txn, self._interner, {one.user_nid for one in changed})
        own = find_server_nids(txn, self._interner, (self._interner.own_server,)).values()
        now_ms = self._clock.now_ms()
        for one in changed:
            servers = memberships.list_servers_sharing(txn, one.user_nid).difference(own)
            if servers:
                yield (
                    servers,
                    PresenceItem(
                        names[one.user_nid],
                        one.state.value,
                        max(0, now_ms - one.last_active_ms),
                        None if one.status_msg is None else msgspec.json.decode(one.status_msg, type=str),
                        one.currently_active,
                    ),
                )

    def _is_own(self, user_id: UserID) -> bool:
        return server_of(user_id) == self._interner.own_server
