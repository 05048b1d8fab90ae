"""Where a user's devices want to be told of events.

Spec: client-server API, "Push Notifications", POST /pushers/set.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadJsonValue, InvalidParam, MissingParam, ThreepidNotFound
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.pushers import (
    Pusher,
    PusherKeys,
    delete_pusher,
    list_pushers,
    set_pusher,
)
from ranvier.store.tables.threepids import find_threepid_owner

HTTP: Final = "http"
EMAIL: Final = "email"

GATEWAY_PATH: Final = "/_matrix/push/v1/notify"

MAX_APP_ID_CHARS: Final = 64
MAX_PUSHKEY_BYTES: Final = 512

# Bounds of our own.
MAX_PUSHERS: Final = 100
"""Of one user."""
MAX_TEXT_CHARS: Final = 1_000
MAX_DATA_BYTES: Final = 8_192


class PusherId(msgspec.Struct, frozen=True):
    """What a user's pusher goes by."""

    app_id: str
    pushkey: str


class PusherWish(msgspec.Struct, frozen=True):
    """What POST /pushers/set asks for. `keys` is None: the pusher is to go."""

    pusher_id: PusherId
    keys: PusherKeys | None
    append: bool


def parse_pusher(body: Mapping[str, Any]) -> PusherWish:
    """Raises: MissingParam; BadJsonValue for a wrong type; InvalidParam for what breaks a rule."""
    missing = [name for name in ("kind", "app_id", "pushkey") if name not in body]
    if missing:
        raise MissingParam(f"Missing parameters: {', '.join(missing)}.")
    pusher_id = PusherId(_text(body, "app_id"), _text(body, "pushkey"))
    if not pusher_id.app_id or len(pusher_id.app_id) > MAX_APP_ID_CHARS:
        raise InvalidParam(f"app_id has 1 to {MAX_APP_ID_CHARS} characters.")
    if not pusher_id.pushkey or len(pusher_id.pushkey.encode()) > MAX_PUSHKEY_BYTES:
        raise InvalidParam(f"pushkey has 1 to {MAX_PUSHKEY_BYTES} bytes.")
    append = body.get("append", False)
    if not isinstance(append, bool):
        raise BadJsonValue("append is true or false.")
    return PusherWish(pusher_id, None if body["kind"] is None else _parse_keys(body, pusher_id), append)


def _parse_keys(body: Mapping[str, Any], pusher_id: PusherId) -> PusherKeys:
    required = ("app_display_name", "device_display_name", "lang", "data")
    missing = [name for name in required if body.get(name) is None]
    if missing:
        raise MissingParam(f"Missing parameters: {', '.join(missing)}.")
    kind, data = body["kind"], body["data"]
    if kind not in (HTTP, EMAIL):
        raise InvalidParam("The kind of a pusher is http or email, or null to delete it.")
    if not isinstance(data, dict):
        raise BadJsonValue("data is an object.")
    if kind == HTTP:
        _check_url(data.get("url"))
    encoded = msgspec.json.encode(data)
    if len(encoded) > MAX_DATA_BYTES:
        raise InvalidParam(f"data has at most {MAX_DATA_BYTES} bytes.")
    return PusherKeys(
        kind=kind,
        app_id=pusher_id.app_id,
        pushkey=pusher_id.pushkey,
        app_display_name=_text(body, "app_display_name"),
        device_display_name=_text(body, "device_display_name"),
        profile_tag=_text(body, "profile_tag") if body.get("profile_tag") is not None else "",
        lang=_text(body, "lang"),
        data=encoded,
    )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise BadJsonValue(f"{name} is a string.")
    # NUL and halves of surrogate pairs are JSON strings, but no text to PostgreSQL.
    if len(value) > MAX_TEXT_CHARS or "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidParam(f"{name} is too long or no valid text.")
    return value


def _check_url(url: object) -> None:
    """Spec: "MUST be an HTTPS URL with a path of /_matrix/push/v1/notify"."""
    if url is None:
        raise MissingParam("data.url is missing.")
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidParam("data.url is no URL.")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises for a port that is none
    except ValueError as error:
        raise InvalidParam("data.url is no URL.") from error
    if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.fragment:
        raise InvalidParam("data.url must be an https URL.")
    if parts.path != GATEWAY_PATH:
        raise InvalidParam(f"data.url must have the path {GATEWAY_PATH}.")


class Pushers:
    """The pushers of users."""

    def __init__(self, db: Database, clock: Clock, *, sends_mail: bool = False) -> None:
        self._db = db
        self._clock = clock
        self._sends_mail = sends_mail

    async def list_of(self, requester: Requester) -> list[JsonObject]:
        """The user's pushers as clients see them."""
        return [_shown(pusher) for pusher in await self._db.read(list_pushers, requester.user_nid)]

    async def set(self, requester: Requester, wish: PusherWish) -> None:
        """Add, replace or delete a pusher.

        Raises: InvalidParam when the user has too many, or no mail is sent here; ThreepidNotFound: the pushkey of
        one of kind email is no address of the user.
        """
        if wish.keys is None:
            pusher_id = wish.pusher_id
            await self._db.write(delete_pusher, requester.user_nid, pusher_id.app_id, pusher_id.pushkey)
        elif wish.keys.kind == EMAIL and not self._sends_mail:
            raise InvalidParam("This server sends no mail: there are no pushers of kind email.")
        else:
            await self._db.write(_set, requester, wish.keys, self._clock.now_ms(), append=wish.append)


def _set(txn: WriteTxn, requester: Requester, keys: PusherKeys, now_ms: int, *, append: bool) -> None:
    # Nobody can have mails sent to somebody else.
    if keys.kind == EMAIL and find_threepid_owner(txn, EMAIL, keys.pushkey.casefold()) != requester.user_nid:
        raise ThreepidNotFound("This is no address of yours. Add it to your account first.")
    others: Sequence[Pusher] = list_pushers(txn, requester.user_nid)
    is_new = all((one.keys.app_id, one.keys.pushkey) != (keys.app_id, keys.pushkey) for one in others)
    if is_new and len(others) >= MAX_PUSHERS:
        raise InvalidParam(f"You have {MAX_PUSHERS} pushers already.")
    set_pusher(txn, requester.user_nid, requester.device_nid, keys, now_ms, append=append)


def delete_mail_pushers(txn: WriteTxn, user_nid: int, address: str) -> None:
    """The address is not the user's any more: what is told there ends."""
    for pusher in list_pushers(txn, user_nid):
        keys = pusher.keys
        if keys.kind == EMAIL and keys.pushkey.casefold() == address:
            delete_pusher(txn, user_nid, keys.app_id, keys.pushkey)


def _shown(pusher: Pusher) -> JsonObject:
    keys = pusher.keys
    return {
        "pushkey": keys.pushkey,
        "kind": keys.kind,
        "app_id": keys.app_id,
        "app_display_name": keys.app_display_name,
        "device_display_name": keys.device_display_name,
        "profile_tag": keys.profile_tag,
        "lang": keys.lang,
        "data": msgspec.json.decode(keys.data),
    }
