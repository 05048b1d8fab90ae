"""Other servers' signing keys: in memory, in the table, from the server itself, from trusted notaries, for servers
that were known before from whoever passes their events on, and for those that are gone from who remembers them
(`past_keys`).

A server is asked once for all who want its keys, and not again for a while whatever it answered: events under
keys that nobody knows must not become requests to the server that they name.

Spec: server-server API, "Retrieving server keys"; rooms v5, "Signing key validity period".
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core import canonical_json
from ranvier.core.errors import LimitExceeded, ProtocolFault
from ranvier.core.federation.notary import (
    MAX_KEYS_PER_SERVER,
    KeyQuery,
    build_request,
    parse_relayed,
    parse_response,
)
from ranvier.core.federation.server_keys import (
    MAX_DOCUMENT_BYTES,
    MAX_KEYS,
    ServerKeys,
    check_key_document,
)
from ranvier.core.identifiers import KeyID, ServerName
from ranvier.core.signing import VerifyKey
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.remote.flights import Flights
from ranvier.services.remote.past_keys import is_gone, is_past, list_past_keys
from ranvier.services.remote.requests import Ask, Requests
from ranvier.services.turns import ASKER, Turns
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import server_keys
from ranvier.store.tables.interned import Interner, find_server_nids, intern_servers
from ranvier.store.tables.server_keys import KeyDocument, ServerKey

log = logging.getLogger(__name__)

MAX_SERVERS: Final = 20_000
"""Servers whose keys are in memory; the one not asked for longest goes first."""

MAX_FETCHES: Final = 32
"""Servers asked at a time."""

FETCHES_OF_ASKERS: Final = MAX_FETCHES // 2
"""Of these, for whoever shows a signature, or asks a notary: the rest is for the keys of events."""
FETCHES_OF_ONE: Final = 4
WAITING_OF_ONE: Final = 100

FETCH_TIMEOUT_S: Final = 10.0

RELAY_TIMEOUT_S: Final = 20.0
"""Who passes keys on may first try in vain to get newer ones."""

PAUSE_MS: Final = 10_000
"""After an answer that lacked what was wanted, and after the first failure."""

MAX_PAUSE_MS: Final = 3_600_000

MAX_RELAYED: Final = 100
"""Servers whose keys are asked of another one at once."""

_PATH: Final = "/_matrix/key/v2/server"
_NOTARY_PATH: Final = "/_matrix/key/v2/query"


class KeyWanted(msgspec.Struct, frozen=True):
    """A key that something was signed with. `valid_at_ms`: when it must have been valid; None: at any time."""

    server: ServerName
    key_id: KeyID
    valid_at_ms: int | None


class _Known(msgspec.Struct):
    """What is known of one server, and when to ask again at the earliest."""

    keys: Mapping[str, ServerKey]
    next_fetch_ms: int = 0
    failures: int = 0
    next_relay_ms: int = 0  # when another server may be asked for them
    past: Mapping[str, ServerKey] = {}  # see `past_keys`
    past_asked_ms: Mapping[str, int] = {}  # by key: when others were asked for it


class Keyring:
    """The keys of all servers, this one included."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        requests: Requests,
        clock: Clock,
        own_keys: Mapping[KeyID, VerifyKey],
        notaries: Sequence[ServerName],
        past_notaries: Sequence[ServerName] = (),
    ) -> None:
        """`past_notaries`: who is believed about servers that are gone."""
        self._db = db
        self._interner = interner
        self._requests = requests
        self._clock = clock
        self._own_keys = own_keys
        self._notaries = notaries
        self._past_notaries = past_notaries
        self._servers: OrderedDict[ServerName, _Known] = OrderedDict()
        self._flights: Flights[ServerName, None] = Flights()
        self._slots = asyncio.Semaphore(MAX_FETCHES)
        self._askers: Turns[str] = Turns(FETCHES_OF_ONE, WAITING_OF_ONE)
        self._slots_of_askers = asyncio.Semaphore(FETCHES_OF_ASKERS)

    async def find_keys(
        self, wanted: Collection[KeyWanted], relay: ServerName | None = None
    ) -> dict[KeyWanted, VerifyKey]:
        """Those of the keys that can be had. `relay`: who told of what was signed with them. It is asked for what
        their servers say now, which counts if a key has signed it that is known from before.

        Cost: nothing for keys in memory; 1 query for servers that are not; then a request to each server
        that lacks some, all at once, and one to each notary and to the relay while any is lacking; for servers that are
        gone one more.
        """
        await self._load({want.server for want in wanted})
        found, missing = self._look(wanted)
        if missing:
            due = {want.server for want in missing if self._is_due(want.server)}
            await asyncio.gather(*(self._flights.fly(server, self._fetcher(server)) for server in due))
            learned, missing = self._look(missing)
            found |= learned
            for notary in self._notaries if due else ():
                asked = [want for want in missing if want.server in due]
                if asked:
                    await self._ask_notary(notary, asked)
                    learned, missing = self._look(missing)
                    found |= learned
            if missing and relay is not None and await self._ask_relay(relay, missing):
                learned, missing = self._look(missing)
                found |= learned
            if missing and await self._ask_past(missing):
                found |= self._look(missing)[0]
        return found

    async def find_known(self, wanted: Collection[KeyWanted]) -> dict[KeyWanted, VerifyKey]:
        """Those of the keys that are here: nobody is asked. Cost: 1 query for servers that are not in memory."""
        await self._load({want.server for want in wanted})
        return self._look(wanted)[0]

    async def find_request_key(self, server: ServerName, key_id: KeyID) -> VerifyKey | None:
        """The key with which the server may sign a request now. Raises: LimitExceeded."""
        now_ms = self._clock.now_ms()
        want = KeyWanted(server, key_id, now_ms)
        await self._load((server,))
        key = self._in_memory(want)
        if key is None and self._is_due(server):
            # Whoever asks may have made the name up.
            async with self._askers.take(ASKER.get()), self._slots_of_askers:
                key = (await self.find_keys((want,))).get(want)
        known = self._servers.get(server)
        stored = None if known is None else known.keys.get(key_id)
        # A key that was given up is good for events of its time, never for requests.
        return None if stored is not None and stored.is_old else key

    async def find_documents(self, queries: Iterable[KeyQuery]) -> list[ServerKeys]:
        """The key documents that answer these questions, as a notary has them: fetched anew where what is
        stored is too old, and what is stored where the server cannot be asked."""
        queries = [query for query in queries if query.server_name != self._interner.own_server]
        servers = {query.server_name for query in queries}
        stored = await self._db.read(_read_documents, self._interner, servers)
        now_ms = self._clock.now_ms()
        await self._load(servers)
        stale = {
            query.server_name
            for query in queries
            if query.server_name not in stored or not query.is_answered_by(stored[query.server_name], now_ms)
        }
        due = [server for server in stale if self._is_due(server)]
        if due:
            await asyncio.gather(*(self._fetch_for_asker(server) for server in due))
            stored = await self._db.read(_read_documents, self._interner, servers)
        return list(stored.values())

    async def learn(self, documents: Iterable[ServerKeys]) -> None:
        """Keep documents whose signatures were verified."""
        await self._db.write(_store, self._interner, list(documents))
        for document in documents:
            self._remember(document)

    def _look(self, wanted: Iterable[KeyWanted]) -> tuple[dict[KeyWanted, VerifyKey], list[KeyWanted]]:
        """What of it is in memory, and what is not."""
        found: dict[KeyWanted, VerifyKey] = {}
        missing: list[KeyWanted] = []
        for want in wanted:
            key = self._in_memory(want)
            if key is None:
                missing.append(want)
            else:
                found[want] = key
        return found, missing

    def _in_memory(self, want: KeyWanted) -> VerifyKey | None:
        if want.server == self._interner.own_server:
            return self._own_keys.get(want.key_id)
        known = self._servers.get(want.server)
        if known is None:
            return None
        stored = known.keys.get(want.key_id)
        if stored is None and self._is_of_the_past(known, want):
            stored = known.past.get(want.key_id)
        if stored is None or not _is_good(stored, want):
            return None
        return VerifyKey(stored.verify_key)

    def _is_of_the_past(self, known: _Known, want: KeyWanted) -> bool:
        now_ms = self._clock.now_ms()
        return is_past(want.valid_at_ms, now_ms) and is_gone(known.keys.values(), known.failures, now_ms)

    def _is_due(self, server: ServerName) -> bool:
        if server == self._interner.own_server:
            return False
        known = self._servers.get(server)
        if known is None:
            return True
        left_ms = known.next_fetch_ms - self._clock.now_ms()
        return left_ms <= 0 or left_ms > MAX_PAUSE_MS  # unless the clock was set back

    async def _load(self, servers: Collection[ServerName]) -> None:
        """Bring what the table has of these servers into memory."""
        unknown = [
            server
            for server in servers
            if server not in self._servers and server != self._interner.own_server
        ]
        if unknown:
            stored = await self._db.read(_read_keys, self._interner, unknown)
            for server in unknown:
                self._servers.setdefault(server, _Known(stored.get(server, {})))
        for server in servers:
            if server in self._servers:
                self._servers.move_to_end(server)
        while len(self._servers) > max(MAX_SERVERS, len(servers)):
            self._servers.popitem(last=False)

    async def _fetch_for_asker(self, server: ServerName) -> None:
        """Fetch what somebody wants to know who may ask for any name; nothing, if that is too much for one."""
        try:
            async with self._askers.take(ASKER.get()), self._slots_of_askers:
                await self._flights.fly(server, self._fetcher(server))
        except LimitExceeded:
            log.info("%s asks for the keys of too many servers", ASKER.get())

    def _fetcher(self, server: ServerName) -> "_Fetch":
        return _Fetch(self, server)

    async def fetch(self, server: ServerName) -> None:
        """Ask the server itself for its keys, and keep what it says. Never raises for what the server does."""
        async with self._slots:
            ask = Ask(
                method="GET",
                path=_PATH,
                timeout_s=FETCH_TIMEOUT_S,
                max_response_bytes=MAX_DOCUMENT_BYTES,
                # Who asks for keys has just been spoken to, mostly; failures have a pause of their own here.
                despite_standing=True,
            )
            try:
                document = await self._requests.ask(server, ask)
                keys = check_key_document(document, server, self._clock.now_ms())
                await self.learn((keys,))
            except (RemoteFault, ProtocolFault) as fault:
                log.info("no keys of %s: %s", server, fault)
                self._note_failure(server)

    def _note_failure(self, server: ServerName) -> None:
        known = self._servers.setdefault(server, _Known({}))
        pause_ms = min(PAUSE_MS << min(known.failures, 10), MAX_PAUSE_MS)
        known.failures += 1
        known.next_fetch_ms = self._clock.now_ms() + pause_ms

    async def _ask_notary(self, notary: ServerName, wanted: Iterable[KeyWanted]) -> None:
        """Ask a notary for all that its servers did not tell."""
        minimums: dict[ServerName, dict[KeyID, int]] = {}
        for want in wanted:
            minimums.setdefault(want.server, {})[want.key_id] = want.valid_at_ms or 0
        await self.learn(await self._query(notary, minimums))

    async def _ask_past(self, wanted: Iterable[KeyWanted]) -> bool:
        """Ask who remembers for the keys of servers that are gone; whether anything was learned."""
        now_ms = self._clock.now_ms()
        minimums: dict[ServerName, dict[KeyID, int]] = {}
        for want in wanted:
            known = self._servers.get(want.server)
            if known is None or not self._is_of_the_past(known, want):
                continue
            if 0 <= now_ms - known.past_asked_ms.get(want.key_id, -MAX_PAUSE_MS) < MAX_PAUSE_MS:
                continue
            if want.server in minimums or len(minimums) < MAX_RELAYED:
                asked = minimums.setdefault(want.server, {})
                if want.key_id in asked or len(asked) < MAX_KEYS_PER_SERVER:
                    asked[want.key_id] = max(asked.get(want.key_id, 0), want.valid_at_ms or 0)
        if not minimums:
            return False
        for server, keys in minimums.items():
            known = self._servers[server]
            before = known.past_asked_ms if len(known.past_asked_ms) < 2 * MAX_KEYS else {}
            known.past_asked_ms = {**before, **dict.fromkeys(keys, now_ms)}
        is_learned = False
        for notary in self._past_notaries:
            for document in await self._query(notary, minimums):
                known = self._servers.setdefault(document.server_name, _Known({}))
                learned = list_past_keys(document, now_ms)
                if len(known.past) + len(learned) <= 2 * MAX_KEYS:
                    known.past = {**learned, **known.past}  # who was asked first is believed
                    is_learned |= bool(learned)
        return is_learned

    async def _query(
        self, notary: ServerName, minimums: Mapping[ServerName, Mapping[KeyID, int]]
    ) -> list[ServerKeys]:
        """What a notary tells of these servers' keys, signed by it. `minimums`: until when each must be good."""
        if notary == self._interner.own_server:
            return []
        notary_keys = await self._notary_keys(notary)
        content = build_request(KeyQuery(server, keys) for server, keys in minimums.items())
        ask = Ask(method="POST", path=_NOTARY_PATH, content=content, timeout_s=FETCH_TIMEOUT_S)
        try:
            body = await self._requests.fetch(notary, ask)
            found = parse_response(body, notary, notary_keys, self._clock.now_ms())
        except (RemoteFault, ProtocolFault) as fault:
            log.info("the notary %s does not help: %s", notary, fault)
            return []
        return [keys for keys in found if keys.server_name in minimums]

    async def _ask_relay(self, relay: ServerName, wanted: Iterable[KeyWanted]) -> bool:
        """Ask a server for what others say, who do not answer; whether anything was learned."""
        now_ms = self._clock.now_ms()
        known: dict[ServerName, dict[KeyID, VerifyKey]] = {}
        minimums: dict[ServerName, dict[KeyID, int]] = {}
        for want in wanted:
            server = self._servers.get(want.server)
            if server is None or want.server == relay or now_ms < server.next_relay_ms:
                continue
            # A key that its server gave up may be in other hands.
            keys = {
                KeyID(key.key_id): VerifyKey(key.verify_key) for key in server.keys.values() if not key.is_old
            }
            asked = minimums.setdefault(want.server, {})
            if keys and len(minimums) <= MAX_RELAYED and len(asked) < MAX_KEYS_PER_SERVER:
                known[want.server] = keys
                asked[want.key_id] = max(asked.get(want.key_id, 0), want.valid_at_ms or 0)
        if not known or relay == self._interner.own_server:
            return False
        for name in known:
            self._servers[name].next_relay_ms = now_ms + PAUSE_MS
        content = build_request(KeyQuery(server, minimums[server]) for server in known)
        ask = Ask(method="POST", path=_NOTARY_PATH, content=content, timeout_s=RELAY_TIMEOUT_S)
        try:
            body = await self._requests.fetch(relay, ask)
            found = parse_relayed(body, known, self._clock.now_ms())
        except (RemoteFault, ProtocolFault) as fault:
            log.info("%s does not pass keys on: %s", relay, fault)
            return False
        await self.learn(found)
        return bool(found)

    async def _notary_keys(self, notary: ServerName) -> dict[KeyID, VerifyKey]:
        """The keys that the notary has now."""
        await self._load((notary,))
        now_ms = self._clock.now_ms()
        known = self._servers[notary]
        is_current = any(not key.is_old and key.valid_until_ms >= now_ms for key in known.keys.values())
        if not is_current and self._is_due(notary):
            await self._flights.fly(notary, self._fetcher(notary))
            known = self._servers[notary]
        return {
            KeyID(key_id): VerifyKey(key.verify_key)
            for key_id, key in known.keys.items()
            if not key.is_old and key.valid_until_ms >= now_ms
        }

    def _remember(self, document: ServerKeys) -> None:
        known = self._servers.setdefault(document.server_name, _Known({}))
        merged = dict(known.keys)
        for key in _rows(0, document):
            before = merged.get(key.key_id)
            # As the table does: a key that was given up stays so; else the longer validity counts.
            if before is None or (key.is_old, key.valid_until_ms) >= (before.is_old, before.valid_until_ms):
                merged[key.key_id] = key
        if len(merged) > 2 * MAX_KEYS:
            merged = {key.key_id: key for key in _rows(0, document)}
        known.keys = merged
        known.failures = 0
        known.next_fetch_ms = self._clock.now_ms() + PAUSE_MS


class _Fetch(msgspec.Struct, frozen=True):
    """Asking one server: what `Flights` runs."""

    keyring: Keyring
    server: ServerName

    async def __call__(self) -> None:
        await self.keyring.fetch(self.server)


def _is_good(stored: ServerKey, want: KeyWanted) -> bool:
    """Spec: rooms v5: sent no later than `valid_until_ts`, or before `expired_ts` of an old key."""
    if want.valid_at_ms is None:
        return True
    return (
        want.valid_at_ms < stored.valid_until_ms
        if stored.is_old
        else want.valid_at_ms <= stored.valid_until_ms
    )


def _rows(server_nid: int, document: ServerKeys) -> list[ServerKey]:
    rows = [
        ServerKey(server_nid, key_id, key.public_key, document.valid_until_ms, is_old=False)
        for key_id, key in document.verify_keys.items()
    ]
    return rows + [
        ServerKey(server_nid, key_id, old.key.public_key, old.expired_ts, is_old=True)
        for key_id, old in document.old_verify_keys.items()
        if key_id not in document.verify_keys
    ]


def _store(txn: WriteTxn, interner: Interner, documents: Sequence[ServerKeys]) -> None:
    nids = intern_servers(txn, interner, {document.server_name for document in documents})
    for document in documents:
        nid = nids[document.server_name]
        json = canonical_json.encode(document.document)
        server_keys.upsert_keys(
            txn,
            _rows(nid, document),
            KeyDocument(nid, document.valid_until_ms, document.received_ms, json),
        )


def _read_keys(
    txn: ReadTxn, interner: Interner, servers: Collection[ServerName]
) -> dict[ServerName, dict[str, ServerKey]]:
    names = {nid: server for server, nid in find_server_nids(txn, interner, servers).items()}
    found: dict[ServerName, dict[str, ServerKey]] = {}
    for key in server_keys.list_keys(txn, names.keys()):
        found.setdefault(names[key.server_nid], {})[key.key_id] = key
    return found


def _read_documents(
    txn: ReadTxn, interner: Interner, servers: Collection[ServerName]
) -> dict[ServerName, ServerKeys]:
    names = {nid: server for server, nid in find_server_nids(txn, interner, servers).items()}
    return {
        names[nid]: check_key_document(
            canonical_json.parse_object(stored.json), names[nid], stored.received_ms
        )
        for nid, stored in server_keys.list_key_documents(txn, names.keys()).items()
    }
