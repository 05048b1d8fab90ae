"""Transactions: the batches of events (PDUs) and ephemeral units (EDUs) that servers send each other.

Events stay bytes on both ways: received ones are parsed room by room later, ours were encoded when stored.

Spec: server-server API, "Transactions".
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core import canonical_json
from ranvier.core.errors import BadJson
from ranvier.core.identifiers import EventID, ServerName, parse_server_name
from ranvier.core.limits import MAX_EVENT_BYTES, MAX_TRANSACTION_EDUS, MAX_TRANSACTION_PDUS

MAX_TRANSACTION_BYTES: Final = 2 * (MAX_TRANSACTION_PDUS + MAX_TRANSACTION_EDUS) * MAX_EVENT_BYTES
"""Twice the largest canonical form: what is legal to send may be escaped at length or hold `unsigned`."""

_MAX_ERROR_CHARS: Final = 300


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A received transaction, its events and units still as they came.

    COMPAT(Dendrite, Conduit): some peers leave `pdus` out when they have only units to send.
    """

    origin: ServerName
    origin_server_ts: int
    pdus: tuple[msgspec.Raw, ...] = ()
    edus: tuple[msgspec.Raw, ...] = ()


class _PduResult(msgspec.Struct, omit_defaults=True):
    error: str | None = None


class _Results(msgspec.Struct):
    pdus: dict[str, _PduResult] = {}


_TRANSACTION: Final = msgspec.json.Decoder(Transaction)
_RESULTS: Final = msgspec.json.Decoder(_Results)


def parse_transaction(body: bytes) -> Transaction:
    """The body of PUT /send. Whether `origin` is the server that sent it is for the caller to check.

    Raises: BadJson, also for more than 50 PDUs or 100 EDUs; BadIdentifier.
    """
    if len(body) > MAX_TRANSACTION_BYTES:
        raise BadJson(f"a transaction has at most {MAX_TRANSACTION_BYTES} bytes")
    try:
        transaction = _decode(body)
    except (ValueError, RecursionError) as error:
        raise BadJson(f"not a transaction: {error}") from error
    if len(transaction.pdus) > MAX_TRANSACTION_PDUS or len(transaction.edus) > MAX_TRANSACTION_EDUS:
        raise BadJson(
            f"a transaction has at most {MAX_TRANSACTION_PDUS} PDUs and {MAX_TRANSACTION_EDUS} EDUs"
        )
    parse_server_name(transaction.origin)
    return transaction


def _decode(body: bytes) -> Transaction:
    """Raises: ValueError, as all decoders do; RecursionError."""
    try:
        return _TRANSACTION.decode(body)
    except msgspec.DecodeError:
        if b"\\u" not in body:
            raise
    # A lone surrogate is no text, and what holds one is no event; but the others beside it are. The decoder of the
    # standard library lets it pass, and each event is looked at by itself later.
    values = json.loads(body.decode())
    if not isinstance(values, dict):
        raise ValueError("it is no object")
    pdus, edus = (values.pop(name, []) for name in ("pdus", "edus"))
    if not isinstance(pdus, list) or not isinstance(edus, list):
        raise ValueError("pdus or edus are no array")
    return msgspec.structs.replace(
        _TRANSACTION.decode(json.dumps(values)), pdus=_encode_each(pdus), edus=_encode_each(edus)
    )


def _encode_each(values: Iterable[object]) -> tuple[msgspec.Raw, ...]:
    return tuple([msgspec.Raw(json.dumps(value)) for value in values])


def build_transaction(
    origin: ServerName, origin_server_ts: int, pdus: Sequence[bytes], edus: Sequence[bytes]
) -> bytes:
    """The body of PUT /send, in canonical form if every PDU and EDU is: it is signed as it stands.

    Raises: ValueError when there are more than 50 PDUs or 100 EDUs.
    """
    if len(pdus) > MAX_TRANSACTION_PDUS or len(edus) > MAX_TRANSACTION_EDUS:
        raise ValueError("too much for one transaction")
    head = canonical_json.encode({"origin": origin, "origin_server_ts": origin_server_ts})
    units = b'"edus":[' + b",".join(edus) + b"]," if edus else b""
    return b"{" + units + head[1:-1] + b',"pdus":[' + b",".join(pdus) + b"]}"


def build_results(errors_by_id: Mapping[EventID, str | None]) -> bytes:
    """The answer to PUT /send: for each event of the transaction None, or why it was not taken."""
    return msgspec.json.encode(
        _Results({event_id: _PduResult(error) for event_id, error in errors_by_id.items()})
    )


def parse_results(body: bytes) -> dict[str, str]:
    """What a server answers to PUT /send: the events that it did not take, and why in its words (cut short).

    Raises: BadJson.
    """
    try:
        results = _RESULTS.decode(body).pdus
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(f"not the result of a transaction: {error}") from error
    return {
        event_id: result.error[:_MAX_ERROR_CHARS]
        for event_id, result in results.items()
        if result.error is not None
    }
