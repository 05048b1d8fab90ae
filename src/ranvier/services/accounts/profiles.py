"""Profiles: what users tell about themselves.

Spec: client-server API, "Profiles".
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.errors import (
    Forbidden,
    InvalidParam,
    MissingParam,
    NotFound,
    ProfileKeyTooLarge,
    ProfileTooLarge,
    UserSuspended,
)
from ranvier.core.identifiers import ServerName, UserID, server_of
from ranvier.io.clock import Clock
from ranvier.services.accounts.creation import SummonUsers
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import profiles
from ranvier.store.tables.accounts import find_account_by_id
from ranvier.store.tables.jobs import enqueue_job

MAX_PROFILE_BYTES: Final = 65_536
MAX_KEY_BYTES: Final = 255
# Not in the specification: these two stand in the member events of every room of the user.
MAX_DISPLAYNAME_CHARS: Final = 256
MAX_AVATAR_URL_CHARS: Final = 1000

DISPLAYNAME: Final = "displayname"
AVATAR_URL: Final = "avatar_url"

# Appendices, "Common Namespaced Identifier Grammar".
_KEY: Final = re.compile(r"[a-z][a-z0-9._-]*")

PROPAGATION: Final = "profile"
"""The kind of job that shows a changed profile in the user's rooms; its key is the user id."""

Fields = Mapping[str, bytes]
"""field -> value, JSON."""

FetchProfile = Callable[[UserID], Awaitable[JsonObject]]
"""Ask a user's own server for the profile. Raises: NotFound, BadGateway."""


class Profiles:
    """Reads and changes profiles."""

    def __init__(
        self,
        server_name: ServerName,
        db: Database,
        clock: Clock,
        fetch: FetchProfile,
        summon: SummonUsers,
    ) -> None:
        self._summon = summon
        self._server_name = server_name
        self._db = db
        self._clock = clock
        self._fetch = fetch

    async def get(self, user_id: UserID) -> JsonObject:
        """The whole profile. Raises: NotFound (no such user); for users of other servers also BadGateway."""
        if server_of(user_id) != self._server_name:
            return await self._fetch(user_id)
        fields = await self._read_own(user_id)
        return {field: orjson.loads(value) for field, value in fields.items()}

    async def get_field(self, user_id: UserID, field: str) -> JsonObject:
        """An object with that field alone. Raises: as `get`; NotFound, too, without such a field."""
        check_field_name(field)
        if server_of(user_id) != self._server_name:
            found = await self._fetch(user_id)
            if field not in found:
                raise NotFound("There is no such field in this profile.")
            return {field: found[field]}
        value = (await self._read_own(user_id)).get(field)
        if value is None:
            raise NotFound("There is no such field in this profile.")
        return {field: orjson.loads(value)}

    async def _read_own(self, user_id: UserID) -> Fields:
        """Raises: NotFound, also when no application service makes the user on being asked."""
        try:
            return await self._db.read(_read, user_id)
        except NotFound:
            await self._summon((user_id,))
        return await self._db.read(_read, user_id)

    async def set_field(self, requester: Requester, user_id: UserID, field: str, body: JsonObject) -> None:
        """Set a field to `body[field]`; an empty name or picture goes away.

        Raises: Forbidden, UserSuspended, MissingParam, InvalidParam, ProfileKeyTooLarge, ProfileTooLarge.
        """
        _check_may_change(requester, user_id)
        check_field_name(field)
        if field not in body:
            raise MissingParam(f"The body has no {field}.")
        value = body[field]
        if value == "" and field in (DISPLAYNAME, AVATAR_URL):
            await self._db.write(_delete, requester, field, self._clock.now_ms())
            return
        _check_value(field, value)
        await self._db.write(_set, requester, field, encode(value), self._clock.now_ms())

    async def delete_field(self, requester: Requester, user_id: UserID, field: str) -> None:
        """Take a field away, if it is there. Raises: Forbidden, UserSuspended, as `check_field_name`."""
        _check_may_change(requester, user_id)
        check_field_name(field)
        await self._db.write(_delete, requester, field, self._clock.now_ms())


def check_field_name(field: str) -> None:
    """Raises: ProfileKeyTooLarge, InvalidParam."""
    if len(field.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise ProfileKeyTooLarge(f"The name of a field has at most {MAX_KEY_BYTES} bytes.")
    if not _KEY.fullmatch(field):
        raise InvalidParam("The name of a field begins with a-z and consists of a-z, 0-9, and . _ -.")


def encoded_size(fields: Fields) -> int:
    """The bytes of a profile as one JSON object."""
    return sum(len(orjson.dumps(name)) + len(value) + 2 for name, value in fields.items()) + 1


def _check_may_change(requester: Requester, user_id: UserID) -> None:
    if requester.user_id != user_id:
        raise Forbidden("This is not your profile.")
    if requester.is_suspended:
        raise UserSuspended("This account is suspended: its profile cannot be changed.")


def _check_value(field: str, value: Any) -> None:
    match field:
        case "displayname":
            if not isinstance(value, str) or len(value) > MAX_DISPLAYNAME_CHARS:
                raise InvalidParam(f"displayname is a string of at most {MAX_DISPLAYNAME_CHARS} characters.")
        case "avatar_url":
            # COMPAT(Complement, TestAvatarUrlUpdate): it should be an mxc:// URI, but every server takes any text.
            if not isinstance(value, str) or len(value) > MAX_AVATAR_URL_CHARS:
                raise InvalidParam(f"avatar_url is a string of at most {MAX_AVATAR_URL_CHARS} characters.")
        case "m.tz":
            if not isinstance(value, str) or not value or len(value) > MAX_KEY_BYTES:
                raise InvalidParam("m.tz is the name of a time zone.")


def _read(txn: ReadTxn, user_id: UserID) -> Fields:
    account = find_account_by_id(txn, user_id)
    if account is None:
        raise NotFound("There is no such user.")
    return profiles.find_profile(txn, account.user_nid)


def _set(txn: WriteTxn, requester: Requester, field: str, value: bytes, now_ms: int) -> None:
    fields = {**profiles.find_profile(txn, requester.user_nid), field: value}
    if encoded_size(fields) > MAX_PROFILE_BYTES:
        raise ProfileTooLarge(f"A profile has at most {MAX_PROFILE_BYTES} bytes.")
    if profiles.set_profile_field(txn, requester.user_nid, field, value):
        _propagate(txn, requester, field, now_ms)


def _delete(txn: WriteTxn, requester: Requester, field: str, now_ms: int) -> None:
    if profiles.delete_profile_field(txn, requester.user_nid, field):
        _propagate(txn, requester, field, now_ms)


def _propagate(txn: WriteTxn, requester: Requester, field: str, now_ms: int) -> None:
    """Member events show name and picture: let `flows.profile_propagation` send new ones."""
    if field in (DISPLAYNAME, AVATAR_URL):
        enqueue_job(txn, PROPAGATION, requester.user_id, b"{}", now_ms)
