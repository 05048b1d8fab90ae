"""Rooms that application services publish for their networks.

Spec: application service API, "Published room directories".
"""

from typing import Literal

import msgspec

from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.appservices.directory import NetworkDirectories


class VisibilityBody(msgspec.Struct, frozen=True):
    visibility: Literal["public", "private"]


class AppserviceRoomDirectory:
    """PUT /directory/list/appservice/{networkId}/{roomId}."""

    def __init__(self, directories: NetworkDirectories) -> None:
        self._directories = directories

    @endpoint(
        "PUT",
        "/_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}",
        operation="updateAppserviceRoomDirectoryVisibility",
        auth=Auth.APPSERVICE,
        rate=Rate.WRITE,
    )
    async def update_appservice_room_directory_visibility(self, request: Request) -> dict[str, object]:
        await self._directories.publish(
            request.requester,
            request.path["networkId"],
            request.room_id,
            is_published=request.body(VisibilityBody).visibility == "public",
        )
        return {}
