"""Text as words that can be compared, for what people search."""

import re
import unicodedata
from typing import Final

MAX_WORD_CHARS: Final = 64

# Scripts that put no space between words: each sign counts as a word.
_UNSPACED: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD: Final = re.compile(r"\w+")
_WORD_OR_SIGN: Final = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def fold(text: str) -> str:
    """The text without what a search does not distinguish: case, compatible forms, accents. Holds no U+0000."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.casefold())
        text = unicodedata.normalize("NFC", "".join([c for c in text if not unicodedata.combining(c)]))
    return text.lower().replace("\0", "")


def split_words(text: str) -> list[str]:
    """The words of a folded text in their order, long ones cut off."""
    pattern = _WORD if text.isascii() else _WORD_OR_SIGN
    return [word[:MAX_WORD_CHARS] for word in pattern.findall(text)]
