"""Calls: relays, media servers, and who gets tokens for them."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from ranvier.app.config import RtcConfig, TurnConfig
from ranvier.app.config_load import ConfigFaults, load_config
from ranvier.core.jwt import sign_jwt

from .client import Answer, segment
from .homeserver import Homeserver, User
from .rooms import C, create, do

SERVICE = "/_ranvier/livekit"
RTC = RtcConfig(livekit_url="wss://livekit.test", livekit_key="key", livekit_secret="secret")


def claims_of(token: str) -> dict[str, Any]:
    """What a media server reads. Fails if the signature is not right."""
    signed, _, signature = token.rpartition(".")
    expected = hmac.digest(b"secret", signed.encode(), hashlib.sha256)
    assert base64.urlsafe_b64encode(expected).rstrip(b"=").decode() == signature
    header, payload = (base64.urlsafe_b64decode(part + "==") for part in signed.split("."))
    assert orjson.loads(header) == {"alg": "HS256", "typ": "JWT"}
    claims: dict[str, Any] = orjson.loads(payload)
    return claims


async def openid_of(user: User) -> dict[str, Any]:
    answer = await user.post(f"{C}/user/{segment(user.user_id)}/openid/request_token", {})
    proof: dict[str, Any] = answer.json
    return proof


@pytest.fixture
async def calling(start_homeserver: Callable) -> Homeserver:
    homeserver: Homeserver = await start_homeserver(rtc=RTC, public_base_url="https://test.example/")
    return homeserver


def test_a_token_is_the_one_of_the_rfc() -> None:
    """RFC 7515, appendix A.1, has another header; this one was made with PyJWT."""
    token = sign_jwt({"sub": "1"}, "secret")
    header, payload, _ = token.split(".")
    assert (header, payload) == ("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJzdWIiOiIxIn0")
    assert claims_of(token) == {"sub": "1"}


async def test_without_media_server_there_are_no_transports(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    for path in (
        "/_matrix/client/v1/rtc/transports",
        "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
    ):
        assert (await alice.get(path)).json == {"rtc_transports": []}
        assert (await homeserver.client.get(path)).status == 401
    for path in (f"{SERVICE}/sfu/get", f"{SERVICE}/get_token", "/_matrix/client/v1/rtc/livekit/get_token"):
        assert (await alice.post(path, {})).status == 404


async def test_transports_are_told(calling: Homeserver) -> None:
    alice = await calling.register("alice")
    transport = {"type": "livekit", "livekit_service_url": f"https://test.example{SERVICE}"}
    assert (await alice.get("/_matrix/client/v1/rtc/transports")).json == {"rtc_transports": [transport]}
    well_known = (await calling.client.get("/.well-known/matrix/client")).json
    assert well_known["org.matrix.msc4143.rtc_foci"] == [transport]


async def test_all_ways_lead_into_the_same_call(calling: Homeserver) -> None:
    alice = await calling.register("alice")
    room_id = await create(alice)
    member = {"id": "xyz", "claimed_device_id": "PHONE"}
    slot = {"room_id": room_id, "slot_id": "m.call#ROOM", "member": member}
    own = await alice.post("/_matrix/client/v1/rtc/livekit/get_token", {**slot, "server_name": "test"})
    proof = await openid_of(alice)
    service = await calling.client.post(f"{SERVICE}/get_token", {**slot, "openid_token": proof})
    old = await calling.client.post(
        f"{SERVICE}/sfu/get", {"room": room_id, "openid_token": proof, "device_id": "PHONE"}
    )
    assert [answer.json["url"] for answer in (own, service, old)] == ["wss://livekit.test"] * 3
    own_claims, service_claims, old_claims = (claims_of(answer.json["jwt"]) for answer in (own, service, old))
    assert own_claims["video"] == service_claims["video"] == old_claims["video"]
    alias = hashlib.sha256(orjson.dumps([room_id, "m.call#ROOM"])).digest()
    assert own_claims["video"] == {
        "room": base64.b64encode(alias).rstrip(b"=").decode(),
        "roomJoin": True,
        "roomCreate": True,
        "canPublish": True,
        "canSubscribe": True,
    }
    name = hashlib.sha256(orjson.dumps(["@alice:test", "PHONE", "xyz"])).digest()
    assert own_claims["sub"] == service_claims["sub"] == base64.b64encode(name).rstrip(b"=").decode()
    assert old_claims["sub"] == "@alice:test:PHONE"
    assert own_claims["iss"] == "key"
    assert own_claims["exp"] - own_claims["nbf"] == 3600


async def test_only_members_of_the_room_get_tokens(calling: Homeserver) -> None:
    alice, bob = await calling.register("alice"), await calling.register("bob")
    room_id = await create(alice, preset="public_chat")

    async def ask(room: str) -> Answer:
        body = {"room": room, "openid_token": await openid_of(bob), "device_id": "D"}
        return await calling.client.post(f"{SERVICE}/sfu/get", body)

    for room in (room_id, "!nowhere:test"):
        answer = await ask(room)
        assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")
    await do(bob, room_id, "join")
    assert (await ask(room_id)).status == 200
    await do(bob, room_id, "leave")
    assert (await ask(room_id)).status == 401


@pytest.mark.parametrize(
    "proof",
    [
        {"access_token": "wrong", "matrix_server_name": "test"},
        {"access_token": "wrong", "matrix_server_name": "127.0.0.1:1"},
        {"access_token": "wrong", "matrix_server_name": "no server"},
    ],
)
async def test_a_proof_that_proves_nothing(calling: Homeserver, proof: dict[str, str]) -> None:
    alice = await calling.register("alice")
    body = {"room": await create(alice), "openid_token": proof, "device_id": "D"}
    answer = await calling.client.post(f"{SERVICE}/sfu/get", body)
    assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")


async def test_media_servers_of_others_are_not_asked(calling: Homeserver) -> None:
    alice = await calling.register("alice")
    body = {
        "room_id": await create(alice),
        "slot_id": "m.call#ROOM",
        "member": {"id": "x", "claimed_device_id": "D"},
        "server_name": "other.example",
    }
    answer = await alice.post("/_matrix/client/v1/rtc/livekit/get_token", body)
    assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    assert (await alice.post("/_matrix/client/v1/rtc/livekit/get_token", {})).status == 400


async def test_relays(start_homeserver: Callable) -> None:
    turn = TurnConfig(uris=("turn:turn.example",), shared_secret="secret", lifetime_s=600)
    homeserver = await start_homeserver(turn=turn)
    alice = await homeserver.register("alice")
    answer = (await alice.get(f"{C}/voip/turnServer")).json
    expires, _, user_id = answer["username"].partition(":")
    assert user_id == "@alice:test"
    assert abs(int(expires) - homeserver.clock.now_ms() / 1000 - 600) < 60
    expected = hmac.digest(b"secret", answer["username"].encode(), "sha1")
    assert base64.b64decode(answer["password"]) == expected
    assert answer["uris"] == ["turn:turn.example"]
    assert answer["ttl"] == 600


async def test_without_relays_there_are_no_credentials(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    assert (await alice.get(f"{C}/voip/turnServer")).json == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('turn.uris = ["turn:x"]', "turn: uris and shared_secret go together"),
        ('turn.shared_secret = "x"', "turn: uris and shared_secret go together"),
        ('turn.uris = ["http://x"]\nturn.shared_secret = "x"', "turn.uris"),
        ('rtc.livekit_url = "wss://x"', "go together"),
        ('rtc.livekit_url = "https://x"', "rtc.livekit_url"),
        ('rtc.livekit_key = "x"', "public_base_url"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "ranvier.toml"
    file.write_text(f'server_name = "test"\n{text}\n')
    with pytest.raises(ConfigFaults) as raised:
        load_config(file, {}, {}, directory=tmp_path)
    assert any(fault in line for line in raised.value.faults)
