"""A request as endpoint functions see it: everything in it is checked or is checked when it is asked for."""

from collections.abc import AsyncIterator, Mapping
from typing import Final, Protocol, TypeVar, overload
from urllib.parse import unquote

import msgspec

from ranvier.core.canonical_json import JsonObject, parse_json
from ranvier.core.errors import BadJson, BadJsonValue, InvalidParam, MissingParam, NotJson
from ranvier.core.identifiers import EventID, RoomID, ServerName, parse_event_id, parse_room_id
from ranvier.services.requester import Requester

T = TypeVar("T")

MAX_QUERY_FIELDS: Final = 200


class BodyStream(Protocol):
    """The body, when the endpoint reads it in pieces."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Request:
    """One request. `requester` or `origin` is set when the endpoint's `auth` demands it."""

    __slots__ = (
        *("_query", "_requester", "body_stream", "headers", "ip", "origin", "path", "raw_body", "raw_query"),
    )

    def __init__(
        self, *, path: Mapping[str, str], raw_query: str, headers: Mapping[str, str], ip: str
    ) -> None:
        self.path = path  # path parameters, percent-decoded
        self.raw_query = raw_query
        self.headers = headers  # names in lower case
        self.ip = ip
        self.raw_body = b""
        self.body_stream: BodyStream | None = None
        self.origin: ServerName | None = None
        self._requester: Requester | None = None
        self._query: Query | None = None

    @property
    def requester(self) -> Requester:
        """Who asks. Only where the endpoint demands a token."""
        if self._requester is None:
            raise TypeError("this endpoint does not demand an access token")
        return self._requester

    @property
    def requester_or_none(self) -> Requester | None:
        return self._requester

    def identify(self, requester: Requester) -> None:
        """Set who asks; done by the chain of checks before the endpoint runs."""
        self._requester = requester

    @property
    def access_token(self) -> str | None:
        """The token that came along, whatever it is good for.

        Spec: client-server API, "Using access tokens".
        """
        header = self.headers.get("authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else None
        if "access_token=" in self.raw_query:
            return self.query().text("access_token")
        return None

    @property
    def room_id(self) -> RoomID:
        """`{roomId}` of the path. Raises: BadIdentifier."""
        return parse_room_id(self.path["roomId"])

    @property
    def event_id(self) -> EventID:
        """`{eventId}` of the path. Raises: BadIdentifier."""
        return parse_event_id(self.path["eventId"])

    def query(self) -> "Query":
        """Raises: InvalidParam."""
        if self._query is None:
            self._query = Query(self.raw_query)
        return self._query

    def json(self, *, empty_is_object: bool = False) -> JsonObject:
        """The body as an opaque JSON object.

        Raises: NotJson, BadJsonValue (JSON, but no object).
        """
        if not self.raw_body and empty_is_object:
            return {}
        try:
            value = parse_json(self.raw_body)
        except BadJson as error:
            raise NotJson(f"The body is not JSON: {error}.") from error
        if type(value) is not dict:
            raise BadJsonValue("The body must be a JSON object.")
        return value

    def body(self, shape: type[T], *, empty_is_object: bool = False) -> T:
        """The body decoded into a msgspec type.

        Raises: NotJson; MissingParam when a required field is missing; BadJsonValue, whose sentence names the
        field, for any other value that does not fit.
        """
        value = self.json(empty_is_object=empty_is_object)
        try:
            return msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            raise describe_mismatch(error) from error


def describe_mismatch(error: msgspec.ValidationError) -> BadJsonValue | MissingParam:
    """What a client is told about a value that does not fit its shape."""
    text, _, place = str(error).partition(" - at `$")
    where = place.rstrip("`").lstrip(".")
    sentence = f"{where}: {text}." if where else f"{text}."
    if text.startswith("Object missing required field"):
        return MissingParam(sentence)
    return BadJsonValue(sentence)


class Query:
    """The query string. Each getter raises InvalidParam for a value that does not fit."""

    __slots__ = ("_values",)

    def __init__(self, raw: str) -> None:
        """Raises: InvalidParam: too many parameters, or no UTF-8."""
        self._values: dict[str, list[str]] = {}
        if not raw:
            return
        pairs = raw.split("&")
        if len(pairs) > MAX_QUERY_FIELDS:
            raise InvalidParam(f"The query string has more than {MAX_QUERY_FIELDS} parameters.")
        for pair in pairs:
            name, _, value = pair.partition("=")
            if pair:
                self._values.setdefault(_decode(name), []).append(_decode(value))

    @overload
    def text(self, name: str) -> str | None: ...
    @overload
    def text(self, name: str, default: str) -> str: ...
    def text(self, name: str, default: str | None = None) -> str | None:
        values = self._values.get(name)
        return values[-1] if values else default

    def required(self, name: str) -> str:
        """Raises: MissingParam."""
        value = self.text(name)
        if value is None:
            raise MissingParam(f"The query parameter {name} is missing.")
        return value

    def fields(self) -> dict[str, str]:
        """Every parameter; of a repeated one the last value."""
        return {name: values[-1] for name, values in self._values.items()}

    def all(self, name: str) -> list[str]:
        """Every value of a parameter that may be repeated."""
        return self._values.get(name, [])

    def integer(self, name: str, default: int, *, least: int = 0, most: int = 2**53) -> int:
        """A whole number, cut down to `most`."""
        value = self.text(name)
        if value is None:
            return default
        if not value.isascii() or not value.lstrip("-").isdigit() or len(value) > 20 or int(value) < least:
            raise InvalidParam(f"The query parameter {name} must be a whole number of at least {least}.")
        return min(int(value), most)

    def boolean(self, name: str, default: bool = False) -> bool:
        value = self.text(name)
        if value is None:
            return default
        if value not in ("true", "false"):
            raise InvalidParam(f"The query parameter {name} must be true or false.")
        return value == "true"

    def choice(self, name: str, choices: tuple[str, ...], default: str | None = None) -> str:
        value = self.text(name, default) if default is not None else self.required(name)
        if value not in choices:
            raise InvalidParam(f"The query parameter {name} must be one of: {', '.join(choices)}.")
        return value


def _decode(text: str) -> str:
    """Spec: WHATWG URL, "application/x-www-form-urlencoded parsing". Raises: InvalidParam."""
    if "%" not in text and "+" not in text:
        return text
    try:
        return unquote(text.replace("+", " "), errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidParam("The query string is not valid UTF-8.") from error
