"""What endpoints for other servers have in common: they demand X-Matrix, and know who asks."""

from collections.abc import Callable

from ranvier.core.identifiers import ServerName
from ranvier.http.endpoint import Api, Auth, Function, Rate, endpoint
from ranvier.http.request import Request


def server_endpoint(
    method: str, *paths: str, operation: str, **options: object
) -> Callable[[Function], Function]:
    """Like `endpoint`, for requests that another server signs."""
    common = {"auth": Auth.SERVER, "api": Api.FEDERATION, "rate": Rate.FEDERATION}
    return endpoint(method, *paths, operation=operation, **(common | options))


def origin_of(request: Request) -> ServerName:
    """The server that signed the request. Raises: TypeError where the endpoint does not demand that."""
    if request.origin is None:
        raise TypeError("this endpoint does not demand the signature of a server")
    return request.origin
