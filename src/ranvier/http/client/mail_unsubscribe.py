"""The page behind the link that ends mails about unread messages. Opening it ends nothing yet, for mail servers open
links, too; a POST does, that of the page's button or that of a mail program (RFC 8058).
"""

from ranvier.core.errors import Forbidden
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import MAX_FORM_BYTES, html_page, load_template
from ranvier.services.push.unsubscribing import UNSUBSCRIBE_PATH, Unsubscribing


class MailUnsubscribe:
    """GET and POST of the page."""

    def __init__(self, unsubscribing: Unsubscribing) -> None:
        self._unsubscribing = unsubscribing
        self._page = load_template("mail_unsubscribe.html")

    @endpoint("GET", UNSUBSCRIBE_PATH, operation="showMailUnsubscribe", auth=Auth.NONE, rate=Rate.LOGIN)
    async def show(self, request: Request) -> Response:
        query = request.query()
        try:
            self._unsubscribing.check(query.required("pusher"), query.required("token"))
        except Forbidden as refusal:
            return html_page(self._page, status=refusal.status, is_done=False, error=refusal.message)
        return html_page(self._page, is_done=False, error=None)

    @endpoint(
        "POST",
        UNSUBSCRIBE_PATH,
        operation="unsubscribeFromMail",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
        max_body_bytes=MAX_FORM_BYTES,
    )
    async def unsubscribe(self, request: Request) -> Response:
        query = request.query()
        try:
            await self._unsubscribing.unsubscribe(query.required("pusher"), query.required("token"))
        except Forbidden as refusal:
            return html_page(self._page, status=refusal.status, is_done=False, error=refusal.message)
        return html_page(self._page, is_done=True, error=None)
