"""Dehydrated devices. Spec: MSC3814, by its unstable path."""

from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID
from ranvier.core.tokens import encode_list_token, parse_list_token
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.devices.dehydrated import (
    DehydratedDeviceInfo,
    DehydratedDevices,
    NewDehydratedDevice,
)

PATH: Final = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"


class DeviceAnswer(msgspec.Struct, frozen=True):
    device_id: DeviceID


class EventsBody(msgspec.Struct, frozen=True):
    next_batch: str | None = None


class EventsAnswer(msgspec.Struct, frozen=True):
    events: list[msgspec.Raw]
    next_batch: str


class DehydratedDeviceEndpoints:
    """The endpoints at /dehydrated_device."""

    def __init__(self, dehydrated: DehydratedDevices) -> None:
        self._dehydrated = dehydrated

    @endpoint("PUT", PATH, operation="putDehydratedDevice", rate=Rate.WRITE)
    async def put_dehydrated_device(self, request: Request) -> DeviceAnswer:
        body = request.body(NewDehydratedDevice)
        await self._dehydrated.replace(request.requester, body)
        return DeviceAnswer(DeviceID(body.device_id))

    @endpoint("GET", PATH, operation="getDehydratedDevice")
    async def get_dehydrated_device(self, request: Request) -> DehydratedDeviceInfo:
        return await self._dehydrated.get(request.requester)

    @endpoint("DELETE", PATH, operation="deleteDehydratedDevice", rate=Rate.WRITE)
    async def delete_dehydrated_device(self, request: Request) -> DeviceAnswer:
        return DeviceAnswer(await self._dehydrated.delete(request.requester))

    @endpoint("POST", f"{PATH}/{{deviceId}}/events", operation="postDehydratedDeviceEvents")
    async def post_dehydrated_device_events(self, request: Request) -> EventsAnswer:
        token = request.body(EventsBody, empty_is_object=True).next_batch
        (since,) = (0,) if token is None else parse_list_token(token, (int,))
        found = await self._dehydrated.list_events(request.requester, request.path["deviceId"], int(since))
        return EventsAnswer(found.events, encode_list_token(found.position))
