"""Upgrading rooms. Spec: client-server API, "Room upgrades"."""

from typing import Annotated

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.upgrading import Upgrading

MAX_ADDITIONAL_CREATORS = 500


class UpgradeBody(msgspec.Struct, frozen=True):
    new_version: str
    additional_creators: Annotated[list[str], msgspec.Meta(max_length=MAX_ADDITIONAL_CREATORS)] = []


class UpgradeAnswer(msgspec.Struct, frozen=True):
    replacement_room: RoomID


class RoomUpgrades:
    """POST /rooms/{roomId}/upgrade."""

    def __init__(self, upgrading: Upgrading) -> None:
        self._upgrading = upgrading

    @endpoint("POST", "/_matrix/client/v3/rooms/{roomId}/upgrade", operation="upgradeRoom", rate=Rate.WRITE)
    async def upgrade_room(self, request: Request) -> UpgradeAnswer:
        body = request.body(UpgradeBody)
        new_id = await self._upgrading.upgrade(
            request.requester,
            request.room_id,
            body.new_version,
            body.additional_creators,
        )
        return UpgradeAnswer(new_id)
