"""Calls. Spec: client-server API, "Voice over IP"."""

from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request


class Voip:
    """GET /voip/turnServer."""

    @endpoint("GET", "/_matrix/client/v3/voip/turnServer", operation="getTurnServer", guests=True)
    async def get_turn_server(self, _request: Request) -> dict[str, object]:
        # Without a TURN server there are no credentials: an empty object, which is what clients take for that.
        return {}
