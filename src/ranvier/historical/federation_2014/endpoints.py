"""The endpoints, under the prefix of August 2014, and under that of today where no endpoint of today stands.

They are plain HTTP without authentication, on every listener that serves the client API: docs/federation-2014.md,
"Transport", says what follows from that.
"""

from collections.abc import Callable
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam, MissingParam
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.historical.federation_2014.serving import Serving, parse_start
from ranvier.historical.federation_2014.transactions import MAX_BYTES, Transactions
from ranvier.http.endpoint import Api, Auth, Function, Rate, endpoint
from ranvier.http.request import Request

_OLD: Final = "/matrix/federation/v1"
_NEW: Final = "/_matrix/federation/v1"
_NO_LIMIT: Final = "Did not include limit param"


def _endpoint(
    method: str, *paths: str, operation: str, max_body_bytes: int = 0
) -> Callable[[Function], Function]:
    return endpoint(
        method,
        *paths,
        operation=operation,
        auth=Auth.NONE,
        api=Api.CLIENT,
        rate=Rate.FEDERATION,
        max_body_bytes=max_body_bytes,
    )


class Federation2014:
    """All of them."""

    def __init__(self, transactions: Transactions, serving: Serving) -> None:
        self._transactions = transactions
        self._serving = serving

    @_endpoint(
        "PUT",
        f"{_OLD}/send/{{txnId}}",
        f"{_OLD}/send/{{txnId}}/",
        f"{_NEW}/send/{{txnId}}/",
        operation="send2014",
        max_body_bytes=MAX_BYTES,
    )
    async def send(self, request: Request) -> bytes:
        return await self._transactions.receive(_name(request, "txnId"), request.raw_body)

    @_endpoint(
        "GET",
        f"{_OLD}/pdu/{{origin}}/{{pduId}}",
        f"{_OLD}/pdu/{{origin}}/{{pduId}}/",
        f"{_NEW}/pdu/{{origin}}/{{pduId}}",
        f"{_NEW}/pdu/{{origin}}/{{pduId}}/",
        operation="getPdu2014",
    )
    async def get_pdu(self, request: Request) -> bytes:
        return await self._serving.pdu((_name(request, "origin"), _name(request, "pduId")))

    @_endpoint(
        "GET",
        f"{_OLD}/state/{{context}}",
        f"{_OLD}/state/{{context}}/",
        f"{_NEW}/state/{{context}}/",
        operation="getState2014",
    )
    async def get_state(self, request: Request) -> bytes:
        return await self._serving.state(_name(request, "context"))

    @_endpoint(
        "GET",
        f"{_OLD}/context/{{context}}",
        f"{_OLD}/context/{{context}}/",
        f"{_NEW}/context/{{context}}",
        f"{_NEW}/context/{{context}}/",
        operation="getContext2014",
    )
    async def get_context(self, request: Request) -> bytes:
        return await self._serving.context(_name(request, "context"))

    @_endpoint(
        "GET",
        f"{_OLD}/backfill/{{context}}",
        f"{_OLD}/backfill/{{context}}/",
        operation="backfill2014",
    )
    async def backfill(self, request: Request) -> bytes:
        query = request.query()
        starts = [parse_start(value) for value in query.all("v")]
        if not query.text("limit"):
            raise MissingParam(_NO_LIMIT)
        if not starts:
            raise MissingParam("Did not include v param")
        limit = query.integer("limit", 0)
        return await self._serving.backfill(_name(request, "context"), starts, limit)

    @_endpoint(
        "GET",
        f"{_OLD}/pull",
        f"{_OLD}/pull/",
        f"{_NEW}/pull",
        f"{_NEW}/pull/",
        operation="pull2014",
    )
    async def pull(self, request: Request) -> bytes:
        query = request.query()
        return await self._serving.pull(query.required("origin"), query.all("v"))

    @_endpoint(
        "GET",
        f"{_OLD}/query/{{queryType}}",
        f"{_OLD}/query/{{queryType}}/",
        f"{_NEW}/query/{{queryType}}/",
        operation="query2014",
    )
    async def query(self, request: Request) -> JsonObject:
        query = request.query()
        args = {name: values[0] for name in ("user_id", "field", "room_alias") if (values := query.all(name))}
        return await self._serving.query(_name(request, "queryType"), args)


def _name(request: Request, parameter: str) -> str:
    """Raises: InvalidParam for what nothing can be called."""
    value = request.path[parameter]
    if not value or "\0" in value or len(value.encode("utf-8", "surrogatepass")) > MAX_IDENTIFIER_BYTES:
        raise InvalidParam(f"{parameter} has 1 to {MAX_IDENTIFIER_BYTES} bytes.")
    return value
