"""The threads of a room. Spec: client-server API, "Querying threads in a room"."""

from typing import Any, Final

from ranvier.core.tokens import encode_room_token
from ranvier.http.client.room_history import place
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.http.responses import json_array
from ranvier.services.rooms.threads import Threads, ThreadsRequest

DEFAULT_LIMIT: Final = 20


class ThreadsList:
    """Roots of threads."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    @endpoint("GET", "/_matrix/client/v1/rooms/{roomId}/threads", operation="getThreadRoots", guests=True)
    async def get_thread_roots(self, request: Request) -> dict[str, Any]:
        query = request.query()
        asked = ThreadsRequest(
            limit=query.integer("limit", DEFAULT_LIMIT, least=1),
            start=place(query, "from"),
            participated=query.choice("include", ("all", "participated"), "all") == "participated",
        )
        found = await self._threads.list_threads(request.requester, request.room_id, asked)
        answer: dict[str, Any] = {"chunk": json_array(found.roots)}
        if found.end is not None:
            answer["next_batch"] = encode_room_token(found.end)
        return answer
