"""Which `pos` stands for which knowledge: connections, their answers, retries and new beginnings.

Event loop only. The knowledge that a client showed last, and the answers that were made from it, are kept; so a
`pos` may be shown again, and what is older is not known any more. It stands for the same in every process: one that
does not know it looks into the tables, and then asks the others.

Spec: MSC4186, "Connections".
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from ranvier.core.errors import BadToken, UnknownPosition
from ranvier.core.tokens import SlidingToken, encode_sliding_token, parse_sliding_token
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.recent import Recent
from ranvier.services.requester import Requester
from ranvier.services.sliding.handover import Handover, read_name
from ranvier.services.sliding.keeping import Keeper
from ranvier.services.sliding.request import SlidingRequest
from ranvier.services.sliding.told import NOTHING_KNOWN, Knowledge
from ranvier.services.sync.clients import Standings
from ranvier.store.database import Hint, Kind
from ranvier.store.tables.sliding_connections import MAX_OF_DEVICE

MAX_ANSWERS: Final = 8
"""Answers made from one knowledge that a client may yet show: as many retries at once."""
MAX_ROOMS: Final = 400_000
"""That all connections in memory know of, once for each answer that may be shown: some 60 MB. Those of devices that
were not seen for longest are read again when they come back."""

_CONNECTION_WEIGHT: Final = 10
"""A connection takes as much as so many rooms."""

_RANDOM_BITS: Final = 20
_ANSWER_BITS: Final = 30
"""Random ones of an answer's name; above them, how many answers led to it."""


class Connection:
    """One loop of requests of a device."""

    __slots__ = ("__weakref__", "acknowledged", "answers", "base", "conn_id", "device_nid", "life")

    def __init__(self, device_nid: int | None, conn_id: str, life: int, base: Knowledge) -> None:
        self.device_nid = device_nid
        self.conn_id = conn_id
        self.life = life
        self.base = base  # that the client showed last
        self.answers: OrderedDict[int, Knowledge] = OrderedDict()
        self.acknowledged = 0  # up to which message to the device

    @property
    def weight(self) -> int:
        known = (len(one.rooms) for one in (self.base, *self.answers.values()))
        return _CONNECTION_WEIGHT + sum(known)

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

    def __init__(
        self, standings: Standings, keeper: Keeper, handover: Handover, clock: Clock, randomness: Randomness
    ) -> None:
        self._standings = standings
        self._keeper = keeper
        self._handover = handover
        self._clock = clock
        self._randomness = randomness
        self._devices: Recent[tuple[int, int | None], OrderedDict[str, Connection]] = Recent(MAX_ROOMS)
        self._lives: WeakValueDictionary[int, Connection] = WeakValueDictionary()

    async def find(
        self, requester: Requester, request: SlidingRequest
    ) -> tuple[Connection, Knowledge | None]:
        """The connection, and what the client knows; None: it begins anew.

        Cost: nothing for a connection in memory; else 2 queries, and more where another process has it.
        Raises: UnknownPosition.
        """
        if request.pos is None:
            life = self._new_life()
            begun = Connection(requester.device_nid, request.conn_id, life, NOTHING_KNOWN)
            self._keep(requester, begun)
            return begun, None
        try:
            token = parse_sliding_token(request.pos)
        except BadToken as error:
            raise _refused() from error
        connection, knowledge = self._look_up(requester, request.conn_id, token)
        restored = None
        if knowledge is None:
            restored = await self._restore(requester, request.conn_id, token, connection)
        if not await self._standings.has_reached(token.position):
            # A database that was restored from backup: what the client knows may never have been.
            raise _refused()
        if restored is not None:
            # Another request of the client may have been faster.
            connection, knowledge = self._look_up(requester, request.conn_id, token)
            if knowledge is None:
                connection, knowledge = restored, restored.base
        assert connection is not None, "so is what it knows"
        assert knowledge is not None
        self._keep(requester, connection)
        if knowledge is connection.base and not knowledge.is_stale:
            self._keeper.note(connection.life, connection.device_nid, connection.conn_id, knowledge)
        return connection, knowledge

    def answered(self, connection: Connection, before: Knowledge | None, after: Knowledge) -> str:
        """The `pos` of an answer that leads from one knowledge to the next, whose own name is yet to be given."""
        serial = 1 + (0 if before is None else _serial(before.answer))
        answer = serial << _ANSWER_BITS | self._randomness.below(2**_ANSWER_BITS)
        connection.answers[answer] = msgspec.structs.replace(after, answer=answer)
        if len(connection.answers) > MAX_ANSWERS:
            connection.answers.popitem(last=False)
        return encode_sliding_token(SlidingToken(after.position, connection.life, answer))

    def hear(self, hints: Sequence[Hint]) -> None:
        """What other processes ask for, and what they tell."""
        for hint in hints:
            if hint.kind is Kind.ANSWER_WANTED:
                self._hand_over(*read_name(hint.key))
            elif hint.kind is Kind.ANSWER_STORED:
                self._handover.hear_stored(hint.key)

    def _hand_over(self, life: int, answer: int) -> None:
        """The client shows an answer from here to another process."""
        connection = self._lives.get(life)
        knowledge = None if connection is None else connection.find(answer)
        if connection is not None and knowledge is not None and not knowledge.is_stale:
            self._keeper.note(life, connection.device_nid, connection.conn_id, knowledge, is_wanted=True)

    def _look_up(
        self, requester: Requester, conn_id: str, token: SlidingToken
    ) -> tuple[Connection | None, Knowledge | None]:
        """The connection that is here, if it is of the token's life, and what the client knows, if that is.

        Raises: UnknownPosition: it has begun anew since.
        """
        here = self._of_device(requester).get(conn_id)
        if here is None or here.life < token.life:
            return None, None
        if here.life > token.life:
            raise _refused()
        return here, here.find(token.answer)

    async def _restore(
        self, requester: Requester, conn_id: str, token: SlidingToken, here: Connection | None
    ) -> Connection:
        """The connection as others know it, or as it is stored. What the client knows may be more than that: then
        it is told anew of rooms that changed since."""
        device_nid = requester.device_nid
        if device_nid is None:
            raise _refused()
        base = NOTHING_KNOWN if here is None else here.base
        shown = await self._keeper.find_shown(device_nid, conn_id, token.life) or 0
        if shown != token.answer:
            # What a client shows comes one after the other, so who has shown this or more will not go back.
            if max(_serial(base.answer), _serial(shown)) >= _serial(token.answer):
                raise _refused()
            await self._handover.ask(token)
        stored = await self._keeper.find(device_nid, conn_id, token.life) or NOTHING_KNOWN
        base = max(base, stored, key=lambda one: _serial(one.answer))
        if base is NOTHING_KNOWN:
            raise _refused()
        if base.answer != token.answer:
            base = msgspec.structs.replace(base, answer=token.answer, in_scope=None, is_stale=True)
        return Connection(device_nid, conn_id, token.life, base)

    def _of_device(self, requester: Requester) -> OrderedDict[str, Connection]:
        found = self._devices.get((requester.user_nid, requester.device_nid))
        return OrderedDict() if found is None else found

    def _new_life(self) -> int:
        """A name that nobody can guess by counting, and that is greater than those of earlier lives."""
        return self._clock.now_ms() << _RANDOM_BITS | self._randomness.below(2**_RANDOM_BITS)

    def _keep(self, requester: Requester, connection: Connection) -> None:
        """As the one used last; the one that was not used for longest makes room for it."""
        self._lives[connection.life] = connection
        of_device = self._of_device(requester)
        of_device[connection.conn_id] = connection
        of_device.move_to_end(connection.conn_id)
        if len(of_device) > MAX_OF_DEVICE:
            of_device.popitem(last=False)
        # However much it is, the device that is here goes on.
        weight = min(sum(one.weight for one in of_device.values()), MAX_ROOMS // 4)
        self._devices.keep((requester.user_nid, requester.device_nid), of_device, weight)


def _serial(answer: int) -> int:
    """How many answers led to it."""
    return answer >> _ANSWER_BITS


def _refused() -> UnknownPosition:
    return UnknownPosition("This position is not known.")
