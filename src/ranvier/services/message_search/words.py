"""What of an event is searched, and what is searched for. Pure.

Spec: client-server API, "Search Categories", `room_events`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.words import fold, split_words

MAX_WORDS: Final = 200
"""Distinct words of one event that count."""
MAX_SEARCHED: Final = 10
"""Words of one search; further ones are passed over."""


def _topic(content: JsonObject) -> list[Any]:
    """The topic, and its plain form in the content block (v1.15)."""
    texts: list[Any] = [content.get("topic")]
    block = content.get("m.topic")
    forms = block.get("m.text") if isinstance(block, dict) else None
    if isinstance(forms, list):
        texts += [
            form.get("body")
            for form in forms
            if isinstance(form, dict) and form.get("mimetype", "text/plain") == "text/plain"
        ]
    return texts


_TEXTS: Final[Mapping[str, Callable[[JsonObject], list[Any]]]] = {
    "m.room.message": lambda content: [content.get("body")],
    "m.room.name": lambda content: [content.get("name")],
    "m.room.topic": _topic,
}

TYPE_OF_KEY: Final[Mapping[str, str]] = {
    "content.body": "m.room.message",
    "content.name": "m.room.name",
    "content.topic": "m.room.topic",
}
"""Which events each of the `keys` of a search means."""

SEARCHED_TYPES: Final = frozenset(_TEXTS)


def words_of(event_type: str, content: JsonObject) -> list[str]:
    """The words of an event in their order, repeated ones too."""
    texts = _TEXTS[event_type](content) if event_type in _TEXTS else []
    return [word for text in texts if isinstance(text, str) for word in split_words(fold(text))]


def distinct(words: list[str]) -> list[str]:
    """The words that are kept for searches."""
    return list(dict.fromkeys(words))[:MAX_WORDS]


def searched_words(search_term: str) -> list[str]:
    """The words that an event must have, the longest (so the rarest, most often) first."""
    words = dict.fromkeys(split_words(fold(search_term)))
    return sorted(words, key=len, reverse=True)[:MAX_SEARCHED]
