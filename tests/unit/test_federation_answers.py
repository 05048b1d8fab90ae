"""One event that cannot be read does not take the rest of an answer along."""

import pytest

from ranvier.core.errors import BadJson
from ranvier.core.federation.answers import parse_answer

GOOD = b'{"type":"m.good","n":12345678901234567890,"s":"\xc3\xa9\\ud83d\\udca5"}'
READ = {"type": "m.good", "n": 12345678901234567890, "s": "\xe9\U0001f4a5"}


@pytest.mark.parametrize(
    "bad",
    [
        b'{"body":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"body":"\xff\xfe"}',
        b'{"n":1e999}',
        b'{"n":%b}' % (b"9" * 5_000),
        b'{"a":' * 150 + b"1" + b"}" * 150,
        b'{"n":NaN}',
    ],
)
def test_what_cannot_be_read_is_read_as_nothing(bad: bytes) -> None:
    raw = b'{"pdus":[%b,%b,%b],"origin":"a"}' % (GOOD, bad, GOOD)
    assert parse_answer(raw, 1 << 20) == {"pdus": [READ, {}, READ], "origin": "a"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"pdus":["\\ud800"]}',
        b'{"origin":"\\ud800","pdus":[]}',
        b'{"event":{"a":"\\ud800"},"pdus":[]}',
        b'{"pdus":[' + b"[" * 100_000,
        b'{"pdus":[{}',
        b'{"pdus":[{}]}' + b" " * (1 << 20),
    ],
)
def test_what_cannot_be_helped(raw: bytes) -> None:
    with pytest.raises(BadJson):
        parse_answer(raw, 1 << 20)
