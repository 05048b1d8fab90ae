"""Single sign-on in the configuration: what cannot be meant is told before the server starts."""

from pathlib import Path

import pytest

from ranvier.app.config_load import ConfigFaults, load_config

GOOD = {
    "id": "idp",
    "name": "IdP",
    "issuer": "https://idp.test",
    "client_id": "matrix",
}
OAUTH = {
    "authorization_endpoint": "https://idp.test/a",
    "token_endpoint": "https://idp.test/t",
    "userinfo_endpoint": "https://idp.test/u",
}


def load(*providers, directory=Path(), **more):
    values = {"server_name": "test", "public_base_url": "https://test", "sso": {"providers": list(providers)}}
    return load_config(None, {}, values | more, directory=directory)


def faults(*providers, **more):
    with pytest.raises(ConfigFaults) as caught:
        load(*providers, **more)
    return caught.value.faults


def without(values, *names):
    return {name: value for name, value in values.items() if name not in names}


@pytest.mark.parametrize(
    "provider",
    [
        GOOD,
        GOOD | {"issuer": "http://localhost:8080/realms/a"},
        GOOD | {"icon": "mxc://test/abc", "required_claims": {"groups": ["a"], "x": []}},
        without(GOOD, "issuer") | OAUTH,
        GOOD | {"user_name": "", "display_name": "{given_name} {family_name}", "email": "{email}"},
    ],
)
def test_what_is_good(provider):
    (loaded,) = load(provider).sso.providers
    assert loaded.id == "idp"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "a/b"}, "sso.providers"),
        ({"id": ""}, "sso.providers"),
        ({"issuer": "http://idp.test"}, "providers[1].issuer"),
        ({"issuer": "idp.test"}, "providers[1].issuer"),
        ({"scopes": ["email"]}, "providers[1].scopes"),
        ({"user_name": "{{ user.name }}"}, "providers[1].user_name"),
        ({"email": "{"}, "providers[1].email"),
        ({"icon": "https://a.test/i.png"}, "providers[1].icon"),
        ({"token_endpoint": "https://idp.test/t"}, "providers[1].issuer"),
        ({"client_secret": "a", "client_secret_file": "b"}, "client_secret_file"),
        ({"clientsecret": "a"}, "did you mean sso.providers[1].client_secret?"),
    ],
)
def test_faults_of_a_provider(change, words):
    (fault,) = faults(GOOD | change)
    assert words in fault


def test_faults_of_all():
    assert "another provider's" in faults(GOOD, GOOD)[0]
    assert "public_base_url" in faults(GOOD, public_base_url=None)[0]
    assert "login.password" in faults(login={"password": False})[0]
    assert "trusted_redirects" in faults(sso={"trusted_redirects": ["app.element.io"]})[0]
    incomplete = without(GOOD, "issuer") | without(OAUTH, "userinfo_endpoint")
    assert "issuer: is missing" in faults(incomplete)[0]


def test_a_secret_may_stand_in_a_file(tmp_path):
    (tmp_path / "secret").write_text("hidden\n")
    (provider,) = load(GOOD | {"client_secret_file": "secret"}, directory=tmp_path).sso.providers
    assert provider.client_secret == "hidden"
    (fault,) = faults(GOOD | {"client_secret_file": "nowhere"}, directory=tmp_path)
    assert "nowhere" in fault
