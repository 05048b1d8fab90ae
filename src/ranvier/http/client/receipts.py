"""Receipts. Spec: client-server API, "Receipts"."""

from ranvier.core.canonical_json import JsonObject
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.ephemeral.receipts import Receipts, parse_marker, parse_thread_id


class ReceiptEndpoints:
    """What a user has read."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    @endpoint(
        "POST",
        "/_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}",
        operation="postReceipt",
        rate=Rate.WRITE,
    )
    async def post_receipt(self, request: Request) -> JsonObject:
        marker = parse_marker(request.path["receiptType"])
        # COMPAT: clients from before v1.4 send no body.
        body = request.json(empty_is_object=True)
        await self._receipts.mark(
            request.requester,
            request.room_id,
            {marker: request.event_id},
            parse_thread_id(body["thread_id"]) if "thread_id" in body else None,
        )
        return {}
