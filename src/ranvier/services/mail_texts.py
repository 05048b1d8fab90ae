"""What mails say: templates of this package, or those that the administrator wrote in their place.

A mail NAME has NAME.txt, whose first line is its subject, and NAME.html with the same as HTML. Who replaces NAME.txt
alone sends plain text alone.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import (
    BaseLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    TemplateSyntaxError,
    select_autoescape,
)

from ranvier.core.identifiers import ServerName
from ranvier.io.ports import Mail

CONFIRM_ADDRESS: Final = "confirm_address"
NEW_PASSWORD: Final = "new_password"  # noqa: S105  a name, no password
UNKNOWN_ADDRESS: Final = "unknown_address"
UNREAD: Final = "unread"

log = logging.getLogger(__name__)

_LINK: Final = "https://matrix.example.org/link"
_EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    CONFIRM_ADDRESS: {"link": _LINK},
    NEW_PASSWORD: {"link": _LINK},
    UNKNOWN_ADDRESS: {},
    UNREAD: {
        "new": 1,
        "unread": 2,
        "rooms": [{"name": "Room", "lines": [{"sender": "Alice", "text": ": Hello"}]}],
        "link": _LINK,
    },
}
"""Every mail, and what its templates are filled with besides `server`."""

_SUBJECT: Final = "Subject:"


class BadMailTemplate(Exception):
    """A template that makes no mail."""


class MailTexts:
    """Writes the mails of this server."""

    def __init__(self, server: ServerName, directory: Path | None = None) -> None:
        """`directory`: with the administrator's templates, for which `find_template_faults` found none."""
        self._server = server
        self._own = None if directory is None else _environment(FileSystemLoader(directory))
        self._package = _environment(PackageLoader("ranvier.services", "mail_templates"))

    def write(
        self, name: str, recipient: str, values: Mapping[str, object], unsubscribe_url: str | None = None
    ) -> Mail:
        """The mail NAME; where the administrator's templates fail on these very values, that of the package."""
        filled = {**values, "server": self._server}
        try:
            text, html = self._own_parts(name, filled) or _parts(self._package, name, filled)
        except BadMailTemplate as error:
            log.warning("mail.templates: %s", error)
            text, html = _parts(self._package, name, filled)
        subject, body = _split(name, text)
        return Mail(
            recipient=recipient,
            subject=subject,
            text=body,
            html=html,
            unsubscribe_url=unsubscribe_url,
        )

    def _own_parts(self, name: str, values: Mapping[str, object]) -> "_Parts | None":
        """Raises: BadMailTemplate."""
        return None if self._own is None else _own_parts(self._own, name, values)


def find_template_faults(directory: Path) -> Iterator[str]:
    """What is wrong with the administrator's templates: each mail is written once, with made-up values."""
    if not directory.is_dir():
        yield f"there is no directory {directory}"
        return
    known = {f"{name}.{kind}" for name in _EXAMPLES for kind in ("txt", "html")}
    found = {file.name for file in directory.iterdir() if file.suffix in (".txt", ".html")}
    for file in sorted(found - known):
        yield f"{file} is the template of no mail; these are: {', '.join(sorted(known))}"
    for file in sorted(found & known):
        if file.endswith(".html") and file.replace(".html", ".txt") not in found:
            yield f"{file} needs {file.replace('.html', '.txt')} beside it, for those who read plain text"
    own = _environment(FileSystemLoader(directory))
    for name, values in _EXAMPLES.items():
        try:
            _own_parts(own, name, {**values, "server": "example.org"})
        except BadMailTemplate as error:
            yield str(error)


_Parts = tuple[str, str | None]
"""Subject and plain text, and HTML."""


def _own_parts(own: Environment, name: str, values: Mapping[str, object]) -> _Parts | None:
    """By the administrator's templates; None: there are none of this mail. Raises: BadMailTemplate."""
    files = own.list_templates()
    if f"{name}.txt" not in files:
        return None
    return _parts(own, name, values, has_html=f"{name}.html" in files)


def _parts(
    environment: Environment, name: str, values: Mapping[str, object], *, has_html: bool = True
) -> _Parts:
    """Raises: BadMailTemplate."""
    try:
        text = environment.get_template(f"{name}.txt").render(values)
        html = environment.get_template(f"{name}.html").render(values) if has_html else None
    except Exception as error:  # whatever a template does
        line = f", line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        raise BadMailTemplate(f"{name}{line}: {error}") from error
    _split(name, text)
    return text, html


def _split(name: str, text: str) -> tuple[str, str]:
    """Subject and body. Raises: BadMailTemplate."""
    first, _, body = text.partition("\n")
    subject = " ".join(first.removeprefix(_SUBJECT).split())
    if not first.startswith(_SUBJECT) or not subject:
        raise BadMailTemplate(f'{name}.txt: the first line must be "{_SUBJECT} …"')
    return subject, body.strip() + "\n"


def _environment(loader: BaseLoader) -> Environment:
    return Environment(
        loader=loader,
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
