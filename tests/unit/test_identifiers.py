"""Identifiers arrive from anyone: what breaks the grammar is refused, what history allows is not."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import (
    ServerName,
    is_ip_literal,
    is_valid_new_localpart,
    localpart_of,
    parse_device_id,
    parse_event_id,
    parse_key_id,
    parse_mxc,
    parse_room_alias,
    parse_room_id,
    parse_server_name,
    parse_user_id,
    server_of,
    split_host_port,
)
from tests.unit.event_samples import HASH_A, json_values

LONGEST = "a" * 255

GOOD: list[tuple[Callable[[object], Any], list[str]]] = [
    (
        parse_server_name,
        [
            "matrix.org",
            "matrix.org:8888",
            "1.2.3.4",
            "1.2.3.4:1234",
            "[1234:5678::abcd]",
            "[1234:5678::abcd]:5678",
            "[::ffff:1.2.3.4]",
            "localhost",
            "A.Example",
            "xn--bcher-kva.example",
            "h:0",
            "h:65535",
            LONGEST,
        ],
    ),
    (
        parse_user_id,
        [
            "@ann:hs.example",
            "@:hs.example",
            "@ann:hs.example:8448",
            "@ann:[::1]:8448",
            "@Ann B/=+_.-!*:hs.example",
            "@änn\n\x01\U0001f600:hs.example",
            "@" + "a" * 243 + ":hs.example",
        ],
    ),
    (
        parse_room_id,
        ["!a:hs.example", "!ünï:hs.example:1", "!" + HASH_A, "!" + "_-" * 21 + "A", "!a\n:h"],
    ),
    (
        parse_event_id,
        ["$a:hs.example", "$" + HASH_A, "$" + "+/" * 21 + "A", "$143273582443PhrSn:example.org", "$short"],
    ),
    (parse_room_alias, ["#a:hs.example", "#ünï \U0001f600:hs.example", "#a:hs.example:80"]),
    (parse_device_id, ["GHTYAJCE", "my phone", "é" * 127, "/\\'"]),
]

BAD: list[tuple[Callable[[object], Any], list[object]]] = [
    (
        parse_server_name,
        [
            "",
            "a" * 256,
            "h:",
            "h:65536",
            "h:123456",
            "h:+1",
            "h:-1",
            "h: 1",
            "h:1:2",
            "h:١",
            ":80",
            "a b",
            "a_b",
            "a/b",
            "a@b",
            "bücher.example",
            "hs.example\n",
            "\0",
            "\ud800",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[::1]:x",
            "[fe80::1%eth0]",
            "[1.2.3.4]",
            "[]",
            "[:::]",
            "[12345::]",
        ],
    ),
    (
        parse_user_id,
        [
            "",
            "@",
            "@ann",
            "@ann:",
            "ann:hs.example",
            "@ann:a b",
            "@a\0:hs.example",
            "@\ud800:hs.example",
            "@ann:hs.example\n",
            " @ann:hs.example",
            "@" + "a" * 244 + ":hs.example",
            "@" + "é" * 122 + ":hs.example",
            "#ann:hs.example",
        ],
    ),
    (
        parse_room_id,
        ["", "!", "!:hs.example", "!a", "!" + HASH_A[1:], "!" + HASH_A + "A", "!" + "+" * 43, "!a:"],
    ),
    (parse_room_id, ["!a\0:h", "!\ud800:h", "!" + HASH_A + "\n", "!" + "a" * 253 + ":h", "#a:hs.example"]),
    (
        parse_event_id,
        ["", "$", "$:hs.example", "$a:", "$a\0", "$\ud800", "$" + "a" * 255, "a:hs.example", "$a:b c"],
    ),
    (
        parse_room_alias,
        ["", "#", "#a", "#:hs.example", "#a:", "#a\0:h", "#\ud800:h", "#" + "a" * 253 + ":h", "a:h"],
    ),
    (parse_device_id, ["", "a\0", "\ud800", "é" * 128, "x" * 256]),
    (
        parse_key_id,
        ["", "ed25519", "ed25519:", ":a", "ed25519:a-b", "ed25519:a b", "ed25519:é", "ed25519:a\n"],
    ),
    (parse_mxc, ["", "mxc://", "mxc://hs.example", "mxc://hs.example/", "mxc:///x", "http://hs.example/x"]),
    (parse_mxc, ["mxc://hs.example/a/b", "mxc://hs.example/..", "mxc://hs.example/é", "mxc://h s/x"]),
    (
        parse_mxc,
        ["mxc://hs.example/" + "x" * 256, "mxc://hs.example/a\n", "mxc://hs.example/a?b", "MXC://h/x"],
    ),
]

PARSERS = [
    parse_server_name,
    parse_user_id,
    parse_room_id,
    parse_event_id,
    parse_room_alias,
    parse_device_id,
    parse_key_id,
    parse_mxc,
]


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse, text) for parse, texts in GOOD for text in texts],
    ids=lambda value: getattr(value, "__name__", ascii(value)[:40]),
)
def test_good(parse: Callable[[object], Any], text: str) -> None:
    assert parse(text) == text


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse, text) for parse, texts in BAD for text in texts],
    ids=lambda value: getattr(value, "__name__", ascii(value)[:40]),
)
def test_bad(parse: Callable[[object], Any], text: object) -> None:
    with pytest.raises(BadIdentifier):
        parse(text)


@settings(max_examples=100)
@given(
    st.sampled_from(PARSERS),
    json_values
    | st.binary(max_size=5)
    | st.builds(str.__add__, st.sampled_from([*"@!$#[", "mxc://"]), st.text(max_size=8))
    | st.text("@!$#:[]a1.%", max_size=10),
)
def test_nothing_but_bad_identifier_comes_out(parse: Callable[[object], Any], value: object) -> None:
    try:
        parsed = parse(value)
    except BadIdentifier:
        return
    assert parse is parse_key_id or parse is parse_mxc or parsed == value


@pytest.mark.parametrize(
    ("name", "host", "port", "is_ip"),
    [
        ("matrix.org", "matrix.org", None, False),
        ("matrix.org:80", "matrix.org", 80, False),
        ("1.2.3.4:80", "1.2.3.4", 80, True),
        ("[::1]", "::1", None, True),
        ("[::1]:80", "::1", 80, True),
        ("1.2.3.400", "1.2.3.400", None, False),
        ("1.2.3", "1.2.3", None, False),
    ],
)
def test_host_and_port(name: str, host: str, port: int | None, is_ip: bool) -> None:
    assert split_host_port(ServerName(name)) == (host, port)
    assert is_ip_literal(parse_server_name(name)) is is_ip


def test_parts() -> None:
    assert server_of("@a:h:80") == "h:80"
    assert server_of("@a:[::1]:80") == "[::1]:80"
    assert localpart_of("@a:h:80") == "a"
    assert parse_key_id("ed25519:a_1") == ("ed25519", "a_1")
    assert parse_mxc("mxc://h:80/Ab_-9") == ("h:80", "Ab_-9")
    with pytest.raises(BadIdentifier):
        server_of("$" + HASH_A)


@pytest.mark.parametrize("localpart", ["ann", "a-z_0.9=/+"])
def test_new_localparts(localpart: str) -> None:
    assert is_valid_new_localpart(localpart)


@pytest.mark.parametrize("localpart", ["", "Ann", "a b", "é", "a:b", "a!", "a\n"])
def test_localparts_that_nobody_gets_now(localpart: str) -> None:
    assert not is_valid_new_localpart(localpart)
