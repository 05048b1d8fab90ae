"""GET /_matrix/client/versions: what clients may count on. Spec: client-server API, "API Versions"."""

from collections.abc import Mapping, Sequence

import msgspec

from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request


class VersionsAnswer(msgspec.Struct, frozen=True):
    versions: Sequence[str]
    unstable_features: Mapping[str, bool]


class Versions:
    """What was handed in, told to everybody; who composes it answers for its truth."""

    def __init__(self, versions: Sequence[str], unstable_features: Mapping[str, bool]) -> None:
        self._answer = VersionsAnswer(versions, unstable_features)

    @endpoint(
        "GET",
        "/_matrix/client/versions",
        operation="getVersions",
        auth=Auth.OPTIONAL,
        guests=True,
        locked=True,
        rate=Rate.NONE,
    )
    async def versions(self, _request: Request) -> VersionsAnswer:
        return self._answer
