"""A PDU of 2014 as a value: parsed from JSON of a peer, or made of an event of ours.

Rules for this file: no I/O. Source: docs/federation-2014.md, "PDUs".
"""

from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.errors import BadIdentifier, BadJson, ProtocolFault
from ranvier.core.identifiers import ServerName, parse_server_name
from ranvier.core.limits import MAX_EVENT_BYTES, MAX_SAFE_INTEGER
from ranvier.store.tables.historical_pdus import Name

MAX_NAME_BYTES: Final = 255
"""Of an id, a context, a type or a state key."""

MAX_PREV: Final = 50

_INTERNAL: Final = ("destinations", "transaction_id", "outlier")
"""Keys of the bookkeeping of 2014, which were never on the wire."""


class BadPdu(ProtocolFault):
    """A PDU cannot be taken. The text is told to its sender."""


class OldPdu(msgspec.Struct, frozen=True, kw_only=True):
    """One PDU. `json` has all of it, unknown keys included."""

    name: Name  # (origin, pdu_id)
    context: str
    ts: int
    pdu_type: str
    content: JsonObject
    prev: tuple[tuple[str, str], ...] = ()  # the pairs as they were sent, in either order
    depth: int = 0
    state_key: str | None = None  # None: no state
    power_level: int | None = None
    prev_state: Name | None = None  # what held the slot when this was made
    user_id: str | None = None
    json: bytes

    @property
    def origin(self) -> ServerName:
        return ServerName(self.name[0])

    @property
    def label(self) -> str:
        """How results name it."""
        return f"{self.name[1]}@{self.name[0]}"

    def carried(self, key: str) -> object:
        """The value of a key that the protocol only carries along."""
        return parse_object(self.json).get(key)


def parse_pdu(value: object) -> OldPdu:
    """Raises: BadPdu."""
    if not isinstance(value, dict):
        raise BadPdu("a PDU is an object")
    sent: JsonObject = {key: item for key, item in value.items() if key not in _INTERNAL}
    if "ts" not in sent and "origin_server_ts" in sent:
        sent["ts"] = sent.pop("origin_server_ts")
    state_key = None
    if _flag(sent, "is_state"):
        state_key = _text(sent, "state_key", may_be_empty=True)
    return OldPdu(
        name=(_origin(sent), _text(sent, "pdu_id")),
        context=_text(sent, "context"),
        ts=_integer(sent, "ts", -MAX_SAFE_INTEGER),
        pdu_type=_text(sent, "pdu_type"),
        content=_content(sent),
        prev=_prev(sent.get("prev_pdus")),
        depth=_integer(sent, "depth", 0) if sent.get("depth") is not None else 0,
        state_key=state_key,
        power_level=(
            _integer(sent, "power_level", -MAX_SAFE_INTEGER) if sent.get("power_level") is not None else None
        ),
        prev_state=_prev_state(sent),
        user_id=_text(sent, "user_id") if sent.get("user_id") is not None else None,
        json=_encode(sent),
    )


def make_pdu(
    name: Name,
    context: str,
    ts: int,
    pdu_type: str,
    content: JsonObject,
    prev: tuple[Name, ...],
    depth: int,
    more: JsonObject,
) -> OldPdu:
    """A PDU of this server. `more`: the keys of state, `user_id`, and whatever else is to travel.

    Raises: BadPdu when it is too large.
    """
    return parse_pdu(
        {
            "pdu_id": name[1],
            "origin": name[0],
            "context": context,
            "ts": ts,
            "pdu_type": pdu_type,
            "content": content,
            "prev_pdus": [list(pair) for pair in prev],
            "depth": depth,
            "is_state": "state_key" in more,
            **more,
        }
    )


def _origin(sent: JsonObject) -> str:
    try:
        return parse_server_name(_text(sent, "origin"))
    except BadIdentifier as error:
        raise BadPdu(f"origin: {error}") from error


def _text(sent: JsonObject, key: str, *, may_be_empty: bool = False) -> str:
    value = sent.get(key)
    if not isinstance(value, str) or not (value or may_be_empty):
        raise BadPdu(f"{key} is missing or no string")
    return _check_text(value, key)


def _check_text(value: str, key: str) -> str:
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise BadPdu(f"{key} has a lone surrogate") from error
    if size > MAX_NAME_BYTES:
        raise BadPdu(f"{key} has more than {MAX_NAME_BYTES} bytes")
    if "\0" in value:
        raise BadPdu(f"{key} has a NUL character")
    return value


def _integer(sent: JsonObject, key: str, least: int) -> int:
    value = sent.get(key)
    if type(value) is not int or not least <= value <= MAX_SAFE_INTEGER:
        raise BadPdu(f"{key} is missing or no integer from {least} to {MAX_SAFE_INTEGER}")
    return value


def _flag(sent: JsonObject, key: str) -> bool:
    value = sent.get(key, False)
    if type(value) is not bool:
        raise BadPdu(f"{key} is neither true nor false")
    return value


def _content(sent: JsonObject) -> JsonObject:
    content = sent.get("content")
    if not isinstance(content, dict):
        raise BadPdu("content is missing or no object")
    return content


def _prev(value: object) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_PREV:
        raise BadPdu(f"prev_pdus is no list of at most {MAX_PREV} pairs")
    pairs: list[tuple[str, str]] = []
    for pair in value:
        # Since October 2014 a third element held hashes.
        if not isinstance(pair, list) or len(pair) not in (2, 3):
            raise BadPdu("prev_pdus is no list of pairs")
        one, other = pair[:2]
        if not (isinstance(one, str) and isinstance(other, str) and one and other):
            raise BadPdu("prev_pdus has a pair that is not of two strings")
        pairs.append((_check_text(one, "prev_pdus"), _check_text(other, "prev_pdus")))
    return tuple(dict.fromkeys(pairs))


def _prev_state(sent: JsonObject) -> Name | None:
    if sent.get("prev_state_id") is None and sent.get("prev_state_origin") is None:
        return None
    return _text(sent, "prev_state_origin"), _text(sent, "prev_state_id")


def _encode(sent: JsonObject) -> bytes:
    try:
        json = encode(sent)
    except BadJson as error:
        raise BadPdu(str(error)) from error
    if len(json) > MAX_EVENT_BYTES:
        raise BadPdu(f"a PDU has at most {MAX_EVENT_BYTES} bytes")
    return json
