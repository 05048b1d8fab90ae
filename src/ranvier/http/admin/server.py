"""The server itself: what it is, what it works on, whom it federates with, who may register, what was reported."""

from typing import Any

import msgspec

import ranvier
from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import parse_server_name
from ranvier.http.admin.declaring import V1, administers, flag, is_backwards, named_user, page_of
from ranvier.http.request import Request
from ranvier.services.administration.federation import ORDERS, DestinationInfo, Destinations
from ranvier.services.administration.notices import Notice, ServerNotices
from ranvier.services.administration.registration_tokens import (
    NewToken,
    TokenAdministration,
    TokenChange,
    TokenInfo,
)
from ranvier.services.administration.tasks import AdminTask, Status, TaskFilter, Tasks
from ranvier.services.administration.users import Users

# What Synapse lets administrators turn on for single users: here it is so for all, or for nobody.
FEATURES = {"msc4222": True, "msc3881": False, "msc3575": False}


class FeatureWish(msgspec.Struct, frozen=True):
    features: dict[str, bool]


class Enabled(msgspec.Struct, frozen=True):
    enabled: bool


class ServerEndpoints:
    """What the server is and does."""

    def __init__(self, tasks: Tasks, users: Users) -> None:
        self._tasks = tasks
        self._users = users

    @administers("GET", f"{V1}/server_version", operation="getServerVersion")
    async def get_server_version(self, request: Request) -> dict[str, str]:
        return {"server_version": f"Ranvier {ranvier.__version__}"}

    @administers("GET", f"{V1}/scheduled_tasks", operation="listScheduledTasks")
    async def list_scheduled_tasks(self, request: Request) -> dict[str, Any]:
        query = request.query()
        status = query.text("status")
        if status is not None and status not in (*(one.value for one in Status), "cancelled"):
            raise InvalidParam("The query parameter status is none of those that a task can have.")
        if status == "cancelled":  # which no task ever is here
            return {"scheduled_tasks": []}
        wanted = TaskFilter(
            action=_storable(query.text("action_name")),
            resource_id=_storable(query.text("resource_id")),
            status=None if status is None else Status(status),
            changed_before_ms=None
            if query.text("max_timestamp") is None
            else query.integer("max_timestamp", 0),
        )
        tasks = [_task(one) for one in await self._tasks.list_all(wanted)]
        return {"scheduled_tasks": tasks + await self._list_jobs(wanted)}

    @administers("GET", f"{V1}/background_updates/status", operation="getBackgroundUpdates")
    async def get_background_updates(self, request: Request) -> dict[str, Any]:
        # The schema is brought up to date at start, before anything is served.
        return {"enabled": True, "current_updates": {}}

    @administers("GET", f"{V1}/background_updates/enabled", operation="areBackgroundUpdatesEnabled")
    async def are_background_updates_enabled(self, request: Request) -> Enabled:
        return Enabled(True)

    @administers("POST", f"{V1}/background_updates/enabled", operation="enableBackgroundUpdates")
    async def enable_background_updates(self, request: Request) -> Enabled:
        if not request.body(Enabled).enabled:
            raise InvalidParam("This server has no background updates that could be paused.")
        return Enabled(True)

    @administers("POST", f"{V1}/background_updates/start_job", operation="startBackgroundUpdate")
    async def start_background_update(self, request: Request) -> dict[str, str]:
        raise InvalidParam("This server has no such job: what lists and searches need is always up to date.")

    @administers("GET", f"{V1}/experimental_features/{{userId}}", operation="listFeaturesOfUser")
    async def list_features(self, request: Request) -> dict[str, dict[str, bool]]:
        await self._users.get(named_user(request))
        return {"features": FEATURES}

    @administers("PUT", f"{V1}/experimental_features/{{userId}}", operation="setFeaturesOfUser")
    async def set_features(self, request: Request) -> dict[str, str]:
        await self._users.get(named_user(request))
        wished = request.body(FeatureWish).features
        unknown = wished.keys() - FEATURES.keys()
        if unknown:
            raise InvalidParam(f"There is no such feature: {', '.join(sorted(unknown))[:200]}.")
        if any(FEATURES[name] != value for name, value in wished.items()):
            raise InvalidParam("Features are the same for all users of this server.")
        return {}

    async def _list_jobs(self, wanted: TaskFilter) -> list[dict[str, Any]]:
        """What waits in the background besides, in the form of tasks."""
        listed = []
        for job in await self._tasks.list_jobs():
            status = Status.ACTIVE if job.is_leased else Status.SCHEDULED
            if (
                wanted.action in (None, job.kind)
                and wanted.resource_id in (None, job.key)
                and wanted.status in (None, status)
                and (wanted.changed_before_ms is None or job.run_ms < wanted.changed_before_ms)
            ):
                listed.append(
                    {
                        "id": f"job-{job.job_nid}",
                        "action": job.kind,
                        "status": status.value,
                        "timestamp_ms": job.run_ms,
                        "resource_id": job.key,
                        "result": None,
                        "error": job.last_error,
                    }
                )
        return listed


class FederationEndpoints:
    """Other servers."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations

    @administers("GET", f"{V1}/federation/destinations", operation="listDestinations")
    async def list_destinations(self, request: Request) -> dict[str, Any]:
        query = request.query()
        part = page_of(query)
        page = await self._destinations.list_page(
            query.text("destination"),
            query.choice("order_by", ORDERS, "destination"),
            backwards=is_backwards(query),
            **part,
        )
        shown = [msgspec.to_builtins(one) for one in page.destinations]
        return _with_next({"destinations": shown, "total": page.total}, part["offset"] + len(shown))

    @administers("GET", f"{V1}/federation/destinations/{{destination}}", operation="getDestination")
    async def get_destination(self, request: Request) -> DestinationInfo:
        return await self._destinations.get(parse_server_name(request.path["destination"]))

    @administers("GET", f"{V1}/federation/destinations/{{destination}}/rooms", operation="listSharedRooms")
    async def list_shared_rooms(self, request: Request) -> dict[str, Any]:
        query = request.query()
        part = page_of(query)
        server = parse_server_name(request.path["destination"])
        page = await self._destinations.list_rooms(server, backwards=is_backwards(query), **part)
        shown = [msgspec.to_builtins(one) for one in page.rooms]
        return _with_next({"rooms": shown, "total": page.total}, part["offset"] + len(shown))

    @administers(
        "POST",
        f"{V1}/federation/destinations/{{destination}}/reset_connection",
        operation="resetDestination",
    )
    async def reset_destination(self, request: Request) -> dict[str, str]:
        await self._destinations.reset(parse_server_name(request.path["destination"]))
        return {}


class RegistrationTokenAdminEndpoints:
    """Registration tokens."""

    def __init__(self, tokens: TokenAdministration) -> None:
        self._tokens = tokens

    @administers("GET", f"{V1}/registration_tokens", operation="listRegistrationTokens")
    async def list_tokens(self, request: Request) -> dict[str, Any]:
        found = await self._tokens.list_tokens(is_valid=flag(request.query(), "valid"))
        return {"registration_tokens": [msgspec.to_builtins(one) for one in found]}

    @administers("POST", f"{V1}/registration_tokens/new", operation="makeRegistrationToken")
    async def make_token(self, request: Request) -> TokenInfo:
        return await self._tokens.make(request.body(NewToken, empty_is_object=True))

    @administers("GET", f"{V1}/registration_tokens/{{token}}", operation="getRegistrationToken")
    async def get_token(self, request: Request) -> TokenInfo:
        return await self._tokens.get(request.path["token"])

    @administers("PUT", f"{V1}/registration_tokens/{{token}}", operation="changeRegistrationToken")
    async def change_token(self, request: Request) -> TokenInfo:
        return await self._tokens.change(request.path["token"], request.body(TokenChange))

    @administers("DELETE", f"{V1}/registration_tokens/{{token}}", operation="deleteRegistrationToken")
    async def delete_token(self, request: Request) -> dict[str, str]:
        await self._tokens.delete(request.path["token"])
        return {}


class ServerNoticeEndpoints:
    """Telling users something."""

    def __init__(self, notices: ServerNotices) -> None:
        self._notices = notices

    @administers("POST", f"{V1}/send_server_notice", operation="sendServerNotice")
    async def send_notice(self, request: Request) -> dict[str, str]:
        return {"event_id": await self._notices.send(request.requester, request.body(Notice), None)}

    @administers("PUT", f"{V1}/send_server_notice/{{txnId}}", operation="sendServerNoticeOnce")
    async def send_notice_once(self, request: Request) -> dict[str, str]:
        notice = request.body(Notice)
        return {"event_id": await self._notices.send(request.requester, notice, request.path["txnId"])}


def _task(task: AdminTask) -> dict[str, Any]:
    return {
        "id": task.task_id,
        "action": task.action,
        "status": task.status.value,
        "timestamp_ms": task.changed_ms,
        "resource_id": task.resource_id,
        "result": msgspec.json.decode(task.result),
        "error": task.error,
    }


def _with_next(answer: dict[str, Any], reached: int) -> dict[str, Any]:
    return answer | {"next_token": str(reached)} if reached < answer["total"] else answer


def _storable(text: str | None) -> str | None:
    """Nothing that is stored has a U+0000."""
    return None if text is None else text.replace("\0", "")
