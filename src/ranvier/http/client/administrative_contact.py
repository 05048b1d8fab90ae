"""Mail addresses and phone numbers of an account. Addresses are proved where mail is sent; numbers cannot be.

Spec: client-server API, "Adding Account Administrative Contact Information".
"""

from collections.abc import Sequence

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import (
    ServerNotTrusted,
    ThreepidDenied,
    ThreepidMediumNotSupported,
    ThreepidNotFound,
)
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.email_validation import (
    Credentials,
    EmailValidations,
    EmailWish,
    Purpose,
)
from ranvier.services.accounts.threepids import ClientThreepid, Threepids
from ranvier.services.accounts.uia import UserInteractive

_V3 = "/_matrix/client/v3"


class ThreepidsAnswer(msgspec.Struct, frozen=True):
    threepids: Sequence[ClientThreepid]


class AddBody(msgspec.Struct, frozen=True):
    sid: str
    client_secret: str
    auth: JsonObject | None = None


class AddressBody(msgspec.Struct, frozen=True):
    medium: str
    address: str


class AdministrativeContact:
    """The endpoints below /account/3pid, and those that would send a token."""

    def __init__(
        self,
        threepids: Threepids,
        uia: UserInteractive,
        validations: EmailValidations | None,
        *,
        is_registration_open: bool,
    ) -> None:
        """`validations` is None where no mail is sent."""
        self._is_registration_open = is_registration_open
        self._threepids = threepids
        self._uia = uia
        self._validations = validations

    @endpoint("GET", _V3 + "/account/3pid", operation="getAccount3PIDs")
    async def get_account_3pids(self, request: Request) -> ThreepidsAnswer:
        return ThreepidsAnswer(await self._threepids.list(request.requester))

    @endpoint("POST", _V3 + "/account/3pid/add", operation="add3PID", rate=Rate.LOGIN)
    async def add_3pid(self, request: Request) -> JsonObject:
        body = request.body(AddBody)
        await self._uia.authorize_owner(request.requester, "add3PID", body.auth)
        await self._threepids.add(request.requester, Credentials(body.sid, body.client_secret))
        return {}

    @endpoint("POST", _V3 + "/account/3pid", operation="post3PIDs", rate=Rate.LOGIN)
    @endpoint("POST", _V3 + "/account/3pid/bind", operation="bind3PID", rate=Rate.LOGIN)
    async def bind_3pid(self, _request: Request) -> JsonObject:
        raise ServerNotTrusted("This server trusts no identity server.")

    @endpoint("POST", _V3 + "/account/3pid/delete", operation="delete3pidFromAccount", rate=Rate.WRITE)
    async def delete_3pid_from_account(self, request: Request) -> dict[str, str]:
        body = request.body(AddressBody)
        await self._threepids.delete(request.requester, body.medium, body.address)
        return {"id_server_unbind_result": "no-support"}

    @endpoint("POST", _V3 + "/account/3pid/unbind", operation="unbind3pidFromAccount", rate=Rate.WRITE)
    async def unbind_3pid_from_account(self, request: Request) -> dict[str, str]:
        request.body(AddressBody)
        return {"id_server_unbind_result": "no-support"}

    @endpoint(
        "POST",
        _V3 + "/account/3pid/email/requestToken",
        operation="requestTokenTo3PIDEmail",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
    )
    async def request_token_to_3pid_email(self, request: Request) -> JsonObject:
        if self._validations is None:
            raise ThreepidMediumNotSupported("This server sends no mail.")
        return {"sid": await self._validations.begin(request.body(EmailWish), Purpose.ADD)}

    @endpoint(
        "POST",
        _V3 + "/account/3pid/msisdn/requestToken",
        operation="requestTokenTo3PIDMSISDN",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
    )
    async def request_token_to_3pid_msisdn(self, _request: Request) -> JsonObject:
        raise ThreepidMediumNotSupported("This server sends no text messages.")

    @endpoint(
        "POST",
        _V3 + "/register/email/requestToken",
        operation="requestTokenToRegisterEmail",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
    )
    async def request_token_to_register_email(self, request: Request) -> JsonObject:
        if self._validations is None or not self._is_registration_open:
            raise ThreepidDenied("Nobody needs an address to register here.")
        return {"sid": await self._validations.begin(request.body(EmailWish), Purpose.REGISTER)}

    @endpoint(
        "POST",
        _V3 + "/register/msisdn/requestToken",
        operation="requestTokenToRegisterMSISDN",
        auth=Auth.NONE,
        rate=Rate.REGISTRATION,
    )
    async def request_token_to_register_msisdn(self, _request: Request) -> JsonObject:
        raise ThreepidDenied("Nobody needs a number to register here.")

    @endpoint(
        "POST",
        _V3 + "/account/password/email/requestToken",
        operation="requestTokenToResetPasswordEmail",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
    )
    async def request_token_to_reset_password_email(self, request: Request) -> JsonObject:
        if self._validations is None:
            # The same for every address: whose it is, nobody learns.
            raise ThreepidNotFound("Passwords cannot be reset by mail here.")
        return {"sid": await self._validations.begin(request.body(EmailWish), Purpose.RESET)}

    @endpoint(
        "POST",
        _V3 + "/account/password/msisdn/requestToken",
        operation="requestTokenToResetPasswordMSISDN",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
    )
    async def request_token_to_reset_password_msisdn(self, _request: Request) -> JsonObject:
        raise ThreepidNotFound("Passwords cannot be reset by text message here.")
