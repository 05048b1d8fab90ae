"""Hashes name events: they must be those that every other server computes, in each room version."""

import hashlib
import json
from typing import Any

import canonicaljson
import pytest

from ranvier.core.errors import BadEvent, BadIdentifier
from ranvier.core.events.redact import redact
from ranvier.core.hashes import content_hash, event_id_of, reference_hash, signed_form
from ranvier.core.room_versions import V1, V2, V3, V4, V10, V11, RoomVersion
from ranvier.core.signing import SigningKey
from ranvier.core.unpadded_base64 import decode_base64, encode_base64
from tests import vectors
from tests.unit.event_samples import VERSIONS, b64, build, plain_content_hash

VECTORS = vectors.load("signing/spec.json")


@pytest.mark.parametrize("case", VECTORS["events"])
def test_the_events_of_the_specification(case: dict[str, Any]) -> None:
    """They have the form of room version 1: `origin` is signed."""
    event = case["event"]
    assert content_hash(event) == case["hash"]
    hashed = {**event, "hashes": {"sha256": case["hash"]}}
    key = SigningKey(decode_base64(VECTORS["seed"]), VECTORS["key_version"])
    assert encode_base64(key.sign(signed_form(hashed, V1))) == case["signature"]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_content_hash_leaves_out_three_keys_only(version: RoomVersion) -> None:
    event = json.loads(build(version).json)
    good = content_hash(event)
    assert good == plain_content_hash(event) == event["hashes"]["sha256"]
    for key in ("unsigned", "signatures", "hashes"):
        assert content_hash({**event, key: {"other": 1}}) == good
    assert content_hash({**event, "extra": 1}) != good
    assert content_hash({**event, "content": {}}) != good


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_reference_hash_survives_redaction(version: RoomVersion) -> None:
    event = json.loads(build(version).json)
    expected = {key: value for key, value in redact(event, version).items() if key != "signatures"}
    digest = hashlib.sha256(canonicaljson.encode_canonical_json(expected)).digest()
    assert reference_hash(event, version) == digest
    assert reference_hash(redact(event, version), version) == digest
    assert reference_hash({**event, "unsigned": {"age": 1}, "signatures": {}, "extra": 1}, version) == digest
    assert reference_hash({**event, "hashes": {"sha256": "x"}}, version) != digest
    assert reference_hash({**event, "depth": event["depth"] + 1}, version) != digest


def _event_with_hash_of_both_alphabets() -> dict[str, Any]:
    for number in range(200):
        event = json.loads(build(V4, {"depth": number}).json)
        text = b64(reference_hash(event, V4))
        if "+" in text and "/" in text:
            return event
    raise AssertionError("no such event")


def test_the_id_in_the_form_of_each_version() -> None:
    event = _event_with_hash_of_both_alphabets()
    standard = "$" + b64(reference_hash(event, V3))
    assert event_id_of(event, V3) == standard
    for version in (V4, V10):
        assert event_id_of(event, version) == standard.replace("+", "-").replace("/", "_")
    for version in (V1, V2):
        assert event_id_of({**event, "event_id": "$x:hs.example"}, version) == "$x:hs.example"


def test_the_id_of_an_event_with_legacy_keys_depends_on_the_version() -> None:
    """`origin` is hashed until v10 and not from v11."""
    event = json.loads(build(V11).json)
    assert event_id_of({**event, "origin": "hs.example"}, V11) == event_id_of(event, V11)
    assert event_id_of({**event, "origin": "hs.example"}, V10) != event_id_of(event, V10)


@pytest.mark.parametrize(
    "event_id", [None, 5, "", "x", "$", "$x", "x:hs.example", "$x:", "$:hs.example", "$x:a b"]
)
def test_versions_1_and_2_need_an_id_that_names_a_server(event_id: object) -> None:
    with pytest.raises((BadEvent, BadIdentifier)):
        event_id_of({"event_id": event_id}, V1)
