"""The event that another server offers us to sign, when one of our users joins, knocks at or leaves its room.

Spec: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)".
"""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadBase64, BadEvent, BadIdentifier
from ranvier.core.events.build import EventTemplate, Placement
from ranvier.core.events.format import check_depth, check_event_ids, check_field
from ranvier.core.identifiers import EventID, parse_room_id, parse_user_id
from ranvier.core.limits import MAX_AUTH_EVENTS, MAX_PREV_EVENTS
from ranvier.core.room_versions import RoomVersion
from ranvier.core.unpadded_base64 import decode_base64


def parse_template(
    event: JsonObject, version: RoomVersion, origin_server_ts: int, event_id: EventID | None = None
) -> tuple[EventTemplate, Placement]:
    """What `build_event` needs to make the offered event ours.

    The time is our own (ms), and so is the id in v1 and v2. Other fields of the offer are dropped, so that
    nothing is signed that was not looked at. The caller checks that room, sender, state key, type and
    membership are those that were asked for.

    Raises: BadEvent, TooLarge.
    """
    check_field("type", event.get("type"))
    if "state_key" in event:
        check_field("state_key", event["state_key"])
    if not isinstance(event.get("content"), dict):
        raise BadEvent("content is not an object")
    check_depth(event.get("depth"), version)
    check_event_ids(event.get("prev_events"), "prev_events", MAX_PREV_EVENTS, version)
    check_event_ids(event.get("auth_events"), "auth_events", MAX_AUTH_EVENTS, version)
    try:
        template = EventTemplate(
            room_id=parse_room_id(event.get("room_id")),
            type=event["type"],
            state_key=event.get("state_key"),
            sender=parse_user_id(event.get("sender")),
            content=event["content"],
        )
    except BadIdentifier as error:
        raise BadEvent(str(error)) from error
    return template, _parse_placement(event, version, origin_server_ts, event_id)


def _parse_placement(
    event: JsonObject, version: RoomVersion, origin_server_ts: int, event_id: EventID | None
) -> Placement:
    prev_events, auth_events = event["prev_events"], event["auth_events"]
    hashes: dict[EventID, bytes] = {}
    if not version.hash_event_ids:
        try:
            hashes = {cited: decode_base64(by.get("sha256")) for cited, by in [*prev_events, *auth_events]}
        except BadBase64 as error:
            raise BadEvent("an event is cited without its hash") from error
        prev_events = [cited for cited, _ in prev_events]
        auth_events = [cited for cited, _ in auth_events]
    return Placement(
        prev_events=prev_events,
        auth_events=auth_events,
        depth=event["depth"],
        origin_server_ts=origin_server_ts,
        event_id=event_id,
        reference_hashes=hashes,
    )
