"""Closing an account. Spec: client-server API, "Account deactivation"."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.flows.deactivation import Deactivation


class DeactivationBody(msgspec.Struct, frozen=True):
    erase: bool = False
    auth: JsonObject | None = None


class AccountDeactivation:
    """POST /account/deactivate."""

    def __init__(self, deactivation: Deactivation) -> None:
        self._deactivation = deactivation

    @endpoint(
        "POST",
        "/_matrix/client/v3/account/deactivate",
        operation="deactivateAccount",
        auth=Auth.OPTIONAL,
        rate=Rate.LOGIN,
    )
    async def deactivate_account(self, request: Request) -> dict[str, str]:
        body = request.body(DeactivationBody, empty_is_object=True)
        await self._deactivation.deactivate(request.requester_or_none, body.auth, erase=body.erase)
        return {"id_server_unbind_result": "success"}  # nothing is ever bound
