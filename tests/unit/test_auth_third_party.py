"""Invitations that accept a third-party invite: each sub-rule, in every version, with real signatures."""

from typing import Any

import pytest

from ranvier.core import signing
from ranvier.core.auth.check import check_state_dependent
from ranvier.core.auth.third_party import MAX_VERIFICATIONS
from ranvier.core.errors import AuthRejected
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion
from ranvier.core.signing import SigningKey
from ranvier.core.unpadded_base64 import encode_base64, encode_base64_urlsafe

from .auth_room import base_room, lookup, make_event, merge, state_events

VERSIONS = [pytest.param(version, id=f"v{version.name}") for version in ROOM_VERSIONS.values()]
KEY, OTHER_KEY = SigningKey(b"\xfb" * 32, "0"), SigningKey(b"\x02" * 32, "0")
PUBLIC = encode_base64(KEY.public_key)
SIGNED = signing.sign_json(
    {"mxid": "@new:one", "token": "token", "sender": "@user:one"}, "vector.example", KEY
)
SIGNATURE = SIGNED["signatures"]["vector.example"]["ed25519:0"]
V12 = ROOM_VERSIONS["12"]


def rule_prefix(version: RoomVersion) -> str:
    number = int(version.name)
    return "5.3.1" if number <= 5 else "4.3.1" if number <= 7 else "4.4.1" if number <= 11 else "5.4.1"


def invite(
    version: RoomVersion,
    *,
    offer: dict[str, Any] | None = None,
    signed: object = SIGNED,
    members: dict[str, str] | None = None,
    **fields: Any,
) -> None:
    """Check an invite of @new:one by @user:one against a room that holds the third-party invite `token`."""
    room = merge(base_room(version), {"members": members or {}, "levels": {"invite": 100}})
    content = {"display_name": "n", "public_key": PUBLIC} if offer is None else offer
    third_party = make_event(
        version, "$offer", type="m.room.third_party_invite", state_key="token", content=content
    )
    invitation = {"membership": "invite", "third_party_invite": {"display_name": "n", "signed": signed}}
    event = {"type": "m.room.member", "state_key": "@new:one", "content": invitation} | fields
    check_state_dependent(
        make_event(version, **event), lookup([*state_events(version, room), third_party]), version
    )


def sub_rule(version: RoomVersion, **arguments: Any) -> str:
    with pytest.raises(AuthRejected) as rejection:
        invite(version, **arguments)
    rule = rejection.value.rule
    assert rule.startswith(f"{rule_prefix(version)}.")
    return rule.removeprefix(f"{rule_prefix(version)}.")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_sub_rule(version: RoomVersion) -> None:
    # Neither the sender's membership nor the invite level counts: the third-party invite passed for both.
    invite(version)
    invite(version, members={"@user:one": "leave"})
    assert sub_rule(version, members={"@new:one": "ban"}) == "1"
    for nothing in (None, [], {}, {"signed": None}, {"signed": "x"}):
        assert sub_rule(version, content={"membership": "invite", "third_party_invite": nothing}) == "2"
    for missing in ("mxid", "token"):
        assert (
            sub_rule(version, signed={key: value for key, value in SIGNED.items() if key != missing}) == "3"
        )
        assert sub_rule(version, signed=SIGNED | {missing: {}}) == "3"
    assert sub_rule(version, signed=SIGNED | {"mxid": "@other:one"}) == "4"
    assert sub_rule(version, state_key="@other:one") == "4"
    assert sub_rule(version, signed=SIGNED | {"token": "other"}) == "5"
    assert sub_rule(version, sender="@mod:one") == "6"
    assert sub_rule(version, signed=SIGNED | {"more": 1}) == "8"


@pytest.mark.parametrize(
    "offer",
    [
        {"public_key": PUBLIC},
        {"public_key": PUBLIC + "="},
        {"public_key": encode_base64_urlsafe(KEY.public_key)},
        {"public_key": encode_base64(OTHER_KEY.public_key), "public_keys": [{"public_key": PUBLIC}]},
        {
            "public_keys": [
                1,
                {},
                {"public_key": "A"},
                {"public_key": PUBLIC, "key_validity_url": "https://x"},
            ]
        },
        {"public_key": [], "public_keys": [{"public_key": PUBLIC}]},
    ],
)
def test_any_listed_key_counts(offer: dict[str, Any]) -> None:
    invite(V12, offer=offer)


@pytest.mark.parametrize(
    "offer",
    [
        {},
        {"public_key": encode_base64(OTHER_KEY.public_key)},
        {"public_key": PUBLIC[:-1]},
        {"public_key": "é"},
        {"public_key": None, "public_keys": {"public_key": PUBLIC}},
        {"public_keys": [PUBLIC]},
        {"public_keys": PUBLIC},
    ],
)
def test_what_lists_no_such_key_proves_nothing(offer: dict[str, Any]) -> None:
    assert sub_rule(V12, offer=offer) == "8"


def signatures(by_server: object) -> dict[str, Any]:
    return SIGNED | {"signatures": by_server}


@pytest.mark.parametrize(
    "by_server",
    [
        {"anybody": {"ed25519:any": SIGNATURE}},
        {"a": 1, "b": {"rsa:0": "x", "ed25519:0": "?"}, "c": {"ed25519:1": SIGNATURE}},
    ],
)
def test_any_signature_counts_whoever_is_said_to_have_made_it(by_server: object) -> None:
    invite(V12, signed=signatures(by_server))


@pytest.mark.parametrize(
    "by_server",
    [
        None,
        [],
        {},
        SIGNATURE,
        {"a": SIGNATURE},
        {"a": {"rsa:0": SIGNATURE}},
        {"a": {"ed25519:0": [SIGNATURE]}},
        {"a": {"ed25519:0": SIGNATURE[:-4]}},
        {"a": {"ed25519:0": encode_base64(bytes(64))}},
    ],
)
def test_what_holds_no_good_signature_proves_nothing(by_server: object) -> None:
    assert sub_rule(V12, signed=signatures(by_server)) == "8"


def test_what_cannot_be_canonical_json_was_never_signed() -> None:
    assert sub_rule(V12, signed=SIGNED | {"more": float("nan")}) == "8"


def test_hostile_numbers_of_signatures_and_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0
    verify = signing.VerifyKey.verify

    def counting(key: signing.VerifyKey, message: bytes, signature: bytes) -> None:
        nonlocal attempts
        attempts += 1
        verify(key, message, signature)

    monkeypatch.setattr(signing.VerifyKey, "verify", counting)
    keys = [{"public_key": encode_base64(SigningKey(bytes([n] * 32), "0").public_key)} for n in range(100)]
    by_server = {f"s{n}": {"ed25519:0": encode_base64(bytes([n] * 64))} for n in range(100)}
    assert sub_rule(V12, offer={"public_keys": keys}, signed=signatures(by_server)) == "8"
    assert attempts == MAX_VERIFICATIONS
    # The same key a hundred times is one key.
    attempts = 0
    assert (
        sub_rule(V12, offer={"public_keys": keys[:1] * 100}, signed=signatures({"s": by_server["s1"]})) == "8"
    )
    assert attempts == 1
