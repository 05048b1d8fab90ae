"""Third-party networks: what application services know of the worlds that they lead into, put together.

Spec: client-server API, "Third-party Networks"; application service API, "Third-party networks".
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ranvier.core.appservices.registration import Registration
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import RoomAlias, UserID
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.appservices.registry import Appservices
from ranvier.services.appservices.requests import AppserviceRequests, Ask, path_of

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 10.0
CACHED_S: Final = 600.0
"""How long what a service says of a protocol is taken for true."""
UNKNOWN_S: Final = 30.0
"""How long it is not asked again after it failed."""
MAX_RESULTS: Final = 1_000
"""Locations or users in one answer."""

_PROTOCOL: Final = "protocol"
_LOCATION: Final = "location"
_USER: Final = "user"


class _Instance(msgspec.Struct):
    desc: str
    network_id: str
    fields: JsonObject


class _Protocol(msgspec.Struct):
    user_fields: list[str]
    location_fields: list[str]
    field_types: JsonObject
    instances: list[_Instance]


class _Location(msgspec.Struct):
    alias: str
    protocol: str
    fields: JsonObject


class _User(msgspec.Struct):
    userid: str
    protocol: str
    fields: JsonObject


class ThirdPartyNetworks:
    """Asks the services."""

    def __init__(self, appservices: Appservices, requests: AppserviceRequests, clock: Clock) -> None:
        self._appservices = appservices
        self._requests = requests
        self._clock = clock
        self._cached: dict[tuple[str, str], tuple[float, JsonObject | None]] = {}
        # Every protocol stands in a registration: this is as large as those are.
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def list_protocols(self) -> dict[str, JsonObject]:
        """What is known of each protocol; one whose services do not answer is left out."""
        names = sorted({name for service in self._appservices for name in service.protocols})
        found = await asyncio.gather(*(self._merge(name) for name in names))
        return {name: one for name, one in zip(names, found, strict=True) if one is not None}

    async def find_protocol(self, name: str) -> JsonObject:
        """Raises: NotFound."""
        found = await self._merge(name)
        if found is None:
            raise NotFound("This protocol is not known here.")
        return found

    async def find_locations(self, protocol: str, fields: Mapping[str, str]) -> Sequence[JsonObject]:
        """Rooms that lead to a place of the other world. Raises: NotFound if there is none."""
        services = self._serving(protocol)
        return await self._collect(services, _LOCATION, protocol, fields, _Location)

    async def find_users(self, protocol: str, fields: Mapping[str, str]) -> Sequence[JsonObject]:
        """Users who stand for somebody of the other world. Raises: NotFound if there is none."""
        return await self._collect(self._serving(protocol), _USER, protocol, fields, _User)

    async def list_locations_of(self, alias: RoomAlias) -> Sequence[JsonObject]:
        """Places to which a room leads. Raises: NotFound if there is none."""
        services = self._appservices.list_claiming_alias(alias)
        return await self._collect(services, _LOCATION, None, {"alias": alias}, _Location)

    async def list_users_of(self, user_id: UserID) -> Sequence[JsonObject]:
        """Whom of another world a user stands for. Raises: NotFound if there is nobody."""
        services = self._appservices.list_claiming_user(user_id)
        return await self._collect(services, _USER, None, {"userid": user_id}, _User)

    def _serving(self, protocol: str) -> list[Registration]:
        return [one for one in self._appservices if protocol in one.protocols]

    async def _merge(self, name: str) -> JsonObject | None:
        """What the first service says of the protocol, with the instances of all."""
        services = [one for one in self._serving(name) if one.url is not None]
        found = await asyncio.gather(*(self._describe(service, name) for service in services))
        good = [one for one in found if one is not None]
        if not good:
            return None
        return {**good[0], "instances": [instance for one in good for instance in one["instances"]]}

    async def _describe(self, service: Registration, name: str) -> JsonObject | None:
        key = (service.id, name)
        async with self._locks.setdefault(key, asyncio.Lock()):
            good_until, known = self._cached.get(key, (0.0, None))
            if good_until > self._clock.monotonic():
                return known
            found = await self._ask_protocol(service, name)
            seconds = UNKNOWN_S if found is None else CACHED_S
            self._cached[key] = (self._clock.monotonic() + seconds, found)
            return found

    async def _ask_protocol(self, service: Registration, name: str) -> JsonObject | None:
        try:
            found = await self._requests.fetch_json(service, _ask({}, _PROTOCOL, name))
            msgspec.convert(found, _Protocol)
        except (RemoteFault, msgspec.ValidationError) as fault:
            log.info("the application service %s does not describe %s: %s", service.id, name, fault)
            return None
        instances = [
            {**instance, "instance_id": instance_id(service.id, instance["network_id"])}
            for instance in found["instances"]
        ]
        return {**found, "instances": instances}

    async def _collect(
        self,
        services: Sequence[Registration],
        kind: str,
        protocol: str | None,
        query: Mapping[str, str],
        shape: type[Any],
    ) -> list[JsonObject]:
        segments = (kind,) if protocol is None else (kind, protocol)
        ask = _ask(query, *segments)
        asked = [service for service in services if service.url is not None]
        answers = await asyncio.gather(*(self._ask_list(service, ask, shape) for service in asked))
        found = [one for answer in answers for one in answer][:MAX_RESULTS]
        if not found:
            raise NotFound("Nothing was found.")
        return found

    async def _ask_list(self, service: Registration, ask: Ask, shape: type[Any]) -> list[JsonObject]:
        """Those entries of the answer that are what they should be."""
        try:
            answer = await self._requests.fetch_json(service, ask)
        except RemoteFault as fault:
            log.info("the application service %s: %s", service.id, fault)
            return []
        return [one for one in answer if _fits(one, shape)] if isinstance(answer, list) else []


def instance_id(appservice_id: str, network_id: str) -> str:
    """What a network of a service is called in directories of rooms: no other service's is called so."""
    return f"{appservice_id}|{network_id}"


def _ask(query: Mapping[str, str], *segments: str) -> Ask:
    path = path_of("thirdparty", *segments)
    return Ask(
        method="GET",
        path=path,
        legacy_path=f"/_matrix/app/unstable{path}",
        query=query,
        timeout_s=TIMEOUT_S,
    )


def _fits(value: object, shape: type[Any]) -> bool:
    try:
        msgspec.convert(value, shape)
    except msgspec.ValidationError:
        return False
    return True
