"""Glob-style patterns, matched in time proportional to pattern times text at worst: never exponentially.

A glob is matched from left to right, and the first place where a literal piece fits is always the best
one, because it leaves most room for the rest. So nothing that matched is ever tried again (the atomic
groups below), which is what makes ordinary backtracking blow up.

Case is the caller's matter: lower both sides first for a match that ignores it.

Spec: appendices, "Glob-style matching".
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

Matcher = Callable[[str], bool]
"""Whether a text matches. Never raises."""

_WORDS: Final = re.compile("[A-Za-z0-9_]+")
_START: Final = "\0"
"""What no host name and no pattern for one has."""
_EDGE: Final = r"(?:(?<![A-Za-z0-9_])|(?![A-Za-z0-9_]))"
"""Regex for a word boundary: an end of the text, or a character outside the word set on one side at least."""


def compile_glob(pattern: str) -> Matcher:
    """A matcher for texts that `pattern` describes from end to end. `*` is any text, `?` one character."""
    if not _has_wildcard(pattern):
        return pattern.__eq__
    if pattern == "*":
        return _match_anything
    return _as_matcher(re.compile(_whole_regex(pattern), re.DOTALL))


def compile_star_glob(pattern: str) -> Matcher:
    """Like compile_glob, but `*` is the only wildcard, as in the event types of a filter."""
    first, *others = pattern.split("*")
    if not others:
        return pattern.__eq__
    *middle, last = others
    shortest = len(first) + len(last)

    def matches(text: str) -> bool:
        if len(text) < shortest or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in middle:
            at = text.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True

    return matches


def compile_host_globs(patterns: Iterable[str]) -> Matcher:
    """A matcher for host names that at least one of the patterns describes; cheap also for thousands of them.

    A pattern that is not ASCII matches nothing, since no host name is like it.
    """
    exact: set[str] = set()
    suffixes: list[str] = []
    irregular: list[str] = []
    for pattern in patterns:
        if not _has_wildcard(pattern):
            exact.add(pattern)
        elif pattern[0] == "*" and not _has_wildcard(pattern[1:]):
            suffixes.append(pattern[1:])
        elif pattern.isascii() and _START not in pattern:
            irregular.append(pattern)
    endings = tuple(suffixes)
    if not irregular:
        return lambda text: text in exact or text.endswith(endings)
    matches_irregular = _compile_automaton(irregular)
    return lambda text: text in exact or text.endswith(endings) or matches_irregular(text)


def compile_word_glob(pattern: str) -> Matcher:
    """A matcher for texts with a part that `pattern` describes and that starts and ends at a word boundary.

    A position is a boundary if it is an end of the text or if one of the characters beside it is none of
    A-Z, a-z, 0-9 and _. The empty pattern matches the empty text only: as a keyword it would match every
    message.

    Spec: client-server API, push notifications, "Content-specific rules" and `event_match` of content.body.
    """
    if not pattern:
        return pattern.__eq__
    if not _has_wildcard(pattern):
        return lambda text: has_word(text, pattern)
    first, *others = _regex_pieces(pattern)
    if not others:
        return _as_matcher(re.compile(f"(?>.*?{_EDGE}{first}{_EDGE})", re.DOTALL))
    *middle, last = others
    parts = [f"(?>.*?{_EDGE}{first})", *(f"(?>.*?{piece})" for piece in middle), f"(?>.*?{last}{_EDGE})"]
    return _as_matcher(re.compile("".join(parts), re.DOTALL))


def has_word(text: str, word: str) -> bool:
    """Whether `word`, taken literally, stands in `text` between word boundaries (see compile_word_glob)."""
    return word in text and re.search(f"{_EDGE}{re.escape(word)}{_EDGE}", text) is not None


def split_words(text: str) -> frozenset[str]:
    """The longest runs of A-Z, a-z, 0-9 and _ in `text`.

    A pattern that is such a run itself (`is_plain_word`) stands in a text between word boundaries if and
    only if it is among these. So one split answers for any number of keywords.
    """
    return frozenset(_WORDS.findall(text))


def is_plain_word(pattern: str) -> bool:
    return _WORDS.fullmatch(pattern) is not None


def _has_wildcard(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _match_anything(_text: str) -> bool:
    return True


def _as_matcher(regex: re.Pattern[str]) -> Matcher:
    match = regex.match
    return lambda text: match(text) is not None


def _whole_regex(pattern: str) -> str:
    first, *others = _regex_pieces(pattern)
    if not others:
        return rf"{first}\Z"
    *middle, last = others
    # The last piece must sit at the very end, so only there is more than one place worth a try.
    return "".join([first, *(f"(?>.*?{piece})" for piece in middle if piece), rf"(?>.*?{last}\Z)"])


def _regex_pieces(pattern: str) -> list[str]:
    """What stands between the `*` of a pattern, each as a regex of fixed length."""
    return [re.escape(piece).replace(r"\?", ".") for piece in pattern.split("*")]


def _compile_automaton(patterns: Iterable[str]) -> Matcher:
    """All patterns in one automaton: the bits of an integer are its states, a character of a text is a step.

    A pattern has one slot for its start and one for each character but `*`. A slot is active while the text
    so far matches the pattern up to there. So 64 KiB of hostile patterns are 255 steps over 64 K bits.
    """
    slots, stars, ends = "", "", ""
    for pattern in patterns:
        pieces = (_START + pattern).split("*")
        text = "".join(pieces)
        slots += text
        # A slot before a `*` stays active whatever comes.
        stars += "".join("0" * (len(piece) - 1) + "1" for piece in pieces[:-1] if piece)
        stars += "0" * len(pieces[-1])
        ends += "0" * (len(text) - 1) + "1"
    starts = _bits(slots.encode(), _START)
    any_character = _bits(slots.encode(), "?")
    steps = {char: any_character | _bits(slots.encode(), char) for char in set(slots) - {_START, "?"}}
    loops, finals = int(stars[::-1], 2), int(ends[::-1], 2)

    def matches(text: str) -> bool:
        active = starts
        for char in text:
            active = (active << 1) & steps.get(char, any_character) | active & loops
        return active & finals != 0

    return matches


def _bits(slots: bytes, char: str) -> int:
    """An integer with a one for each slot that holds `char`; the first slot is the lowest bit."""
    ones = bytes(ord("1") if code == ord(char) else ord("0") for code in range(256))
    return int(slots[::-1].translate(ones), 2)
