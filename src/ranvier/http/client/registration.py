"""Making accounts. Spec: client-server API, "Account registration"."""

from ranvier.http.client.appservice_login import APPSERVICE_LOGIN, demand_appservice
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.registration import Registration as RegistrationService
from ranvier.services.accounts.registration import RegistrationWish
from ranvier.services.accounts.sessions import Session
from ranvier.services.appservices.accounts import AppserviceAccounts


class RegistrationBody(RegistrationWish, frozen=True, kw_only=True):
    type: str | None = None


class Registration:
    """The endpoints below /register."""

    def __init__(self, registration: RegistrationService, appservice_accounts: AppserviceAccounts) -> None:
        self._registration = registration
        self._appservice_accounts = appservice_accounts

    @endpoint(
        "POST",
        "/_matrix/client/v3/register",
        operation="register",
        auth=Auth.ANYBODY,
        rate=Rate.REGISTRATION,
    )
    async def register(self, request: Request) -> Session:
        kind = request.query().choice("kind", ("user", "guest"), "user")
        if kind == "guest":
            name = request.json(empty_is_object=True).get("initial_device_display_name")
            return await self._registration.register_guest(name if isinstance(name, str) else None)
        body = request.body(RegistrationBody)
        if body.type == APPSERVICE_LOGIN:
            return await self._appservice_accounts.register(demand_appservice(request), body)
        return await self._registration.register(body)

    @endpoint(
        "GET",
        "/_matrix/client/v3/register/available",
        operation="checkUsernameAvailability",
        auth=Auth.NONE,
        rate=Rate.WRITE,  # clients ask while the name is typed
    )
    async def check_username_availability(self, request: Request) -> dict[str, bool]:
        await self._registration.check_available(request.query().required("username"))
        return {"available": True}
