"""Ending the mails of a pusher by the link that stands in them. Who has the link needs no session.

The link carries the server's signature over the pusher's number, which no other pusher ever gets.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from ranvier.core.errors import BadSignature, Forbidden
from ranvier.core.signing import SigningKey
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.pushers import delete_pusher, find_pusher

UNSUBSCRIBE_PATH: Final = "/_ranvier/mail/unsubscribe"

MAX_NUMBER_CHARS: Final = 18


class Unsubscribing:
    """Makes the links, and takes them."""

    def __init__(self, db: Database, keys: Sequence[SigningKey], url: str) -> None:
        """`keys`: the first one signs, all verify. `url`: where people reach this server."""
        self._db = db
        self._keys = keys
        self._url = url.rstrip("/")

    def link(self, pusher_nid: int) -> str:
        token = urlsafe_b64encode(self._keys[0].sign(_message(pusher_nid))).decode().rstrip("=")
        return f"{self._url}{UNSUBSCRIBE_PATH}?{urlencode({'pusher': pusher_nid, 'token': token})}"

    def check(self, pusher: str, token: str) -> int:
        """The pusher_nid that a link names. Raises: Forbidden: the link is not this server's."""
        if pusher.isascii() and pusher.isdigit() and len(pusher) <= MAX_NUMBER_CHARS and token.isascii():
            pusher_nid = int(pusher)
            if any(_is_signed(key, pusher_nid, token) for key in self._keys):
                return pusher_nid
        raise Forbidden("This link is not valid.")

    async def unsubscribe(self, pusher: str, token: str) -> None:
        """No more mails; nothing happens if there are none already. Raises: Forbidden."""
        await self._db.write(_delete, self.check(pusher, token))


def _message(pusher_nid: int) -> bytes:
    # What else the keys sign is JSON, and begins with a brace.
    return b"unsubscribe pusher %d" % pusher_nid


def _is_signed(key: SigningKey, pusher_nid: int, token: str) -> bool:
    try:
        key.verify_key.verify(_message(pusher_nid), urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (BadSignature, ValueError):
        return False
    return True


def _delete(txn: WriteTxn, pusher_nid: int) -> None:
    pusher = find_pusher(txn, pusher_nid)
    if pusher is not None:
        delete_pusher(txn, pusher.user_nid, pusher.keys.app_id, pusher.keys.pushkey)
