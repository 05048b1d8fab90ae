"""How clients and servers find this one. Spec: "Server Discovery" of the client- and server-server APIs."""

from collections.abc import Mapping, Sequence

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import ServerName
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Request


class WellKnown:
    """The documents below /.well-known/matrix."""

    def __init__(
        self,
        server_name: ServerName,
        public_base_url: str | None,
        support: Mapping[str, object],
        rtc_transports: Sequence[JsonObject] = (),
    ) -> None:
        """`support`: see `support_document`; empty where nobody is named. `rtc_transports`: of calls (MSC4143)."""
        self._server_name = server_name
        self._public_base_url = public_base_url
        self._support = support
        self._rtc_transports = rtc_transports

    @endpoint(
        "GET",
        "/.well-known/matrix/client",
        operation="getWellknown",
        auth=Auth.NONE,
        api=Api.CLIENT,
        rate=Rate.NONE,
    )
    async def client(self, _request: Request) -> JsonObject:
        if self._public_base_url is None:
            raise NotFound("This server has no public_base_url: use the address that you know.")
        document: JsonObject = {"m.homeserver": {"base_url": self._public_base_url}}
        if self._rtc_transports:
            document["org.matrix.msc4143.rtc_foci"] = self._rtc_transports
        return document

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

    @endpoint(
        "GET",
        "/.well-known/matrix/support",
        operation="getWellknownSupport",
        auth=Auth.NONE,
        api=Api.CLIENT,
        rate=Rate.NONE,
    )
    async def support(self, _request: Request) -> Mapping[str, object]:
        if not self._support:
            raise NotFound("Nobody is named here who could help.")
        return self._support


def support_document(
    page: str | None, contacts: Sequence[tuple[str, str | None, str | None]]
) -> dict[str, object]:
    """The body of /.well-known/matrix/support, empty if it would say nothing.

    Args: contacts - role, Matrix id, e-mail address; who has neither id nor address is left out.
    Spec: client-server API, "Server administration contact".
    """
    listed = []
    for role, matrix_id, email_address in contacts:
        ways = {"matrix_id": matrix_id, "email_address": email_address}
        known = {name: value for name, value in ways.items() if value is not None}
        if known:
            listed.append({"role": role, **known})
    document: dict[str, object] = {"contacts": listed} if listed else {}
    return document if page is None else {**document, "support_page": page}
