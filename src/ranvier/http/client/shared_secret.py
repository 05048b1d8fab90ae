"""Registration by a secret of the configuration, on the wire of Synapse. Served only where one is set."""

from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.sessions import Session
from ranvier.services.accounts.shared_secret import SharedSecretRegistration, SharedSecretWish

_PATH = "/_synapse/admin/v1/register"


class SharedSecret:
    """The endpoints at /_synapse/admin/v1/register."""

    def __init__(self, registration: SharedSecretRegistration) -> None:
        self._registration = registration

    @endpoint(
        "GET", _PATH, operation="getRegisterNonce", auth=Auth.NONE, api=Api.ADMIN, rate=Rate.REGISTRATION
    )
    async def get_register_nonce(self, _request: Request) -> dict[str, str]:
        return {"nonce": self._registration.nonces.make()}

    @endpoint(
        "POST",
        _PATH,
        operation="registerBySharedSecret",
        auth=Auth.NONE,
        api=Api.ADMIN,
        rate=Rate.REGISTRATION,
    )
    async def register_by_shared_secret(self, request: Request) -> Session:
        return await self._registration.register(request.body(SharedSecretWish))
