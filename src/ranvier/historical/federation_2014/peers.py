"""Requests to the peers of 2014: plain HTTP to the addresses in the configuration, and to nobody else.

Source: docs/federation-2014.md, "Transport".
"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec

from ranvier.core.canonical_json import JsonObject, parse_json
from ranvier.core.errors import BadJson
from ranvier.core.identifiers import ServerName
from ranvier.historical.federation_2014.pdu import BadPdu, OldPdu, parse_pdu
from ranvier.io.ports import HttpClient, HttpRequest, HttpResponse, Misbehaved, RemoteFault, Unreachable
from ranvier.services.remote.requests import path_of
from ranvier.store.tables.historical_pdus import Name

PREFIX: Final = "/matrix/federation/v1"
TIMEOUT_S: Final = 10.0
SEND_TIMEOUT_S: Final = 60.0
MAX_ANSWER_BYTES: Final = 16 * 1_048_576
MAX_PDUS: Final = 10_000
"""In one answer: a state may be large."""


class Declined(RemoteFault):
    """A peer answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Peers:
    """Who is believed, and where they are."""

    def __init__(self, own_server: ServerName, addresses: Mapping[str, str], http: HttpClient) -> None:
        self.own_server = own_server
        self._addresses: dict[str, str] = {name: url.rstrip("/") for name, url in addresses.items()}
        self._http = http

    @property
    def names(self) -> Sequence[ServerName]:
        return [ServerName(name) for name in self._addresses if name != self.own_server]

    def is_peer(self, server: object) -> bool:
        return server in self._addresses and server != self.own_server

    async def send(self, peer: ServerName, txn_id: str, body: bytes) -> bytes:
        """Push a transaction; the answer. Raises: RemoteFault."""
        response = await self._ask("PUT", peer, path_of(f"{PREFIX}/send", txn_id) + "/", body)
        return response.body

    async def fetch_pdu(self, peer: ServerName, name: Name) -> OldPdu | None:
        """One PDU; None when the peer does not have it. Raises: RemoteFault."""
        try:
            pdus = await self._fetch(peer, path_of(f"{PREFIX}/pdu", *name) + "/")
        except Declined as fault:
            if fault.status == 404:
                return None
            raise
        return next((pdu for pdu in pdus if pdu.name == name), None)

    async def fetch_state(self, peer: ServerName, context: str) -> list[OldPdu]:
        """The state of a context now; empty if the peer does not know it. Raises: RemoteFault."""
        pdus = await self._fetch(peer, path_of(f"{PREFIX}/state", context) + "/")
        return [pdu for pdu in pdus if pdu.context == context and pdu.state_key is not None]

    async def fetch_backfill(
        self, peer: ServerName, context: str, names: Sequence[Name], limit: int
    ) -> list[OldPdu]:
        """PDUs and what came before them. Raises: RemoteFault."""
        query = urlencode([*(("v", f"{pdu_id},{origin}") for origin, pdu_id in names), ("limit", limit)])
        pdus = await self._fetch(peer, f"{path_of(f'{PREFIX}/backfill', context)}/?{query}")
        return [pdu for pdu in pdus if pdu.context == context]

    async def pull(self, peer: ServerName, after: str) -> list[OldPdu]:
        """What the peer sent here after a transaction. Raises: RemoteFault."""
        query = urlencode([("origin", self.own_server), ("v", after)])
        return await self._fetch(peer, f"{PREFIX}/pull/?{query}")

    async def query(self, peer: ServerName, query_type: str, **args: str) -> JsonObject:
        """Raises: RemoteFault."""
        response = await self._ask("GET", peer, f"{path_of(f'{PREFIX}/query', query_type)}?{urlencode(args)}")
        return _object(peer, response.body)

    async def _fetch(self, peer: ServerName, target: str) -> list[OldPdu]:
        """The PDUs of an answer; malformed ones are left out."""
        answer = _object(peer, (await self._ask("GET", peer, target)).body)
        sent = answer.get("pdus")
        if not isinstance(sent, list) or len(sent) > MAX_PDUS:
            raise Misbehaved(f"{peer} did not answer with a list of PDUs")
        pdus: list[OldPdu] = []
        for value in sent:
            try:
                pdu = parse_pdu(value)
            except BadPdu:
                continue
            if self.is_peer(pdu.origin) or pdu.origin == self.own_server:
                pdus.append(pdu)
        return pdus

    async def _ask(
        self, method: str, peer: ServerName, target: str, body: bytes | None = None
    ) -> HttpResponse:
        address = self._addresses.get(peer)
        if address is None:
            raise Unreachable(f"{peer} is no configured peer")
        headers: dict[str, str] = {"Host": peer}
        if body is not None:
            headers["Content-Type"] = "application/json"
        response = await self._http.send(
            HttpRequest(
                method=method,
                url=address + target,
                headers=headers,
                body=body,
                timeout_s=TIMEOUT_S if body is None else SEND_TIMEOUT_S,
                max_response_bytes=MAX_ANSWER_BYTES,
            )
        )
        if not 200 <= response.status < 300:
            raise Declined(response.status, f"{peer} answers {response.status} to {method} {target[:300]}")
        return response


def parse_results(answer: bytes) -> dict[str, str]:
    """Which PDUs of a transaction were refused, and why: label -> error. Whatever else a peer answers says
    nothing: in 2014 it was `null`."""
    try:
        results = msgspec.convert(parse_json(answer), type=dict[str, dict[str, dict[str, object]]])
    except (BadJson, msgspec.ValidationError):
        return {}
    return {
        label: str(result["error"])[:500]
        for label, result in results.get("pdus", {}).items()
        if "error" in result
    }


def _object(peer: ServerName, body: bytes) -> JsonObject:
    try:
        answer = parse_json(body)
    except BadJson as error:
        raise Misbehaved(f"{peer} did not answer with JSON: {error}") from error
    if not isinstance(answer, dict):
        raise Misbehaved(f"{peer} did not answer with an object")
    return answer
