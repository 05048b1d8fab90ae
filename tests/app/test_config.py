"""Configuration: every way to give it, and what its faults look like."""

from pathlib import Path

import pytest

from ranvier.app.config_file import example_file, reference_page
from ranvier.app.config_load import ConfigFaults, load_config

ROOT = Path(__file__).parent.parent.parent


def load(text="", environment=None, flags=None, directory=None, tmp_path=None):
    file = None
    if tmp_path is not None:
        file = tmp_path / "ranvier.toml"
        file.write_text(text)
    return load_config(file, environment or {}, flags or {}, directory=directory or Path("/srv"))


def faults(text, tmp_path, environment=None):
    with pytest.raises(ConfigFaults) as caught:
        load(text, environment=environment, tmp_path=tmp_path)
    return caught.value.faults


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    config = load(
        'server_name = "file"\n[registration]\nmode = "closed"\n[log]\nlevel = "error"',
        environment={"RANVIER__SERVER_NAME": "environment", "RANVIER__REGISTRATION__MODE": "open"},
        flags={"server_name": "flag"},
        tmp_path=tmp_path,
    )
    assert (config.server_name, config.registration.mode, config.log.level) == ("flag", "open", "error")


def test_paths_count_from_the_file_and_without_one_from_where_the_process_runs(tmp_path):
    assert load('server_name = "a"', tmp_path=tmp_path).data_dir == tmp_path / "data"
    assert (
        load(flags={"server_name": "a"}, directory=tmp_path).signing_key_file == tmp_path / "data/signing.key"
    )


def test_text_in_the_environment_stays_text(tmp_path):
    environment = {
        "RANVIER__ROOMS__DEFAULT_VERSION": "11",
        "RANVIER__REGISTRATION__SHARED_SECRET": "12345",
        "RANVIER__SUPPORT__PAGE": "https://example.org/",
    }
    config = load('server_name = "a"', environment=environment, tmp_path=tmp_path)
    assert config.rooms.default_version == "11"
    assert config.registration.shared_secret == "12345"


def test_quoted_text_in_the_environment_is_text_too(tmp_path):
    environment = {"RANVIER__ROOMS__DEFAULT_VERSION": '"11"', "RANVIER__LOG__LEVEL": "debug"}
    config = load('server_name = "a"', environment=environment, tmp_path=tmp_path)
    assert (config.rooms.default_version, config.log.level) == ("11", "debug")


def test_values_in_the_environment_are_toml_or_text(tmp_path):
    environment = {
        "RANVIER__FEDERATION__ENABLED": "false",
        "RANVIER__FEDERATION__ALLOW_PRIVATE_ADDRESSES": '["127.0.0.0/8"]',
        "RANVIER__LISTENERS": '[{ bind = "127.0.0.1:1", apis = ["client"] }]',
        "OTHER": "x",
    }
    config = load('server_name = "a"', environment=environment, tmp_path=tmp_path)
    assert not config.federation.enabled
    assert config.federation.allow_private_addresses == ("127.0.0.0/8",)
    assert config.listeners[0].apis == ("client",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "server_name is missing"),
        ('server_nam = "a"', "did you mean server_name?"),
        ('server_name = "a"\n[registratio]\nmode = "open"', "did you mean registration?"),
        ('server_name = "a"\n[registration]\nmod = "open"', "registration.mod is not a known setting"),
        ('server_name = "a"\n[registration]\nmode = "opn"', "registration.mode"),
        ('server_name = "a b"', "server_name"),
        ('server_name = "a"\n[database]\nurl = "mysql:x"', "database.url"),
        ('server_name = "a"\n[[listeners]]\nbind = "8008"', "listeners[1].bind"),
        ('server_name = "a"\n[[listeners]]\nbnd = "x"', "did you mean listeners[1].bind?"),
        ('server_name = "a"\n[[listeners]]\ntls_certificate = "x"', "go together"),
        ('server_name = "a"\n[federation]\nallow_private_addresses = ["x"]', "no network"),
        ('server_name = "a"\n[federation]\ntrusted_notaries = ["a b"]', "trusted_notaries"),
        ('server_name = "a"\n[federation.addresses]\nhs1 = "nowhere"', "federation.addresses.hs1"),
        ('server_name = "a"\npublic_base_url = "matrix.example.org"', "public_base_url"),
        ("server_name = ", "not valid TOML"),
        ("server_name = example.org", "text stands in quotation marks"),
        ('server_name = "https://example.org"', "server_name: is a name such as example.org, not a URL"),
        ('server_name = "Example.org"', "server_name: must be in small letters: example.org"),
        (
            'server_name = "a"\n[registration]\nmode = "opened"',
            "registration.mode: must be one of closed, open, token",
        ),
        (
            'server_name = "a"\n[registration]\nxyz = 1',
            "registration.xyz is not a known setting; there are mode,",
        ),
        ('server_name = "a"\nregistration = "open"', "registration: is a section: write [registration]"),
        (
            'server_name = "a"\n[listeners]\nbind = "x"',
            "listeners: there may be several: write [[listeners]]",
        ),
        (
            'server_name = "a"\n[[listeners]]\napis = ["clients"]',
            "listeners[1].apis[1]: must be one of admin, client, ",
        ),
        ('server_name = "a"\n[[sso.providers]]\nid = "a b"', "sso.providers[1].id: "),
        (
            'server_name = "a"\n[media]\nmax_upload_bytes = "50M"',
            "media.max_upload_bytes: must be a whole number",
        ),
        ('server_name = "a"\n[federation]\nenabled = "yes"', "federation.enabled: must be true or false"),
        ('server_name = "a"\n[turn]\nuris = "turn:x"', "turn.uris: must be a list, in brackets"),
        ('server_name = "a"\n[memory]\ncaches_mib = 0', "memory.caches_mib: must be at least "),
        ('server_name = "a"\n[mail]\nport = 70000', "mail.port: must be at most 65535"),
        ('server_name = "a"\n[mail]\nhost = 5', "mail.host: must be text, in quotation marks"),
        ('server_name = "a"\n[mail]\ntemplates = "nowhere"', "mail.templates: there is no directory"),
        ('server_name = "a"\n[federation]\npast_notaries = ["a b"]', "past_notaries"),
    ],
)
def test_each_fault_is_one_line_that_names_its_key(text, words, tmp_path):
    (fault,) = faults(text, tmp_path)
    assert words in fault
    assert "\n" not in fault


def test_all_faults_of_a_kind_come_at_once(tmp_path):
    text = 'server_name = "a b"\n[[listeners]]\nbind = "x"\n[federation]\nallow_private_addresses = ["y"]'
    assert len(faults(text, tmp_path)) == 3


def test_the_file_that_init_writes_is_good_and_so_is_all_that_it_shows(tmp_path):
    text = example_file("example.org")
    defaults = load(text, tmp_path=tmp_path)
    assert defaults == load('server_name = "example.org"', tmp_path=tmp_path)
    # What is commented out with one # are settings: they load, and change nothing.
    shown = [
        line[2:] if line.startswith("# ") else line
        for line in text.splitlines()
        if not line.startswith("## ") and '"…"' not in line
    ]
    assert load("\n".join(shown), tmp_path=tmp_path) == defaults


def test_the_page_of_all_keys_is_true():
    assert (ROOT / "docs/configuration.md").read_text() == reference_page(), "run scripts/configuration"
