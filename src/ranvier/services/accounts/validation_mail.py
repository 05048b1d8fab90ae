"""The mails by which addresses are proved: plain text, and the same as HTML."""

from typing import Final

from jinja2 import Environment, StrictUndefined

from ranvier.core.identifiers import ServerName
from ranvier.io.ports import Mail

_ENVIRONMENT: Final = Environment(autoescape=True, undefined=StrictUndefined)
_HTML: Final = _ENVIRONMENT.from_string(
    '<!DOCTYPE html><html lang="en"><body><p>{{ wish }}</p><p><a href="{{ link }}">Confirm</a></p>'
    "<p>{{ otherwise }}</p></body></html>"
)
_OTHERWISE: Final = "If it was not you, ignore this mail: nothing happens then."


def write_mail(recipient: str, server: ServerName, link: str, *, is_reset: bool) -> Mail:
    """The mail with the link that whoever owns the address opens."""
    if is_reset:
        subject = f"Your new password on {server}"
        wish = (
            f"Somebody wants to set a new password for your account on {server}. To allow it, open this link:"
        )
    else:
        subject = f"Confirm your address for {server}"
        wish = f"Somebody wants to use this address for an account on {server}. To allow it, open this link:"
    return Mail(
        recipient=recipient,
        subject=subject,
        text=f"{wish}\n\n{link}\n\n{_OTHERWISE}\n",
        html=_HTML.render(wish=wish, link=link, otherwise=_OTHERWISE),
    )


def write_unknown(recipient: str, server: ServerName) -> Mail:
    """Somebody wants to set a new password where no account has the address. Only whoever owns it is told so."""
    return Mail(
        recipient=recipient,
        subject=f"Your new password on {server}",
        text=f"Somebody wants to set a new password on {server}, but no account there has this address.\n\n"
        "Maybe your account has another one, or none: its password can be set by an administrator.\n\n"
        f"{_OTHERWISE}\n",
    )
