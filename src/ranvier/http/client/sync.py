"""Syncing. Spec: client-server API, "Syncing"."""

from ranvier.core.tokens import parse_sync_token
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Query, Request
from ranvier.services.ephemeral.presence import PresenceTracker, parse_state
from ranvier.services.sync.filters import SyncFilters
from ranvier.services.sync.request import MAX_TIMEOUT_MS, StateSection, SyncRequest
from ranvier.services.sync.sync import Sync


class SyncEndpoint:
    """What changed since the client asked last."""

    def __init__(self, sync: Sync, filters: SyncFilters, presence: PresenceTracker) -> None:
        self._sync = sync
        self._filters = filters
        self._presence = presence

    @endpoint("GET", "/_matrix/client/v3/sync", operation="sync", rate=Rate.READ, guests=True)
    async def sync(self, request: Request) -> bytes:
        query, requester = request.query(), request.requester
        since = query.text("since")
        asked = SyncRequest(
            profile=await self._filters.find_profile(
                requester.user_nid,
                query.text("filter"),
                _state_section(query),
            ),
            since=parse_sync_token(since).position if since else None,
            full_state=query.boolean("full_state"),
            timeout_ms=query.integer("timeout", 0, most=MAX_TIMEOUT_MS),
        )
        with self._presence.syncing(requester, parse_state(query.text("set_presence", "online"))):
            return await self._sync.sync(requester, asked)


def _state_section(query: Query) -> StateSection:
    if query.boolean("use_state_after"):
        return StateSection.AFTER
    # COMPAT: clients of before v1.16 say it as MSC4222 did.
    if query.boolean("org.matrix.msc4222.use_state_after"):
        return StateSection.AFTER_UNSTABLE
    return StateSection.BEFORE
