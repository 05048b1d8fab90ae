"""From bytes to `Pdu`: those of another server, which are checked, and our own stored ones, which are not.

Spec: server-server API, "Checks performed on receipt of a PDU", steps 1 to 3, and "Validating hashes and
signatures on received events".
"""

from typing import Any, Final

import msgspec

from ranvier.core import canonical_json
from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import BadEvent, BadIdentifier, BadJson
from ranvier.core.events.format import check_format, check_size
from ranvier.core.events.pdu import Pdu
from ranvier.core.events.redact import redact
from ranvier.core.hashes import content_hash, event_id_of, signed_form
from ranvier.core.identifiers import (
    EventID,
    RoomID,
    ServerName,
    UserID,
    parse_event_id,
    parse_room_id,
    parse_user_id,
    server_of,
)
from ranvier.core.room_versions import RoomVersion
from ranvier.core.signing import VerifyKey, find_signature, parse_signature
from ranvier.core.unpadded_base64 import decode_base64

_AUTHORIZER: Final = "join_authorised_via_users_server"


def parse_pdu(raw: bytes, version: RoomVersion, *, limit_parents: bool = True) -> Pdu:
    """An event that another server sent, checked for all that can be told without keys or other events.

    When the content hash does not match, the Pdu is the redacted form of what came (step 3). Signatures are
    checked apart, since their keys must be fetched: `required_signers`, then `verify_event_signature`.

    Args: limit_parents - false for an event from /backfill, which may be older than the limits on prev_events
    and auth_events and so must not be dropped because of them.

    Raises: BadJson, BadEvent, TooLarge: the event is to be dropped.
    """
    return pdu_of_object(parse_object(raw), version, limit_parents=limit_parents)


def pdu_of_object(event: JsonObject, version: RoomVersion, *, limit_parents: bool = True) -> Pdu:
    """Like `parse_pdu`, for an event decoded by `canonical_json.parse_json`, as part of a larger text.

    `event` is not changed; the Pdu shares its values.

    Raises: BadEvent, TooLarge.
    """
    check_format(event, version, limit_parents=limit_parents)
    try:
        event = {key: value for key, value in event.items() if key != "unsigned"}
        # Since v6: whoever sends other than strictly canonical JSON is not understood.
        encode = canonical_json.encode_strict if version.strict_canonical_json else canonical_json.encode
        json = encode(event)
        check_size(json)
        if not _has_good_content_hash(event):
            event = redact(event, version)
            json = canonical_json.encode(event)
        event_id = event_id_of(event, version)
    except BadJson as error:
        raise BadEvent(str(error)) from error
    return _pdu(event, event_id, json, version)


def _has_good_content_hash(event: JsonObject) -> bool:
    return decode_base64(event["hashes"]["sha256"]) == decode_base64(content_hash(event))


def _pdu(event: JsonObject, event_id: EventID, json: bytes, version: RoomVersion) -> Pdu:
    return Pdu(
        event_id=event_id,
        # Since v12: the create event does not carry the room id that it gives.
        room_id=event["room_id"] if "room_id" in event else RoomID("!" + event_id[1:]),
        sender=event["sender"],
        type=event["type"],
        state_key=event.get("state_key"),
        content=event["content"],
        origin_server_ts=event["origin_server_ts"],
        depth=event["depth"],
        prev_events=_event_ids(event["prev_events"], version),
        auth_events=_event_ids(event["auth_events"], version),
        redacts=find_redacts(event["type"], event["content"], event.get("redacts"), version),
        signatures=event["signatures"],
        json=json,
    )


def _event_ids(checked: Any, version: RoomVersion) -> tuple[EventID, ...]:
    if version.hash_event_ids:
        return tuple(checked)
    return tuple([pair[0] for pair in checked])


def find_redacts(
    event_type: str, content: JsonObject, top_level: object, version: RoomVersion
) -> EventID | None:
    """The event that an m.room.redaction names, in `content` (v11 and up) or beside it.

    None for other types, and when it is no event id: such an event may be sent, and redacts nothing.
    """
    if event_type != "m.room.redaction":
        return None
    redacts = content.get("redacts") if version.redacts_in_content else top_level
    try:
        return parse_event_id(redacts)
    except BadIdentifier:
        return None


def required_signers(pdu: Pdu, version: RoomVersion) -> frozenset[ServerName]:
    """The servers each of which must have signed the event with a key that is (was) theirs.

    Raises: BadEvent when a field that names one of them is malformed.
    """
    signers: set[ServerName] = set()
    # An invite that follows from an invite by third party id may be sent by another server than the sender's.
    if not _is_third_party_invite(pdu):
        signers.add(server_of(pdu.sender))
    # v1 and v2: the server named by the event id, too.
    if version.event_id_server_signs:
        signers.add(server_of(pdu.event_id))
    # Since v8: the server of the user who let a member in by a restricted join rule.
    if version.auth.restricted and pdu.type == "m.room.member" and _AUTHORIZER in pdu.content:
        try:
            signers.add(server_of(parse_user_id(pdu.content[_AUTHORIZER])))
        except BadIdentifier as error:
            raise BadEvent(f"{_AUTHORIZER}: {error}") from error
    return frozenset(signers)


def _is_third_party_invite(pdu: Pdu) -> bool:
    return (
        pdu.type == "m.room.member"
        and pdu.content.get("membership") == "invite"
        and isinstance(pdu.content.get("third_party_invite"), dict)
    )


def signed_bytes(pdu: Pdu, version: RoomVersion) -> bytes:
    """What the signatures of the event cover. Ask once for an event that several servers signed."""
    return signed_form(parse_object(pdu.json), version)


def verify_event_signature(
    pdu: Pdu, signed: bytes, server: ServerName, key_id: str, verify_key: VerifyKey
) -> None:
    """Check the signature that the event has of `server` under `key_id`; `signed` comes from `signed_bytes`.

    Raises: BadSignature.
    """
    verify_key.verify(signed, parse_signature(find_signature(pdu.signatures, server, key_id)))


class _Stored(msgspec.Struct, gc=False):
    sender: UserID
    type: str
    content: dict[str, Any]
    origin_server_ts: int
    depth: int
    signatures: dict[str, dict[str, str]]
    state_key: str | None = None
    redacts: Any = None


class _StoredPlain(_Stored, gc=False):
    prev_events: tuple[EventID, ...] = ()
    auth_events: tuple[EventID, ...] = ()


class _StoredPaired(_Stored, gc=False):
    prev_events: tuple[tuple[EventID, Any], ...] = ()
    auth_events: tuple[tuple[EventID, Any], ...] = ()


_PLAIN: Final = msgspec.json.Decoder(_StoredPlain)
_PAIRED: Final = msgspec.json.Decoder(_StoredPaired)


def find_room_id(event: JsonObject) -> RoomID | None:
    """The room that an event says it is of: what must be known before its room version is.

    None for an m.room.create without `room_id`: its hash names its room, and its content the version (v12).

    Raises: BadEvent.
    """
    if event.get("type") == "m.room.create" and "room_id" not in event:
        return None
    try:
        return parse_room_id(event.get("room_id"))
    except BadIdentifier as error:
        raise BadEvent(str(error)) from error


def parse_stored(json: bytes, event_id: EventID, room_id: RoomID, version: RoomVersion) -> Pdu:
    """Read back an event whose bytes this server stored: fast, without checks. Never for bytes from outside.

    `json` and the ids are those of the Pdu that was stored; anything else may raise msgspec.DecodeError.
    """
    stored = _PLAIN.decode(json) if version.hash_event_ids else _PAIRED.decode(json)
    return Pdu(
        event_id=event_id,
        room_id=room_id,
        sender=stored.sender,
        type=stored.type,
        state_key=stored.state_key,
        content=stored.content,
        origin_server_ts=stored.origin_server_ts,
        depth=stored.depth,
        prev_events=_event_ids(stored.prev_events, version),
        auth_events=_event_ids(stored.auth_events, version),
        redacts=find_redacts(stored.type, stored.content, stored.redacts, version),
        signatures=stored.signatures,
        json=json,
    )
