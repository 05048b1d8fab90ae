"""What people do with their account in the browser. One address; what it shows, `action` says.

Spec: client-server API, "Account management" of the OAuth 2.0 API; MSC4191, MSC4312.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from ranvier.core.errors import MatrixError
from ranvier.http.endpoint import Rate
from ranvier.http.oauth.visitor import Pages, Visitor, this_page
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import form_endpoint, load_template, page_endpoint
from ranvier.services.accounts.uia import APPROVAL
from ranvier.services.oauth.account import OwnAccount, OwnDevices, ShownDevice
from ranvier.services.oauth.addresses import ACCOUNT, AVATAR, CONTACTS, SIGN_OUT, Addresses
from ranvier.services.oauth.avatar import OwnAvatar
from ranvier.services.oauth.browsers import Browsers, Person

PROFILE: Final = "org.matrix.profile"
DEVICES: Final = "org.matrix.devices_list"
DEVICE: Final = "org.matrix.device_view"
END_DEVICE: Final = "org.matrix.device_delete"
CLOSE: Final = "org.matrix.account_deactivate"
RESET: Final = "org.matrix.cross_signing_reset"
PASSWORD: Final = "password"  # noqa: S105 - an action of our own

# What clients say that know drafts of MSC4191.
_OLD_NAMES: Final[Mapping[str, str]] = {
    "profile": PROFILE,
    "sessions_list": DEVICES,
    "org.matrix.sessions_list": DEVICES,
    "session_view": DEVICE,
    "org.matrix.session_view": DEVICE,
    "session_end": END_DEVICE,
    "org.matrix.session_end": END_DEVICE,
}
_NEEDS_PROOF: Final = frozenset({END_DEVICE, CLOSE, RESET})


class Looking(msgspec.Struct, frozen=True):
    """Somebody who is signed in, at one of the pages."""

    visitor: Visitor
    person: Person
    action: str
    query: Mapping[str, str]

    @property
    def device_id(self) -> str:
        return self.query.get("device_id", "")

    @property
    def session(self) -> str:
        return self.query.get("session", "")


class AccountPages:
    """The pages and what is done on them."""

    def __init__(
        self,
        pages: Pages,
        browsers: Browsers,
        account: OwnAccount,
        avatar: OwnAvatar,
        devices: OwnDevices,
        addresses: Addresses,
    ) -> None:
        self._pages = pages
        self._browsers = browsers
        self._account = account
        self._avatar = avatar
        self._devices = devices
        self._links = account_links(addresses)
        self._addresses = addresses
        self._templates = {
            name: load_template(f"account_{name}.html")
            for name in ("profile", "devices", "device", "password", "close", "reset", "gone")
        }
        self._shown: Mapping[str, Callable[..., Awaitable[Response]]] = {
            PROFILE: self._show_profile,
            DEVICES: self._show_devices,
            DEVICE: self._show_device,
            END_DEVICE: self._show_device,
            CLOSE: self._show_close,
            RESET: self._show_reset,
            PASSWORD: self._show_password,
        }
        self._done: Mapping[str, Callable[[Looking, Mapping[str, str]], Awaitable[Response]]] = {
            PROFILE: self._save_profile,
            DEVICE: self._rename_device,
            END_DEVICE: self._end_device,
            CLOSE: self._close,
            RESET: self._reset,
            PASSWORD: self._change_password,
        }

    @page_endpoint(ACCOUNT, operation="showAccount")
    async def show(self, request: Request) -> Response:
        looking = await self._look(request, await self._pages.visitor(request))
        if isinstance(looking, Response):
            return looking
        return await self._shown[looking.action](looking)

    @form_endpoint(ACCOUNT, operation="changeAccount", rate=Rate.LOGIN)
    async def change(self, request: Request) -> Response:
        visitor, form = await self._pages.sender(request)
        looking = await self._look(request, visitor)
        if isinstance(looking, Response):
            return looking
        change = self._done.get(looking.action)
        if change is None:
            return await self._shown[looking.action](looking)
        try:
            return await change(looking, form)
        except MatrixError as refusal:
            return await self._shown[looking.action](looking, status=refusal.status, error=refusal.message)

    @page_endpoint(
        *(f"/_matrix/client/v3/auth/{stage}/fallback/web" for (stage,) in APPROVAL),
        operation="approvalFallback",
    )
    async def fall_back(self, request: Request) -> Response:
        """For clients that open the page of any stage that they do not know. Spec: client-server API, "Fallback"."""
        session = request.query().required("session")
        return self._pages.lead(self._addresses.url(ACCOUNT, action=RESET, session=session))

    async def _look(self, request: Request, visitor: Visitor) -> Looking | Response:
        """Who is there, and what for; or the page that has to come first."""
        query = request.query().fields()
        asked = query.get("action", PROFILE)
        action = _OLD_NAMES.get(asked, asked)
        person = visitor.person
        if person is None or (action in _NEEDS_PROOF and not person.is_fresh):
            return self._pages.lead_to_sign_in(
                this_page(ACCOUNT, query), **({} if person is None else {"user": person.user_id})
            )
        if action not in self._shown or (action == PASSWORD and not person.has_password):
            action = PROFILE
        return Looking(visitor, person, action, query)

    async def _show_profile(self, looking: Looking, **more: Any) -> Response:
        name = await self._account.display_name(looking.person)
        avatar_id = await self._avatar.find_id(looking.person)
        return self._page(looking, "profile", display_name=name, avatar_id=avatar_id, **more)

    async def _show_devices(self, looking: Looking, **more: Any) -> Response:
        devices = [self._describe(one) for one in await self._devices.list(looking.person)]
        return self._page(looking, "devices", devices=devices, **more)

    async def _show_device(self, looking: Looking, **more: Any) -> Response:
        try:
            device = await self._devices.get(looking.person, looking.device_id)
        except MatrixError as refusal:
            # Such as from a link in a client that shows an old list.
            return await self._show_devices(looking, status=refusal.status, error=refusal.message)
        is_ending = looking.action == END_DEVICE
        return self._page(looking, "device", device=self._describe(device), is_ending=is_ending, **more)

    async def _show_close(self, looking: Looking, **more: Any) -> Response:
        return self._page(looking, "close", **more)

    async def _show_password(self, looking: Looking, **more: Any) -> Response:
        return self._page(looking, "password", **more)

    async def _show_reset(self, looking: Looking, **more: Any) -> Response:
        return self._page(looking, "reset", session=looking.session, **{"is_done": False, **more})

    async def _save_profile(self, looking: Looking, form: Mapping[str, str]) -> Response:
        if "display_name" not in form:
            raise MatrixError("This page has changed. Reload it.")
        await self._account.set_display_name(looking.person, form["display_name"])
        return await self._show_profile(looking, note="Saved.")

    async def _rename_device(self, looking: Looking, form: Mapping[str, str]) -> Response:
        await self._devices.rename(looking.person, looking.device_id, form.get("name", ""))
        return await self._show_device(looking, note="Saved.")

    async def _end_device(self, looking: Looking, _form: Mapping[str, str]) -> Response:
        await self._devices.delete(looking.person, looking.device_id)
        return await self._show_devices(looking, note="The device is signed out.")

    async def _close(self, looking: Looking, form: Mapping[str, str]) -> Response:
        if form.get("user_id", "").strip() != looking.person.user_id:
            raise MatrixError("That is not your user id.")
        await self._account.close(looking.person, erase=form.get("erase") == "yes")
        return self._gone("Your account is closed", "It leaves its rooms now. You can close this page.")

    async def _reset(self, looking: Looking, _form: Mapping[str, str]) -> Response:
        await self._account.approve_reset(looking.person, looking.session)
        return await self._show_reset(looking, is_done=True)

    async def _change_password(self, looking: Looking, form: Mapping[str, str]) -> Response:
        new = form.get("password", "")
        if new != form.get("again"):
            raise MatrixError("The two new passwords differ.")
        ends = form.get("logout") == "yes"
        await self._account.change_password(looking.person, form.get("current", ""), new, logout_devices=ends)
        # Every browser was signed out; this one goes on.
        key = await self._browsers.admit(looking.person.user_id)
        return self._pages.lead_signed_in(key, ACCOUNT)

    def _page(self, looking: Looking, name: str, *, status: int = 200, **values: Any) -> Response:
        return self._pages.page(
            looking.visitor,
            self._templates[name],
            status=status,
            person=looking.person,
            pages=self._links,
            **{"error": None, "note": None, **values},
        )

    def _gone(self, title: str, text: str) -> Response:
        nobody = Visitor("", False, None)
        return self._pages.page(
            nobody, self._templates["gone"], person=None, error=None, note=None, title=title, text=text
        )

    def _describe(self, device: ShownDevice) -> dict[str, Any]:
        seen = device.last_seen_ms
        return {
            "id": device.device_id,
            "name": device.display_name or device.device_id,
            "display_name": device.display_name or "",
            "made": _date(device.created_ms),
            "seen": "Never used" if seen is None else f"Last used {_date(seen)}",
            "ip": device.last_seen_ip,
            "agent": device.last_seen_agent,
            "url": self._addresses.url(ACCOUNT, action=DEVICE, device_id=device.device_id),
            "end_url": self._addresses.url(ACCOUNT, action=END_DEVICE, device_id=device.device_id),
        }


def account_links(addresses: Addresses) -> Mapping[str, str]:
    """What all pages of an account lead to."""
    return {
        "profile": addresses.url(ACCOUNT, action=PROFILE),
        "avatar": addresses.url(AVATAR),
        "contacts": addresses.url(CONTACTS),
        "devices": addresses.url(ACCOUNT, action=DEVICES),
        "password": addresses.url(ACCOUNT, action=PASSWORD),
        "close": addresses.url(ACCOUNT, action=CLOSE),
        "sign_out": addresses.url(SIGN_OUT),
    }


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%d %B %Y, %H:%M UTC")
