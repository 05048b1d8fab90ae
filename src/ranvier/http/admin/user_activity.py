"""What users have and do: rooms, devices, pushers, account data."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ranvier.core.identifiers import DeviceID, RoomID
from ranvier.http.admin.declaring import V1, V2, administers, named_user
from ranvier.http.client.admin import LookUp
from ranvier.http.request import Request
from ranvier.services.accounts.whois import WhoIs
from ranvier.services.administration.rate_limits import RatelimitOverride, RateLimits
from ranvier.services.administration.redacting import RedactionResult, RedactionWish, UserRedaction
from ranvier.services.administration.sessions import DeviceInfo, UserSessions
from ranvier.services.administration.tasks import REDACT_USER, Tasks
from ranvier.services.administration.users import Users
from ranvier.services.push.pushers import Pushers


class LoginWish(msgspec.Struct, frozen=True):
    valid_until_ms: int | None = None


class NewDevice(msgspec.Struct, frozen=True):
    device_id: str
    display_name: str | None = None


class DeviceChange(msgspec.Struct, frozen=True):
    display_name: str | None = None


class DoomedDevices(msgspec.Struct, frozen=True):
    devices: Annotated[list[str], Meta(max_length=10_000)]


class OverrideWish(msgspec.Struct, frozen=True):
    messages_per_second: Annotated[float, Meta(ge=0, le=1_000_000)] = 0
    burst_count: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class DeviceEndpoints:
    """Devices and sessions."""

    def __init__(self, sessions: UserSessions, look_up_whois: LookUp) -> None:
        self._sessions = sessions
        self._look_up_whois = look_up_whois

    @administers("GET", f"{V1}/whois/{{userId}}", operation="whois")
    async def whois(self, request: Request) -> WhoIs:
        return await self._look_up_whois(request.requester, named_user(request))

    @administers("POST", f"{V1}/users/{{userId}}/login", operation="loginAsUser")
    async def login_as_user(self, request: Request) -> dict[str, str]:
        body = request.body(LoginWish, empty_is_object=True)
        token = await self._sessions.log_in_as(request.requester, named_user(request), body.valid_until_ms)
        return {"access_token": token}

    @administers("GET", f"{V2}/users/{{userId}}/devices", operation="listDevicesOfUser")
    async def list_devices(self, request: Request) -> dict[str, Any]:
        found = await self._sessions.list_devices(named_user(request))
        return {"devices": [msgspec.to_builtins(one) for one in found], "total": len(found)}

    @administers("POST", f"{V2}/users/{{userId}}/devices", operation="addDeviceToUser")
    async def add_device(self, request: Request) -> dict[str, str]:
        body = request.body(NewDevice)
        await self._sessions.add_device(named_user(request), body.device_id, body.display_name)
        return {}

    @administers("GET", f"{V2}/users/{{userId}}/devices/{{deviceId}}", operation="getDeviceOfUser")
    async def get_device(self, request: Request) -> DeviceInfo:
        return await self._sessions.get_device(named_user(request), _device(request))

    @administers("PUT", f"{V2}/users/{{userId}}/devices/{{deviceId}}", operation="renameDeviceOfUser")
    async def rename_device(self, request: Request) -> dict[str, str]:
        body = request.body(DeviceChange)
        await self._sessions.rename_device(named_user(request), _device(request), body.display_name)
        return {}

    @administers("DELETE", f"{V2}/users/{{userId}}/devices/{{deviceId}}", operation="deleteDeviceOfUser")
    async def delete_device(self, request: Request) -> dict[str, str]:
        await self._sessions.delete_devices(named_user(request), [_device(request)])
        return {}

    @administers("POST", f"{V2}/users/{{userId}}/delete_devices", operation="deleteDevicesOfUser")
    async def delete_devices(self, request: Request) -> dict[str, str]:
        await self._sessions.delete_devices(named_user(request), request.body(DoomedDevices).devices)
        return {}


class UserActivityEndpoints:
    """Rooms, pushers and account data of users; how often they may send."""

    def __init__(self, users: Users, pushers: Pushers, limits: RateLimits) -> None:
        self._users = users
        self._pushers = pushers
        self._limits = limits

    @administers("GET", f"{V1}/users/{{userId}}/joined_rooms", operation="listJoinedRoomsOfUser")
    async def list_joined_rooms(self, request: Request) -> dict[str, Any]:
        rooms = await self._users.list_joined_rooms(named_user(request))
        return {"joined_rooms": rooms, "total": len(rooms)}

    @administers("GET", f"{V1}/users/{{userId}}/memberships", operation="listMembershipsOfUser")
    async def list_memberships(self, request: Request) -> dict[str, dict[RoomID, str]]:
        return {"memberships": await self._users.list_memberships(named_user(request))}

    @administers("GET", f"{V1}/users/{{userId}}/pushers", operation="listPushersOfUser")
    async def list_pushers(self, request: Request) -> dict[str, Any]:
        found = await self._pushers.list_of(await self._users.act_as(named_user(request)))
        return {"pushers": found, "total": len(found)}

    @administers(
        "GET", f"{V1}/users/{{userId}}/accountdata", operation="listAccountDataOfUser", looks_at_content=True
    )
    async def list_account_data(self, request: Request) -> bytes:
        data = await self._users.list_account_data(named_user(request))
        return msgspec.json.encode({"account_data": data})

    @administers("GET", f"{V1}/users/{{userId}}/sent_invite_count", operation="countInvitesOfUser")
    async def count_sent_invites(self, request: Request) -> dict[str, int]:
        return {"invite_count": await self._users.count_sent_invites(named_user(request), _from_ts(request))}

    @administers("GET", f"{V1}/users/{{userId}}/cumulative_joined_room_count", operation="countRoomsOfUser")
    async def count_joined_rooms(self, request: Request) -> dict[str, int]:
        count = await self._users.count_joined_rooms(named_user(request), _from_ts(request))
        return {"cumulative_joined_room_count": count}

    @administers("GET", f"{V1}/users/{{userId}}/override_ratelimit", operation="getRateLimitOfUser")
    async def get_rate_limit(self, request: Request) -> dict[str, Any]:
        return _shown(await self._limits.find(named_user(request)))

    @administers("POST", f"{V1}/users/{{userId}}/override_ratelimit", operation="setRateLimitOfUser")
    async def set_rate_limit(self, request: Request) -> dict[str, Any]:
        body = request.body(OverrideWish, empty_is_object=True)
        override = RatelimitOverride(body.messages_per_second, body.burst_count)
        await self._limits.set(named_user(request), override)
        return _shown(override)

    @administers("DELETE", f"{V1}/users/{{userId}}/override_ratelimit", operation="resetRateLimitOfUser")
    async def reset_rate_limit(self, request: Request) -> dict[str, Any]:
        await self._limits.set(named_user(request), None)
        return {}


class UserRedactionEndpoints:
    """Redacting what a user sent."""

    def __init__(self, redaction: UserRedaction, tasks: Tasks) -> None:
        self._redaction = redaction
        self._tasks = tasks

    @administers("POST", f"{V1}/user/{{userId}}/redact", operation="redactUser")
    async def redact_user(self, request: Request) -> dict[str, str]:
        wish = request.body(RedactionWish)
        return {"redact_id": await self._redaction.start(request.requester, named_user(request), wish)}

    @administers("GET", f"{V1}/user/redact_status/{{redactId}}", operation="getRedactionOfUser")
    async def get_redaction(self, request: Request) -> dict[str, Any]:
        task = await self._tasks.find(request.path["redactId"], REDACT_USER)
        result = msgspec.json.decode(task.result, type=RedactionResult)
        answer: dict[str, Any] = {
            "status": task.status.value,
            "failed_redactions": result.failed_redactions,
            "redacted_count": result.redacted_count,
        }
        return answer if task.error is None else answer | {"error": task.error}


def _shown(override: RatelimitOverride | None) -> dict[str, Any]:
    if override is None:
        return {}
    rate = override.messages_per_second
    return {
        "messages_per_second": int(rate) if rate == int(rate) else rate,
        "burst_count": override.burst_count,
    }


def _from_ts(request: Request) -> int:
    query = request.query()
    query.required("from_ts")
    return query.integer("from_ts", 0)


def _device(request: Request) -> DeviceID:
    return DeviceID(request.path["deviceId"].replace("\0", ""))
