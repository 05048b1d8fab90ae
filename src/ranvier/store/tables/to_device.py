"""Messages to devices, kept in order until the device has acknowledged them.

Tables: to_device_messages, to_device_transactions, to_device_received. Owner: services.devices.
Growth: one row a message and device, until acknowledged; one a request of a client or message of a server,
expiring.
Index -> query: the primary key serves all: read a range of one device, delete a range of one device.

Nearly every content is encrypted for one device, so the content stands in the device's own row: no join,
nothing to count. What is sent at once has one position; a device gets at most one message of it.

Spec: client-server API, "Send-to-Device messaging"; server-server API, m.direct_to_device.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID, UserID
from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class Addressee(msgspec.Struct, frozen=True):
    user_nid: int
    device_nid: int


class AddressedMessage(msgspec.Struct, frozen=True):
    """A message with the device that it is for."""

    message: "ToDeviceMessage"
    user_nid: int
    device_id: DeviceID


class ToDeviceMessage(msgspec.Struct, frozen=True):
    position: int
    sender: UserID
    type: str
    content: bytes  # JSON


_INSERT: Final = """
    INSERT INTO to_device_messages (device_nid, position, sender, type, content)
    SELECT device_nid, :position, :sender, :type, :content FROM devices WHERE device_nid = :device_nid
"""
_LIST: Final = """
    SELECT position, sender, type, content FROM to_device_messages
    WHERE device_nid = :device_nid AND position > :since AND position <= :up_to ORDER BY position LIMIT :limit
"""
_OLDEST: Final = """
    SELECT position FROM to_device_messages
    WHERE device_nid = :device_nid AND position <= :up_to ORDER BY position LIMIT :limit
"""
_DELETE: Final = "DELETE FROM to_device_messages WHERE device_nid = :device_nid AND position <= :up_to"
_OF_USERS: Final = """
    SELECT m.position, m.sender, m.type, m.content, d.user_nid, d.device_id
    FROM devices d JOIN to_device_messages m ON m.device_nid = d.device_nid
    WHERE d.user_nid IN (:user_nids[]) AND m.position > :since AND m.position <= :up_to
    ORDER BY m.position, d.device_nid LIMIT :limit
"""
_USERS: Final = """
    SELECT DISTINCT d.user_nid FROM to_device_messages m JOIN devices d ON d.device_nid = m.device_nid
    WHERE m.position > :since AND m.position <= :up_to
"""
_DELETE_TAKEN: Final = """
    DELETE FROM to_device_messages WHERE position <= :up_to AND device_nid IN (
        SELECT d.device_nid FROM accounts a JOIN devices d ON d.user_nid = a.user_nid
        WHERE a.appservice_id = :appservice_id)
"""
_BEGIN_REQUEST: Final = """
    INSERT INTO to_device_transactions (device_nid, type, txn_id, sent_ms)
    VALUES (:device_nid, :type, :txn_id, :sent_ms) ON CONFLICT (device_nid, type, txn_id) DO NOTHING
"""
_RECEIVE: Final = """
    INSERT INTO to_device_received (sender, message_id, received_ms) VALUES (:sender, :message_id,
        :received_ms)
    ON CONFLICT (sender, message_id) DO NOTHING
"""
_EXPIRE_REQUESTS: Final = "DELETE FROM to_device_transactions WHERE sent_ms < :before_ms"
_EXPIRE_RECEIVED: Final = "DELETE FROM to_device_received WHERE received_ms < :before_ms"


def begin_request(txn: WriteTxn, device_nid: int, type_: str, txn_id: str, now_ms: int) -> bool:
    """Note a client's request in the transaction that carries it out; False: it was carried out before."""
    return txn.execute(_BEGIN_REQUEST, device_nid=device_nid, type=type_, txn_id=txn_id, sent_ms=now_ms) == 1


def begin_received(txn: WriteTxn, sender: UserID, message_id: str, now_ms: int) -> bool:
    """Note another server's message in the transaction that delivers it; False: it was delivered before."""
    return txn.execute(_RECEIVE, sender=sender, message_id=message_id, received_ms=now_ms) == 1


def insert_messages(
    txn: WriteTxn, sender: UserID, type_: str, contents: Mapping[Addressee, bytes]
) -> int | None:
    """Queue contents (JSON) for local devices; the position, or None if there was nothing to queue.

    A device that was deleted meanwhile gets nothing. Wildcards are the caller's to expand.
    """
    if not contents:
        return None
    position = txn.next_position()
    ordered = sorted(contents.items(), key=lambda item: item[0].device_nid)
    txn.execute_many(
        _INSERT,
        [
            {
                "device_nid": to.device_nid,
                "position": position,
                "sender": sender,
                "type": type_,
                "content": content,
            }
            for to, content in ordered
        ],
    )
    for user_nid in sorted({to.user_nid for to in contents}):
        txn.hint(Kind.USER, user_nid)
    return position


def list_messages(txn: ReadTxn, device_nid: int, since: int, up_to: int, limit: int) -> list[ToDeviceMessage]:
    """Messages in (since, up_to], oldest first. Cost: those returned, however many wait."""
    rows = txn.all(_LIST, device_nid=device_nid, since=since, up_to=up_to, limit=limit)
    return [ToDeviceMessage(*row) for row in rows]


def delete_acknowledged(txn: WriteTxn, device_nid: int, up_to: int, limit: int = 1000) -> int:
    """Delete what the device has got, at most `limit`; how many. So one device never holds up the others."""
    got = txn.all(_OLDEST, device_nid=device_nid, up_to=up_to, limit=limit)
    return txn.execute(_DELETE, device_nid=device_nid, up_to=got[-1][0]) if got else 0


def list_messages_of_users(
    txn: ReadTxn, user_nids: Collection[int], since: int, up_to: int, limit: int
) -> list[AddressedMessage]:
    """Messages in (since, up_to] for all devices of these users, oldest first; about `limit` of
    them: those with one position are never parted."""
    found: list[AddressedMessage] = []
    for batch in in_batches(list(user_nids)):
        found += _list_of_users(txn, batch, since, up_to, limit)
    found.sort(key=lambda one: one.message.position)
    return found


def list_users_with_messages(txn: ReadTxn, since: int, up_to: int) -> list[int]:
    """Users for whose devices there are messages in (since, up_to]. Cost: walks all messages; for a start only."""
    return [row[0] for row in txn.all(_USERS, since=since, up_to=up_to)]


def delete_taken(txn: WriteTxn, appservice_id: str, up_to: int) -> None:
    """Delete messages for the devices of users that an application service registered, up to a position."""
    txn.execute(_DELETE_TAKEN, appservice_id=appservice_id, up_to=up_to)


def _list_of_users(
    txn: ReadTxn, user_nids: Sequence[int], since: int, up_to: int, limit: int
) -> list[AddressedMessage]:
    rows = txn.all(_OF_USERS, user_nids=user_nids, since=since, up_to=up_to, limit=limit)
    if len(rows) == limit:
        last = rows[-1][0]
        rows = [row for row in rows if row[0] < last]
        rows += txn.all(_OF_USERS, user_nids=user_nids, since=last - 1, up_to=last, limit=2**31)
    return [AddressedMessage(ToDeviceMessage(*row[:4]), row[4], row[5]) for row in rows]


def delete_expired_requests(txn: WriteTxn, before_ms: int) -> int:
    """Forget the requests and received messages noted before a time; how many."""
    return txn.execute(_EXPIRE_REQUESTS, before_ms=before_ms) + txn.execute(
        _EXPIRE_RECEIVED, before_ms=before_ms
    )
