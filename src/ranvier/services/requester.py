"""Who asks: what an access token stands for."""

import msgspec

from ranvier.core.identifiers import DeviceID, UserID


class Requester(msgspec.Struct, frozen=True, kw_only=True):
    """A client that showed a valid access token (or an application service that acts for a user)."""

    user_id: UserID
    user_nid: int
    device_id: DeviceID | None  # None: an application service without device masquerading
    device_nid: int | None = None
    token_nid: int | None = None  # the access token used; None for an application service's own token
    is_guest: bool = False
    is_admin: bool = False
    is_suspended: bool = False
    is_locked: bool = False
    appservice_id: str | None = None  # set when an application service asks
    is_oauth: bool = False  # the session came by OAuth: what the user has to prove is proved on web pages
    is_unlimited: bool = False  # how often it asks is not counted
    message_rate: tuple[float, int] | None = None  # messages a second and burst that hold for this user alone
