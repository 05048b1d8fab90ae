"""Public keys of devices. Spec: client-server API, "Key management API"."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from ranvier.core.identifiers import DeviceID, parse_user_id
from ranvier.core.tokens import parse_sync_token
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.devices.claims import ClaimAnswer, KeyClaims
from ranvier.services.devices.device_lists import DeviceListChanges, DeviceLists
from ranvier.services.devices.key_upload import KeyUpload, KeyUploads
from ranvier.services.devices.keys import KeyAnswer, Keys
from ranvier.services.devices.remote import DEFAULT_TIMEOUT_MS

Milliseconds = Annotated[int, msgspec.Meta(ge=0)]


class UploadAnswer(msgspec.Struct, frozen=True):
    one_time_key_counts: Mapping[str, int]


class QueryBody(msgspec.Struct, frozen=True):
    device_keys: dict[str, list[DeviceID]]
    timeout: Milliseconds = DEFAULT_TIMEOUT_MS


class ClaimBody(msgspec.Struct, frozen=True):
    one_time_keys: dict[str, dict[DeviceID, str]]
    timeout: Milliseconds = DEFAULT_TIMEOUT_MS


class KeyEndpoints:
    """The endpoints at /keys, but for cross-signing."""

    def __init__(
        self, uploads: KeyUploads, keys: Keys, claims: KeyClaims, changes: DeviceListChanges
    ) -> None:
        self._uploads = uploads
        self._keys = keys
        self._claims = claims
        self._changes = changes

    # COMPAT: old clients put their device id behind it.
    @endpoint(
        "POST",
        "/_matrix/client/v3/keys/upload",
        "/_matrix/client/v3/keys/upload/{deviceId}",
        operation="uploadKeys",
        rate=Rate.WRITE,
        guests=True,
    )
    async def upload_keys(self, request: Request) -> UploadAnswer:
        return UploadAnswer(await self._uploads.upload(request.requester, request.body(KeyUpload)))

    @endpoint("POST", "/_matrix/client/v3/keys/query", operation="queryKeys", guests=True)
    async def query_keys(self, request: Request) -> KeyAnswer:
        body = request.body(QueryBody)
        wanted = {parse_user_id(user_id): devices for user_id, devices in body.device_keys.items()}
        return await self._keys.query(request.requester, wanted, body.timeout)

    @endpoint("POST", "/_matrix/client/v3/keys/claim", operation="claimKeys", rate=Rate.WRITE, guests=True)
    async def claim_keys(self, request: Request) -> ClaimAnswer:
        body = request.body(ClaimBody)
        claims = {parse_user_id(user_id): devices for user_id, devices in body.one_time_keys.items()}
        return await self._claims.claim(claims, body.timeout)

    @endpoint("GET", "/_matrix/client/v3/keys/changes", operation="getKeysChanges")
    async def get_keys_changes(self, request: Request) -> DeviceLists:
        query = request.query()
        since = parse_sync_token(query.required("from"))
        return await self._changes.list(request.requester, since, parse_sync_token(query.required("to")))
