"""The picture on the account's profile page: shown there, and sent by its form."""

from collections.abc import Mapping
from typing import Final

from msgspec import structs

from ranvier.core.errors import Forbidden, InvalidParam, MediaTooLarge
from ranvier.core.media.form_data import BadFormData, FormField, parse_form_data
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.media.serving import serve
from ranvier.http.oauth.visitor import Pages
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import page_endpoint
from ranvier.services.oauth.addresses import ACCOUNT, AVATAR, Addresses
from ranvier.services.oauth.avatar import OwnAvatar
from ranvier.services.oauth.browsers import Person

MAX_BYTES: Final = 10 * 1_048_576
"""Of the form: it is read into memory, of whoever is signed in."""


class AvatarPage:
    """No page of its own: forms lead back to the profile."""

    def __init__(self, pages: Pages, avatar: OwnAvatar, addresses: Addresses) -> None:
        self._pages = pages
        self._avatar = avatar
        self._profile = addresses.url(ACCOUNT)

    @page_endpoint(AVATAR, operation="showAvatar", rate=Rate.MEDIA)
    async def show(self, request: Request) -> Response:
        visitor = await self._pages.visitor(request)
        picture = serve(request, await self._avatar.open(_signed_in(visitor.person)), is_thumbnail=True)
        return structs.replace(
            picture, headers={**picture.headers, "Cross-Origin-Resource-Policy": "same-origin"}
        )

    @endpoint(
        "POST",
        AVATAR,
        operation="changeAvatar",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
        streams_body=True,
        is_page=True,
    )
    async def change(self, request: Request) -> Response:
        # Who is nobody here sends nothing into memory.
        visitor = await self._pages.visitor(request)
        person = _signed_in(visitor.person)
        form = await _read_form(request)
        self._pages.check_form(visitor, _text(form, "csrf"))
        if _text(form, "remove"):
            await self._avatar.remove(person)
        else:
            await self._avatar.save(person, _file(form))
        return self._pages.lead(self._profile)


def _signed_in(person: Person | None) -> Person:
    if person is None:
        raise Forbidden("You are not signed in any more.")
    return person


async def _read_form(request: Request) -> Mapping[str, FormField]:
    """Raises: MediaTooLarge, InvalidParam."""
    body = bytearray()
    if request.body_stream is not None:
        async for chunk in request.body_stream:
            body += chunk
            if len(body) > MAX_BYTES:
                raise MediaTooLarge(f"A picture may have at most {MAX_BYTES // 1_048_576} MiB.")
    try:
        return parse_form_data(request.headers.get("content-type"), bytes(body))
    except BadFormData as fault:
        raise InvalidParam("The form is malformed.") from fault


def _text(form: Mapping[str, FormField], name: str) -> str:
    return form[name].data.decode("utf-8", "replace") if name in form else ""


def _file(form: Mapping[str, FormField]) -> bytes:
    """Raises: InvalidParam."""
    picture = form.get("picture")
    if picture is None or picture.file_name is None or not picture.data:
        raise InvalidParam("Choose a picture first.")
    return picture.data
