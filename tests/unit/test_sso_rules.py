"""Rules of single sign-on: redirects, templates over claims, names from other alphabets."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import is_valid_new_localpart
from ranvier.core.sso.claims import (
    BadTemplate,
    check_template,
    fill,
    find_unmet,
    is_true,
    localpart_of_name,
)
from ranvier.core.sso.endpoints import is_endpoint
from ranvier.core.sso.id_token import BadIdToken, Expected, check_id_token, parse_id_token
from ranvier.core.sso.redirects import is_trusted, parse_redirect

CLAIMS = {
    "sub": "42",
    "name": " Dan ",
    "email": "dan@mail.test",
    "id": 7,
    "admin": True,
    "empty": "",
    "none": None,
    "long": "x" * 300,
    "lines": "a\nb",
    "address": {"country": "NL"},
    "https://example.org/claim": "dotted",
    "list": ["a"],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{sub}", "42"),
        ("{name}", "Dan"),
        ("user-{id}", "user-7"),
        ("{email|localpart}", "dan"),
        ("{sub|localpart}", "42"),
        ("{address.country}", "NL"),
        ("{https://example.org/claim}", "dotted"),
        ("{name} ({address.country})", "Dan  (NL)"),
        ("fixed", "fixed"),
        ("", None),
        ("{admin}", None),
        ("{empty}", None),
        ("{none}", None),
        ("{missing}", None),
        ("{sub.x}", None),
        ("{long}", None),
        ("{lines}", None),
        ("{list}", None),
        ("{address}", None),
    ],
)
def test_templates(template, text):
    check_template(template)
    assert fill(template, CLAIMS) == text


@pytest.mark.parametrize("template", ["{", "}", "{}", "{a|b}", "{{ user.name }}", "{a}{"])
def test_what_is_no_template(template):
    with pytest.raises(BadTemplate):
        check_template(template)


def test_what_a_claim_holds_is_never_a_template():
    assert fill("{a}", {"a": "{sub}", "sub": "secret"}) == "{sub}"


@pytest.mark.parametrize(
    ("name", "localpart"),
    [
        ("Dan", "dan"),
        ("dan.d-_/+", "dan.d-_/+"),
        ("Dan D", "dan=20d"),
        ("á#", "=c3=a1=23"),
        ("a=b", "a=3db"),
        ("Łukasz", "=c5=82ukasz"),
    ],
)
def test_names_of_other_alphabets(name, localpart):
    assert localpart_of_name(name) == localpart


@given(st.text(min_size=1, max_size=40))
@settings(max_examples=100)
def test_every_name_becomes_one_that_an_account_may_have(name):
    assert is_valid_new_localpart(localpart_of_name(name))


@pytest.mark.parametrize(
    ("required", "unmet"),
    [
        ({}, None),
        ({"sub": ("42",)}, None),
        ({"sub": ("41",)}, "sub"),
        ({"id": ("7",)}, None),
        ({"admin": ("true",)}, None),
        ({"admin": ("false",)}, "admin"),
        ({"list": ("b", "a")}, None),
        ({"list": ()}, None),
        ({"none": ()}, "none"),
        ({"missing": ()}, "missing"),
        ({"address.country": ("NL",)}, None),
        ({"sub": ("42",), "address": ("NL",)}, "address"),
    ],
)
def test_required_claims(required, unmet):
    assert find_unmet(CLAIMS, required) == unmet


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5), st.text(max_size=8))
@settings(max_examples=100)
def test_whatever_a_provider_says_is_only_text(claims, name):
    text = fill("{" + name.translate(str.maketrans("", "", "{}|")) + "}", claims)
    assert text is None or 0 < len(text) <= 255
    find_unmet(claims, {name: ("x",)})
    is_true(claims, name)
    with pytest.raises(BadIdToken):
        check_id_token(claims, Expected("i", "c", "n"), 0)


@given(st.text(alphabet=string.ascii_letters + ".-_=", max_size=60) | st.text(max_size=30))
@settings(max_examples=100)
def test_whatever_stands_for_a_token_is_refused_by_name(token):
    with pytest.raises(BadIdToken):
        check_id_token(parse_id_token(token), Expected("i", "c", "n"), 0)


@pytest.mark.parametrize(
    ("url", "place", "after"),
    [
        ("https://a.test", "a.test", "https://a.test?loginToken=T"),
        ("https://a.test:8443/x#y", "a.test:8443", "https://a.test:8443/x?loginToken=T#y"),
        ("http://localhost:8080/?a=1", "http://localhost:8080", "http://localhost:8080/?a=1&loginToken=T"),
        ("https://a.test/?loginToken=1&b=&loginToken=2", "a.test", "https://a.test/?b=&loginToken=T"),
        ("https://a.test/?login%54oken=1&c", "a.test", "https://a.test/?c&loginToken=T"),
        ("https://a.test/?#/login", "a.test", "https://a.test/?loginToken=T#/login"),
        ("element://connect", "element:", "element://connect?loginToken=T"),
        ("io.element.desktop:/vector/", "io.element.desktop:", "io.element.desktop:/vector/?loginToken=T"),
        ("HTTPS://A.test/", "A.test", "https://A.test/?loginToken=T"),
    ],
)
def test_redirects(url, place, after):
    redirect = parse_redirect(url)
    assert redirect.place == place
    assert redirect.with_token("T") == after


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://a.test/app", True),
        ("https://a.test/app/", True),
        ("https://a.test/app/x?y#z", True),
        ("https://a.test/app?y", True),
        ("https://A.TEST/app", True),
        ("https://a.test/apple", False),
        ("https://a.test/", False),
        ("https://a.test/app/../steal", False),
        ("https://a.test/app/%2E%2e/steal", False),
        ("http://a.test/app", False),
        ("https://a.test:444/app", False),
        ("https://a.test.evil.test/app", False),
        ("https://evil.test/https://a.test/app", False),
        ("my.app:/in", True),
        ("my.app://in", False),
        ("my.application:/in", False),
    ],
)
def test_trusted_redirects(url, trusted):
    assert is_trusted(parse_redirect(url), ["https://a.test/app", "my.app:/"]) is trusted


@given(st.text(max_size=60))
@settings(max_examples=150)
def test_a_redirect_is_refused_or_safe_in_a_header_and_in_a_page(text):
    for url in (text, f"https://{text}", f"https://a.test/{text}", f"app:{text}"):
        try:
            redirect = parse_redirect(url)
        except InvalidParam:
            continue
        there = redirect.with_token("T")
        assert there.isascii()
        assert there.isprintable()
        assert not set(there) & set(' "<>\\`')
        assert redirect.place
        assert there.count("loginToken=T") == 1


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("https://idp.test/realms/a", True),
        ("http://localhost:8080/realms/a", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080", True),
        ("http://idp.test", False),
        ("http://localhost.idp.test", False),
        ("ftp://idp.test", False),
        ("https://", False),
        ("https://a@idp.test", False),
        ("https://idp.test/#x", False),
        ("https://idp.test/ ", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_endpoints(url, is_one):
    assert is_endpoint(url, may_be_near=True) is is_one
    assert is_endpoint(url, may_be_near=False) is (is_one and url.startswith("https:"))
