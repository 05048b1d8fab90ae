"""The authorization rules: may this event be in this room?

They come in two parts. `check_state_independent` looks at the event and at the events that it cites: once per
event. `check_state_dependent` holds it against one state of the room: who receives an event calls it for the
state that its auth_events form, for the state before it and for the current state; state resolution calls it
for each state that it builds.

Both trust that the event passed `events.format` and that every signature which its room version requires was
verified on receipt (server-server API, "Checks performed on receipt of a PDU", steps 1 to 3).
Spec: rooms/v1.md … rooms/v12.md, "Authorisation rules".
"""

from collections.abc import Collection, Mapping

import msgspec

from ranvier.core.auth.member import check_member
from ranvier.core.auth.numbering import numbering_of
from ranvier.core.auth.power import PowerLevels, same_server
from ranvier.core.auth.power_change import check_power_levels
from ranvier.core.auth.select import auth_keys_for
from ranvier.core.auth.state import AuthState, StateLookup
from ranvier.core.errors import AuthRejected, BadIdentifier
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, StateKey, parse_user_id
from ranvier.core.room_versions import KNOWN_ROOM_VERSIONS, RoomVersion


def check_state_independent(
    event: Pdu,
    known: Mapping[EventID, Pdu],
    version: RoomVersion,
    *,
    rejected: Collection[EventID] = frozenset(),
) -> None:
    """Check the rules on create events, on the room id (v12) and on `auth_events`.

    `known` holds every event that `event` cites in auth_events and, where the room id is the create event's
    hash, also that create event, under `create_event_id`; more may be in it. `rejected` names those of them
    that were rejected.

    Raises: AuthRejected; KeyError when `known` lacks a cited event, since without it there is no answer.
    """
    if event.type == "m.room.create":
        _check_create(event, version)
        return
    if version.auth.room_id_is_create_hash:
        _check_room_id(event, known, version, rejected)
    _check_auth_events(event, known, version, rejected)


def create_event_id(room_id: str) -> EventID:
    """The id of the create event that a room id of version 12 or later stands for."""
    return EventID(f"${room_id[1:]}")


def check_state_dependent(event: Pdu, state: StateLookup, version: RoomVersion) -> None:
    """Check all further rules against one state of the room, which must offer m.room.create in every version.

    Raises: AuthRejected.
    Cost: up to 6 lookups; independent of the room's size but for changes of m.room.power_levels.
    """
    if event.type == "m.room.create":
        return
    create = state("m.room.create", "")
    if create is None:
        raise AuthRejected(_missing_create_rule(version), "the room has no create event")
    # Federation rule: m.federate false keeps other servers' users out.
    if create.content.get("m.federate") is False and not same_server(event.sender, create.sender):
        raise AuthRejected(numbering_of(version.auth).federate, "the room does not federate")
    if event.type == "m.room.aliases" and version.auth.special_aliases:
        _check_aliases(event, version)
        return
    power = PowerLevels.from_events(create, state("m.room.power_levels", ""), version)
    room = AuthState(state, create, power, version)
    if event.type == "m.room.member":
        check_member(event, room)
    else:
        _check_of_joined_sender(event, room)


def _missing_create_rule(version: RoomVersion) -> str:
    numbers = numbering_of(version.auth)
    return numbers.room_id if version.auth.room_id_is_create_hash else f"{numbers.auth_events}.4"


def _check_create(event: Pdu, version: RoomVersion) -> None:
    # 1.1
    if event.prev_events:
        raise AuthRejected("1.1", "a create event has no previous events")
    # 1.2
    if version.auth.room_id_is_create_hash:
        # The parsed view always has a room id; only the wire form tells whether the event carried one.
        if "room_id" in msgspec.json.decode(event.json, type=dict[str, msgspec.Raw]):
            raise AuthRejected("1.2", "a create event of this version carries no room_id")
    elif not same_server(event.room_id, event.sender):
        raise AuthRejected("1.2", "the room id names another server than the creator's")
    # 1.3
    named_version = event.content.get("room_version", "1")
    if not isinstance(named_version, str) or named_version not in KNOWN_ROOM_VERSIONS:
        raise AuthRejected("1.3", "the room's version is not known here")
    # 1.4, up to v10
    if version.auth.creator_in_content and "creator" not in event.content:
        raise AuthRejected("1.4", "the content names no creator")
    # 1.4, since v12
    if version.auth.privileged_creators and "additional_creators" in event.content:
        _check_additional_creators(event.content["additional_creators"])


def _check_additional_creators(creators: object) -> None:
    if not isinstance(creators, list):
        raise AuthRejected("1.4", "additional_creators is no array")
    try:
        for creator in creators:
            parse_user_id(creator)
    except BadIdentifier as error:
        raise AuthRejected("1.4", f"additional_creators: {error}") from error


def _check_room_id(
    event: Pdu, known: Mapping[EventID, Pdu], version: RoomVersion, rejected: Collection[EventID]
) -> None:
    # 2, since v12
    create_id = create_event_id(event.room_id)
    create = known.get(create_id)
    if create is None or create.type != "m.room.create" or create_id in rejected:
        raise AuthRejected(
            numbering_of(version.auth).room_id, "the room id is not that of an accepted create event"
        )


def _check_auth_events(
    event: Pdu, known: Mapping[EventID, Pdu], version: RoomVersion, rejected: Collection[EventID]
) -> None:
    selected = auth_keys_for(event.type, event.sender, event.state_key, event.content, version)
    cited: set[StateKey] = set()
    for event_id in event.auth_events:
        auth_event = known[event_id]
        fault = _find_fault(event, auth_event, cited, selected, rejected)
        if fault is not None:
            sub_rule, reason = fault
            raise AuthRejected(
                f"{numbering_of(version.auth).auth_events}.{sub_rule}", f"auth event {event_id} {reason}"
            )
        cited.add(auth_event.slot)
    # 2.4, up to v11
    if not version.auth.room_id_is_create_hash and ("m.room.create", "") not in cited:
        raise AuthRejected(f"{numbering_of(version.auth).auth_events}.4", "no create event is cited")


def _find_fault(
    event: Pdu,
    auth_event: Pdu,
    cited: set[StateKey],
    selected: list[StateKey],
    rejected: Collection[EventID],
) -> tuple[int, str] | None:
    """The sub-rule that citing `auth_event` breaks, and how."""
    key = None if auth_event.state_key is None else (auth_event.type, auth_event.state_key)
    # 2.1 (v12: 3.1, and so on)
    if key in cited:
        return 1, "is a second one for its type and state_key"
    # 2.2
    if key not in selected:
        return 2, "does not serve to authorize this event"
    # 2.3
    if auth_event.event_id in rejected:
        return 3, "was rejected"
    # 2.5
    if auth_event.room_id != event.room_id:
        return 5, "is of another room"
    return None


def _check_aliases(event: Pdu, version: RoomVersion) -> None:
    number = numbering_of(version.auth).aliases
    # 4.1, up to v5
    if event.state_key is None:
        raise AuthRejected(f"{number}.1", "aliases are state")
    # 4.2, up to v5
    if event.state_key != event.sender.partition(":")[2]:
        raise AuthRejected(f"{number}.2", "the state_key is not the sender's server")


def _check_of_joined_sender(event: Pdu, room: AuthState) -> None:
    """The rules from "the sender must be joined" to the end (v1: 6 to 12)."""
    rules = room.version.auth
    if room.membership(event.sender) != "join":
        raise AuthRejected(numbering_of(rules).sender_joined, "the sender is not joined")
    sender_level = room.power.user_level(event.sender)
    if event.type == "m.room.third_party_invite":
        if sender_level < room.power.invite:
            raise AuthRejected(f"{numbering_of(rules).third_party_invite}.1", "the sender may not invite")
        return
    if sender_level < room.power.event_level(event.type, is_state=event.state_key is not None):
        raise AuthRejected(numbering_of(rules).required_level, "the sender's power level is too low")
    if event.state_key is not None and event.state_key.startswith("@") and event.state_key != event.sender:
        raise AuthRejected(numbering_of(rules).foreign_state_key, "the state_key is another user's id")
    if event.type == "m.room.power_levels":
        check_power_levels(event, room, sender_level)
    elif event.type == "m.room.redaction" and rules.redaction_needs_level:
        _check_redaction(event, room, sender_level)


def _check_redaction(event: Pdu, room: AuthState, sender_level: int) -> None:
    # 11.1, 11.2 and 11.3, in v1 and v2
    if sender_level >= room.power.redact:
        return
    if event.redacts is None or not same_server(event.redacts, event.event_id):
        raise AuthRejected(
            f"{numbering_of(room.version.auth).redaction}.3", "the sender may not redact that event"
        )
