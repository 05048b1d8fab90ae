"""The user's devices. Spec: client-server API, "Device Management"."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import DeviceID, parse_device_id
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.services.devices.devices import ClientDevice, Devices


class DevicesAnswer(msgspec.Struct, frozen=True):
    devices: Sequence[ClientDevice]


class UpdateBody(msgspec.Struct, frozen=True):
    display_name: str | None = None


class AuthBody(msgspec.Struct, frozen=True):
    auth: JsonObject | None = None


class DeleteBody(msgspec.Struct, frozen=True):
    devices: Annotated[list[DeviceID], msgspec.Meta(max_length=10_000)]
    auth: JsonObject | None = None


class DeviceManagement:
    """The endpoints at /devices and /delete_devices."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    @endpoint("GET", "/_matrix/client/v3/devices", operation="getDevices", guests=True)
    async def get_devices(self, request: Request) -> DevicesAnswer:
        return DevicesAnswer(await self._devices.list(request.requester))

    @endpoint("GET", "/_matrix/client/v3/devices/{deviceId}", operation="getDevice", guests=True)
    async def get_device(self, request: Request) -> ClientDevice:
        return await self._devices.get(request.requester, DeviceID(request.path["deviceId"]))

    @endpoint(
        "PUT",
        "/_matrix/client/v3/devices/{deviceId}",
        operation="updateDevice",
        rate=Rate.WRITE,
        guests=True,
    )
    async def update_device(self, request: Request) -> Response:
        name = request.body(UpdateBody).display_name
        is_new = await self._devices.update(
            request.requester, parse_device_id(request.path["deviceId"]), name
        )
        return Response(status=201 if is_new else 200, body={})

    @endpoint("DELETE", "/_matrix/client/v3/devices/{deviceId}", operation="deleteDevice", rate=Rate.LOGIN)
    async def delete_device(self, request: Request) -> dict[str, object]:
        device_id = DeviceID(request.path["deviceId"])
        auth = request.body(AuthBody, empty_is_object=True).auth
        await self._devices.delete(request.requester, [device_id], f"deleteDevice {device_id}", auth)
        return {}

    @endpoint("POST", "/_matrix/client/v3/delete_devices", operation="deleteDevices", rate=Rate.LOGIN)
    async def delete_devices(self, request: Request) -> dict[str, object]:
        body = request.body(DeleteBody)
        await self._devices.delete(request.requester, body.devices, "deleteDevices", body.auth)
        return {}
