"""What the rules cost per event: building (hash and sign), parsing, verifying, authorizing."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from bench.figure import Figure
from ranvier.core.events.build import EventTemplate, Placement, build_event
from ranvier.core.events.client import client_head
from ranvier.core.events.parse import parse_pdu, parse_stored, signed_bytes, verify_event_signature
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.core.room_versions import DEFAULT_ROOM_VERSION
from ranvier.core.signing import SigningKey

SECONDS: Final = 0.5
SERVER: Final = ServerName("example.org")
KEY: Final = SigningKey(bytes(32), "1")


def run() -> Sequence[Figure]:
    """Each on one core, for a message of ordinary size."""
    version = DEFAULT_ROOM_VERSION
    template = EventTemplate(
        room_id=RoomID("!" + "r" * 43),
        type="m.room.message",
        sender=UserID("@alice:example.org"),
        content={"msgtype": "m.text", "body": "Shall we have tea in the garden at four?"},
    )
    placement = Placement(
        prev_events=[EventID("$" + "p" * 43)],
        auth_events=[EventID("$" + "a" * 43), EventID("$" + "b" * 43)],
        depth=100,
        origin_server_ts=1_700_000_000_000,
    )
    pdu = build_event(template, placement, version, SERVER, KEY)
    signed = signed_bytes(pdu, version)

    def verify() -> None:
        verify_event_signature(pdu, signed, SERVER, KEY.key_id, KEY.verify_key)

    return [
        _rate(
            "events built, hashed and signed", lambda: build_event(template, placement, version, SERVER, KEY)
        ),
        _rate("signatures verified", verify),
        _rate("events parsed and hashes checked", lambda: parse_pdu(pdu.json, version)),
        _rate("stored events read back", lambda: parse_stored(pdu.json, pdu.event_id, pdu.room_id, version)),
        _rate("client forms made", lambda: client_head(pdu.json, pdu.event_id)),
    ]


def _rate(name: str, once: Callable[[], object]) -> Figure:
    count = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SECONDS:
        for _ in range(100):
            once()
        count += 100
    return Figure(name, count / elapsed, "1/s")
