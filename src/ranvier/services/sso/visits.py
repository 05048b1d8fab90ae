"""Visits: what is known of a browser between its requests, on its way through a provider.

A visit has a ticket, which goes along in URLs and forms, and a cookie, which proves that the browser which brings
the ticket is the one that it was given to. Both are random, and stored as hashes. A visit stands in the database:
it survives a restart, and any process goes on with it. Each step ends it and begins the next one, so none is taken
twice.
"""

import hmac
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.core.errors import Forbidden, LimitExceeded
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.sso import (
    count_visits,
    delete_expired_visits,
    delete_visit,
    find_visit,
    insert_visit,
)
from ranvier.store.tables.tokens import hash_token

LIFETIME_MS: Final = 15 * 60_000
"""Of one step: people have to find their passwords, and second factors."""
MAX_VISITS: Final = 20_000
KEY_CHARS: Final = 8
COOKIE_PREFIX: Final = "ranvier-sso-"

_TICKET: Final = re.compile(r"([A-Za-z0-9]{8})\.[A-Za-z0-9_-]{43}")


class VisitGone(Forbidden):
    """The ticket is unknown, used or expired, or another browser's. What is wrong is not told."""


class Ticket(msgspec.Struct, frozen=True):
    """What a browser gets."""

    value: str
    cookie: str | None = None  # to be set; None: it has it already

    @property
    def cookie_name(self) -> str:
        """Several visits of a browser at once have a cookie each."""
        return COOKIE_PREFIX + self.value[:KEY_CHARS]


class Leaving(msgspec.Struct, frozen=True, kw_only=True, tag="leaving"):
    """The browser is at the provider."""

    provider: str
    nonce: str
    verifier: str  # of the code challenge
    redirect_url: str | None = None  # to go to with a login token
    uia_session: str | None = None  # or what is to be confirmed


class Unnamed(msgspec.Struct, frozen=True, kw_only=True, tag="unnamed"):
    """Somebody without an account here, who has to choose a name for it."""

    provider: str
    subject: str
    display_name: str | None
    email: str | None  # proved to the provider
    redirect_url: str


class Arrived(msgspec.Struct, frozen=True, kw_only=True, tag="arrived"):
    """Somebody with an account, who has to confirm where to go with it."""

    user_nid: int
    redirect_url: str


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag="asked"):
    """Somebody has shown again who they are, and is asked whether a client may do what it wants to."""

    user_nid: int
    uia_session: str


Content = Leaving | Unnamed | Arrived | Asked

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Content).decode


class Visits:
    """Keeps them."""

    def __init__(self, db: Database, clock: Clock, randomness: Randomness) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness

    async def begin(
        self, provider: str, *, redirect_url: str | None = None, uia_session: str | None = None
    ) -> tuple[Ticket, Leaving]:
        """A visit that begins with going to a provider. Raises: LimitExceeded."""
        leaving = Leaving(
            provider=provider,
            nonce=self._randomness.token(),
            verifier=self._randomness.token(),
            redirect_url=redirect_url,
            uia_session=uia_session,
        )
        key, cookie = self._randomness.text(KEY_CHARS), self._randomness.token()
        return await self._insert(key, leaving, cookie, is_known=False), leaving

    async def take(self, ticket: str, cookies: Mapping[str, str]) -> Content:
        """What a visit is about. The ticket is used up. Raises: VisitGone."""
        return await self._db.write(_take, ticket, _cookie_of(ticket, cookies), self._clock.now_ms())

    async def go_on(self, ticket: str, cookies: Mapping[str, str], content: Content) -> Ticket:
        """A new ticket for the browser whose ticket was taken."""
        return await self._insert(ticket[:KEY_CHARS], content, _cookie_of(ticket, cookies), is_known=True)

    async def _insert(self, key: str, content: Content, cookie: str, *, is_known: bool) -> Ticket:
        ticket = f"{key}.{self._randomness.token()}"
        await self._db.write(_insert, ticket, cookie, _encode(content), self._clock.now_ms())
        return Ticket(ticket, None if is_known else cookie)


def _cookie_of(ticket: str, cookies: Mapping[str, str]) -> str:
    """Raises: VisitGone."""
    found = _TICKET.fullmatch(ticket)
    cookie = None if found is None else cookies.get(COOKIE_PREFIX + found[1])
    if cookie is None:
        raise _gone()
    return cookie


def _insert(txn: WriteTxn, ticket: str, cookie: str, content: bytes, now_ms: int) -> None:
    if count_visits(txn) >= MAX_VISITS:
        delete_expired_visits(txn, now_ms)
        if count_visits(txn) >= MAX_VISITS:
            raise LimitExceeded("Too many people are signing in.", retry_after_ms=60_000)
    expires_ms = now_ms + LIFETIME_MS
    insert_visit(txn, hash_token(ticket), hash_token(cookie), content, expires_ms)


def _take(txn: WriteTxn, ticket: str, cookie: str, now_ms: int) -> Content:
    found = find_visit(txn, hash_token(ticket), now_ms)
    # A ticket that another browser brings stays good for its own.
    if found is None or not hmac.compare_digest(found[0], hash_token(cookie)):
        raise _gone()
    delete_visit(txn, hash_token(ticket))
    content: Content = _decode(found[1])
    return content


def _gone() -> VisitGone:
    return VisitGone("This sign-in has ended or was begun in another browser. Start again from your app.")
