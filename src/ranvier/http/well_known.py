"""How clients and servers find this one. Spec: "Server Discovery" of the client- and server-server APIs."""

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import ServerName
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Request


class WellKnown:
    """The documents below /.well-known/matrix."""

    def __init__(self, server_name: ServerName, public_base_url: str | None) -> None:
        self._server_name = server_name
        self._public_base_url = public_base_url

    @endpoint(
        "GET",
        "/.well-known/matrix/client",
        operation="getWellknown",
        auth=Auth.NONE,
        api=Api.CLIENT,
        rate=Rate.NONE,
    )
    async def client(self, _request: Request) -> dict[str, dict[str, str]]:
        if self._public_base_url is None:
            raise NotFound("This server has no public_base_url: use the address that you know.")
        return {"m.homeserver": {"base_url": self._public_base_url}}

    @endpoint(
        "GET",
        "/.well-known/matrix/server",
        operation="getWellKnown",
        auth=Auth.NONE,
        api=Api.FEDERATION,
        rate=Rate.NONE,
    )
    async def server(self, _request: Request) -> dict[str, str]:
        name = self._server_name
        return {"m.server": name if ":" in name.rpartition("]")[2] else f"{name}:443"}
