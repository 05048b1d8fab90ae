"""Registering and logging in as an application service.

Spec: application service API, "Server admin style permissions".
"""

from typing import Final

from ranvier.core.errors import MissingToken, UnknownToken
from ranvier.http.request import Request
from ranvier.services.requester import Requester

APPSERVICE_LOGIN: Final = "m.login.application_service"


def demand_appservice(request: Request) -> Requester:
    """The application service that asks, where the endpoint takes requests of anybody.

    Raises: MissingToken, UnknownToken.
    """
    requester = request.requester_or_none
    if requester is not None:
        return requester
    if request.access_token is None:
        raise MissingToken("This needs the token of an application service.")
    raise UnknownToken("This is no token of an application service.", soft_logout=False)
