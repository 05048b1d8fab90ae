"""The page at /: a person who types the server's address into a browser sees what runs here."""

from ranvier.core.identifiers import ServerName
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import load_template


class Landing:
    """One page, made once."""

    def __init__(
        self, server_name: ServerName, *, registration_is_open: bool, account_url: str | None
    ) -> None:
        """`account_url`: where people look after their accounts, if they can in a browser."""
        page = load_template("landing.html")
        self._page = page.render(
            server_name=server_name, registration_is_open=registration_is_open, account_url=account_url
        ).encode()

    @endpoint("GET", "/", operation="landing", auth=Auth.NONE, api=Api.ALWAYS, rate=Rate.NONE)
    async def landing(self, _request: Request) -> Response:
        return Response(
            content_type="text/html; charset=utf-8",
            headers={
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
                "X-Content-Type-Options": "nosniff",
            },
            body=self._page,
        )
