"""EDUs of other servers: what their users do for a moment, brought to where our own users see it.

Spec: server-server API, "Typing Notifications", "Presence", "Receipts", "Send-to-device messaging".
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.errors import MatrixError
from ranvier.core.federation.edus import (
    DirectToDevice,
    Presence,
    PresenceItem,
    Receipt,
    Receipts,
    Typing,
)
from ranvier.core.identifiers import RoomID, ServerName, UserID, server_of
from ranvier.io.clock import Clock
from ranvier.services.devices.to_device import Messages, ToDevice
from ranvier.services.ephemeral.typing import Typing as LocalTyping
from ranvier.services.federation.gate import Gate
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import memberships, presence, receipts, typing
from ranvier.store.tables.events import list_known
from ranvier.store.tables.interned import Interner, find_server_nids, find_user_nids, intern_users
from ranvier.store.tables.presence import PresenceState
from ranvier.store.tables.receipts import UNTHREADED, ReceiptType
from ranvier.store.tables.rooms import Room

REMOTE_TYPING_MS: Final = 60_000
"""Whose server does not say again that a user types is taken to have lost it."""

_STATES: Final[Mapping[str, PresenceState]] = {
    "online": PresenceState.ONLINE,
    "unavailable": PresenceState.UNAVAILABLE,
    "offline": PresenceState.OFFLINE,
    # MSC3026: who is busy is there.
    "busy": PresenceState.ONLINE,
    "org.matrix.msc3026.busy": PresenceState.ONLINE,
}


class RoomEdus:
    """Those that are of a room: whoever they name must be joined to it."""

    def __init__(
        self, db: Database, interner: Interner, clock: Clock, gate: Gate, local_typing: LocalTyping
    ) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._gate = gate
        self._local_typing = local_typing

    async def typing(self, origin: ServerName, edu: Typing) -> None:
        """Raises: Forbidden, NotFound (the room is none for this server); StoreFault."""
        until_ms = self._clock.now_ms() + REMOTE_TYPING_MS
        await self._db.write(self._store_typing, origin, edu, until_ms)
        if edu.typing:
            self._local_typing.expect(until_ms)

    async def receipts(self, origin: ServerName, edu: Receipts) -> None:
        """Receipts of rooms in which the server may not take part are left out. Raises: StoreFault."""
        by_room: dict[RoomID, list[Receipt]] = {}
        for receipt in edu.receipts:
            by_room.setdefault(receipt.room_id, []).append(receipt)
        await self._db.write(self._store_receipts, origin, by_room)

    def _store_typing(self, txn: WriteTxn, origin: ServerName, edu: Typing, until_ms: int) -> None:
        room = self._gate.approach(txn, origin, edu.room_id)
        user_nid = self._find_joined(txn, room, edu.user_id)
        if user_nid is None:
            return
        if edu.typing:
            typing.start_typing(txn, room.room_nid, user_nid, until_ms)
        else:
            typing.stop_typing(txn, room.room_nid, user_nid)

    def _store_receipts(
        self, txn: WriteTxn, origin: ServerName, by_room: Mapping[RoomID, Sequence[Receipt]]
    ) -> None:
        for room_id, given in by_room.items():
            try:
                room = self._gate.approach(txn, origin, room_id)
            except MatrixError:
                continue
            known = list_known(txn, {receipt.event_id for receipt in given})
            for receipt in given:
                user_nid = self._find_joined(txn, room, receipt.user_id)
                event = known.get(receipt.event_id)
                if user_nid is None or (event is not None and event.room_nid != room.room_nid):
                    continue
                receipts.set_receipt(
                    txn,
                    receipts.Receipt(
                        room.room_nid,
                        user_nid,
                        ReceiptType.READ,
                        UNTHREADED if receipt.thread_id is None else receipt.thread_id,
                        receipt.event_id,
                        None if event is None else event.room_order,
                        receipt.ts,
                        False,
                    ),
                )

    def _find_joined(self, txn: WriteTxn, room: Room, user_id: UserID) -> int | None:
        """The number of a user who is joined, or may be where not all members are known here."""
        user_nid = find_user_nids(txn, self._interner, (user_id,)).get(user_id)
        now = None if user_nid is None else memberships.find_membership(txn, room.room_nid, user_nid)
        if room.is_partial and now is None and self._is_there(txn, room, server_of(user_id)):
            return intern_users(txn, self._interner, (user_id,))[user_id]
        return user_nid if now is not None and now.membership == memberships.JOIN else None

    def _is_there(self, txn: ReadTxn, room: Room, server: ServerName) -> bool:
        nids = find_server_nids(txn, self._interner, (server,)).values()
        return any(memberships.is_server_in_room(txn, room.room_nid, nid) for nid in nids)


class PresenceEdus:
    """What other servers' users are doing."""

    def __init__(self, db: Database, interner: Interner, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock

    async def presence(self, _origin: ServerName, edu: Presence) -> None:
        """Users of whom nothing is known here are passed over. Raises: StoreFault."""
        await self._db.write(self._store, edu.push, self._clock.now_ms())

    def _store(self, txn: WriteTxn, items: Sequence[PresenceItem], now_ms: int) -> None:
        nids = find_user_nids(txn, self._interner, {item.user_id for item in items})
        stored = presence.list_presence(txn, nids.values())
        for item in items:
            user_nid = nids.get(item.user_id)
            if user_nid is None:
                continue
            status = None if item.status_msg is None else msgspec.json.encode(item.status_msg)
            told = presence.Presence(
                user_nid,
                _STATES[item.presence],
                status,
                item.currently_active,
                max(0, now_ms - (item.last_active_ago or 0)),
                False,
            )
            before = stored.get(user_nid)
            if before is None or _differs(before, told):
                presence.set_presence(txn, told)
            else:
                presence.touch_presence(txn, user_nid, told.last_active_ms)


def _differs(one: presence.Presence, other: presence.Presence) -> bool:
    return (one.state, one.status_msg, one.currently_active) != (
        other.state,
        other.status_msg,
        other.currently_active,
    )


class DeviceEdus:
    """Messages to devices of our users."""

    def __init__(self, to_device: ToDevice) -> None:
        self._to_device = to_device

    async def direct_to_device(self, _origin: ServerName, edu: DirectToDevice) -> None:
        """Raises: InvalidParam, EventTooLarge; StoreFault."""
        messages: Messages = {
            user_id: {str(device_id): content for device_id, content in by_device.items()}
            for user_id, by_device in edu.messages.items()
        }
        await self._to_device.receive(edu.sender, edu.type, edu.message_id, messages)
