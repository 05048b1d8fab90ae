"""Who forgot the password proves to own the account by its address. Spec: client-server API, POST /account/password."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, UiaRequired
from ranvier.services.accounts.email_validation import Credentials, EmailValidations, Purpose
from ranvier.services.accounts.password_change import PasswordChange
from ranvier.services.accounts.uia import EMAIL_IDENTITY


class Recovering:
    """Sends the mail, then sets the password."""

    def __init__(self, validations: EmailValidations, passwords: PasswordChange) -> None:
        self._validations = validations
        self._passwords = passwords

    async def send_mail(self, address: str) -> Credentials:
        """The same for addresses that nobody has. Raises: InvalidParam, LimitExceeded, Unavailable."""
        return await self._validations.begin_here(address, Purpose.RESET)

    async def set_password(self, credentials: Credentials, password: str) -> None:
        """Every device and browser is signed out.

        Raises: Forbidden: the link was not opened, or nobody has the address; WeakPassword, InvalidParam.
        """
        auth: JsonObject = {"type": EMAIL_IDENTITY, "threepid_creds": msgspec.to_builtins(credentials)}
        try:
            await self._passwords.change(None, password, auth, logout_devices=True)
        except UiaRequired as asked:
            raise Forbidden(str(asked.extra.get("error", "Something is missing."))) from asked
