"""From an access token to the one who asks. Every request passes here, so what is known stays in memory.

A session in memory is forgotten when tokens or the standing of its user change, in whichever process: logging
out, locking, suspending and refreshing tell it with a hint of kind SESSION.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Final

from ranvier.core.errors import Forbidden, UnknownToken
from ranvier.io.clock import Clock
from ranvier.services.accounts.last_seen import LastSeen
from ranvier.services.requester import Requester
from ranvier.store.database import Database, Hint, Kind
from ranvier.store.tables.accounts import AccountKind
from ranvier.store.tables.tokens import Session, confirm_token, find_session, hash_token

MAX_SESSIONS: Final = 20_000
"""Sessions in memory; the one not used for longest goes first."""


class Authentication:
    """Knows who an access token stands for."""

    def __init__(self, db: Database, clock: Clock, last_seen: LastSeen) -> None:
        self._db = db
        self._clock = clock
        self.seen = last_seen.note
        self._known: OrderedDict[str, tuple[Requester, int | None]] = OrderedDict()
        self._tokens_of_user: defaultdict[int, set[str]] = defaultdict(set)
        self._reading: set[_Reading] = set()
        db.subscribe(self._hear)

    async def user(self, token: str, acting_as: str | None, device_id: str | None) -> Requester:
        """Whom an access token stands for. `acting_as` and `device_id` are for application services.

        Raises: UnknownToken; its soft_logout tells that the session goes on with a new token.
        """
        known = self._known.get(token)
        if known is None:
            known = await self._find(token)
        else:
            self._known.move_to_end(token)
        requester, expires_ms = known
        if expires_ms is not None and expires_ms <= self._clock.now_ms():
            raise UnknownToken("This access token has expired.", soft_logout=True)
        return requester

    async def appservice(self, token: str) -> Requester:
        """Raises: Forbidden: the token is a user's; UnknownToken."""
        await self.user(token, None, None)
        raise Forbidden("Only an application service may do this.")

    async def appservice_or_none(self, token: str) -> Requester | None:
        """None: where this is the authentication, there are no application services."""
        return None

    async def _find(self, token: str) -> tuple[Requester, int | None]:
        # A session that changes while it is read here must not stay in memory as it was.
        reading = _Reading()
        self._reading.add(reading)
        try:
            session = await self._db.read(find_session, hash_token(token))
            if session is None or session.is_deactivated:
                raise UnknownToken("Unknown access token.", soft_logout=False)
            if not session.is_confirmed:
                await self._db.write(confirm_token, session.token_nid)
        finally:
            self._reading.discard(reading)
        known = _requester(session), session.expires_ms
        if reading.missed_hints or session.user_nid in reading.changed:
            return known
        self._known[token] = known
        self._tokens_of_user[session.user_nid].add(token)
        if len(self._known) > MAX_SESSIONS:
            self._forget(next(iter(self._known)))
        return known

    def _hear(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            if hint.kind is Kind.GAP:
                self._known.clear()
                self._tokens_of_user.clear()
                for reading in self._reading:
                    reading.missed_hints = True
            elif hint.kind is Kind.SESSION:
                for reading in self._reading:
                    reading.changed.add(hint.key)
                for token in self._tokens_of_user.pop(hint.key, ()):
                    self._known.pop(token, None)

    def _forget(self, token: str) -> None:
        requester, _ = self._known.pop(token)
        tokens = self._tokens_of_user[requester.user_nid]
        tokens.discard(token)
        if not tokens:
            del self._tokens_of_user[requester.user_nid]


class _Reading:
    """What was heard while a session was read from the tables."""

    __slots__ = ("changed", "missed_hints")

    def __init__(self) -> None:
        self.changed: set[int] = set()  # user_nids
        self.missed_hints = False


def _requester(session: Session) -> Requester:
    return Requester(
        user_id=session.user_id,
        user_nid=session.user_nid,
        device_id=session.device_id,
        device_nid=session.device_nid,
        token_nid=session.token_nid,
        is_guest=session.kind is AccountKind.GUEST,
        is_admin=session.kind is AccountKind.ADMIN,
        is_suspended=session.is_suspended,
        is_locked=session.is_locked,
        is_oauth=session.is_oauth,
        # Without a bound is what Synapse means by a rate of 0.
        is_unlimited=session.message_rate is not None and session.message_rate[0] == 0,
        message_rate=session.message_rate,
    )
