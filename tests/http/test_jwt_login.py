"""Logging in with a token that another program of the administrator signed."""

import base64
import hashlib
import hmac

import orjson
import pytest

from ranvier.app.config import JwtConfig, LoginConfig, ServerNoticesConfig
from ranvier.core.jwt import sign_jwt

from .administrators import register_admin

C = "/_matrix/client/v3"
SECRET = "a secret of the web site"


@pytest.fixture
async def homeserver(start_homeserver):
    return await start_homeserver(login=LoginConfig(jwt=JwtConfig(secret=SECRET)))


async def log_in(homeserver, token, **more):
    return await homeserver.client.post(f"{C}/login", {"type": "org.matrix.login.jwt", "token": token} | more)


def token(secret=SECRET, **claims):
    return sign_jwt(claims, secret)


def forged(header):
    """A good signature for a header that the signer would not write."""
    parts = [base64.urlsafe_b64encode(orjson.dumps(one)).rstrip(b"=") for one in (header, {"sub": "dan"})]
    signature = hmac.digest(SECRET.encode(), b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


async def test_whoever_is_named_is_logged_in_and_has_an_account_from_then_on(homeserver):
    flows = (await homeserver.client.get(f"{C}/login")).json["flows"]
    assert {"type": "org.matrix.login.jwt"} in flows
    first = await log_in(homeserver, token(sub="Dan"), device_id="ONE", initial_device_display_name="Web")
    assert (first.json["user_id"], first.json["device_id"]) == ("@dan:test", "ONE")
    again = await log_in(homeserver, token(sub="dan"))
    dan = homeserver.user(again.json)
    assert len((await dan.get(f"{C}/devices")).json["devices"]) == 2


@pytest.mark.parametrize(
    "bad",
    [
        token("another secret!!", sub="dan"),
        token(sub="dan")[:-1],
        token(sub="dan") + "x",
        token(name="dan"),
        token(sub=1),
        token(sub="dan", exp=1),
        token(sub="dan", exp="never"),
        token(sub="dan", nbf=2**40),
        token(sub="dan", nbf=True),
        forged({"alg": "none"}),
        forged({"alg": "RS256"}),
        forged({"alg": "HS256", "crit": ["b64"]}),
        forged([]),
        "",
        "a.b.c",
        "é.é.é",
        "x" * 20_000,
    ],
)
async def test_tokens_that_prove_nothing(homeserver, bad):
    assert (await log_in(homeserver, bad)).errcode == "M_FORBIDDEN"


async def test_other_faults(homeserver):
    assert (await log_in(homeserver, None)).errcode == "M_MISSING_PARAM"
    assert (await log_in(homeserver, token(sub="ü"))).errcode == "M_INVALID_USERNAME"
    assert (await log_in(homeserver, token(sub="dan"), device_id="")).status == 400


async def test_issuer_and_audience_may_be_demanded(start_homeserver):
    config = JwtConfig(secret=SECRET, subject_claim="user", issuer="web", audiences=("matrix", "chat"))
    homeserver = await start_homeserver(login=LoginConfig(jwt=config))
    good = {"user": "dan", "iss": "web", "aud": "chat", "exp": 2**40, "nbf": 1}
    for change, status in (
        ({}, 200),
        ({"aud": ["x", "matrix"]}, 200),
        ({"aud": "x"}, 403),
        ({"aud": None}, 403),
        ({"iss": "x"}, 403),
        ({"iss": None}, 403),
    ):
        assert (await log_in(homeserver, token(**(good | change)))).status == status, change


async def test_who_is_shut_out_stays_outside(start_homeserver):
    homeserver = await start_homeserver(
        login=LoginConfig(jwt=JwtConfig(secret=SECRET)), server_notices=ServerNoticesConfig(user="notices")
    )
    admin = await register_admin(homeserver)
    await log_in(homeserver, token(sub="dan"))
    path = "/_synapse/admin/v2/users/@dan:test"
    await admin.put(path, {"locked": True})
    assert (await log_in(homeserver, token(sub="dan"))).errcode == "M_USER_LOCKED"
    await admin.put(path, {"locked": False, "deactivated": True})
    assert (await log_in(homeserver, token(sub="dan"))).errcode == "M_USER_DEACTIVATED"
    assert (await log_in(homeserver, token(sub="notices"))).errcode == "M_EXCLUSIVE"


async def test_it_is_off_by_default(start_homeserver):
    homeserver = await start_homeserver()
    answer = await log_in(homeserver, sign_jwt({"sub": "dan"}, ""))
    assert (answer.status, answer.errcode) == (400, "M_UNKNOWN")
