import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.core.property_paths import ABSENT, find_property, parse_property_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("content.body", ("content", "body")),
        (r"content.m\.relates_to", ("content", "m.relates_to")),
        (r"content.m\\foo", ("content", r"m\foo")),
        (r"content.\x", ("content", r"\x")),  # another escape is left as it is
        (r"a\\.b", ("a\\", "b")),
        ("a\\", ("a\\",)),
        ("", ("",)),
        ("a.", ("a", "")),
        (r"\.", (".",)),
        ("..", ("", "", "")),
    ],
)
def test_escapes(text, path):
    assert parse_property_path(text) == path


@given(st.lists(st.text(r".\ab"), min_size=1))
def test_an_escaped_path_is_read_back(names):
    escaped = ".".join(name.replace("\\", r"\\").replace(".", r"\.") for name in names)
    assert parse_property_path(escaped) == tuple(names)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("a", "b"), 1),
        (("a",), {"b": 1, "n": None}),
        (("a", "n"), None),
        (("a", "x"), ABSENT),
        (("l", "0"), ABSENT),
        (("s", "0"), ABSENT),
    ],
)
def test_find(path, value):
    assert find_property({"a": {"b": 1, "n": None}, "l": [1], "s": "text"}, path) == value
