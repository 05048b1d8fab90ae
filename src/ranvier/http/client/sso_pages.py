"""What a browser sees of a sign-in through another identity provider: each step of it as a response."""

from typing import Final

from ranvier.http.cookies import CookieJar
from ranvier.http.responses import Response
from ranvier.http.web_pages import html_page, load_template
from ranvier.services.sso.signing_in import AskConsent, AskName, AskPlace, Confirmed, GoTo, Step

COOKIE_AGE_S: Final = 3_600
"""As long as the visit takes; what it is good for ends with each step."""

CALLBACK_PATH: Final = "/_ranvier/sso/callback"
NAME_PATH: Final = "/_ranvier/sso/name"
LEAVE_PATH: Final = "/_ranvier/sso/continue"
ALLOW_PATH: Final = "/_ranvier/sso/allow"


class SsoPages:
    """Pages and redirects."""

    def __init__(self, jar: CookieJar) -> None:
        self._jar = jar
        self._name_page = load_template("sso_choose_name.html")
        self._place_page = load_template("sso_confirm_place.html")
        self._consent_page = load_template("sso_confirm_request.html")
        self._done_page = load_template("uia_fallback.html")

    def show(self, step: Step) -> Response:
        """What the browser is to do."""
        match step:
            case GoTo():
                return self._redirect(step)
            case AskName():
                return html_page(
                    self._name_page, status=400 if step.problem else 200, action=NAME_PATH, step=step
                )
            case AskPlace():
                return html_page(self._place_page, leave_path=LEAVE_PATH, step=step)
            case AskConsent():
                return html_page(self._consent_page, action=ALLOW_PATH, step=step)
            case Confirmed():
                return html_page(self._done_page, is_done=True)

    def _redirect(self, step: GoTo) -> Response:
        headers = {"Location": step.url, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        if step.ticket is not None and step.ticket.cookie is not None:
            headers["Set-Cookie"] = self._jar.write(step.ticket.cookie_name, step.ticket.cookie, COOKIE_AGE_S)
        return Response(status=302, headers=headers, content_type="text/html; charset=utf-8")
