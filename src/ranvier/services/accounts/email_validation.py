"""Proving to own an e-mail address: whoever opens the link in a mail does.

Spec: client-server API, "Adding Account Administrative Contact Information", "Password management".
"""

import hmac
import logging
import re
from collections.abc import Collection
from enum import Enum
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec

from ranvier.core.errors import (
    InvalidParam,
    LimitExceeded,
    ThreepidAuthFailed,
    ThreepidInUse,
    Unavailable,
)
from ranvier.io.clock import Clock
from ranvier.io.ports import Mail, Mailer, RemoteFault
from ranvier.io.randomness import Randomness
from ranvier.services.mail_texts import CONFIRM_ADDRESS, NEW_PASSWORD, UNKNOWN_ADDRESS, MailTexts
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.threepid_validations import (
    Validation,
    begin_validation,
    find_same_validation,
    find_validation,
    note_validated,
    note_wrong_token,
)
from ranvier.store.tables.threepids import find_threepid_owner
from ranvier.store.tables.tokens import hash_token

log = logging.getLogger(__name__)

EMAIL: Final = "email"
CONFIRM_PATH: Final = "/_ranvier/mail/confirm"
LIFETIME_MS: Final = 24 * 3_600_000
MAX_TRIES: Final = 10
"""Wrong tokens for one session."""
MAX_MAILS: Final = 5
MAILS_MS: Final = 3_600_000
"""So many mails to one address in so long a time, whoever asks for them."""
MAX_PACED: Final = 10_000
"""Addresses of which it is remembered when they got mail."""
MAX_ADDRESS_CHARS: Final = 254
MAX_LINK_CHARS: Final = 2_000

_ADDRESS: Final = re.compile(r"[^\s@<>()\[\],;:\\\"\x00-\x1f\x7f]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_SECRET: Final = re.compile(r"[0-9A-Za-z.=_-]{1,255}")


class Purpose(Enum):
    """What the address is to be proved for."""

    ADD = "add"  # it is to become somebody's
    REGISTER = "register"  # it is to belong to a new account
    RESET = "reset"  # it is somebody's, who forgot the password


class EmailWish(msgspec.Struct, frozen=True):
    """The body of a request for a mail."""

    client_secret: str
    email: str
    send_attempt: int
    next_link: str | None = None


class Credentials(msgspec.Struct, frozen=True):
    """What a client shows of a session."""

    sid: str
    client_secret: str


class EmailValidations:
    """Sends the mails, and takes the tokens that stand in them."""

    def __init__(
        self, db: Database, clock: Clock, randomness: Randomness, mailer: Mailer, texts: MailTexts, url: str
    ) -> None:
        """`url`: where people reach this server."""
        self._db = db
        self._clock = clock
        self._randomness = randomness
        self._mailer = mailer
        self._texts = texts
        self._url = url.rstrip("/")
        self._sent: dict[str, list[int]] = {}  # address -> when it got mail; who got some last stands last

    async def begin(self, wish: EmailWish, purpose: Purpose) -> str:
        """Send a mail, unless one was sent for this attempt; the session's id.

        RESET does the same for addresses that nobody has, for nobody is to learn here whose they are; the mail then
        says so, as the specification allows.

        Raises: InvalidParam; LimitExceeded; ThreepidInUse (ADD, REGISTER); Unavailable: no mail could be sent.
        """
        address = _check(wish)
        self._check_pace(address)
        token = self._randomness.token()
        now_ms = self._clock.now_ms()
        validation = Validation(
            self._randomness.token(16),
            wish.client_secret,
            EMAIL,
            address,
            purpose.value,
            hash_token(token),
            wish.send_attempt,
            wish.next_link,
            0,
            None,
            now_ms + LIFETIME_MS,
        )
        begun, is_known = await self._db.write(_begin, validation, purpose, now_ms)
        if begun is validation:
            self._note_mail(address, now_ms)
            # That no account has the address, only whoever owns it is told.
            unknown = self._texts.write(UNKNOWN_ADDRESS, address, {})
            await self._send(self._write(begun, token, purpose) if is_known else unknown)
        return begun.sid

    async def begin_here(self, address: str, purpose: Purpose) -> Credentials:
        """`begin` for a page of this server; what it shows of the session later. Raises: as `begin`."""
        secret = self._randomness.token()
        wish = EmailWish(client_secret=secret, email=address, send_attempt=1)
        return Credentials(await self.begin(wish, purpose), secret)

    async def confirm(self, credentials: Credentials, token: str) -> str | None:
        """The token arrived: the address is proved; where the user wants to go then.

        Raises: ThreepidAuthFailed.
        """
        validation = await self._db.write(_confirm, credentials, token, self._clock.now_ms())
        if validation is None:
            raise ThreepidAuthFailed("This link has expired or is not valid.")
        return validation.next_link

    def _check_pace(self, address: str) -> None:
        """Nobody's mailbox is to be flooded from here. Raises: LimitExceeded."""
        now_ms = self._clock.now_ms()
        recent = [sent_ms for sent_ms in self._sent.get(address, ()) if now_ms - sent_ms < MAILS_MS]
        if len(recent) >= MAX_MAILS:
            retry_after_ms = recent[-MAX_MAILS] + MAILS_MS - now_ms
            raise LimitExceeded("This address got too many mails lately.", retry_after_ms=retry_after_ms)

    def _note_mail(self, address: str, now_ms: int) -> None:
        self._sent[address] = [*self._sent.pop(address, ())[-MAX_MAILS:], now_ms]
        if len(self._sent) > MAX_PACED:
            del self._sent[next(iter(self._sent))]

    def _write(self, validation: Validation, token: str, purpose: Purpose) -> Mail:
        query = urlencode({"sid": validation.sid, "client_secret": validation.client_secret, "token": token})
        link = f"{self._url}{CONFIRM_PATH}?{query}"
        name = NEW_PASSWORD if purpose is Purpose.RESET else CONFIRM_ADDRESS
        return self._texts.write(name, validation.address, {"link": link})

    async def _send(self, mail: Mail) -> None:
        try:
            await self._mailer.send(mail)
        except RemoteFault as fault:
            log.warning("cannot send a mail: %s", fault)
            raise Unavailable("The mail could not be sent. Try again later.") from fault


def check_validated(
    txn: ReadTxn, credentials: Credentials, purposes: Collection[Purpose], now_ms: int
) -> tuple[Purpose, str]:
    """For what a session has proved an address, and which: whoever opened a link agreed to what the mail said, and
    to nothing else. Raises: ThreepidAuthFailed."""
    validation = find_validation(txn, credentials.sid, credentials.client_secret, now_ms)
    if validation is not None and validation.validated_ms is not None:
        purpose = Purpose(validation.purpose)
        if purpose in purposes:
            return purpose, validation.address
    raise ThreepidAuthFailed("The address has not been confirmed yet: open the link in the mail.")


def parse_address(email: str) -> str:
    """An address in canonical form. Raises: InvalidParam."""
    # Some letters become two by that.
    address = email[: MAX_ADDRESS_CHARS + 1].casefold()
    if len(address) > MAX_ADDRESS_CHARS or not _ADDRESS.fullmatch(address):
        raise InvalidParam("This is no e-mail address.")
    return address


def _check(wish: EmailWish) -> str:
    """The address in canonical form. Raises: InvalidParam."""
    if not _SECRET.fullmatch(wish.client_secret):
        raise InvalidParam("The client_secret has 1 to 255 letters, digits and .=_-")
    address = parse_address(wish.email)
    if not 0 <= wish.send_attempt < 2**53:
        raise InvalidParam("The send_attempt is a number that grows.")
    if wish.next_link is not None:
        # It goes into a header.
        is_plain = wish.next_link.isascii() and wish.next_link.isprintable()
        is_short = len(wish.next_link) <= MAX_LINK_CHARS
        if not (is_plain and is_short and wish.next_link.startswith(("https://", "http://"))):
            raise InvalidParam("next_link must be a URL that starts with https:// or http://")
        try:
            urlsplit(wish.next_link)
        except ValueError as error:
            raise InvalidParam("next_link is no URL.") from error
    return address


def _begin(txn: WriteTxn, validation: Validation, purpose: Purpose, now_ms: int) -> tuple[Validation, bool]:
    """The validation, and whether there is anything to confirm: an account for the new password."""
    owner = find_threepid_owner(txn, EMAIL, validation.address)
    if purpose is not Purpose.RESET and owner is not None:
        raise ThreepidInUse("This address belongs to an account already.")
    is_known = purpose is not Purpose.RESET or owner is not None
    same = find_same_validation(txn, validation.client_secret, EMAIL, validation.address, now_ms)
    is_same = same is not None and same.purpose == validation.purpose
    if same is not None and is_same and same.send_attempt >= validation.send_attempt:
        return same, is_known
    begin_validation(txn, validation, now_ms)
    return validation, is_known


def _confirm(txn: WriteTxn, credentials: Credentials, token: str, now_ms: int) -> Validation | None:
    validation = find_validation(txn, credentials.sid, credentials.client_secret, now_ms)
    if validation is None or validation.tries >= MAX_TRIES:
        return None
    if not hmac.compare_digest(validation.token_hash, hash_token(token)):
        note_wrong_token(txn, validation.sid)
        return None
    note_validated(txn, validation.sid, now_ms)
    return validation
