"""Asking application services for what they may still have to make: a user or a room alias of their namespaces
that is not known here.

Spec: application service API, "Querying".
"""

import logging
from collections.abc import Iterable
from typing import Final

from ranvier.core.appservices.registration import Registration
from ranvier.core.errors import RequestTimeout
from ranvier.core.identifiers import RoomAlias, UserID
from ranvier.io.ports import RemoteFault
from ranvier.services.appservices.registry import Appservices
from ranvier.services.appservices.requests import AppserviceRequests, Ask, Refused, path_of
from ranvier.store.database import Database
from ranvier.store.tables.accounts import find_account_by_id

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 5.0
ATTEMPTS: Final = 3
"""Of a service that does not answer."""


class Queries:
    """Asks the services that claim a name, one after another, until one has it."""

    def __init__(self, db: Database, appservices: Appservices, requests: AppserviceRequests) -> None:
        self._db = db
        self._appservices = appservices
        self._requests = requests

    async def summon_users(self, user_ids: Iterable[UserID]) -> None:
        """Let services make those of these users that are theirs and are not known here. Whether they do is for
        the caller to see: a service that cannot be reached keeps nobody from anything.
        """
        for user_id in user_ids:
            services = [one for one in self._appservices.list_claiming_user(user_id) if one.sender != user_id]
            if not services or await self._db.read(find_account_by_id, user_id) is not None:
                continue
            path = path_of("users", user_id)
            try:
                await self._ask_all(services, path, path)
            except RemoteFault as fault:
                log.info("cannot ask for %s: %s", user_id, fault)

    async def summon_alias(self, alias: RoomAlias) -> bool:
        """Whether a service has made the alias now. Raises: RequestTimeout: a service does not answer."""
        services = self._appservices.list_claiming_alias(alias)
        try:
            return await self._ask_all(services, path_of("rooms", alias), path_of("rooms", alias))
        except RemoteFault as fault:
            log.info("cannot ask for %s: %s", alias, fault)
            raise RequestTimeout(
                "The application service to which this alias belongs does not answer."
            ) from fault

    async def _ask_all(self, services: Iterable[Registration], path: str, legacy_path: str) -> bool:
        """Raises: RemoteFault: one did not answer, and no other one had it."""
        silent: RemoteFault | None = None
        ask = Ask(method="GET", path=path, legacy_path=legacy_path, timeout_s=TIMEOUT_S)
        for service in services:
            if service.url is None:
                continue
            try:
                if await self._has(service, ask):
                    return True
            except RemoteFault as fault:
                silent = fault
        if silent is not None:
            raise silent
        return False

    async def _has(self, service: Registration, ask: Ask) -> bool:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._requests.fetch(service, ask)
            except Refused as refused:
                if refused.status // 100 == 4:
                    return False
                if attempt == ATTEMPTS:
                    raise
            except RemoteFault:
                if attempt == ATTEMPTS:
                    raise
            else:
                return True
        return False
