"""Users: looking them up, making and changing them."""

from typing import Any

import msgspec

from ranvier.core.errors import InvalidParam, MatrixError
from ranvier.http.admin.declaring import V1, V2, V3, administers, flag, is_backwards, named_user, page_of
from ranvier.http.request import Query, Request
from ranvier.http.responses import Response
from ranvier.services.accounts.moderation import Moderation
from ranvier.services.administration.accounts import AccountChanges, AccountWish
from ranvier.services.administration.users import ORDERS, UserFilter, UserInfo, Users

NO_SHADOW_BANS = "Nobody is shadow-banned here: suspend or lock the account, or ban it from the room."


class AdminFlag(msgspec.Struct, frozen=True):
    admin: bool


class SuspendFlag(msgspec.Struct, frozen=True):
    suspend: bool


class Deactivation(msgspec.Struct, frozen=True):
    erase: bool = False


class NewPassword(msgspec.Struct, frozen=True):
    new_password: str
    logout_devices: bool = True


class UserEndpoints:
    """Accounts as such."""

    def __init__(self, users: Users, changes: AccountChanges, moderation: Moderation) -> None:
        self._users = users
        self._changes = changes
        self._moderation = moderation

    @administers("GET", f"{V2}/users", operation="listUsers")
    async def list_users(self, request: Request) -> dict[str, Any]:
        query = request.query()
        # Here the flags say who is shown besides.
        with_deactivated = query.boolean("deactivated", False)
        return await self._list(query, False if not with_deactivated else None)

    @administers("GET", f"{V3}/users", operation="listUsersV3")
    async def list_users_v3(self, request: Request) -> dict[str, Any]:
        query = request.query()
        return await self._list(query, flag(query, "deactivated"))

    @administers("GET", f"{V2}/users/{{userId}}", operation="getUser")
    async def get_user(self, request: Request) -> UserInfo:
        return await self._users.get(named_user(request))

    @administers("PUT", f"{V2}/users/{{userId}}", operation="putUser")
    async def put_user(self, request: Request) -> Response:
        user_id = named_user(request)
        is_new = await self._changes.put(request.requester, user_id, request.body(AccountWish))
        return Response(status=201 if is_new else 200, body=await self._users.get(user_id))

    @administers("POST", f"{V1}/deactivate/{{userId}}", operation="deactivateUser")
    async def deactivate_user(self, request: Request) -> dict[str, str]:
        body = request.body(Deactivation, empty_is_object=True)
        await self._changes.deactivate(request.requester, named_user(request), erase=body.erase)
        return {"id_server_unbind_result": "success"}  # nothing is ever bound

    @administers("POST", f"{V1}/reset_password/{{userId}}", operation="resetPassword")
    async def reset_password(self, request: Request) -> dict[str, str]:
        body = request.body(NewPassword)
        await self._changes.reset_password(
            named_user(request), body.new_password, logout_devices=body.logout_devices
        )
        return {}

    @administers("GET", f"{V1}/users/{{userId}}/admin", operation="isAdmin")
    async def is_admin(self, request: Request) -> AdminFlag:
        return AdminFlag(await self._users.is_admin(named_user(request)))

    @administers("PUT", f"{V1}/users/{{userId}}/admin", operation="setAdmin")
    async def set_admin(self, request: Request) -> dict[str, str]:
        body = request.body(AdminFlag)
        await self._changes.set_admin(request.requester, named_user(request), is_admin=body.admin)
        return {}

    @administers("PUT", f"{V1}/suspend/{{userId}}", operation="suspendUser")
    async def suspend_user(self, request: Request) -> dict[str, bool]:
        body = request.body(SuspendFlag)
        user_id = named_user(request)
        await self._moderation.suspend(request.requester, user_id, is_suspended=body.suspend)
        return {f"user_{user_id}_suspended": body.suspend}

    @administers(
        "POST",
        f"{V1}/users/{{userId}}/_allow_cross_signing_replacement_without_uia",
        operation="allowCrossSigningReset",
    )
    async def allow_cross_signing_reset(self, request: Request) -> dict[str, int]:
        return {"updatable_without_uia_before_ms": await self._changes.allow_key_reset(named_user(request))}

    @administers("GET", f"{V1}/username_available", operation="isUsernameAvailable")
    async def is_username_available(self, request: Request) -> dict[str, bool]:
        await self._changes.check_username(request.query().required("username"))
        return {"available": True}

    @administers("POST", f"{V1}/users/{{userId}}/shadow_ban", operation="shadowBan")
    async def shadow_ban(self, request: Request) -> dict[str, str]:
        await self._users.get(named_user(request))
        raise MatrixError(NO_SHADOW_BANS)

    @administers("DELETE", f"{V1}/users/{{userId}}/shadow_ban", operation="endShadowBan")
    async def end_shadow_ban(self, request: Request) -> dict[str, str]:
        await self._users.get(named_user(request))
        return {}

    @administers("GET", f"{V1}/threepid/{{medium}}/users/{{address}}", operation="findUserByThreepid")
    async def find_user_by_threepid(self, request: Request) -> dict[str, str]:
        path = request.path
        return {"user_id": await self._users.find_by_threepid(path["medium"], path["address"])}

    @administers(
        "GET", f"{V1}/auth_providers/{{provider}}/users/{{externalId}}", operation="findUserByExternalId"
    )
    async def find_user_by_external_id(self, request: Request) -> dict[str, str]:
        path = request.path
        return {"user_id": await self._users.find_by_external_id(path["provider"], path["externalId"])}

    async def _list(self, query: Query, is_deactivated: bool | None) -> dict[str, Any]:
        guests, locked = query.boolean("guests", True), flag(query, "locked")
        wanted = UserFilter(
            name=query.text("name"),
            user_id=query.text("user_id"),
            is_guest=None if guests else False,
            is_admin=flag(query, "admins"),
            is_deactivated=is_deactivated,
            is_locked=None if locked else False,
            is_suspended=flag(query, "suspended"),
            not_user_types=tuple(query.all("not_user_type")),
        )
        order = query.text("order_by", "name")
        if order not in ORDERS:
            raise InvalidParam(f"The query parameter order_by must be one of: {', '.join(ORDERS)}.")
        page = await self._users.list_page(wanted, order, backwards=is_backwards(query), **page_of(query))
        answer: dict[str, Any] = {
            "users": [msgspec.to_builtins(one) for one in page.users],
            "total": page.total,
        }
        if page.next_offset is not None:
            answer["next_token"] = str(page.next_offset)
        return answer
