"""The mail addresses of whoever is signed in: for notifications, and to get in again without the password.

Spec: client-server API, "Adding Account Administrative Contact Information": what clients that came by OAuth cannot do.
"""

from collections.abc import Sequence

from ranvier.core.errors import ThreepidMediumNotSupported
from ranvier.services.accounts.email_validation import EMAIL, Credentials, EmailValidations, Purpose
from ranvier.services.accounts.threepids import Threepids
from ranvier.services.oauth.browsers import Person


class OwnContacts:
    """Lists, proves and forgets them. Whether the person proved lately who they are is the caller's affair."""

    def __init__(self, threepids: Threepids, validations: EmailValidations | None) -> None:
        """`validations`: None where no mail is sent."""
        self._threepids = threepids
        self._validations = validations

    @property
    def can_add(self) -> bool:
        return self._validations is not None

    async def list(self, person: Person) -> Sequence[str]:
        found = await self._threepids.list(person.requester)
        return [one.address for one in found if one.medium == EMAIL]

    async def send_mail(self, address: str) -> Credentials:
        """Raises: InvalidParam, LimitExceeded, ThreepidInUse, Unavailable; ThreepidMediumNotSupported."""
        if self._validations is None:
            raise ThreepidMediumNotSupported("This server sends no mail.")
        return await self._validations.begin_here(address, Purpose.ADD)

    async def add(self, person: Person, credentials: Credentials) -> None:
        """Raises: ThreepidAuthFailed: the link was not opened; ThreepidInUse."""
        await self._threepids.add(person.requester, credentials)

    async def forget(self, person: Person, address: str) -> None:
        await self._threepids.delete(person.requester, EMAIL, address)
