"""Which `pos` stands for which knowledge: connections, their answers, retries and new beginnings.

Event loop only. The knowledge that a client showed last, and the answers that were made from it, are kept; so a
`pos` may be shown again, and what is older is not known any more.

Spec: MSC4186, "Connections".
"""

from collections import OrderedDict
from typing import Final

import msgspec

from ranvier.core.errors import BadToken, UnknownPosition
from ranvier.core.tokens import SlidingToken, encode_sliding_token, parse_sliding_token
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.requester import Requester
from ranvier.services.sliding.keeping import Keeper
from ranvier.services.sliding.request import SlidingRequest
from ranvier.services.sliding.told import NOTHING_KNOWN, Knowledge
from ranvier.services.sync.clients import Standings
from ranvier.store.tables.sliding_connections import MAX_OF_DEVICE

MAX_ANSWERS: Final = 8
"""Answers made from one knowledge that a client may yet show: as many retries at once."""
MAX_DEVICES: Final = 10_000
"""Whose connections are in memory; those of the others are read again when they come back."""

_RANDOM_BITS: Final = 20
_ANSWERS: Final = 2**31


class Connection:
    """One loop of requests of a device."""

    __slots__ = ("acknowledged", "answers", "base", "life")

    def __init__(self, life: int, base: Knowledge) -> None:
        self.life = life
        self.base = base  # that the client showed last
        self.answers: OrderedDict[int, Knowledge] = OrderedDict()
        self.acknowledged = 0  # up to which message to the device

    def find(self, answer: int) -> Knowledge | None:
        """What the client knows that has this answer. From then on it will not show any other, but this and
        what is made from it."""
        if answer == self.base.answer:
            return self.base
        found = self.answers.get(answer)
        if found is not None:
            self.base = found
            self.answers.clear()
        return found


class Connections:
    """The connections of all devices."""

    def __init__(self, standings: Standings, keeper: Keeper, clock: Clock, randomness: Randomness) -> None:
        self._standings = standings
        self._keeper = keeper
        self._clock = clock
        self._randomness = randomness
        self._devices: OrderedDict[tuple[int, int | None], OrderedDict[str, Connection]] = OrderedDict()

    async def find(
        self, requester: Requester, request: SlidingRequest
    ) -> tuple[Connection, Knowledge | None]:
        """The connection, and what the client knows; None: it begins anew.

        Cost: nothing for a connection in memory; else 2 queries.
        Raises: UnknownPosition.
        """
        of_device = self._of_device(requester)
        if request.pos is None:
            connection = Connection(self._new_life(), NOTHING_KNOWN)
            _keep(of_device, request.conn_id, connection)
            return connection, None
        try:
            token = parse_sliding_token(request.pos)
        except BadToken as error:
            raise UnknownPosition("This position is not known.") from error
        found = of_device.get(request.conn_id)
        knowledge = found.find(token.answer) if found is not None and found.life == token.life else None
        if found is None or knowledge is None:
            found, knowledge = await self._restore(requester, request.conn_id, token, found)
        if not await self._standings.has_reached(token.position):
            # A database that was restored from backup: what the client knows may never have been.
            raise UnknownPosition("This position is not known.")
        _keep(of_device, request.conn_id, found)
        if knowledge is found.base and not knowledge.is_stale:
            self._keeper.note(found.life, requester.device_nid, request.conn_id, knowledge)
        return found, knowledge

    def answered(self, connection: Connection, knowledge: Knowledge) -> str:
        """The `pos` of an answer that leads to this knowledge, whose own name is yet to be given."""
        answer = 1 + self._randomness.below(_ANSWERS)
        connection.answers[answer] = msgspec.structs.replace(knowledge, answer=answer)
        if len(connection.answers) > MAX_ANSWERS:
            connection.answers.popitem(last=False)
        return encode_sliding_token(SlidingToken(knowledge.position, connection.life, answer))

    async def _restore(
        self, requester: Requester, conn_id: str, token: SlidingToken, here: Connection | None
    ) -> tuple[Connection, Knowledge]:
        """The connection as it is stored. What the client knows may be more: then it is told anew of rooms
        that changed since."""
        refused = UnknownPosition("This position is not known.")
        if (here is not None and here.life > token.life) or requester.device_nid is None:
            raise refused
        stored = await self._keeper.find(requester.device_nid, conn_id)
        if stored is None or stored.life != token.life:
            raise refused
        base = stored.knowledge
        if here is not None and here.life == token.life and here.base.position >= base.position:
            raise refused
        if token.answer != base.answer:
            if token.position < base.position:
                raise refused
            base = msgspec.structs.replace(base, answer=token.answer, is_stale=True)
        return Connection(token.life, base), base

    def _of_device(self, requester: Requester) -> OrderedDict[str, Connection]:
        key = (requester.user_nid, requester.device_nid)
        found = self._devices.get(key)
        if found is None:
            found = self._devices[key] = OrderedDict()
            if len(self._devices) > MAX_DEVICES:
                self._devices.popitem(last=False)
        else:
            self._devices.move_to_end(key)
        return found

    def _new_life(self) -> int:
        """A name that nobody can guess by counting, and that is greater than those of earlier lives."""
        return self._clock.now_ms() << _RANDOM_BITS | self._randomness.below(2**_RANDOM_BITS)


def _keep(of_device: OrderedDict[str, Connection], conn_id: str, connection: Connection) -> None:
    """As the one used last; the one that was not used for longest makes room for it."""
    of_device[conn_id] = connection
    of_device.move_to_end(conn_id)
    if len(of_device) > MAX_OF_DEVICE:
        of_device.popitem(last=False)
