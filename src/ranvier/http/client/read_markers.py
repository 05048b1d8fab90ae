"""The fully read marker, and receipts set with it. Spec: client-server API, "Fully read markers"."""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import parse_event_id
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.ephemeral.receipts import Marker, Receipts


class ReadMarkerEndpoints:
    """Where a user stands in a room."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    @endpoint(
        "POST",
        "/_matrix/client/v3/rooms/{roomId}/read_markers",
        operation="setReadMarker",
        rate=Rate.WRITE,
    )
    async def set_read_marker(self, request: Request) -> JsonObject:
        body = request.json(empty_is_object=True)
        markers = {
            marker: parse_event_id(body[marker.value])
            for marker in Marker
            # COMPAT: some clients send null for what they do not set.
            if body.get(marker.value) is not None
        }
        await self._receipts.mark(request.requester, request.room_id, markers)
        return {}
