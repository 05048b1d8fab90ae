"""New accounts from this server's own page: the same rules and stages as for clients that register.

Spec: client-server API, "User registration" of the OAuth 2.0 API.
"""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, ThreepidDenied, UiaRequired
from ranvier.services.accounts.email_validation import Credentials, EmailValidations, Purpose
from ranvier.services.accounts.registration import Registration, RegistrationPolicy, RegistrationWish
from ranvier.services.accounts.uia import EMAIL_IDENTITY, REGISTRATION_TOKEN
from ranvier.services.oauth.browsers import Browsers


class NewPerson(msgspec.Struct, frozen=True, kw_only=True):
    """What the page collected."""

    username: str
    password: str
    token: str = ""  # that an administrator gave out
    email: Credentials | None = None


class SigningUp:
    """Makes accounts for people, and signs their browsers in."""

    def __init__(
        self,
        policy: RegistrationPolicy,
        registration: Registration,
        validations: EmailValidations | None,
        browsers: Browsers,
    ) -> None:
        self._flow = policy.flows[0]
        self._registration = registration
        self._validations = validations
        self._browsers = browsers
        self.is_open = policy.mode != "closed"
        self.needs_token = REGISTRATION_TOKEN in self._flow
        self.needs_email = EMAIL_IDENTITY in self._flow

    async def send_mail(self, address: str) -> Credentials:
        """The address is proved by opening the link in the mail.

        Raises: InvalidParam, LimitExceeded, ThreepidInUse, Unavailable; ThreepidDenied: nobody needs an address here.
        """
        if self._validations is None or not self.is_open or not self.needs_email:
            raise ThreepidDenied("Nobody needs an address to sign up here.")
        return await self._validations.begin_here(address, Purpose.REGISTER)

    async def check_name(self, username: str) -> None:
        """Raises: UserInUse, InvalidUsername, ExclusiveNamespace; Forbidden where registration is closed."""
        await self._registration.check_available(username)

    async def sign_up(self, person: NewPerson) -> str:
        """Make the account; a new key for the browser.

        Raises: what `Registration.register` raises; Forbidden: token or address does not do.
        """
        session: str | None = None
        for stage in self._flow:
            auth = _credentials(stage, person)
            if session is not None:
                auth["session"] = session
            wish = RegistrationWish(
                username=person.username, password=person.password, inhibit_login=True, auth=auth
            )
            try:
                made = await self._registration.register(wish)
            except UiaRequired as asked:
                if "error" in asked.extra:
                    raise Forbidden(str(asked.extra["error"])) from asked
                session = str(asked.extra["session"])
            else:
                return await self._browsers.admit(made.user_id)
        raise Forbidden("Something is missing.")


def _credentials(stage: str, person: NewPerson) -> JsonObject:
    auth: JsonObject = {"type": stage}
    if stage == REGISTRATION_TOKEN:
        auth["token"] = person.token
    if stage == EMAIL_IDENTITY and person.email is not None:
        auth["threepid_creds"] = msgspec.to_builtins(person.email)
    return auth
