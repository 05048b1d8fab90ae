"""Signing keys, for whoever verifies what servers signed.

Spec: server-server API, "Retrieving server keys".
"""

from typing import Final

from ranvier.core.federation.notary import MAX_REQUEST_BYTES, KeyQuery, parse_request
from ranvier.core.identifiers import KeyID, parse_key_id, parse_server_name
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.io.clock import Clock
from ranvier.services.federation.own_keys import Notary, OwnKeys

_PREFIX: Final = "/_matrix/key/v2"


class Keys:
    """This server's keys, and those of others as this server saw them."""

    def __init__(self, own_keys: OwnKeys, notary: Notary, clock: Clock) -> None:
        self._own_keys = own_keys
        self._notary = notary
        self._clock = clock

    @endpoint(
        "GET",
        f"{_PREFIX}/server",
        f"{_PREFIX}/server/{{keyId}}",
        operation="getServerKey",
        auth=Auth.NONE,
        api=Api.FEDERATION,
        rate=Rate.FEDERATION,
    )
    async def get_server_key(self, _request: Request) -> bytes:
        return self._own_keys.encoded()

    @endpoint(
        "GET",
        f"{_PREFIX}/query/{{serverName}}",
        f"{_PREFIX}/query/{{serverName}}/{{keyId}}",
        operation="perspectivesKeyQuery",
        auth=Auth.NONE,
        api=Api.FEDERATION,
        rate=Rate.FEDERATION,
    )
    async def perspectives_key_query(self, request: Request) -> bytes:
        server = parse_server_name(request.path["serverName"])
        until_ms = request.query().integer("minimum_valid_until_ts", self._clock.now_ms())
        key_id = request.path.get("keyId")
        if key_id is None:
            query = KeyQuery(server, {})
        else:
            parse_key_id(key_id)
            query = KeyQuery(server, {KeyID(key_id): until_ms})
        return await self._notary.query((query,))

    @endpoint(
        "POST",
        f"{_PREFIX}/query",
        operation="bulkPerspectivesKeyQuery",
        auth=Auth.NONE,
        api=Api.FEDERATION,
        rate=Rate.FEDERATION,
        max_body_bytes=MAX_REQUEST_BYTES,
    )
    async def bulk_perspectives_key_query(self, request: Request) -> bytes:
        request.json()
        return await self._notary.query(parse_request(request.raw_body, self._clock.now_ms()))
