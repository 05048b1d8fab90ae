"""What this server lets the user do. Spec: client-server API, "Capabilities negotiation"."""

from collections.abc import Collection, Mapping
from typing import Any

from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.services.requester import Requester


class Capabilities:
    """GET /capabilities."""

    def __init__(
        self,
        default_room_version: RoomVersion,
        unstable: Collection[RoomVersion] = (),
        more: Mapping[str, Any] = {},
    ) -> None:
        """`unstable`: room versions that are offered beside the stable ones. `more`: capabilities that are the same
        for everybody.
        """
        self._more = dict(more)
        self._room_versions = {
            "default": default_room_version.name,
            "available": {
                **dict.fromkeys(ROOM_VERSIONS, "stable"),
                **{version.name: "unstable" for version in unstable},
            },
        }

    @endpoint("GET", "/_matrix/client/v3/capabilities", operation="getCapabilities", guests=True)
    async def get_capabilities(self, request: Request) -> dict[str, Any]:
        requester = request.requester
        capabilities = _capabilities(requester, self._room_versions) | self._more
        if requester.is_oauth:
            capabilities["m.3pid_changes"] = {"enabled": False}
        return {"capabilities": capabilities}


def _capabilities(requester: Requester, room_versions: Mapping[str, Any]) -> dict[str, Any]:
    # Who came by OAuth does on web pages what takes proof of who they are.
    has_password = not requester.is_guest and requester.appservice_id is None and not requester.is_oauth
    capabilities: dict[str, Any] = {
        "m.change_password": {"enabled": has_password},
        "m.room_versions": room_versions,
        "m.profile_fields": {"enabled": not requester.is_suspended},
        "uk.tcpip.msc4133.profile_fields": {"enabled": not requester.is_suspended},  # as before v1.16
        "m.set_displayname": {"enabled": not requester.is_suspended},
        "m.set_avatar_url": {"enabled": not requester.is_suspended},
        # Unless mail is sent: no text messages are, and no identity server is trusted.
        "m.3pid_changes": {"enabled": False},
        "m.get_login_token": {"enabled": has_password},
        "m.forget_forced_upon_leave": {"enabled": False},
    }
    if requester.is_admin:
        capabilities["m.account_moderation"] = {"suspend": True, "lock": True}
    return capabilities
