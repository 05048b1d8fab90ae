"""What other servers send on their own. Spec: server-server API, "Transactions"."""

from typing import Final

from ranvier.core.errors import InvalidParam
from ranvier.core.federation.transactions import MAX_TRANSACTION_BYTES
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.inbound import Inbound

_PATH: Final = "/_matrix/federation/v1/send/{txnId}"


class Transactions:
    """Takes them."""

    def __init__(self, inbound: Inbound) -> None:
        self._inbound = inbound

    @server_endpoint("PUT", _PATH, operation="sendTransaction", max_body_bytes=MAX_TRANSACTION_BYTES)
    async def send_transaction(self, request: Request) -> bytes:
        txn_id = request.path["txnId"]
        if not txn_id or "\0" in txn_id or len(txn_id.encode()) > MAX_IDENTIFIER_BYTES:
            raise InvalidParam("A transaction id has 1 to 255 bytes.")
        return await self._inbound.receive(origin_of(request), txn_id, request.raw_body)
