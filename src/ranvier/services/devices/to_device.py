"""Messages from device to device, for verification and for sharing keys.

To devices of this server they are delivered in the transaction that takes them; for other servers they are put into
the outbox, in the same transaction.

Spec: client-server API, "Send-to-Device messaging"; server-server API, "Send-to-device messaging".
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.encryption_keys import is_name
from ranvier.core.errors import EventTooLarge, InvalidParam
from ranvier.core.identifiers import DeviceID, ServerName, UserID, server_of
from ranvier.core.limits import MAX_EVENT_BYTES, MAX_TO_DEVICE_MESSAGE_ID_CHARS
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.devices import list_devices_of_users
from ranvier.store.tables.interned import Interner, find_user_nids, intern_servers
from ranvier.store.tables.outbox import queue_edu
from ranvier.store.tables.to_device import (
    Addressee,
    ToDeviceMessage,
    begin_received,
    begin_request,
    insert_messages,
    list_messages,
)

EDU_TYPE: Final = "m.direct_to_device"
ALL_DEVICES: Final = "*"
MAX_MESSAGE_BYTES: Final = MAX_EVENT_BYTES
"""Of one content: what fits into an event fits here."""
MAX_EDU_BYTES: Final = 65_536
"""Of the messages in one EDU: more of them become several EDUs."""
SYNC_LIMIT: Final = 100
"""Messages that one response to /sync brings, as the specification recommends."""

Messages = Mapping[UserID, Mapping[str, JsonObject]]
"""user id -> device id, or * for all devices -> content."""

_Encoded = Mapping[UserID, Mapping[str, bytes]]


class _Edu(msgspec.Struct, frozen=True):
    """A message as another server gets it."""

    server: ServerName
    content: bytes


class ToDevice:
    """Sends messages of clients, and delivers those of other servers."""

    def __init__(self, db: Database, interner: Interner, clock: Clock, randomness: Randomness) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._randomness = randomness

    async def send(self, requester: Requester, type_: str, txn_id: str, messages: Messages) -> None:
        """Send a message to each of the devices; once, however often the request is repeated.

        Devices and users that do not exist get nothing, and nobody is told. (The requests of an application
        service that acts without a device cannot be told apart: each is carried out.)
        Raises: InvalidParam, EventTooLarge.
        """
        if not (is_name(type_) and is_name(txn_id)):
            raise InvalidParam("A type and a transaction id have 1 to 255 characters.")
        encoded = _encode(messages)
        own = self._interner.own_server
        local = {user_id: sent for user_id, sent in encoded.items() if server_of(user_id) == own}
        edus = list(self._edus(requester.user_id, type_, encoded))
        await self._db.write(
            _send, self._interner, _Sending(requester, type_, txn_id, local, edus), self._now()
        )

    async def receive(self, sender: UserID, type_: str, message_id: str, messages: Messages) -> None:
        """Deliver a message of another server (which vouches for `sender`), once for each message id.

        Raises: InvalidParam, EventTooLarge.
        """
        if not (is_name(type_) and is_name(message_id)):
            raise InvalidParam("A type and a message id have 1 to 255 characters.")
        received = _Received(sender, type_, message_id, _encode(messages))
        await self._db.write(_receive, self._interner, received, self._now())

    def _now(self) -> int:
        return self._clock.now_ms()

    def _edus(self, sender: UserID, type_: str, encoded: _Encoded) -> Iterator[_Edu]:
        """What goes to other servers, cut to what one EDU should hold."""
        by_server: dict[ServerName, list[tuple[UserID, str, bytes]]] = {}
        for user_id, sent in encoded.items():
            if (server := server_of(user_id)) != self._interner.own_server:
                triples = by_server.setdefault(server, [])
                triples += [(user_id, device_id, content) for device_id, content in sent.items()]
        for server, triples in by_server.items():
            for part in _cut(triples):
                message_id = self._randomness.text(MAX_TO_DEVICE_MESSAGE_ID_CHARS)
                yield _Edu(server, _edu_content(sender, type_, message_id, part))


class _Sending(msgspec.Struct, frozen=True):
    requester: Requester
    type: str
    txn_id: str
    local: _Encoded
    edus: Sequence[_Edu]


class _Received(msgspec.Struct, frozen=True):
    sender: UserID
    type: str
    message_id: str
    messages: _Encoded


def read_messages(txn: ReadTxn, device_nid: int, since: int, up_to: int) -> list[ToDeviceMessage]:
    """What a device gets with one sync response: messages in (since, up_to], at most SYNC_LIMIT. If they are
    that many, more may wait, and the device has got messages up to the position of the last one only.
    """
    return list_messages(txn, device_nid, since, up_to, SYNC_LIMIT)


def encode_message(message: ToDeviceMessage) -> bytes:
    """A message as the device sees it."""
    return b'{"content":%b,"sender":%b,"type":%b}' % (
        message.content,
        orjson.dumps(message.sender),
        orjson.dumps(message.type),
    )


def _send(txn: WriteTxn, interner: Interner, sending: _Sending, now_ms: int) -> None:
    requester = sending.requester
    if requester.device_nid is not None and not begin_request(
        txn, requester.device_nid, sending.type, sending.txn_id, now_ms
    ):
        return
    _deliver(txn, interner, requester.user_id, sending.type, sending.local)
    server_nids = intern_servers(txn, interner, {edu.server for edu in sending.edus})
    for edu in sending.edus:
        queue_edu(txn, [server_nids[edu.server]], EDU_TYPE, edu.content)


def _receive(txn: WriteTxn, interner: Interner, received: _Received, now_ms: int) -> None:
    if begin_received(txn, received.sender, received.message_id, now_ms):
        own = interner.own_server
        local = {user_id: sent for user_id, sent in received.messages.items() if server_of(user_id) == own}
        _deliver(txn, interner, received.sender, received.type, local)


def _deliver(txn: WriteTxn, interner: Interner, sender: UserID, type_: str, messages: _Encoded) -> None:
    """Queue messages for devices of this server. Cost: 2 queries and a statement for each message."""
    nids = find_user_nids(txn, interner, messages)
    devices = list_devices_of_users(txn, nids.values())
    contents: dict[Addressee, bytes] = {}
    for user_id, user_nid in nids.items():
        sent = messages[user_id]
        for device in devices[user_nid]:
            content = sent.get(device.device_id, sent.get(ALL_DEVICES))
            if content is not None:
                contents[Addressee(user_nid, device.device_nid)] = content
    insert_messages(txn, sender, type_, contents)


def _encode(messages: Messages) -> _Encoded:
    """Raises: EventTooLarge."""
    encoded = {
        user_id: {device_id: orjson.dumps(content) for device_id, content in sent.items()}
        for user_id, sent in messages.items()
    }
    if any(len(content) > MAX_MESSAGE_BYTES for sent in encoded.values() for content in sent.values()):
        raise EventTooLarge(f"A message has at most {MAX_MESSAGE_BYTES} bytes.")
    return encoded


def _cut(triples: Sequence[tuple[UserID, str, bytes]]) -> Iterator[list[tuple[UserID, str, bytes]]]:
    part: list[tuple[UserID, str, bytes]] = []
    size = 0
    for triple in triples:
        if part and size + len(triple[2]) > MAX_EDU_BYTES:
            yield part
            part, size = [], 0
        part.append(triple)
        size += len(triple[2])
    if part:
        yield part


def _edu_content(
    sender: UserID, type_: str, message_id: str, part: Sequence[tuple[UserID, str, bytes]]
) -> bytes:
    messages: dict[UserID, dict[DeviceID, orjson.Fragment]] = {}
    for user_id, device_id, content in part:
        messages.setdefault(user_id, {})[DeviceID(device_id)] = orjson.Fragment(content)
    return orjson.dumps({"sender": sender, "type": type_, "message_id": message_id, "messages": messages})
