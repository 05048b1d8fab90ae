"""The answer to `GET /.well-known/matrix/server`: what it says, and how long it holds.

Spec: server-server API, "Resolving server names", step 3; RFC 9111, sections 4.2.1 and 5.2.2; RFC 8615.
"""

import email.utils
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.core.errors import BadIdentifier, BadJson
from ranvier.core.identifiers import ServerName, parse_server_name

PATH: Final = "/.well-known/matrix/server"
MAX_BODY_BYTES: Final = 51_200
MAX_REDIRECTS: Final = 5
"""The HTTP client follows only those from https to https. A loop ends here, too."""

DEFAULT_LIFETIME_MS: Final = 24 * 3_600_000
MAX_LIFETIME_MS: Final = 48 * 3_600_000
MIN_LIFETIME_MS: Final = 5 * 60_000
"""Whatever the headers say: not every message needs a new request."""

FIRST_FAILURE_MS: Final = 60_000
MAX_FAILURE_MS: Final = 3_600_000

_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,12})", re.IGNORECASE)
_NOT_STORED: Final = re.compile(r"(?:^|[,\s])(?:no-store|no-cache)\s*(?:,|$)", re.IGNORECASE)


class Delegation(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a host's well-known file."""

    server: ServerName | None  # None: there is no valid answer, use SRV records
    valid_until_ms: int
    failures: int = 0  # how many requests in a row have failed
    confirmed_ms: int | None = None  # when `server` was last seen


class _Body(msgspec.Struct):
    server: str = msgspec.field(name="m.server")


_BODY: Final = msgspec.json.Decoder(_Body)


def parse_body(body: bytes) -> ServerName:
    """The server that is delegated to. The content type does not matter.

    Raises: BadJson or BadIdentifier.
    """
    if len(body) > MAX_BODY_BYTES:
        raise BadJson(f"a well-known file has at most {MAX_BODY_BYTES} bytes")
    try:
        return parse_server_name(_BODY.decode(body).server)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson("no object with a string m.server") from error


def remember_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, previous: Delegation | None, now_ms: int
) -> Delegation:
    """Take an HTTP answer (after redirects) for what it says. `headers` have names in lower case."""
    if status != 200:
        return _failed(previous, now_ms)
    try:
        server = parse_body(body)
    except (BadJson, BadIdentifier):
        return _failed(previous, now_ms)
    return Delegation(
        server=server, valid_until_ms=now_ms + lifetime_ms(headers, now_ms), confirmed_ms=now_ms
    )


def remember_silence(*, previous: Delegation | None, now_ms: int) -> Delegation:
    """No HTTP answer came. A delegation seen within the longest lifetime holds on until the next attempt: an
    outage of the web server must not send traffic elsewhere.
    """
    failed = _failed(previous, now_ms)
    if previous is None or previous.server is None or previous.confirmed_ms is None:
        return failed
    last_ms = previous.confirmed_ms + MAX_LIFETIME_MS
    if now_ms >= last_ms:
        return failed
    return msgspec.structs.replace(
        failed,
        server=previous.server,
        confirmed_ms=previous.confirmed_ms,
        valid_until_ms=min(failed.valid_until_ms, last_ms),
    )


def lifetime_ms(headers: Mapping[str, str], now_ms: int) -> int:
    """How long a valid answer may be used: by max-age, else by Expires, else 24 hours; within our bounds."""
    cache_control = headers.get("cache-control", "")
    expires = headers.get("expires")
    max_age = _MAX_AGE.search(cache_control)
    if _NOT_STORED.search(cache_control):
        wished_ms = 0
    elif max_age:
        wished_ms = int(max_age[1]) * 1000
    elif expires is not None:
        wished_ms = _parse_date_ms(expires, now_ms) - _parse_date_ms(headers.get("date", ""), now_ms)
    else:
        wished_ms = DEFAULT_LIFETIME_MS
    return max(MIN_LIFETIME_MS, min(wished_ms, MAX_LIFETIME_MS))


def _failed(previous: Delegation | None, now_ms: int) -> Delegation:
    """Each failure in a row doubles the pause before the next attempt, up to an hour."""
    failures = 1 if previous is None else previous.failures + 1
    pause_ms = min(FIRST_FAILURE_MS << min(failures - 1, 10), MAX_FAILURE_MS)
    return Delegation(server=None, valid_until_ms=now_ms + pause_ms, failures=failures)


def _parse_date_ms(value: str, now_ms: int) -> int:
    """An HTTP date; one that is no date (such as `0`) counts as now, which means expired already."""
    try:
        return int(email.utils.parsedate_to_datetime(value).timestamp() * 1000)
    except (ValueError, TypeError, IndexError, OverflowError):
        return now_ms
