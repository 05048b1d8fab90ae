"""The authorization rules that depend on state: every numbered rule of every version rejects what it should,
under its own number, and allows what differs from that as little as possible.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ranvier.core.auth.check import check_state_dependent
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion

from .auth_room import base_room, lookup, make_event, merge, state_events

VECTORS = Path(__file__).parent.parent / "vectors" / "auth"


def versions_of(span: object) -> list[RoomVersion]:
    first, _, last = str(span).partition("-")
    return [ROOM_VERSIONS[str(number)] for number in range(int(first), int(last or first) + 1)]


def cases() -> Iterator[Any]:
    for path in (VECTORS / "rules.yaml", VECTORS / "power_levels.yaml"):
        for case in yaml.safe_load(path.read_text()):
            for span, rule in case["rule"].items():
                for version in versions_of(span):
                    yield pytest.param(case, version, rule, id=f"v{version.name} {rule} {case['why']}")


def build_event(version: RoomVersion, room: dict[str, Any], description: dict[str, Any]) -> Pdu:
    fields = dict(description)
    if fields.pop("prev", None) == "create":
        fields["prev_events"] = ("$create",)
    if "change" in fields:
        fields["content"] = merge(room.get("levels", {}), fields.pop("change"))
    servers = fields.pop("signed_by", [])
    return make_event(version, signatures={server: {"ed25519:k": "sig"} for server in servers}, **fields)


@pytest.mark.parametrize(("case", "version", "rule"), list(cases()))
def test_rule(case: dict[str, Any], version: RoomVersion, rule: str) -> None:
    room = merge(base_room(version), case.get("room", {}))
    state = lookup(state_events(version, room))
    for description in case["reject"]:
        with pytest.raises(AuthRejected) as rejection:
            check_state_dependent(build_event(version, room, description), state, version)
        assert rejection.value.rule == rule, description
    for variation in case["allow"]:
        varied = merge(room, variation.get("room", {}))
        event = build_event(version, varied, variation["event"])
        check_state_dependent(event, lookup(state_events(version, varied)), version)


def test_create_event_asks_nothing_of_state() -> None:
    for version in ROOM_VERSIONS.values():
        check_state_dependent(
            make_event(version, type="m.room.create", state_key=""),
            lambda event_type, state_key: None,
            version,
        )
