"""Messages from device to device. Spec: client-server API, "Send-to-Device messaging"."""

from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import parse_user_id
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.devices.to_device import ToDevice

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""Clients send a room's key to hundreds of devices at once, with some 2 KB for each."""


class SendBody(msgspec.Struct, frozen=True):
    messages: dict[str, dict[str, JsonObject]]


class ToDeviceEndpoints:
    """The endpoint at /sendToDevice."""

    def __init__(self, to_device: ToDevice) -> None:
        self._to_device = to_device

    @endpoint(
        "PUT",
        "/_matrix/client/v3/sendToDevice/{eventType}/{txnId}",
        operation="sendToDevice",
        rate=Rate.WRITE,
        guests=True,
        max_body_bytes=MAX_BODY_BYTES,
    )
    async def send_to_device(self, request: Request) -> dict[str, object]:
        body = request.body(SendBody)
        messages = {parse_user_id(user_id): sent for user_id, sent in body.messages.items()}
        await self._to_device.send(
            request.requester, request.path["eventType"], request.path["txnId"], messages
        )
        return {}
