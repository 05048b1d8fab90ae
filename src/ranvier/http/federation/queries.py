"""Spec: server-server API, "Querying for information"."""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import NotFound, Unrecognized
from ranvier.core.identifiers import ServerName, parse_room_alias, parse_user_id, server_of
from ranvier.http.federation.origin import server_endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.profiles import Profiles
from ranvier.services.rooms.aliases import Aliases, ResolvedAlias


class Queries:
    """Aliases and profiles of this server."""

    def __init__(self, server: ServerName, aliases: Aliases, profiles: Profiles) -> None:
        self._server = server
        self._aliases = aliases
        self._profiles = profiles

    @server_endpoint("GET", "/_matrix/federation/v1/query/directory", operation="queryRoomDirectory")
    async def query_room_directory(self, request: Request) -> ResolvedAlias:
        alias = parse_room_alias(request.query().required("room_alias"))
        if server_of(alias) != self._server:
            raise NotFound("This is no alias of this server.")
        return await self._aliases.resolve(alias)

    @server_endpoint("GET", "/_matrix/federation/v1/query/profile", operation="queryProfile")
    async def query_profile(self, request: Request) -> JsonObject:
        query = request.query()
        user_id = parse_user_id(query.required("user_id"))
        if server_of(user_id) != self._server:
            raise NotFound("This is no user of this server.")
        field = query.text("field")
        if field is None:
            return await self._profiles.get(user_id)
        return await self._profiles.get_field(user_id, field)

    @server_endpoint("GET", "/_matrix/federation/v1/query/{queryType}", operation="queryInfo")
    async def query_info(self, _request: Request) -> JsonObject:
        raise Unrecognized("There are no queries of this type.")
