"""Changing passwords. Spec: client-server API, "Password management"."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.password_change import PasswordChange


class PasswordBody(msgspec.Struct, frozen=True):
    new_password: str
    logout_devices: bool = True
    auth: JsonObject | None = None


class PasswordManagement:
    """POST /account/password."""

    def __init__(self, passwords: PasswordChange) -> None:
        self._passwords = passwords

    @endpoint(
        "POST",
        "/_matrix/client/v3/account/password",
        operation="changePassword",
        auth=Auth.OPTIONAL,
        rate=Rate.LOGIN,
    )
    async def change_password(self, request: Request) -> dict[str, object]:
        body = request.body(PasswordBody)
        await self._passwords.change(
            request.requester_or_none, body.new_password, body.auth, logout_devices=body.logout_devices
        )
        return {}
