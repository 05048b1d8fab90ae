"""Homeservers of this program that are peers by the protocol of 2014, and a peer that a test plays by hand."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from ranvier.app.config import Federation2014Config, FederationConfig, HistoricalConfig
from ranvier.http.endpoint import Api
from ranvier.io.ports import HttpRequest, HttpResponse

from ...federation.network import Network
from ...http.homeserver import Homeserver

LISTENER = frozenset({Api.CLIENT, Api.ALWAYS})
"""What the protocol is served on."""

VERSION = "org.ranvier.2014"
OLD = "/matrix/federation/v1"


def historical(*peers: str) -> HistoricalConfig:
    """The configuration that makes `{peer}.test` peers."""
    addresses = {f"{peer}.test": f"http://{peer}.test:8448" for peer in peers}
    return HistoricalConfig(federation_2014=Federation2014Config(enabled=True, peers=addresses))


class Peers(Network):
    """A network of homeservers that speak no protocol of today with each other."""

    async def server(self, name: str, **settings: Any) -> Homeserver:
        if settings:
            settings.setdefault("federation", FederationConfig(enabled=False))
        server = await super().server(name, **settings)
        self._apps[server.server_name] = server.app(LISTENER)
        return server

    async def pair(self, **more: Any) -> tuple[Homeserver, Homeserver]:
        """one.test and two.test, which are peers."""
        one = await self.server("one", historical=historical("two"), **more)
        two = await self.server("two", historical=historical("one"), **more)
        return one, two


class Played:
    """A peer played by a test: it has the PDUs that it is given, and keeps what it is asked and sent."""

    def __init__(self, network: Peers, name: str) -> None:
        self.server_name = f"{name}.test"
        self.pdus: dict[tuple[str, str], dict[str, Any]] = {}
        self.states: dict[str, list[dict[str, Any]]] = {}
        self.pulled: list[dict[str, Any]] = []
        self.queries: dict[str, Any] = {}
        self.asked: list[str] = []  # method and target
        self.received: list[dict[str, Any]] = []  # transactions
        self.answer: HttpResponse | None = None  # to whatever is asked
        network.add(self.server_name, object())
        network.before[self.server_name] = self._respond

    def hold(self, *pdus: dict[str, Any]) -> None:
        for pdu in pdus:
            self.pdus[pdu["origin"], pdu["pdu_id"]] = pdu

    def _respond(self, request: HttpRequest) -> HttpResponse:
        url = urlsplit(request.url)
        self.asked.append(f"{request.method} {url.path}{'?' if url.query else ''}{url.query}")
        if self.answer is not None:
            return self.answer
        assert url.path.startswith(f"{OLD}/")
        query = parse_qs(url.query)
        match [unquote(part) for part in url.path.removeprefix(f"{OLD}/").split("/")]:
            case ["send", _, ""]:
                body = orjson.loads(request.body or b"")
                self.received.append(body)
                return _json({"pdus": {f"{pdu['pdu_id']}@{pdu['origin']}": {} for pdu in body["pdus"]}})
            case ["pdu", origin, pdu_id, ""]:
                pdu = self.pdus.get((origin, pdu_id))
                return HttpResponse(404, {}, b'""') if pdu is None else self._transaction([pdu])
            case ["state", context, ""]:
                return self._transaction(self.states.get(context, []))
            case ["pull", ""]:
                return self._transaction(self.pulled)
            case ["backfill", context, ""]:
                starts = [tuple(value.split(",", 1)[::-1]) for value in query["v"]]
                return self._transaction(self._walk(context, starts, int(query["limit"][0])))
            case ["query", query_type]:
                found = self.queries.get(query_type)
                return HttpResponse(404, {}, b"{}") if found is None else _json(found)
        return HttpResponse(400, {}, b'{"error":"Unrecognized request"}')

    def _walk(self, context: str, starts: list[Any], limit: int) -> list[dict[str, Any]]:
        found: dict[Any, dict[str, Any]] = {}
        while starts and len(found) < limit:
            name = starts.pop(0)
            pdu = self.pdus.get(name)
            if pdu is not None and name not in found and pdu["context"] == context:
                found[name] = pdu
                starts += [tuple(pair) for pair in pdu["prev_pdus"]]
        return list(found.values())

    def _transaction(self, pdus: list[dict[str, Any]]) -> HttpResponse:
        return _json({"origin": self.server_name, "ts": 1, "pdus": pdus})


def _json(value: object) -> HttpResponse:
    headers: Mapping[str, str] = {}
    return HttpResponse(200, headers, orjson.dumps(value))


def pdu(pdu_id: str, *, prev: list[list[str]] | None = None, depth: int = 0, **more: Any) -> dict[str, Any]:
    """A PDU of green.test, in the context of the seed."""
    return {
        "pdu_id": pdu_id,
        "origin": "green.test",
        "context": "#example.green",
        "ts": 1404838188000,
        "pdu_type": "m.text",
        "prev_pdus": prev or [],
        "depth": depth,
        "content": {"body": pdu_id},
        "is_state": False,
    } | more


def state(pdu_id: str, *, state_key: str = "", prev_state: str | None = None, **more: Any) -> dict[str, Any]:
    """A PDU of state: a topic, unless `more` says otherwise."""
    kept = {} if prev_state is None else {"prev_state_id": prev_state, "prev_state_origin": "green.test"}
    return pdu(
        pdu_id,
        **(
            {
                "pdu_type": "m.room.topic",
                "content": {"topic": pdu_id},
                "is_state": True,
                "state_key": state_key,
            }
            | kept
            | more
        ),
    )


def transaction(*pdus: dict[str, Any], origin: str = "green.test", **more: Any) -> dict[str, Any]:
    return {"origin": origin, "ts": 1404835423000, "prev_ids": [], "pdus": list(pdus)} | more
