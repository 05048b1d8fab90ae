"""Other networks, as application services know them. Spec: client-server API, "Third-party Networks"."""

from collections.abc import Mapping, Sequence

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import parse_room_alias, parse_user_id
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.services.appservices.third_party import ThirdPartyNetworks

_ROOT = "/_matrix/client/v3/thirdparty"
_OWN = ("access_token", "user_id", "device_id")
"""Parameters that are for this server."""

MAX_FIELDS = 50


class ThirdPartyLookup:
    """The endpoints below /thirdparty."""

    def __init__(self, networks: ThirdPartyNetworks) -> None:
        self._networks = networks

    @endpoint("GET", f"{_ROOT}/protocols", operation="getProtocols")
    async def get_protocols(self, _request: Request) -> Mapping[str, JsonObject]:
        return await self._networks.list_protocols()

    @endpoint("GET", f"{_ROOT}/protocol/{{protocol}}", operation="getProtocolMetadata")
    async def get_protocol_metadata(self, request: Request) -> JsonObject:
        return await self._networks.find_protocol(request.path["protocol"])

    @endpoint("GET", f"{_ROOT}/location/{{protocol}}", operation="queryLocationByProtocol")
    async def query_location_by_protocol(self, request: Request) -> Sequence[JsonObject]:
        return await self._networks.find_locations(request.path["protocol"], _fields(request))

    @endpoint("GET", f"{_ROOT}/user/{{protocol}}", operation="queryUserByProtocol")
    async def query_user_by_protocol(self, request: Request) -> Sequence[JsonObject]:
        return await self._networks.find_users(request.path["protocol"], _fields(request))

    @endpoint("GET", f"{_ROOT}/location", operation="queryLocationByAlias")
    async def query_location_by_alias(self, request: Request) -> Sequence[JsonObject]:
        alias = parse_room_alias(request.query().required("alias"))
        return await self._networks.list_locations_of(alias)

    @endpoint("GET", f"{_ROOT}/user", operation="queryUserByID")
    async def query_user_by_id(self, request: Request) -> Sequence[JsonObject]:
        user_id = parse_user_id(request.query().required("userid"))
        return await self._networks.list_users_of(user_id)


def _fields(request: Request) -> dict[str, str]:
    """What the network's fields are to be."""
    fields = {name: value for name, value in request.query().fields().items() if name not in _OWN}
    if len(fields) > MAX_FIELDS:
        raise InvalidParam(f"There may be at most {MAX_FIELDS} fields.")
    return fields
