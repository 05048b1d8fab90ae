"""Whether a registration token is good.

Spec: client-server API, "Token-authenticated registration".
"""

from ranvier.core.errors import Forbidden
from ranvier.io.clock import Clock
from ranvier.services.accounts.registration import RegistrationPolicy
from ranvier.store.database import Database
from ranvier.store.tables.registration_tokens import is_registration_token_valid


class RegistrationTokens:
    """Answers those who hold a token."""

    def __init__(self, policy: RegistrationPolicy, db: Database, clock: Clock) -> None:
        self._policy = policy
        self._db = db
        self._clock = clock

    async def is_valid(self, token: str) -> bool:
        """Whether one could register with it now. Raises: Forbidden where registration is closed."""
        if self._policy.mode == "closed":
            raise Forbidden("Registration is closed on this server.")
        return await self._db.read(is_registration_token_valid, token, self._clock.now_ms())
