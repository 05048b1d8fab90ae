"""A room version is a value: one record of rules. Each version is the one before, except for what it changed.

Rules for this file: code elsewhere asks `rules.some_rule`, never for the version's name; and every field says
which version brought it. Spec: rooms/v1.md … rooms/v12.md.
"""

from enum import Enum
from types import MappingProxyType
from typing import Final

import msgspec

from ranvier.core.errors import UnsupportedRoomVersion


class EventIdFormat(Enum):
    OPAQUE = "opaque"  # v1, v2: `$opaque:server`, a field of the event
    HASH = "hash"  # v3: `$` and the reference hash in standard base64
    URLSAFE_HASH = "urlsafe_hash"  # v4 and up: the same in URL-safe base64


class StateResolution(Enum):
    V1 = "1"
    V2 = "2"
    V2_1 = "2.1"  # MSC4297: starts from nothing, adds the conflicted state subgraph


class RedactionRules(msgspec.Struct, frozen=True, cache_hash=True):
    """What a redaction leaves of an event. Spec: rooms/v*.md, "Redactions"."""

    keep_origin_membership_prev_state: bool = True  # top level; until v10
    keep_aliases: bool = True  # content of m.room.aliases; until v5
    keep_allow: bool = False  # content.allow of m.room.join_rules; v8
    keep_join_authorised: bool = False  # content.join_authorised_via_users_server of m.room.member; v9
    keep_whole_create: bool = False  # all content of m.room.create; v11
    keep_invite_level: bool = False  # content.invite of m.room.power_levels; v11
    keep_redacts: bool = False  # content.redacts of m.room.redaction; v11
    keep_third_party_signed: bool = False  # content.third_party_invite.signed of m.room.member; v11


class AuthRules(msgspec.Struct, frozen=True):
    """How the authorization rules differ. Spec: rooms/v*.md, "Authorisation rules"."""

    special_aliases: bool = True  # m.room.aliases has a rule of its own; until v5
    redaction_needs_level: bool = True  # m.room.redaction has a rule of its own; until v2
    check_notification_levels: bool = False  # `notifications` in power levels; v6
    knock: bool = False  # v7
    restricted: bool = False  # v8
    knock_restricted: bool = False  # v10
    integer_power_levels: bool = False  # no strings, no floats; v10
    creator_in_content: bool = True  # m.room.create has `creator`; until v10
    privileged_creators: bool = False  # creators stand above every power level; v12
    room_id_is_create_hash: bool = False  # the create event is implied, not cited; v12


class RoomVersion(msgspec.Struct, frozen=True):
    """The rules of one room version."""

    name: str
    event_id_format: EventIdFormat = EventIdFormat.OPAQUE
    state_resolution: StateResolution = StateResolution.V1
    auth: AuthRules = AuthRules()
    redaction: RedactionRules = RedactionRules()
    event_id_server_signs: bool = True  # the server in the event id must sign too; until v2
    enforce_key_validity: bool = False  # signing keys count only within their time; v5
    strict_canonical_json: bool = False  # integers within ±(2^53-1), no floats; v6
    redacts_in_content: bool = False  # v11
    # `type` and `state_key` were taken by 255 code points, not bytes, from others. COMPAT(Synapse); until v10.
    has_long_fields: bool = True
    is_federated: bool = True  # False: no other server takes part by the Server-Server API; see BRIDGED_2014

    @property
    def hash_event_ids(self) -> bool:
        """Whether the event id is a hash and not part of the event (v3 and up); then prev_events and
        auth_events are plain lists of ids."""
        return self.event_id_format is not EventIdFormat.OPAQUE


_replace = msgspec.structs.replace

V1: Final = RoomVersion("1")
V2: Final = _replace(V1, name="2", state_resolution=StateResolution.V2)
V3: Final = _replace(
    V2,
    name="3",
    event_id_format=EventIdFormat.HASH,
    event_id_server_signs=False,
    auth=_replace(V2.auth, redaction_needs_level=False),
)
V4: Final = _replace(V3, name="4", event_id_format=EventIdFormat.URLSAFE_HASH)
V5: Final = _replace(V4, name="5", enforce_key_validity=True)
V6: Final = _replace(
    V5,
    name="6",
    strict_canonical_json=True,
    auth=_replace(V5.auth, special_aliases=False, check_notification_levels=True),
    redaction=_replace(V5.redaction, keep_aliases=False),
)
V7: Final = _replace(V6, name="7", auth=_replace(V6.auth, knock=True))
V8: Final = _replace(
    V7,
    name="8",
    auth=_replace(V7.auth, restricted=True),
    redaction=_replace(V7.redaction, keep_allow=True),
)
V9: Final = _replace(V8, name="9", redaction=_replace(V8.redaction, keep_join_authorised=True))
V10: Final = _replace(V9, name="10", auth=_replace(V9.auth, knock_restricted=True, integer_power_levels=True))
V11: Final = _replace(
    V10,
    name="11",
    redacts_in_content=True,
    has_long_fields=False,
    auth=_replace(V10.auth, creator_in_content=False),
    redaction=_replace(
        V10.redaction,
        keep_origin_membership_prev_state=False,
        keep_whole_create=True,
        keep_invite_level=True,
        keep_redacts=True,
        keep_third_party_signed=True,
    ),
)
V12: Final = _replace(
    V11,
    name="12",
    state_resolution=StateResolution.V2_1,
    auth=_replace(V11.auth, privileged_creators=True, room_id_is_create_hash=True),
)

ROOM_VERSIONS: Final = MappingProxyType(
    {version.name: version for version in (V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12)}
)
"""Every version that the specification calls stable."""

BRIDGED_2014: Final = _replace(
    V11,
    name="org.ranvier.2014",
    event_id_format=EventIdFormat.OPAQUE,
    strict_canonical_json=False,
    is_federated=False,
    auth=_replace(
        V11.auth, knock=False, restricted=False, knock_restricted=False, integer_power_levels=False
    ),
)
"""Rooms that a bridge inside this server carries to others, by a protocol of its own.

The bridge names their events (so ids are opaque) and answers for users of other servers, who therefore sign
nothing. The rules are those of v11 but for what takes the signature or the request of another server.
"""

KNOWN_ROOM_VERSIONS: Final = MappingProxyType({**ROOM_VERSIONS, BRIDGED_2014.name: BRIDGED_2014})
"""Every version that a stored room may have."""

DEFAULT_ROOM_VERSION: Final = V12


def get_room_version(name: object) -> RoomVersion:
    """The rules of the version called `name`.

    Raises: UnsupportedRoomVersion, also when `name` is no string.
    """
    version = KNOWN_ROOM_VERSIONS.get(name) if isinstance(name, str) else None
    if version is None:
        raise UnsupportedRoomVersion(f"room version {str(name)[:100]!r} is not known here")
    return version


def get_federated_version(name: object) -> RoomVersion:
    """The same for a version that another server names: one whose rooms span servers.

    Raises: UnsupportedRoomVersion.
    """
    version = get_room_version(name)
    if not version.is_federated:
        raise UnsupportedRoomVersion(f"rooms of version {version.name} are of one server alone")
    return version
