"""Registration files: what they mean, and what is said of mistakes in them."""

import contextlib
import hashlib

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.app.check import find_faults
from ranvier.app.config import AppservicesConfig, Config
from ranvier.app.registrations import read_registrations
from ranvier.core.appservices.registration import BadRegistration, parse_registration
from ranvier.core.identifiers import RoomAlias, RoomID, ServerName, UserID

SERVER = ServerName("example.org")

GOOD = {
    "id": "IRC Bridge",
    "url": "http://127.0.0.1:1234/irc/",
    "as_token": "as",
    "hs_token": "hs",
    "sender_localpart": "_irc_bot",
    "namespaces": {
        "users": [
            {"exclusive": True, "regex": "@_irc_bridge_.*"},
            {"exclusive": False, "regex": "@[[:digit:]]+:"},
        ],
        "aliases": [{"exclusive": False, "regex": "#_irc_bridge_.*"}],
        "rooms": [{"exclusive": False, "regex": "!abc"}],
    },
    "url_of_ours": "unknown keys are left alone",
}


def parse(**changes):
    value = {key: value for key, value in (GOOD | changes).items() if value != "(gone)"}
    return parse_registration(value, SERVER)


def test_what_a_file_says():
    registration = parse(protocols=["irc", "irc"])
    assert registration.url == "http://127.0.0.1:1234/irc"
    assert registration.token_hash == hashlib.sha256(b"as").digest()
    assert registration.sender == "@_irc_bot:example.org"
    assert registration.protocols == ("irc",)
    assert registration.is_rate_limited
    assert not registration.receives_messages
    assert parse(url=None).url is None
    assert parse(**{"de.sorunome.msc2409.push_ephemeral": True}).receives_ephemeral
    encrypted = parse(**{"org.matrix.msc3202": True, "rate_limited": False})
    assert encrypted.receives_encryption
    assert encrypted.receives_messages
    assert not encrypted.is_rate_limited


@pytest.mark.parametrize(
    ("user_id", "is_claimed", "is_owned"),
    [
        ("@_irc_bridge_x:example.org", True, True),
        ("@_irc_bot:example.org", True, True),
        ("@123:example.org", True, False),
        ("@x123:example.org", False, False),  # from the beginning of the name
        ("@_irc_bridge_x:elsewhere.org", False, False),
        ("@alice:example.org", False, False),
    ],
)
def test_which_users_are_whose(user_id, is_claimed, is_owned):
    namespaces = parse().namespaces
    assert namespaces.claims_user(UserID(user_id)) is is_claimed
    assert namespaces.owns_user(UserID(user_id)) is is_owned


def test_which_aliases_and_rooms_are_whose():
    namespaces = parse().namespaces
    assert namespaces.claims_alias(RoomAlias("#_irc_bridge_x:example.org"))
    assert not namespaces.owns_alias(RoomAlias("#_irc_bridge_x:example.org"))
    assert not namespaces.claims_alias(RoomAlias("#_irc_bridge_x:elsewhere.org"))
    assert namespaces.claims_room(RoomID("!abcd:elsewhere.org"))
    assert not namespaces.claims_room(RoomID("!xabc:example.org"))


def namespaces(**lists):
    return {"namespaces": lists}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(
            ({key: "(gone)"}, f"{key} is missing")
            for key in ("id", "url", "as_token", "hs_token", "namespaces")
        ),
        ({"sender_localpart": "(gone)"}, "sender_localpart is missing"),
        ({"id": 5}, "id is a text"),
        ({"id": ""}, "id is a text"),
        ({"url": 5}, "url is a text"),
        ({"url": "localhost:9000"}, "no URL such as"),
        ({"url": "ftp://host"}, "no URL such as"),
        ({"url": "http://"}, "no URL such as"),
        ({"url": "http://host:99999"}, "no URL such as"),
        ({"url": "http://[::1"}, "no URL such as"),
        ({"url": "http://host/?x=1"}, "no URL such as"),
        ({"url": "http://host/ x"}, "no URL such as"),
        ({"as_token": 5}, "as_token is a text"),
        ({"as_token": ""}, "as_token is empty"),
        ({"hs_token": "a b"}, "cannot be sent in a header"),
        ({"hs_token": "a\r\nb"}, "cannot be sent in a header"),
        ({"hs_token": "ä"}, "cannot be sent in a header"),
        ({"sender_localpart": "@bot:example.org"}, "between @ and :"),
        ({"sender_localpart": "x" * 300}, "sender_localpart: "),
        ({"sender_localpart": 5}, "sender_localpart is a text"),
        ({"namespaces": []}, "namespaces is a mapping"),
        ({"namespaces": None}, "namespaces is a mapping"),
        (namespaces(user=[]), "'user' is none of"),
        (namespaces(users={}), "namespaces.users is a list"),
        (namespaces(users=["@x"]), r"namespaces.users\[0\] is a mapping"),
        (namespaces(users=[{"regex": "x"}]), r"namespaces.users\[0\].exclusive is true or false"),
        (namespaces(rooms=[{"exclusive": True}]), r"namespaces.rooms\[0\].regex is a text"),
        (namespaces(aliases=[{"exclusive": True, "regex": "("}]), "is no regular expression"),
        (namespaces(aliases=[{"exclusive": True, "regex": "x{99999999999}"}]), "is no regular expression"),
        ({"rate_limited": "no"}, "rate_limited is true or false"),
        ({"receive_ephemeral": 1}, "receive_ephemeral is true or false"),
        ({"protocols": "irc"}, "protocols is a list of texts"),
        ({"protocols": [1]}, "protocols is a list of texts"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(BadRegistration, match=words) as raised:
        parse(**changes)
    assert "\n" not in str(raised.value)


@settings(max_examples=150)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*GOOD, "users", "regex", "exclusive"]) | st.text(), inner, max_size=8
            )
        ),
        max_leaves=20,
    )
)
def test_any_value_is_a_registration_or_a_fault(value):
    with contextlib.suppress(BadRegistration):
        parse_registration(value, SERVER)


def write(directory, name, value):
    path = directory / name
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    return path


def test_each_file_has_its_own_fault(tmp_path):
    paths = [
        write(tmp_path, "good.yaml", GOOD),
        write(tmp_path, "same_id.yaml", GOOD | {"as_token": "b", "sender_localpart": "b"}),
        write(tmp_path, "same_token.yaml", GOOD | {"id": "c", "sender_localpart": "c"}),
        write(tmp_path, "same_sender.yaml", GOOD | {"id": "d", "as_token": "d"}),
        write(tmp_path, "no_yaml.yaml", "a: [1\nb: }"),
        write(tmp_path, "python.yaml", "!!python/object/apply:os.system ['true']"),
        write(tmp_path, "list.yaml", "[]"),
        write(tmp_path, "empty.yaml", ""),
        write(tmp_path, "deep.yaml", "[" * 5_000),
        write(tmp_path, "large.yaml", "#" * 1_100_000),
        tmp_path / "missing.yaml",
        tmp_path,
        write(tmp_path, "other.yaml", GOOD | {"id": "e", "as_token": "e", "sender_localpart": "e"}),
    ]
    good, faults = read_registrations(paths, SERVER)
    assert [one.id for one in good] == ["IRC Bridge", "e"]
    assert len(faults) == len(paths) - 2
    for fault, path in zip(faults, paths[1:-1], strict=True):
        assert fault.startswith(f"appservices.registrations: {path}: ")
        assert "\n" not in fault
    assert "the id 'IRC Bridge' is in another file" in faults[0]
    assert "the as_token is that of 'IRC Bridge'" in faults[1]
    assert "the sender_localpart is that of 'IRC Bridge'" in faults[2]


async def test_the_check_of_a_configuration_reads_registrations(tmp_path):
    path = write(tmp_path, "bad.yaml", GOOD | {"url": "nowhere"})
    config = Config(
        server_name="example.org",
        data_dir=tmp_path,
        appservices=AppservicesConfig(registrations=(path,)),
    )
    assert any(f"{path}: url: 'nowhere'" in fault for fault in await find_faults(config))
