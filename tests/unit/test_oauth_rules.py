"""The rules of OAuth: what may be registered, asked for and answered. They are what stands between an account and
whoever can write a link.
"""

import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.oauth.authorization import Destination, parse_destination, parse_request
from ranvier.core.oauth.client_metadata import Client, describe_client, parse_client
from ranvier.core.oauth.pkce import challenge_of, is_challenge, is_verified
from ranvier.core.oauth.redirect_uris import (
    form_target,
    is_native_redirect,
    is_registered,
    is_web_redirect,
    web_host,
)
from ranvier.core.oauth.refusals import OAuthRefusal
from ranvier.core.oauth.scopes import is_within, parse_scope

API = "urn:matrix:client:api:*"
DEVICE = "urn:matrix:client:device:"
UNSTABLE = "urn:matrix:org.matrix.msc2967.client:"

WEB = {
    "client_uri": "https://example.com/",
    "redirect_uris": ["https://app.example.com/callback"],
    "response_types": ["code"],
    "grant_types": ["authorization_code", "refresh_token"],
    "token_endpoint_auth_method": "none",
}


# RFC 7636, appendix B.
def test_the_example_of_the_rfc():
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert challenge_of(verifier) == challenge
    assert is_challenge(challenge)
    assert is_verified(challenge, verifier)


@given(st.text(alphabet="abcXYZ019-._~", min_size=43, max_size=128), st.text(max_size=200))
@settings(max_examples=200)
def test_only_the_verifier_is_verified(verifier, other):
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert is_verified(challenge, verifier)
    assert is_verified(challenge, other) == (other == verifier)


@pytest.mark.parametrize(
    "text", ["", "a" * 42, "a" * 44, "a" * 42 + "=", "a" * 42 + "+", "ä" * 43, "a" * 43 + "\n"]
)
def test_what_is_no_challenge(text):
    assert not is_challenge(text)
    assert not is_verified(text, "v" * 43)


@pytest.mark.parametrize("verifier", ["v" * 42, "v" * 129, "v" * 42 + "!", "v" * 43 + "\n", "é" * 43, ""])
def test_what_is_no_verifier(verifier):
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert not is_verified(challenge, verifier)


# Spec: "Redirect URI validation": the examples first, then what a thief would try.
@pytest.mark.parametrize(
    ("uri", "web", "native"),
    [
        ("https://example.com/callback", True, True),
        ("https://app.example.com/callback", True, True),
        ("https://example.com:5173/?query=value", True, True),
        ("https://EXAMPLE.com/callback", True, True),
        ("https://example.com/callback#fragment", False, False),
        ("https://example.com/callback#", False, False),
        ("http://example.com/callback", False, False),
        ("http://localhost/", False, True),
        ("com.example.app:/callback", False, True),
        ("com.example:/", False, True),
        ("com.example:callback", False, True),
        ("http://localhost/callback", False, True),
        ("http://127.0.0.1/callback", False, True),
        ("http://[::1]/callback", False, True),
        ("example:/callback", False, False),
        ("com.example.app://callback", False, False),
        ("https://localhost/callback", False, False),
        ("http://localhost:1234/callback", False, False),
        ("http://[::1]:1234/callback", False, False),
        ("https://user@example.com/", False, False),
        ("https://user:password@example.com/", False, False),
        ("https://example.com@evil.org/", False, False),
        ("https://evil.org/example.com", False, False),
        ("https://example.com.evil.org/", False, False),
        ("https://notexample.com/", False, False),
        ("https://evil.org\\.example.com/", False, False),
        ("https://evil.org\\@example.com/", False, False),
        ("https://example.com%2eevil.org/", False, False),
        ("https://example.com:99999/", False, False),
        ("https://example.com:80:80/", False, False),
        ("https://example.com:/", False, False),
        ("https:example.com/", False, False),
        ("https:///example.com/", False, False),
        ("//example.com/", False, False),
        ("/callback", False, False),
        ("", False, False),
        ("javascript:alert(1)", False, False),
        ("data:text/html,x", False, False),
        ("com.exampleevil:/", False, False),
        ("com.example.:/x", False, True),
        ("COM.example:/x", False, False),
        ("com.example:/\n", False, False),
        ("https://example.com/ x", False, False),
        ("https://exam\tple.com/", False, False),
        ("https://例え.example.com/", False, False),
        ("https://[::1]/", False, False),
        ("https://" + "a" * 3000 + ".example.com/", False, False),
        ("http://127.0.0.1.evil.org/", False, False),
        ("http://localhost@evil.org/", False, False),
        ("http://127.1/", False, False),
    ],
)
def test_redirect_uris(uri, web, native):
    assert is_web_redirect(uri, "example.com") is web
    assert is_native_redirect(uri, "example.com") is native


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_no_text_breaks_the_rules(text):
    for uri in (text, f"https://{text}", f"https://example.com{text}", f"http://localhost{text}"):
        if is_web_redirect(uri, "example.com"):
            parts = urlsplit(uri)
            assert parts.scheme == "https"
            assert parts.hostname == "example.com" or parts.hostname.endswith(".example.com")
            assert not parts.fragment
        is_native_redirect(uri, "example.com")
        is_registered(uri, ["http://localhost/"])
        web_host(uri)


@pytest.mark.parametrize(
    ("asked", "registered", "is_good"),
    [
        ("https://example.com/cb", "https://example.com/cb", True),
        ("https://example.com/cb?", "https://example.com/cb", False),
        ("https://example.com/cb/", "https://example.com/cb", False),
        ("https://example.com:443/cb", "https://example.com/cb", False),
        ("https://example.com/cb?a=b", "https://example.com/cb", False),
        ("http://localhost:1234/cb", "http://localhost/cb", True),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1/cb", True),
        ("http://[::1]:1/cb", "http://[::1]/cb", True),
        ("http://[::1]/cb", "http://[::1]/cb", True),
        ("http://localhost:1234/other", "http://localhost/cb", False),
        ("http://127.0.0.1:1234/cb", "http://localhost/cb", False),
        ("http://localhost:1234@evil.org/cb", "http://localhost/cb", False),
        ("http://localhost:99999/cb", "http://localhost/cb", False),
        ("http://localhost:12/cb#x", "http://localhost/cb", False),
        ("com.example:/cb", "com.example:/cb", True),
        ("com.example:/CB", "com.example:/cb", False),
    ],
)
def test_a_request_names_what_was_registered(asked, registered, is_good):
    assert is_registered(asked, [registered]) is is_good


def test_where_forms_may_lead():
    assert form_target("https://app.example.com:8443/cb?x") == "https://app.example.com:8443"
    assert form_target("com.example.app:/cb") == "com.example.app:"
    assert form_target("http://127.0.0.1:1234/") == "http://127.0.0.1:1234"
    assert form_target("http://[::1]:1234/") == "http:"


def test_a_client_as_in_the_specification():
    client = parse_client(
        {
            "client_name": "My App",
            "client_name#fr": "Mon application",
            "client_uri": "https://example.com/",
            "logo_uri": "https://example.com/logo.png",
            "tos_uri": "https://example.com/tos.html",
            "tos_uri#fr": "https://example.com/fr/tos.html",
            "policy_uri": "https://example.com/policy.html",
            "policy_uri#fr": "https://example.com/fr/policy.html",
            "redirect_uris": ["https://app.example.com/callback"],
            "token_endpoint_auth_method": "none",
            "response_types": ["code"],
            "grant_types": [
                "authorization_code",
                "refresh_token",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ],
            "application_type": "web",
        }
    )
    assert orjson.loads(orjson.dumps(describe_client(client))) == {
        "client_id": client.client_id,
        "client_name": "My App",
        "client_uri": "https://example.com/",
        "logo_uri": "https://example.com/logo.png",
        "tos_uri": "https://example.com/tos.html",
        "policy_uri": "https://example.com/policy.html",
        "redirect_uris": ["https://app.example.com/callback"],
        "token_endpoint_auth_method": "none",
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"],
        "application_type": "web",
    }


def test_the_same_metadata_is_the_same_client():
    one = parse_client(WEB)
    assert parse_client(WEB | {"software_version": "2"}).client_id == one.client_id
    assert parse_client(WEB | {"client_name": "x"}).client_id != one.client_id
    assert parse_client({"client_uri": WEB["client_uri"], "redirect_uris": WEB["redirect_uris"]}) == one


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"client_uri": None}, "invalid_client_metadata"),
        ({"client_uri": 1}, "invalid_client_metadata"),
        ({"client_uri": "http://example.com/"}, "invalid_client_metadata"),
        ({"client_uri": "https://user@example.com/"}, "invalid_client_metadata"),
        ({"client_uri": "https://com/"}, "invalid_client_metadata"),
        ({"client_uri": "https://[::1]/"}, "invalid_client_metadata"),
        ({"client_uri": "https://" + "x" * 3000}, "invalid_client_metadata"),
        ({"logo_uri": "https://evil.org/logo.png"}, "invalid_client_metadata"),
        ({"logo_uri": "http://example.com/logo.png"}, "invalid_client_metadata"),
        ({"tos_uri": "https://u:p@example.com/"}, "invalid_client_metadata"),
        ({"policy_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
        ({"client_name": ""}, "invalid_client_metadata"),
        ({"client_name": " "}, "invalid_client_metadata"),
        ({"client_name": "x" * 201}, "invalid_client_metadata"),
        ({"client_name": "a\u202eb"}, "invalid_client_metadata"),
        ({"client_name": "a\nb"}, "invalid_client_metadata"),
        ({"client_name": ["x"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "invalid_client_metadata"),
        ({"application_type": "desktop"}, "invalid_client_metadata"),
        ({"grant_types": []}, "invalid_client_metadata"),
        ({"grant_types": ["password"]}, "invalid_client_metadata"),
        ({"grant_types": ["refresh_token"]}, "invalid_client_metadata"),
        ({"grant_types": ["authorization_code"] * 60}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"response_types": "code"}, "invalid_client_metadata"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://evil.org/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://example.com/", "http://localhost/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://example.com/"] * 21}, "invalid_redirect_uri"),
        ({"redirect_uris": [1]}, "invalid_client_metadata"),
        ({"application_type": "native", "redirect_uris": ["org.evil:/"]}, "invalid_redirect_uri"),
    ],
)
def test_what_cannot_be_registered(changed, code):
    with pytest.raises(OAuthRefusal) as refusal:
        parse_client({name: value for name, value in (WEB | changed).items() if value is not None})
    assert refusal.value.code == code


def test_a_client_for_device_codes_needs_no_redirect_uri():
    device = "urn:ietf:params:oauth:grant-type:device_code"
    client = parse_client({"client_uri": "https://example.com/", "grant_types": [device]})
    assert client.redirect_uris == ()
    assert client.grant_types == ("refresh_token", device)


@pytest.mark.parametrize(
    ("text", "device_id", "granted"),
    [
        (f"{API} {DEVICE}ABC", "ABC", f"{API} {DEVICE}ABC"),
        (f"{DEVICE}a-b.c_d~e {API}", "a-b.c_d~e", f"{DEVICE}a-b.c_d~e {API}"),
        (f"openid {API} {DEVICE}ABC urn:x", "ABC", f"{API} {DEVICE}ABC"),
        (f"{UNSTABLE}api:* {UNSTABLE}device:ABC", "ABC", f"{UNSTABLE}api:* {UNSTABLE}device:ABC"),
        (
            f"{API} {UNSTABLE}api:* {DEVICE}ABC {UNSTABLE}device:ABC",
            "ABC",
            f"{API} {UNSTABLE}api:* {DEVICE}ABC {UNSTABLE}device:ABC",
        ),
    ],
)
def test_scopes(text, device_id, granted):
    scope = parse_scope(text)
    assert (scope.device_id, scope.text) == (device_id, granted)
    assert parse_scope(scope.text) == scope


@pytest.mark.parametrize(
    "text",
    [
        "",
        API,
        f"{DEVICE}ABC",
        f"{API} {DEVICE}",
        f"{API} {DEVICE}ABC {DEVICE}DEF",
        f"{API} {DEVICE}ABC {UNSTABLE}device:DEF",
        f"{API}  {DEVICE}ABC",
        f" {API} {DEVICE}ABC",
        f"{API} {DEVICE}ÄÖ",
        f"{API} {DEVICE}a\\b",
        f'{API} {DEVICE}a"b',
        f"{API}\t{DEVICE}ABC",
        f"{API} {DEVICE}{'x' * 256}",
        f"{API} {DEVICE}{'x' * 3000}",
        "urn:matrix:client:api:read:* " + DEVICE + "ABC",
    ],
)
def test_scopes_that_are_refused(text):
    with pytest.raises(OAuthRefusal) as refusal:
        parse_scope(text)
    assert refusal.value.code == "invalid_scope"


def test_a_refresh_cannot_ask_for_more():
    granted = f"{API} {DEVICE}ABC"
    assert is_within(API, granted)
    assert is_within(f"{UNSTABLE}device:ABC", granted)
    assert not is_within(f"{API} {DEVICE}DEF", granted)
    assert not is_within("urn:synapse:admin:*", granted)


CLIENT = Client(
    client_uri="https://example.com/",
    application_type="web",
    grant_types=("authorization_code", "refresh_token"),
    response_types=("code",),
    redirect_uris=("https://example.com/cb", "https://example.com/cb?x=y"),
)
REQUEST = {
    "response_type": "code",
    "redirect_uri": "https://example.com/cb",
    "scope": f"{API} {DEVICE}ABC",
    "state": "a state & more",
    "code_challenge": "a" * 43,
    "code_challenge_method": "S256",
}


def read(fields):
    destination = parse_destination(CLIENT, fields, "https://test/")
    return parse_request(CLIENT, destination, fields)


def test_answers_keep_what_the_redirect_uri_has():
    answer = {"code": "c"}
    expected = {"state": ["a state & more"], "code": ["c"], "iss": ["https://test/"]}
    query = urlsplit(read(REQUEST).destination.url(answer))
    assert parse_qs(query.query) == expected
    fragment = urlsplit(read(REQUEST | {"response_mode": "fragment"}).destination.url(answer))
    assert parse_qs(fragment.fragment) == expected
    assert not fragment.query
    more = urlsplit(read(REQUEST | {"redirect_uri": "https://example.com/cb?x=y"}).destination.url(answer))
    assert parse_qs(more.query) == {"x": ["y"], **expected}


@given(st.text(max_size=50), st.text(max_size=50))
@settings(max_examples=100)
def test_no_state_changes_where_an_answer_goes(state, code):
    destination = Destination("https://example.com/cb", "fragment", state, "https://test/")
    parts = urlsplit(destination.url({"code": code}))
    assert (parts.scheme, parts.netloc, parts.path, parts.query) == ("https", "example.com", "/cb", "")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"scope": None}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"prompt": "none"}, "interaction_required"),
        ({"request": "e30"}, "request_not_supported"),
        ({"request_uri": "https://x"}, "request_uri_not_supported"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"redirect_uri": "https://example.com/other"}, "invalid_request"),
        ({"state": "x" * 5000}, "invalid_request"),
    ],
)
def test_requests_that_are_refused(changed, code):
    fields = {name: value for name, value in (REQUEST | changed).items() if value is not None}
    with pytest.raises(OAuthRefusal) as refusal:
        read(fields)
    assert refusal.value.code == code
