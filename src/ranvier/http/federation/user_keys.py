"""Keys of our users. Spec: server-server API, "End-to-End Encryption", "Device Management"."""

import msgspec

from ranvier.core.identifiers import DeviceID, parse_user_id
from ranvier.http.federation.origin import server_endpoint
from ranvier.http.request import Request
from ranvier.services.devices.claims import Claimed
from ranvier.services.devices.for_servers import KeysForServers, UserDevices


class QueryBody(msgspec.Struct, frozen=True):
    device_keys: dict[str, list[DeviceID]]


class QueryAnswer(msgspec.Struct, frozen=True):
    device_keys: dict[str, dict[str, msgspec.Raw]]
    master_keys: dict[str, msgspec.Raw]
    self_signing_keys: dict[str, msgspec.Raw]


class ClaimBody(msgspec.Struct, frozen=True):
    one_time_keys: dict[str, dict[DeviceID, str]]


class ClaimAnswer(msgspec.Struct, frozen=True):
    one_time_keys: Claimed


class UserKeys:
    """The endpoints at /user."""

    def __init__(self, keys: KeysForServers) -> None:
        self._keys = keys

    @server_endpoint("POST", "/_matrix/federation/v1/user/keys/query", operation="queryUserEncryptionKeys")
    async def query_user_encryption_keys(self, request: Request) -> QueryAnswer:
        body = request.body(QueryBody)
        found = await self._keys.query({parse_user_id(user): ids for user, ids in body.device_keys.items()})
        return QueryAnswer(found.device_keys, found.master_keys, found.self_signing_keys)

    @server_endpoint("POST", "/_matrix/federation/v1/user/keys/claim", operation="claimUserEncryptionKeys")
    async def claim_user_encryption_keys(self, request: Request) -> ClaimAnswer:
        body = request.body(ClaimBody)
        claims = {parse_user_id(user): devices for user, devices in body.one_time_keys.items()}
        return ClaimAnswer(await self._keys.claim(claims))

    @server_endpoint("GET", "/_matrix/federation/v1/user/devices/{userId}", operation="getUserDevices")
    async def get_user_devices(self, request: Request) -> UserDevices:
        return await self._keys.list_devices(parse_user_id(request.path["userId"]))
