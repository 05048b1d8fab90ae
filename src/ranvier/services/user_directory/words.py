"""Names and what is searched for, as words. Pure."""

from typing import Final

from ranvier.core.identifiers import UserID
from ranvier.core.words import MAX_WORD_CHARS, fold, split_words

MAX_WORDS: Final = 20
"""Of one user."""
MAX_PREFIXES: Final = 6
"""Of one search; further ones are passed over."""


def words_of(user_id: UserID, display_name: str | None) -> list[str]:
    """The words by which a user is found: those of the name and of the localpart, and the id without its @."""
    whole = fold(user_id[1:])
    localpart = whole.partition(":")[0]
    words = [whole[:MAX_WORD_CHARS], localpart[:MAX_WORD_CHARS], *split_words(localpart)]
    words += split_words(fold(display_name or ""))
    return list(dict.fromkeys(words))[:MAX_WORDS]


def prefixes_of(search_term: str) -> list[str]:
    """The beginnings of words that a user must have, the longest first. Empty: nobody is looked for."""
    prefixes: list[str] = []
    for piece in fold(search_term).split():
        # Something with a colon is (the beginning of) an id.
        name = piece.removeprefix("@")
        prefixes += [name[:MAX_WORD_CHARS]] if ":" in name.rstrip(":") else split_words(name)
    return sorted(dict.fromkeys(prefixes), key=len, reverse=True)[:MAX_PREFIXES]
