"""The table of room versions against the pages of the specification: which version brought or ended what."""

import pytest

from ranvier.core.errors import UnsupportedRoomVersion
from ranvier.core.room_versions import (
    BRIDGED_2014,
    DEFAULT_ROOM_VERSION,
    ROOM_VERSIONS,
    EventIdFormat,
    RoomVersion,
    StateResolution,
    get_federated_version,
    get_room_version,
)

# (field, first version, last version) for which a yes-or-no rule holds. Sources: rooms/v1.md … rooms/v12.md.
RULES = [
    ("hash_event_ids", 3, 12),
    ("event_id_server_signs", 1, 2),
    ("enforce_key_validity", 5, 12),
    ("strict_canonical_json", 6, 12),
    ("redacts_in_content", 11, 12),
    ("is_federated", 1, 12),
    ("has_long_fields", 1, 10),
    ("is_federated", 1, 12),
    ("auth.special_aliases", 1, 5),
    ("auth.redaction_needs_level", 1, 2),
    ("auth.check_notification_levels", 6, 12),
    ("auth.knock", 7, 12),
    ("auth.restricted", 8, 12),
    ("auth.knock_restricted", 10, 12),
    ("auth.integer_power_levels", 10, 12),
    ("auth.creator_in_content", 1, 10),
    ("auth.privileged_creators", 12, 12),
    ("auth.room_id_is_create_hash", 12, 12),
    ("redaction.keep_origin_membership_prev_state", 1, 10),
    ("redaction.keep_aliases", 1, 5),
    ("redaction.keep_allow", 8, 12),
    ("redaction.keep_join_authorised", 9, 12),
    ("redaction.keep_whole_create", 11, 12),
    ("redaction.keep_invite_level", 11, 12),
    ("redaction.keep_redacts", 11, 12),
    ("redaction.keep_third_party_signed", 11, 12),
]


def _rule(version: RoomVersion, path: str) -> object:
    value: object = version
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(("path", "first", "last"), RULES)
def test_rules(path: str, first: int, last: int) -> None:
    holding = [int(name) for name, version in ROOM_VERSIONS.items() if _rule(version, path) is True]
    assert holding == list(range(first, last + 1))
    assert all(isinstance(_rule(version, path), bool) for version in ROOM_VERSIONS.values())


def test_bridged_rooms_are_of_one_server_alone() -> None:
    assert BRIDGED_2014.name not in ROOM_VERSIONS
    assert get_room_version(BRIDGED_2014.name) is BRIDGED_2014
    assert not BRIDGED_2014.is_federated
    with pytest.raises(UnsupportedRoomVersion):
        get_federated_version(BRIDGED_2014.name)
    assert get_federated_version("11") is get_room_version("11")


def test_every_rule_is_in_the_list_above() -> None:
    version = get_room_version("1")
    fields = {f"auth.{name}" for name in version.auth.__struct_fields__}
    fields |= {f"redaction.{name}" for name in version.redaction.__struct_fields__}
    fields |= set(version.__struct_fields__)
    fields -= {"name", "auth", "redaction", "event_id_format", "state_resolution"}
    assert fields | {"hash_event_ids"} == {path for path, _, _ in RULES}


def test_forms_of_event_ids_and_state_resolution() -> None:
    opaque, plain, safe = EventIdFormat.OPAQUE, EventIdFormat.HASH, EventIdFormat.URLSAFE_HASH
    assert [version.event_id_format for version in ROOM_VERSIONS.values()] == [opaque, opaque, plain] + [
        safe
    ] * 9
    v1, v2, v2_1 = StateResolution.V1, StateResolution.V2, StateResolution.V2_1
    assert [version.state_resolution for version in ROOM_VERSIONS.values()] == [v1] + [v2] * 10 + [v2_1]


def test_by_name() -> None:
    assert list(ROOM_VERSIONS) == [str(number) for number in range(1, 13)]
    for name, version in ROOM_VERSIONS.items():
        assert version.name == name
        assert get_room_version(name) is version
    assert DEFAULT_ROOM_VERSION.name == "12"


@pytest.mark.parametrize(
    "name", ["", "0", "13", "01", "1 ", "org.example", 1, None, [], {}, ["1"], "x" * 10_000]
)
def test_unknown_names(name: object) -> None:
    with pytest.raises(UnsupportedRoomVersion) as caught:
        get_room_version(name)
    assert len(str(caught.value)) < 200
