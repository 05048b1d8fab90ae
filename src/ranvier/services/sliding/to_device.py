"""The to-device extension. Spec: MSC3885.

It has positions of its own: what a client shows as `since` it has got, and is deleted.
"""

from typing import Final

import orjson

from ranvier.services.sliding.request import Paged
from ranvier.services.sliding.results import ToDevice
from ranvier.store.database import ReadTxn
from ranvier.store.tables.to_device import list_messages

MAX_MESSAGES: Final = 100


def read_to_device(txn: ReadTxn, device_nid: int | None, asked: Paged, now: int) -> ToDevice:
    """The oldest messages after the client's position. Cost: 1 query."""
    since = asked.since or 0
    if device_nid is None or since >= now:
        return ToDevice(since, ())
    messages = list_messages(txn, device_nid, since, now, max(1, min(asked.limit, MAX_MESSAGES)))
    events = [
        b'{"content":%b,"sender":%b,"type":%b}'
        % (message.content, orjson.dumps(message.sender), orjson.dumps(message.type))
        for message in messages
    ]
    return ToDevice(messages[-1].position if messages else since, events)
