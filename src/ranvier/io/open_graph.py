"""What a page of the web says about itself: OpenGraph properties, and what stands in for those that are missing.

Only processes that may die import this: pages are as hostile as pictures, and the parser is large.

Spec: client-server API, GET /media/preview_url; https://ogp.me/
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final
from urllib.parse import urljoin

from lxml import etree
from lxml.html import HTMLParser

MAX_PROPERTIES: Final = 40
MAX_NAME_CHARS: Final = 64
MAX_VALUE_CHARS: Final = 2000
MAX_DESCRIPTION_CHARS: Final = 500
MAX_ELEMENTS: Final = 200_000
MAX_TEXTS: Final = 200
"""Titles and headings that are read: those that stand in one another would be read again and again."""

IMAGE: Final = "og:image"
EMBED: Final = "oembed"
"""Not a property: where the page's service says in JSON what the page does not. https://oembed.com/"""
EMBED_TYPE: Final = "application/json+oembed"
_TITLE: Final = "og:title"
_DESCRIPTION: Final = "og:description"

_CHARSET: Final = re.compile(
    rb"""<meta[^>]{0,300}charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE
)
_XML_CHARSET: Final = re.compile(rb"""\s*<\?xml[^>]{0,200}encoding=["']([A-Za-z0-9_.:-]{1,40})""")
_HEADER_CHARSET: Final = re.compile(r"""charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
_SPACES: Final = re.compile(r"\s+")
_HEAD_BYTES: Final = 4096
_BYTE_ORDER_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_NOT_PROSE: Final = frozenset(
    {
        "script",
        "style",
        "noscript",
        "nav",
        "header",
        "footer",
        "aside",
        "form",
        "svg",
        "template",
        "head",
        "iframe",
    }
)
# A page with a meaning of its own for these says so in og: properties.
_STAND_INS: Final[Mapping[str, str]] = {
    "twitter:title": _TITLE,
    "twitter:description": _DESCRIPTION,
    "twitter:image": IMAGE,
    "twitter:image:src": IMAGE,
    "description": _DESCRIPTION,
}


def decode_page(body: bytes, content_type: str) -> str:
    """The text of a page whose encoding its mark, its header or its own head tells; else UTF-8 or Windows-1252."""
    for mark, name in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, errors="replace")
    named = _HEADER_CHARSET.search(content_type)
    found = _CHARSET.search(body[:_HEAD_BYTES]) or _XML_CHARSET.match(body)
    for charset in (named[1] if named else None, found[1].decode("ascii") if found else None, "utf-8"):
        text = _try_decode(body, charset) if charset else None
        if text is not None:
            return text
    return body.decode("windows-1252", errors="replace")


def read_properties(page: str, url: str) -> dict[str, str]:
    """The og: properties of an HTML page, absent ones made up from what else it says. Texts; an image's URL is
    absolute. Total: a page that is no HTML has no properties. EMBED is among them where a page without a title
    of this kind has one: what is made up may be no more than "You need JavaScript".

    Args: url - where the page was, for relative links.
    """
    root = _parse(page)
    if root is None:
        return {}
    declared: dict[str, str] = {}
    stand_ins: dict[str, str] = {}
    base, titles = url, 0
    for element in _elements(root):
        match element.tag:
            case "meta":
                _read_meta(element, declared, stand_ins)
            case "title" if "title" not in stand_ins and titles < MAX_TEXTS:
                titles += 1
                _keep(stand_ins, "title", _text(element))
            case "link" if element.get("rel") == "image_src":
                _keep(stand_ins, IMAGE, element.get("href"))
            case "link" if element.get("type") == EMBED_TYPE and "alternate" in _words(element.get("rel")):
                _keep(stand_ins, EMBED, element.get("href"))
            case "base":
                base = _join(url, element.get("href")) or url
    properties = stand_ins | declared
    _keep(properties, _TITLE, properties.pop("title", None) or _first_heading(root))
    if _DESCRIPTION not in properties:
        _keep(properties, _DESCRIPTION, _first_prose(root))
    image = _join(base, properties.pop(IMAGE, None) or declared.get("og:image:url"))
    embed = None if _TITLE in declared else _join(base, properties.get(EMBED))
    properties.pop(EMBED, None)
    return properties | ({IMAGE: image} if image else {}) | ({EMBED: embed} if embed else {})


def _try_decode(body: bytes, charset: str) -> str | None:
    """The end of the bytes may be in the middle of a character: pages are cut off."""
    try:
        text = body.decode(charset, errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(body) - 4:
            return None
        text = body[: error.start].decode(charset, errors="replace")
    except LookupError:
        return None
    return text


def _parse(page: str) -> etree._Element | None:
    # Without huge_tree the parser bounds depth and lengths; it loads nothing.
    parser = HTMLParser(
        no_network=True, remove_comments=True, remove_pis=True, recover=True, encoding="utf-8"
    )
    try:
        root = etree.fromstring(page.encode("utf-8", errors="replace"), parser)
    except (etree.LxmlError, ValueError):
        return None
    return root


def _elements(root: etree._Element) -> Iterator[etree._Element]:
    return islice(root.iter(), MAX_ELEMENTS)


def _read_meta(element: etree._Element, declared: dict[str, str], stand_ins: dict[str, str]) -> None:
    name = (element.get("property") or element.get("name") or "").strip().lower()
    content = element.get("content")
    if name.startswith("og:"):
        if len(name) <= MAX_NAME_CHARS and len(declared) < MAX_PROPERTIES:
            _keep(declared, name, content)
    elif name in _STAND_INS:
        _keep(stand_ins, _STAND_INS[name], content)
    elif element.get("itemprop") == "image":
        _keep(stand_ins, IMAGE, content)


def _keep(properties: dict[str, str], name: str, value: str | None) -> None:
    """The first that says anything counts."""
    text = _SPACES.sub(" ", (value or "").encode("utf-8", "ignore").decode()).strip()[:MAX_VALUE_CHARS]
    if text:
        properties.setdefault(name, text)


def _words(value: str | None) -> list[str]:
    return (value or "").lower().split()


def _text(element: etree._Element) -> str:
    text = ""
    for piece in element.itertext():
        text += str(piece)
        if len(text) > MAX_VALUE_CHARS:
            break
    return text


def _first_heading(root: etree._Element) -> str | None:
    for element in islice(root.iter("h1", "h2", "h3"), MAX_TEXTS):
        text = _text(element).strip()
        if text:
            return text
    return None


def _first_prose(root: etree._Element) -> str | None:
    """The first words of paragraphs that are not navigation and the like."""
    text = ""
    for element in root.iter("p"):
        if any(ancestor.tag in _NOT_PROSE for ancestor in element.iterancestors()):
            continue
        text += " " + _text(element)
        if len(text) > MAX_DESCRIPTION_CHARS:
            break
    text = _SPACES.sub(" ", text).strip()
    if len(text) <= MAX_DESCRIPTION_CHARS:
        return text or None
    return text[:MAX_DESCRIPTION_CHARS].rpartition(" ")[0] + "…"


def _join(base: str, link: str | None) -> str | None:
    if not link:
        return None
    try:
        joined = urljoin(base, link.strip())
    except ValueError:
        return None
    return joined if joined.startswith(("http://", "https://")) else None
