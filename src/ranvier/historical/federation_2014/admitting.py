"""PDUs of peers, one by one: what may be believed of them, what they cite and is not here, and then `showing`.

Source: docs/federation-2014.md, "Receipt of a PDU".
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ranvier.core.errors import ServerFault
from ranvier.core.identifiers import ServerName, UserID
from ranvier.historical.federation_2014.entering import Entering, Waiting
from ranvier.historical.federation_2014.ledger import Ledger
from ranvier.historical.federation_2014.naming import server_of_user
from ranvier.historical.federation_2014.pdu import BadPdu, OldPdu
from ranvier.historical.federation_2014.peers import Peers
from ranvier.historical.federation_2014.showing import Showing
from ranvier.io.ports import RemoteFault
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import historical_contexts as contexts
from ranvier.store.tables import historical_pdus as pdus
from ranvier.store.tables.historical_pdus import Name

log = logging.getLogger(__name__)

MAX_WALK: Final = 100
"""PDUs that are fetched one by one because another one cites them. What lies behind is asked for by /backfill,
once, and else stays a gap."""

MAX_STATE_FETCHES: Final = 20

_MEMBER: Final = "m.room.member"


class Admitting:
    """Takes them."""

    def __init__(
        self,
        db: Database,
        ledger: Ledger,
        peers: Peers,
        showing: Showing,
        entering: Entering,
        waiting: Waiting,
    ) -> None:
        self._db = db
        self._ledger = ledger
        self._peers = peers
        self._showing = showing
        self._entering = entering
        self._waiting = waiting
        self._turns = _Turns()

    async def admit(self, pdu: OldPdu) -> None:
        """Take a PDU that a peer sent. One that is held already is left as it is.

        Raises: BadPdu; StoreFault.
        """
        held = await self._db.read(pdus.find_pdu, pdu.name)
        if pdu.origin == self._ledger.server:
            if held is None:
                raise BadPdu("this server has made no such PDU")
            return
        if not self._peers.is_peer(pdu.origin):
            raise BadPdu(f"{pdu.origin} is no configured peer")
        if held is not None and not held.is_outlier:
            return
        self._check_speaks_for(pdu)
        async with self._turns.of(pdu.context):
            await self._admit(pdu)

    async def _admit(self, pdu: OldPdu) -> None:
        if self._is_of_own_user(pdu) and not await self._entering.is_in(pdu.context):
            membership = pdu.content.get("membership")
            if membership == "join":
                return await self._enter(pdu)
            if membership == "invite":
                return await self._entering.keep_invite(pdu)
            return await self._entering.keep_end(pdu)
        for ancestor in await self._walk(pdu):
            try:
                await self._take(ancestor)
            except BadPdu as fault:
                log.info("%s, which %s needs, is refused: %s", ancestor.label, pdu.label, fault)
        await self._take(pdu)

    async def _take(self, pdu: OldPdu) -> None:
        await self._fetch_state(pdu)
        await self._showing.take(pdu)

    async def _enter(self, join: OldPdu) -> None:
        user_id = UserID(str(join.state_key))
        if not self._waiting.is_expected(join.context, user_id):
            raise BadPdu("this user has not asked to be let in")
        try:
            event_id = await self._entering.enter(join, join.origin)
        except RemoteFault as fault:
            raise BadPdu(f"the state of the context cannot be had: {fault}") from fault
        self._waiting.come(join.context, user_id, event_id)

    def _check_speaks_for(self, pdu: OldPdu) -> None:
        """A server speaks for its own users. The join that it makes for another's is the one exception: that one
        asked for it.

        Raises: BadPdu.
        """
        if pdu.user_id is None:
            return
        server = server_of_user(pdu.user_id)
        if server is None:
            raise BadPdu("user_id is no user id")
        if server == pdu.origin:
            return
        is_join = (
            pdu.pdu_type == _MEMBER
            and pdu.state_key == pdu.user_id
            and pdu.content.get("membership") == "join"
        )
        if not is_join or (
            server == self._ledger.server and not self._waiting.is_expected(pdu.context, pdu.user_id)
        ):
            raise BadPdu("user_id is a user of another server")

    def _is_of_own_user(self, pdu: OldPdu) -> bool:
        return pdu.pdu_type == _MEMBER and server_of_user(pdu.state_key) == self._ledger.server

    async def _walk(self, pdu: OldPdu) -> Sequence[OldPdu]:
        """What the PDU cites and is not here, as far as its server tells; each after what it cites itself."""
        missing = await self._db.read(self._read_wanted, pdu)
        found: dict[Name, OldPdu] = {}
        given_up: set[Name] = set()
        while missing and len(found) + len(given_up) < MAX_WALK:
            name = missing.pop(0)
            if name in found or name in given_up:
                continue
            try:
                ancestor = await self._peers.fetch_pdu(pdu.origin, name)
            except RemoteFault as fault:
                log.info("%s does not tell what came before %s: %s", pdu.origin, pdu.label, fault)
                missing = []
                break
            if ancestor is None or not self._may_be_believed(ancestor, pdu):
                given_up.add(name)
                continue
            found[name] = ancestor
            missing += await self._db.read(self._read_wanted, ancestor)
        if missing:
            found |= await self._backfill(pdu, [name for name in missing if name not in found])
        return sorted(found.values(), key=lambda one: (one.depth, one.name))

    async def _fetch(self, peer: ServerName, name: Name) -> OldPdu | None:
        try:
            return await self._peers.fetch_pdu(peer, name)
        except RemoteFault as fault:
            log.info("%s does not tell %s@%s: %s", peer, name[1], name[0], fault)
            return None

    async def _backfill(self, pdu: OldPdu, missing: Sequence[Name]) -> dict[Name, OldPdu]:
        try:
            fetched = await self._peers.fetch_backfill(pdu.origin, pdu.context, missing[:MAX_WALK], MAX_WALK)
        except RemoteFault as fault:
            log.info("%s does not tell what came before %s: %s", pdu.origin, pdu.label, fault)
            return {}
        return {one.name: one for one in fetched[:MAX_WALK] if self._may_be_believed(one, pdu)}

    def _may_be_believed(self, ancestor: OldPdu, pdu: OldPdu) -> bool:
        if ancestor.context != pdu.context or not self._peers.is_peer(ancestor.origin):
            return False
        try:
            self._check_speaks_for(ancestor)
        except BadPdu:
            return False
        return not (self._is_of_own_user(ancestor) and ancestor.content.get("membership") == "join")

    def _read_wanted(self, txn: ReadTxn, pdu: OldPdu) -> list[Name]:
        """What is worth fetching before a PDU is taken: nothing at the first contact with a context, and nothing
        behind where its history is known to begin."""
        context = contexts.find_context(txn, pdu.context)
        if context is None or context.min_depth is None or pdu.depth <= context.min_depth:
            return []
        at_gap = pdus.find_lowest_at_gap(txn, pdu.context)
        if at_gap is not None and pdu.depth <= at_gap:
            return []
        return self._ledger.list_missing(txn, pdu)

    async def _fetch_state(self, pdu: OldPdu) -> None:
        """What it takes to decide who holds the PDU's slot, as far as it can be had."""
        given_up: set[Name] = set()
        for _ in range(MAX_STATE_FETCHES):
            name = await self._db.read(self._ledger.find_missing_state, pdu, given_up)
            if name is None:
                return
            peer = ServerName(name[0]) if self._peers.is_peer(name[0]) else pdu.origin
            fetched = await self._fetch(peer, name)
            if fetched is None or fetched.context != pdu.context:
                given_up.add(name)
                continue
            try:
                await self._db.write(self._ledger.take_aside, fetched)
            except BadPdu:
                given_up.add(name)


class _Turns:
    """A lock for each context in which anything is being done."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._counts: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, context: str) -> AsyncIterator[None]:
        self._counts[context] += 1
        try:
            async with self._locks.setdefault(context, asyncio.Lock()):
                yield
        finally:
            self._counts[context] -= 1
            if not self._counts[context]:
                del self._counts[context], self._locks[context]


async def admit_all(admitting: Admitting, taken: Sequence[OldPdu]) -> dict[str, str | None]:
    """Take PDUs one after the other: label -> why it was refused, or None.

    Raises: ServerFault, when all that can be taken was taken: the transaction is to come again.
    """
    reasons: dict[str, str | None] = {}
    failure: ServerFault | None = None
    for pdu in taken:
        try:
            await admitting.admit(pdu)
            reasons[pdu.label] = None
        except BadPdu as fault:
            log.info("%s is refused: %s", pdu.label, fault)
            reasons[pdu.label] = str(fault)
        except ServerFault as fault:
            failure = fault
    if failure is not None:
        raise failure
    return reasons
