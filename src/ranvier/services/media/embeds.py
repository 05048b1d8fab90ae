"""What the service behind a page says of it in JSON, where the page itself says little. Pure.

Source: https://oembed.com/
"""

import re
from typing import Final

import msgspec

from ranvier.services.media.preview_images import IMAGE, Properties

MAX_TEXT_CHARS: Final = 2_000
MAX_FRAGMENT_CHARS: Final = 100_000

_TYPES: Final = {"video": "video.other", "rich": "article", "photo": "article", "link": "website"}
_SPACES: Final = re.compile(r"\s+")


class Embed(msgspec.Struct, frozen=True):
    """`properties`: texts; with the URL of a picture, which nobody has judged yet."""

    properties: Properties
    html: str  # what others would show in the page's place; may be empty


class _Answer(msgspec.Struct, frozen=True):
    """Whatever stands there: each field is looked at by itself."""

    type: object = None
    title: object = None
    author_name: object = None
    provider_name: object = None
    thumbnail_url: object = None
    url: object = None
    html: object = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


def read_embed(body: bytes) -> Embed | None:
    """The answer of an oEmbed endpoint, or None when it is none."""
    try:
        answer = _ANSWER.decode(body)
    except msgspec.DecodeError:
        return None
    told = {
        "og:type": _TYPES.get(_text(answer.type)),
        "og:title": _text(answer.title) or _text(answer.author_name),
        "og:site_name": _text(answer.provider_name),
        IMAGE: _text(answer.thumbnail_url) or (_text(answer.url) if answer.type == "photo" else ""),
    }
    html = answer.html if isinstance(answer.html, str) else ""
    return Embed({name: value for name, value in told.items() if value}, html[:MAX_FRAGMENT_CHARS])


def _text(value: object) -> str:
    return _SPACES.sub(" ", value).strip()[:MAX_TEXT_CHARS] if isinstance(value, str) else ""
