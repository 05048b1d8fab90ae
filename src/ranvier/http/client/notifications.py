"""What notified a user. Spec: client-server API, GET /notifications."""

from ranvier.core.canonical_json import JsonObject
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.services.push.history import DEFAULT_PAGE, MAX_PAGE, NotificationHistory


class NotificationEndpoints:
    """The list of what notified."""

    def __init__(self, history: NotificationHistory) -> None:
        self._history = history

    @endpoint("GET", "/_matrix/client/v3/notifications", operation="getNotifications")
    async def get_notifications(self, request: Request) -> JsonObject:
        query = request.query()
        page = await self._history.page(
            request.requester,
            query.text("from"),
            query.integer("limit", DEFAULT_PAGE, least=1, most=MAX_PAGE),
            only_highlights=query.text("only") == "highlight",
        )
        answer: JsonObject = {"notifications": page.notifications}
        return answer if page.next_token is None else answer | {"next_token": page.next_token}
