"""What clients have to know of the authorization server. Spec: client-server API, "Server metadata discovery"."""

from typing import Any, Final

from ranvier.core.oauth.client_metadata import GRANT_TYPES
from ranvier.core.oauth.pkce import METHOD
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.services.oauth import addresses as at
from ranvier.services.oauth.addresses import Addresses

ACTIONS: Final = (
    "org.matrix.profile",
    "org.matrix.devices_list",
    "org.matrix.device_view",
    "org.matrix.device_delete",
    "org.matrix.account_deactivate",
    "org.matrix.cross_signing_reset",
)


class AuthMetadata:
    """GET /auth_metadata."""

    def __init__(self, addresses: Addresses, *, can_sign_up: bool) -> None:
        self._document = _document(addresses, can_sign_up=can_sign_up)

    @endpoint(
        "GET",
        "/_matrix/client/v1/auth_metadata",
        # COMPAT: clients from before v1.15.
        "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata",
        operation="getAuthMetadata",
        auth=Auth.NONE,
        rate=Rate.NONE,
    )
    async def get_auth_metadata(self, _request: Request) -> Response:
        return Response(headers={"Cache-Control": "public, max-age=600"}, body=self._document)


def _document(addresses: Addresses, *, can_sign_up: bool) -> dict[str, Any]:
    """Spec: RFC 8414; RFC 9207; MSC4191."""
    document: dict[str, Any] = {
        "issuer": addresses.issuer,
        "authorization_endpoint": addresses.url(at.AUTHORIZE),
        "token_endpoint": addresses.url(at.TOKEN),
        "revocation_endpoint": addresses.url(at.REVOKE),
        "registration_endpoint": addresses.url(at.REGISTER),
        "device_authorization_endpoint": addresses.url(at.DEVICE),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "fragment"],
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": [METHOD],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": True,
        "account_management_uri": addresses.url(at.ACCOUNT),
        "account_management_actions_supported": list(ACTIONS),
    }
    if can_sign_up:
        document["prompt_values_supported"] = ["create"]
    return document
