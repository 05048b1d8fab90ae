"""Query strings are read as every other form is, and bounded."""

from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.core.errors import InvalidParam
from ranvier.http.request import MAX_QUERY_FIELDS, Query


@given(st.text(st.sampled_from("ab=&+%2 é;#0C3A9"), max_size=40))
def test_it_agrees_with_the_standard_library(raw: str) -> None:
    try:
        expected = parse_qs(raw, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        with pytest.raises(InvalidParam):
            Query(raw)
        return
    query = Query(raw)
    assert {name: query.all(name) for name in query.fields()} == expected


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=8))
def test_what_is_encoded_comes_back(pairs: list[tuple[str, str]]) -> None:
    pairs = [
        pair for pair in pairs if not any("\ud800" <= char <= "\udfff" for text in pair for char in text)
    ]
    assert Query(urlencode(pairs)).fields() == dict(pairs)


def test_too_many_parameters_are_refused() -> None:
    assert Query("&".join(["a=1"] * MAX_QUERY_FIELDS)).all("a") == ["1"] * MAX_QUERY_FIELDS
    with pytest.raises(InvalidParam):
        Query("&".join(["a=1"] * (MAX_QUERY_FIELDS + 1)))
