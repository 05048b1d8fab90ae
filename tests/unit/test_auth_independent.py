"""The authorization rules that look only at an event and what it cites: create, the room id, auth_events."""

from typing import Any

import pytest

from ranvier.core.auth.check import check_state_independent, create_event_id
from ranvier.core.auth.select import auth_keys_for
from ranvier.core.errors import AuthRejected
from ranvier.core.events.pdu import Pdu
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion

from .auth_room import CREATOR, base_room, make_event, merge, state_events

VERSIONS = [pytest.param(version, id=f"v{version.name}") for version in ROOM_VERSIONS.values()]
WITH_ROOM_ID = [
    pytest.param(version, id=f"v{name}") for name, version in ROOM_VERSIONS.items() if int(name) < 12
]
WITH_CREATOR = [
    pytest.param(version, id=f"v{name}") for name, version in ROOM_VERSIONS.items() if int(name) < 11
]
V11, V12 = ROOM_VERSIONS["11"], ROOM_VERSIONS["12"]


def create(version: RoomVersion, content: dict[str, Any] | None = None, **fields: Any) -> Pdu:
    content = {"creator": CREATOR, "room_version": version.name} if content is None else content
    defaults: dict[str, Any] = {"sender": CREATOR, "state_key": "", "prev_events": ()}
    return make_event(version, "$create", type="m.room.create", content=content, **(defaults | fields))


def rule_against(
    event: Pdu, version: RoomVersion, known: dict[Any, Pdu] | None = None, **options: Any
) -> str:
    with pytest.raises(AuthRejected) as rejection:
        check_state_independent(event, known or {}, version, **options)
    return rejection.value.rule


@pytest.mark.parametrize("version", VERSIONS)
def test_create_event(version: RoomVersion) -> None:
    check_state_independent(create(version), {}, version)
    assert rule_against(create(version, prev_events=("$other",)), version) == "1.1"
    for unknown in ("0", "1000", "org.example", None, 1, [], {}):
        content = {"creator": CREATOR, "room_version": unknown}
        assert rule_against(create(version, content), version) == "1.3"
    check_state_independent(create(version, {"creator": CREATOR}), {}, version)


@pytest.mark.parametrize("version", WITH_ROOM_ID)
@pytest.mark.parametrize("room_id", ["!room:two", "!room", "!room:", "!room:one:8448"])
def test_create_event_is_of_the_server_that_its_room_id_names(version: RoomVersion, room_id: str) -> None:
    assert rule_against(create(version, room_id=room_id), version) == "1.2"
    check_state_independent(create(version, room_id="!room:two:8448", sender="@a:two:8448"), {}, version)


@pytest.mark.parametrize("version", WITH_CREATOR)
def test_create_event_names_its_creator_up_to_v10(version: RoomVersion) -> None:
    assert rule_against(create(version, {"room_version": version.name}), version) == "1.4"


def test_create_event_need_not_name_its_creator_since_v11() -> None:
    for version in (V11, V12):
        check_state_independent(create(version, {}), {}, version)


def test_create_event_of_v12_carries_no_room_id() -> None:
    wire = {"type": "m.room.create", "content": {"room_id": "!inside:one"}}
    check_state_independent(create(V12, json=wire), {}, V12)
    assert rule_against(create(V12, json=wire | {"room_id": "!create"}), V12) == "1.2"


@pytest.mark.parametrize(
    "creators",
    [
        None,
        "@b:one",
        {},
        {"@b:one": 1},
        ["b"],
        ["@b:one", 1],
        ["@b"],
        ["@b:"],
        ["@b:one", None],
        [["@b:one"]],
    ],
)
def test_additional_creators_are_user_ids_since_v12(creators: object) -> None:
    content = {"additional_creators": creators}
    assert rule_against(create(V12, content), V12) == "1.4"
    check_state_independent(create(V11, content), {}, V11)
    for accepted in ([], ["@b:one"], ["@b:one", "@b:one", CREATOR]):
        check_state_independent(create(V12, {"additional_creators": accepted}), {}, V12)


class Citation:
    """A join into the base room that cites what it should, and the number of the rule on auth_events."""

    def __init__(self, version: RoomVersion) -> None:
        self.version = version
        self.number = 3 if version is V12 else 2
        room = merge(base_room(version), {"members": {"@new:one": "invite"}})
        events = [
            *state_events(version, room),
            make_event(version, "$name", type="m.room.name", state_key=""),
        ]
        self.known = {event.event_id: event for event in events}
        self.fields = {
            "type": "m.room.member",
            "sender": "@new:one",
            "state_key": "@new:one",
            "content": {"membership": "join"},
        }
        self.cited = ["$levels", "$join_rules", "$@new:one"] + (["$create"] if version is not V12 else [])

    def event(self, cited: list[str], **fields: Any) -> Pdu:
        return make_event(self.version, "$join", **(self.fields | fields), auth_events=tuple(cited))

    def rule_against(self, cited: list[str], **options: Any) -> str:
        return rule_against(self.event(cited), self.version, self.known, **options)


@pytest.mark.parametrize("version", VERSIONS)
def test_auth_events(version: RoomVersion) -> None:
    case = Citation(version)
    check_state_independent(case.event(case.cited), case.known, version)
    # What the room lacks cannot be cited; the rules beyond judge its absence.
    check_state_independent(case.event(case.cited[1:]), case.known, version)
    # x.1: a slot twice, by the same event or by two
    assert case.rule_against([*case.cited, "$levels"]) == f"{case.number}.1"
    case.known["$levels2"] = make_event(version, "$levels2", type="m.room.power_levels", state_key="")
    assert case.rule_against([*case.cited, "$levels2"]) == f"{case.number}.1"
    # x.2: events that do not serve
    for other in ("$name", "$@mod:one"):
        assert case.rule_against([*case.cited, other]) == f"{case.number}.2"
    case.known["$message"] = make_event(version, "$message", type="m.room.power_levels")
    assert case.rule_against(["$message", *case.cited[1:]]) == f"{case.number}.2"
    # x.3
    assert case.rule_against(case.cited, rejected={"$join_rules"}) == f"{case.number}.3"
    check_state_independent(case.event(case.cited), case.known, version, rejected={"$name"})
    # x.5
    foreign = make_event(version, "$foreign", type="m.room.power_levels", state_key="", room_id="!other:one")
    case.known["$foreign"] = foreign
    assert case.rule_against(["$foreign", *case.cited[1:]]) == f"{case.number}.5"


@pytest.mark.parametrize("version", WITH_ROOM_ID)
def test_create_event_is_cited_up_to_v11(version: RoomVersion) -> None:
    case = Citation(version)
    assert case.rule_against([event_id for event_id in case.cited if event_id != "$create"]) == "2.4"


def test_create_event_is_not_cited_since_v12() -> None:
    case = Citation(V12)
    assert case.rule_against([*case.cited, "$create"]) == "3.2"


def test_room_id_of_v12_is_that_of_an_accepted_create_event() -> None:
    case = Citation(V12)
    assert create_event_id("!create") == "$create"
    assert case.rule_against(case.cited, rejected={"$create"}) == "2"
    event = case.event(case.cited, room_id="!levels")
    assert rule_against(event, V12, case.known) == "2", "an event that is no create event"
    assert rule_against(case.event(case.cited, room_id="!unknown"), V12, case.known) == "2"
    del case.known["$create"]
    assert case.rule_against(case.cited) == "2"


def test_unknown_auth_event_is_the_callers_fault() -> None:
    case = Citation(V11)
    with pytest.raises(KeyError):
        check_state_independent(case.event([*case.cited, "$missing"]), case.known, V11)


BASE_KEYS = {("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", "@a:one")}
TARGET, RULES, AUTHORISER = (
    ("m.room.member", "@b:two"),
    ("m.room.join_rules", ""),
    ("m.room.member", "@c:three"),
)
THIRD_PARTY = ("m.room.third_party_invite", "token")
SIGNED = {"third_party_invite": {"signed": {"token": "token"}}}


@pytest.mark.parametrize(
    ("event_type", "state_key", "content", "further"),
    [
        ("m.room.message", None, {"membership": "join"}, set()),
        ("m.room.power_levels", "", {}, set()),
        ("m.room.member", None, {"membership": "join"}, set()),
        ("m.room.member", "@b:two", {}, {TARGET}),
        ("m.room.member", "@b:two", {"membership": "leave"}, {TARGET}),
        ("m.room.member", "@b:two", {"membership": "ban"} | SIGNED, {TARGET}),
        ("m.room.member", "@b:two", {"membership": "join"} | SIGNED, {TARGET, RULES}),
        ("m.room.member", "@b:two", {"membership": "invite"}, {TARGET, RULES}),
        ("m.room.member", "@b:two", {"membership": "knock"}, {TARGET, RULES}),
        ("m.room.member", "@b:two", {"membership": "invite"} | SIGNED, {TARGET, RULES, THIRD_PARTY}),
        ("m.room.member", "@b:two", {"membership": "invite", "third_party_invite": []}, {TARGET, RULES}),
        (
            "m.room.member",
            "@b:two",
            {"membership": "invite", "third_party_invite": {"signed": 1}},
            {TARGET, RULES},
        ),
        ("m.room.member", "@b:two", {"membership": ["join"]}, {TARGET}),
        ("m.room.member", "@a:one", {"membership": "join"}, {RULES}),
    ],
)
def test_selection(
    event_type: str, state_key: str | None, content: dict[str, Any], further: set[tuple[str, str]]
) -> None:
    for version in ROOM_VERSIONS.values():
        keys = auth_keys_for(event_type, "@a:one", state_key, content, version)
        expected = BASE_KEYS | further
        if version is V12:
            expected -= {("m.room.create", "")}
        assert set(keys) == expected
        assert len(set(keys)) == len(keys)


def test_selection_of_a_create_event_is_empty() -> None:
    for version in ROOM_VERSIONS.values():
        assert auth_keys_for("m.room.create", "@a:one", "", {}, version) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_selection_of_a_restricted_join(version: RoomVersion) -> None:
    content = {"membership": "join", "join_authorised_via_users_server": "@c:three"}
    assert (AUTHORISER in auth_keys_for("m.room.member", "@a:one", "@a:one", content, version)) == (
        int(version.name) >= 8
    )
    for other in (content | {"membership": "leave"}, content | {"join_authorised_via_users_server": 1}):
        assert AUTHORISER not in auth_keys_for("m.room.member", "@a:one", "@a:one", other, version)
