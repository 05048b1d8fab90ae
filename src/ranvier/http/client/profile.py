"""What users tell about themselves. Spec: client-server API, "Profiles"."""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import parse_user_id
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.profiles import Profiles

_FIELD = "/_matrix/client/v3/profile/{userId}/{keyName}"
# Clients that found out about custom fields before v1.16 ask here.
_OLD_FIELD = "/_matrix/client/unstable/uk.tcpip.msc4133/profile/{userId}/{keyName}"


class Profile:
    """The endpoints below /profile."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    @endpoint(
        "GET",
        "/_matrix/client/v3/profile/{userId}",
        "/_matrix/client/unstable/uk.tcpip.msc4133/profile/{userId}",
        operation="getUserProfile",
        auth=Auth.NONE,
    )
    async def get_user_profile(self, request: Request) -> JsonObject:
        return await self._profiles.get(parse_user_id(request.path["userId"]))

    @endpoint("GET", _FIELD, _OLD_FIELD, operation="getProfileField", auth=Auth.NONE)
    async def get_profile_field(self, request: Request) -> JsonObject:
        user_id = parse_user_id(request.path["userId"])
        return await self._profiles.get_field(user_id, request.path["keyName"])

    @endpoint("PUT", _FIELD, _OLD_FIELD, operation="setProfileField", rate=Rate.WRITE, guests=True)
    async def set_profile_field(self, request: Request) -> JsonObject:
        user_id = parse_user_id(request.path["userId"])
        await self._profiles.set_field(request.requester, user_id, request.path["keyName"], request.json())
        return {}

    @endpoint("DELETE", _FIELD, _OLD_FIELD, operation="deleteProfileField", rate=Rate.WRITE, guests=True)
    async def delete_profile_field(self, request: Request) -> JsonObject:
        user_id = parse_user_id(request.path["userId"])
        await self._profiles.delete_field(request.requester, user_id, request.path["keyName"])
        return {}
