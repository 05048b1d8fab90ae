"""Rendezvous sessions: a small text at the server that two devices read and replace in turn, until they have a secure
channel and one of them is signed in. What they write is encrypted; this server understands nothing of it.

Spec: MSC4108 (version of 2024), MSC4388.
"""

import base64
import hashlib
from typing import Final

import msgspec

from ranvier.core.errors import EventTooLarge, LimitExceeded, NotFound
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.rendezvous import (
    RendezvousSession,
    count_rendezvous_sessions,
    delete_expired_rendezvous_sessions,
    delete_rendezvous_session,
    find_rendezvous_session,
    insert_rendezvous_session,
    replace_rendezvous_content,
)

MAX_BYTES: Final = 4_096
MAX_SESSIONS: Final = 4_096
"""Of everybody together: 16 MiB at most. Who comes when there are so many has to wait; those that are there go on."""
LIFETIME_MS: Final = 300_000
"""What MSC4388 has as the longest: somebody may have to find a second factor."""
ID_BYTES: Final = 18


class Meeting(msgspec.Struct, frozen=True):
    """A session as it is now."""

    session_id: str
    content: str
    sequence: str  # another one after each write
    modified_ms: int
    expires_ms: int


class StaleSequence(Exception):
    """Somebody else wrote meanwhile. `meeting`: what stands there."""

    def __init__(self, meeting: Meeting) -> None:
        super().__init__("somebody else wrote meanwhile")
        self.meeting = meeting


class Rendezvous:
    """Keeps the sessions."""

    def __init__(self, db: Database, clock: Clock, randomness: Randomness) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness

    def now_ms(self) -> int:
        """The time by which sessions expire."""
        return self._clock.now_ms()

    async def begin(self, content: str) -> Meeting:
        """Raises: EventTooLarge, LimitExceeded."""
        now_ms = self._clock.now_ms()
        session = RendezvousSession(
            session_id=self._randomness.token(ID_BYTES),
            content=_checked(content),
            revision=0,
            modified_ms=now_ms,
            expires_ms=now_ms + LIFETIME_MS,
        )
        await self._db.write(_insert, session, now_ms)
        return _meeting(session)

    async def get(self, session_id: str) -> Meeting:
        """Raises: NotFound."""
        return _meeting(await self._db.read(_get, session_id, self._clock.now_ms()))

    async def replace(self, session_id: str, sequence: str, content: str, *, is_retry_fine: bool) -> Meeting:
        """Write, if `sequence` is that of what stands there. `is_retry_fine`: writing the same once more is no
        conflict, and changes nothing.

        Raises: NotFound, StaleSequence, EventTooLarge.
        """
        octets = _checked(content)
        return await self._db.write(
            _replace, session_id, sequence, octets, self._clock.now_ms(), is_retry_fine=is_retry_fine
        )

    async def end(self, session_id: str) -> None:
        """Raises: NotFound."""
        if not await self._db.write(delete_rendezvous_session, session_id, self._clock.now_ms()):
            raise _nothing()


def _checked(content: str) -> bytes:
    octets = content.encode()
    if len(octets) > MAX_BYTES:
        raise EventTooLarge(f"What is written here has at most {MAX_BYTES} bytes.")
    return octets


def _insert(txn: WriteTxn, session: RendezvousSession, now_ms: int) -> None:
    if count_rendezvous_sessions(txn) >= MAX_SESSIONS:
        delete_expired_rendezvous_sessions(txn, now_ms)
        if count_rendezvous_sessions(txn) >= MAX_SESSIONS:
            raise LimitExceeded("Too many devices are being signed in.", retry_after_ms=60_000)
    insert_rendezvous_session(txn, session)


def _get(txn: ReadTxn, session_id: str, now_ms: int) -> RendezvousSession:
    session = find_rendezvous_session(txn, session_id, now_ms)
    if session is None:
        raise _nothing()
    return session


def _replace(
    txn: WriteTxn, session_id: str, sequence: str, content: bytes, now_ms: int, *, is_retry_fine: bool
) -> Meeting:
    now = _get(txn, session_id, now_ms)
    if _sequence(now) != sequence:
        if is_retry_fine and content == now.content:
            return _meeting(now)
        raise StaleSequence(_meeting(now))
    replace_rendezvous_content(txn, session_id, now.revision, content, now_ms)
    return _meeting(_get(txn, session_id, now_ms))


def _meeting(session: RendezvousSession) -> Meeting:
    return Meeting(
        session.session_id,
        session.content.decode(),
        _sequence(session),
        session.modified_ms,
        session.expires_ms,
    )


def _sequence(session: RendezvousSession) -> str:
    """A token that changes with each write, even of the same. It tells neither how many there were, nor of what."""
    digest = hashlib.sha256(b"%s %d " % (session.session_id.encode(), session.revision) + session.content)
    return base64.urlsafe_b64encode(digest.digest()[:18]).decode("ascii")


def _nothing() -> NotFound:
    return NotFound("There is no such session, or it has expired.")
