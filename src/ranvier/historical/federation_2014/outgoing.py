"""What goes out to peers: transactions, one under way to each, kept until they are confirmed.

Where several processes share a database, any of them makes the next transaction of all that waits there, and claims
it for as long as sending may take; the others wait for it to be confirmed. What passes (EDUs) each process tells by
itself.

Source: docs/federation-2014.md, "Sending".
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.errors import ServerFault
from ranvier.core.identifiers import ServerName
from ranvier.historical.federation_2014.pdu import OldPdu
from ranvier.historical.federation_2014.peers import Peers, parse_results
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.io.randomness import Randomness
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import historical_transactions as transactions
from ranvier.store.tables.historical_pdus import Name
from ranvier.store.tables.historical_transactions import Unsent

log = logging.getLogger(__name__)

MAX_PDUS: Final = 50
MAX_EDUS: Final = 100
"""In one transaction. More EDUs than that are not kept for a peer: the newest count."""

FIRST_PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 3_600.0

ID_OCTETS: Final = 16

CLAIM_MS: Final = 120_000
"""Longer than sending one transaction may take."""

MAX_AHEAD_MS: Final = 15 * 60_000
"""A claim that lasts longer is from before the clock was set back."""

LOOK_S: Final = 1.0
"""How often it is looked whether another process is done."""


class Outgoing:
    """The queues. `look` is to be called after anything was queued in the database."""

    def __init__(self, db: Database, peers: Peers, clock: Clock, randomness: Randomness) -> None:
        self._db = db
        self._peers = peers
        self._clock = clock
        self._randomness = randomness
        self._queues: Mapping[ServerName, _Queue] = {name: _Queue() for name in peers.names}
        self._results: dict[Name, asyncio.Future[str | None]] = {}
        self._name = randomness.token(12)  # of this process

    def look(self) -> None:
        """Something may wait in the database."""
        for queue in self._queues.values():
            queue.news.set()

    def add_edu(self, peer: ServerName, edu_type: str, content: JsonObject, key: object) -> None:
        """Tell a peer something that passes. `key`: what a later EDU replaces this one by."""
        queue = self._queues.get(peer)
        if queue is None:
            return
        queue.edus.pop(key, None)
        queue.edus[key] = {
            "edu_type": edu_type,
            "origin": self._peers.own_server,
            "destination": peer,
            "content": content,
        }
        while len(queue.edus) > MAX_EDUS:
            del queue.edus[next(iter(queue.edus))]
        queue.news.set()

    def note_alive(self, peer: ServerName) -> None:
        """The peer has just spoken to us: it is worth a try."""
        queue = self._queues.get(peer)
        if queue is not None:
            queue.alive.set()

    async def wait_for_result(self, peer: ServerName, pdu: OldPdu) -> str | None:
        """What a peer says to a PDU that was queued, whichever process sends it: why it is refused, or None."""
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._results[pdu.name] = future
        self.look()
        try:
            while True:
                with suppress(TimeoutError):
                    async with self._clock.timeout(LOOK_S):
                        return await asyncio.shield(future)
                refusal = await self._db.read(transactions.find_refusal, peer, pdu.name)
                if refusal is not None:
                    return refusal or None
        finally:
            self._results.pop(pdu.name, None)

    async def send_forever(self, peer: ServerName) -> None:
        """Send to one peer what waits for it, for ever."""
        queue = self._queues[peer]
        pause_s = FIRST_PAUSE_S
        while True:
            queue.news.clear()
            try:
                while (unsent := await self._next(peer, queue)) is not None:
                    if unsent.sender != self._name:
                        await self._clock.sleep(LOOK_S)
                        continue
                    await self._deliver(peer, unsent)
                    pause_s = FIRST_PAUSE_S
            except (RemoteFault, ServerFault) as fault:
                log.info("cannot send to %s: %s", peer, fault)
                queue.edus.clear()
                await self._rest(queue, pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
                continue
            await queue.news.wait()

    async def release(self) -> None:
        """Leave to other processes what this one did not bring out."""
        await self._db.write(transactions.release_unsent, self._name)

    async def _rest(self, queue: "_Queue", pause_s: float) -> None:
        queue.alive.clear()
        with suppress(TimeoutError):
            async with self._clock.timeout(pause_s):
                await queue.alive.wait()

    async def _next(self, peer: ServerName, queue: "_Queue") -> Unsent | None:
        """The transaction to send: one that was not confirmed, under its old id, or else a new one. If it is another
        process' turn, that one's."""
        unsent = await self._db.read(transactions.find_unsent, peer)
        if unsent is not None and self._is_others(unsent):
            return unsent
        edus, queue.edus = queue.edus, {}
        taken = await self._db.write(self._take, peer, list(edus.values()))
        if taken is not None and (unsent is not None or taken.sender != self._name):
            queue.edus = edus | queue.edus  # they are not in it
        return taken

    def _is_others(self, unsent: Unsent) -> bool:
        left_ms = unsent.until_ms - self._clock.now_ms()
        return unsent.sender != self._name and 0 < left_ms <= MAX_AHEAD_MS

    def _take(self, txn: WriteTxn, peer: ServerName, edus: Sequence[JsonObject]) -> Unsent | None:
        unsent = transactions.find_unsent(txn, peer)
        if unsent is None:
            return self._make(txn, peer, edus)
        if self._is_others(unsent):
            return unsent
        until_ms = self._clock.now_ms() + CLAIM_MS
        transactions.claim_unsent(txn, peer, unsent.txn_id, self._name, until_ms)
        return Unsent(unsent.txn_id, unsent.body, self._name, until_ms)

    def _make(self, txn: WriteTxn, peer: ServerName, edus: Sequence[JsonObject]) -> Unsent | None:
        waiting = transactions.list_waiting(txn, peer, MAX_PDUS)
        if not waiting and not edus:
            return None
        now_ms = self._clock.now_ms()
        txn_id = self._randomness.octets(ID_OCTETS).hex()
        previous = transactions.find_newest_sent(txn, peer)
        content: JsonObject = {
            "transaction_id": txn_id,
            "ts": now_ms,
            "origin": self._peers.own_server,
            "destination": peer,
            "prev_ids": [] if previous is None else [previous],
            "pdus": [parse_object(json) for _, json in waiting],
        }
        if edus:
            content["edus"] = list(edus)
        made = Unsent(txn_id, encode(content), self._name, now_ms + CLAIM_MS)
        transactions.insert_sent(txn, peer, made, [nid for nid, _ in waiting])
        return made

    async def _deliver(self, peer: ServerName, unsent: Unsent) -> None:
        """Raises: RemoteFault, StoreFault."""
        answer = await self._peers.send(peer, unsent.txn_id, unsent.body)
        refused = _read_refusals(unsent, answer)
        for name, why in refused.items():
            log.info("%s refuses %s of %s: %s", peer, name[1], name[0], why)
        await self._db.write(transactions.confirm_sent, peer, unsent.txn_id, refused)
        if self._results:
            self._tell(unsent, refused)

    def _tell(self, unsent: Unsent, refused: Mapping[Name, str]) -> None:
        for pdu in parse_object(unsent.body)["pdus"]:
            name = pdu["origin"], pdu["pdu_id"]
            future = self._results.pop(name, None)
            if future is not None and not future.done():
                future.set_result(refused.get(name))


def _read_refusals(unsent: Unsent, answer: bytes) -> dict[Name, str]:
    """Which PDUs of a transaction its destination refuses, and why."""
    errors = parse_results(answer)
    pdus = parse_object(unsent.body)["pdus"] if errors else ()
    return {
        (pdu["origin"], pdu["pdu_id"]): errors[label].replace("\0", "") or "no reason given"
        for pdu in pdus
        if (label := f"{pdu['pdu_id']}@{pdu['origin']}") in errors
    }


class _Queue:
    """What is known of one peer in memory."""

    __slots__ = ("alive", "edus", "news")

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.news.set()
        self.alive = asyncio.Event()
        self.edus: dict[object, JsonObject] = {}


class Sending:
    """The worker."""

    name = "federation-2014-sending"

    def __init__(self, outgoing: Outgoing, peers: Peers) -> None:
        self._outgoing = outgoing
        self._peers = peers

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for peer in self._peers.names:
                    tasks.create_task(self._outgoing.send_forever(peer), name=f"send to {peer}")
        finally:
            await self._outgoing.release()
