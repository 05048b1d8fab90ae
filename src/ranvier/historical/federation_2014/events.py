"""A PDU of 2014 as an event that clients of today read.

Rules for this file: no I/O. Source: docs/federation-2014.md, "The bridge".
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.build import EventTemplate, Placement, build_event
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, StateKey, UserID
from ranvier.core.room_versions import BRIDGED_2014
from ranvier.core.signing import SigningKey
from ranvier.historical.federation_2014.naming import event_id_of, sender_of
from ranvier.historical.federation_2014.pdu import OldPdu

INVITE_JOIN: Final = "m.room.invite_join"
"""Asks the server of a room for a join: it stands in the graph, and no client is shown it."""

_DEFAULT_STATE: Final[dict[StateKey, JsonObject]] = {
    ("m.room.create", ""): {"room_version": BRIDGED_2014.name},
    # Before September 2014 contexts had neither levels nor rules.
    ("m.room.power_levels", ""): {"users_default": 0, "events_default": 0, "state_default": 0},
    ("m.room.join_rules", ""): {"join_rule": "public"},
}


class Signer(msgspec.Struct, frozen=True):
    """Who signs events that nobody verifies, so that they have the shape of all others."""

    server: ServerName
    key: SigningKey


def build_shown(
    pdu: OldPdu, room_id: RoomID, prev_events: Sequence[EventID], depth: int, signer: Signer
) -> Pdu:
    """The event that shows a PDU. Raises: BadEvent, TooLarge, BadJson when there can be none."""
    template = EventTemplate(
        room_id=room_id,
        type=pdu.pdu_type,
        state_key=pdu.state_key,
        sender=sender_of(pdu),
        content=content_of_today(pdu),
    )
    return _build(template, event_id_of(pdu.name), prev_events, depth, pdu.ts, signer)


def build_default_state(
    lacking: Sequence[StateKey], host: ServerName, room_id: RoomID, ts: int, signer: Signer
) -> list[Pdu]:
    """Events for what a room of today must have and a context may lack; they are of this server alone."""
    return [
        _build(
            EventTemplate(
                room_id=room_id,
                type=slot[0],
                state_key=slot[1],
                sender=UserID(f"@unnamed:{host}"),
                content=_DEFAULT_STATE[slot],
            ),
            event_id_of((signer.server, f"~{slot[0]} {room_id} {ts}")),
            (),
            1,
            ts,
            signer,
        )
        for slot in lacking
    ]


def list_lacking(state: Sequence[StateKey]) -> list[StateKey]:
    """What a room of today must have and this state does not."""
    return [slot for slot in _DEFAULT_STATE if slot not in set(state)]


def content_of_today(pdu: OldPdu) -> JsonObject:
    """The content in the form of today. Power levels were a flat object from user ids to levels in 2014."""
    content = pdu.content
    if pdu.pdu_type == "m.room.create" and pdu.state_key == "":
        return {**content, "room_version": BRIDGED_2014.name}
    if pdu.pdu_type != "m.room.power_levels" or pdu.state_key != "" or isinstance(content.get("users"), dict):
        return content
    users = {key: level for key, level in content.items() if key.startswith("@") and type(level) is int}
    default = content.get("default")
    if not users and type(default) is not int:
        return content
    rest = {key: value for key, value in content.items() if key not in users and key != "default"}
    return {**rest, "users": users, "users_default": default if type(default) is int else 0}


def _build(
    template: EventTemplate,
    event_id: EventID,
    prev_events: Sequence[EventID],
    depth: int,
    ts: int,
    signer: Signer,
) -> Pdu:
    placement = Placement(
        prev_events=prev_events,
        auth_events=(),
        depth=depth,
        origin_server_ts=ts,
        event_id=event_id,
        # Nobody checks them: the room is of this server alone.
        reference_hashes=dict.fromkeys(prev_events, b""),
    )
    return build_event(template, placement, BRIDGED_2014, signer.server, signer.key)
