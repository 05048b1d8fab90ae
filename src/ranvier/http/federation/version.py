"""What runs here. Spec: server-server API, "Server implementation"."""

import ranvier
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Request


class Version:
    """Name and version of this program, which servers show to their administrators."""

    @endpoint(
        "GET",
        "/_matrix/federation/v1/version",
        operation="getVersion",
        auth=Auth.NONE,
        api=Api.FEDERATION,
        rate=Rate.FEDERATION,
    )
    async def get_version(self, _request: Request) -> dict[str, object]:
        return {"server": {"name": "Ranvier", "version": ranvier.__version__}}
