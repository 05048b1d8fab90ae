"""Globs against a naive matcher, and against patterns that were made to be slow."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.globs import (
    compile_glob,
    compile_host_globs,
    compile_star_glob,
    compile_word_glob,
    has_word,
    is_plain_word,
    split_words,
)

WORD = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
patterns = st.text("ab-*?.", max_size=8)
texts = st.text("ab-.", max_size=10)


def naive(pattern: str, text: str, one: str = "?") -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naive(pattern[1:], text[at:], one) for at in range(len(text) + 1))
    return bool(text) and (pattern[0] in (text[0], one)) and naive(pattern[1:], text[1:], one)


def is_edge(text: str, at: int) -> bool:
    return at in (0, len(text)) or text[at - 1] not in WORD or text[at] not in WORD


def naive_word(pattern: str, text: str) -> bool:
    edges = [at for at in range(len(text) + 1) if is_edge(text, at)]
    return any(naive(pattern, text[start:end]) for start in edges for end in edges if start <= end)


@given(patterns, texts)
@settings(max_examples=300)
def test_whole_glob_is_what_a_naive_matcher_says(pattern, text):
    assert compile_glob(pattern)(text) == naive(pattern, text)


@given(patterns, texts)
@settings(max_examples=300)
def test_star_is_the_only_wildcard_of_a_star_glob(pattern, text):
    assert compile_star_glob(pattern)(text) == naive(pattern, text, one="no such character")


@given(st.lists(patterns, max_size=4), texts)
@settings(max_examples=300)
def test_many_globs_match_if_one_does(many, text):
    assert compile_host_globs(many)(text) == any(naive(pattern, text) for pattern in many)


@given(patterns.filter(bool), texts)
@settings(max_examples=300)
def test_word_glob_is_what_a_naive_matcher_says(pattern, text):
    assert compile_word_glob(pattern)(text) == naive_word(pattern, text)


@given(st.text("aB_9", min_size=1, max_size=3), st.text("aB_9 -é", max_size=12))
@settings(max_examples=300)
def test_a_plain_word_is_found_among_the_words(word, text):
    assert is_plain_word(word)
    assert (word in split_words(text)) == has_word(text, word) == naive_word(word, text)


@pytest.mark.parametrize("pattern", ["", "a b", "a*", "é", "a-b", "a\n"])
def test_what_is_no_plain_word(pattern):
    assert not is_plain_word(pattern)


@pytest.mark.parametrize(
    ("word", "text", "found"),
    [
        ("cake", "a cake.", True),
        ("cake", "cakes", False),
        ("cake", "cakes and cake", True),
        ("cake", "pan_cake", False),
        ("cake", "pänécake", True),  # only A-Z, a-z, 0-9 and _ are word characters
        ("@room", "hi@room", True),  # a pattern that begins with a boundary needs none before it
        ("*", "a * b", True),  # taken literally
        ("*", "a b", False),
    ],
)
def test_literal_word(word, text, found):
    assert has_word(text, word) is found


def test_empty_keyword_matches_no_message():
    assert not compile_word_glob("")("hello")


def test_line_breaks_are_ordinary_characters():
    assert compile_glob("a*b?c")("a\n\nb\nc")
    assert compile_word_glob("a*c")("x a\nb c")


@pytest.mark.parametrize(
    "pattern", ["*a" * 250 + "b", "a?" * 250 + "b", "a*" * 200 + "?b*b", "?" * 500 + "*?b"]
)
@pytest.mark.parametrize("text", ["a" * 65_000, "a " * 32_500, "ab" * 32_500 + "a"])
def test_nothing_blows_up(pattern, text):
    start = time.perf_counter()
    compile_glob(pattern)(text)
    compile_word_glob(pattern)(text)
    assert time.perf_counter() - start < 2  # milliseconds; a backtracking matcher needs years


def test_thousands_of_hostile_host_globs_are_cheap():
    matches = compile_host_globs(["*a*a?b"] * 10_000)
    start = time.perf_counter()
    assert not matches("a" * 255)
    assert time.perf_counter() - start < 1
