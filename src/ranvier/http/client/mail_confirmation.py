"""The page behind the link in a mail. Opening it proves nothing yet, for mail servers open links, too: the button does.

Spec: client-server API, "Adding Account Administrative Contact Information".
"""

from typing import Final

from ranvier.core.errors import ThreepidAuthFailed
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import MAX_FORM_BYTES, html_page, load_template, parse_form
from ranvier.services.accounts.email_validation import CONFIRM_PATH, Credentials, EmailValidations

_FIELDS: Final = ("sid", "client_secret", "token")


class MailConfirmation:
    """GET and POST of the page."""

    def __init__(self, validations: EmailValidations) -> None:
        self._validations = validations
        self._page = load_template("mail_confirm.html")

    @endpoint("GET", CONFIRM_PATH, operation="showMailConfirmation", auth=Auth.NONE)
    async def show(self, request: Request) -> Response:
        query = request.query()
        fields = {name: query.required(name) for name in _FIELDS}
        return html_page(self._page, is_done=False, error=None, fields=fields)

    @endpoint(
        "POST",
        CONFIRM_PATH,
        operation="confirmMail",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
        max_body_bytes=MAX_FORM_BYTES,
    )
    async def confirm(self, request: Request) -> Response:
        form = parse_form(request.raw_body)
        sid, client_secret, token = (form.get(name, "") for name in _FIELDS)
        try:
            next_link = await self._validations.confirm(Credentials(sid, client_secret), token)
        except ThreepidAuthFailed as refusal:
            return html_page(self._page, status=refusal.status, is_done=False, error=refusal.message)
        # The page leads on, not a redirect: what a form may lead to (`form-action`) counts redirects, too.
        return html_page(self._page, is_done=True, next_link=next_link)
