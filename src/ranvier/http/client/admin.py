"""Administering accounts. Spec: client-server API, "Server administration"."""

from collections.abc import Awaitable, Callable

import msgspec

from ranvier.core.identifiers import UserID, parse_user_id
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.moderation import Moderation
from ranvier.services.accounts.whois import WhoIs
from ranvier.services.requester import Requester

LookUp = Callable[[Requester, UserID], Awaitable[WhoIs]]

_LOCK = "/_matrix/client/v1/admin/lock/{userId}"
_SUSPEND = "/_matrix/client/v1/admin/suspend/{userId}"


class Locked(msgspec.Struct, frozen=True):
    locked: bool


class Suspended(msgspec.Struct, frozen=True):
    suspended: bool


class Admin:
    """The endpoints below /admin."""

    def __init__(self, moderation: Moderation, look_up_whois: LookUp) -> None:
        self._moderation = moderation
        self._look_up_whois = look_up_whois

    @endpoint("GET", "/_matrix/client/v3/admin/whois/{userId}", operation="getWhoIs")
    async def get_who_is(self, request: Request) -> WhoIs:
        return await self._look_up_whois(request.requester, parse_user_id(request.path["userId"]))

    @endpoint("GET", _LOCK, operation="getAdminLockUser", auth=Auth.ADMIN)
    async def get_admin_lock_user(self, request: Request) -> Locked:
        user_id = parse_user_id(request.path["userId"])
        return Locked(await self._moderation.is_locked(request.requester, user_id))

    @endpoint("PUT", _LOCK, operation="setAdminLockUser", auth=Auth.ADMIN, rate=Rate.WRITE)
    async def set_admin_lock_user(self, request: Request) -> Locked:
        body = request.body(Locked)
        user_id = parse_user_id(request.path["userId"])
        await self._moderation.lock(request.requester, user_id, is_locked=body.locked)
        return body

    @endpoint("GET", _SUSPEND, operation="getAdminSuspendUser", auth=Auth.ADMIN)
    async def get_admin_suspend_user(self, request: Request) -> Suspended:
        user_id = parse_user_id(request.path["userId"])
        return Suspended(await self._moderation.is_suspended(request.requester, user_id))

    @endpoint("PUT", _SUSPEND, operation="setAdminSuspendUser", auth=Auth.ADMIN, rate=Rate.WRITE)
    async def set_admin_suspend_user(self, request: Request) -> Suspended:
        body = request.body(Suspended)
        user_id = parse_user_id(request.path["userId"])
        await self._moderation.suspend(request.requester, user_id, is_suspended=body.suspended)
        return body
