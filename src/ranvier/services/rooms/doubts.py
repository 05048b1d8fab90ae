"""Whether a state that was taken without events that could not be checked may be passed on: whoever is told it takes it
for whole, and never hears that it was decided again.

See "Events that cannot be checked" in docs/adr/0003-federation.md.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import EventID, RoomID
from ranvier.io.clock import Clock
from ranvier.services.remote.keyring import Keyring, KeyWanted
from ranvier.services.rooms.rechecks import hurry_recheck
from ranvier.services.rooms.wholeness import Wholeness
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, partial_rooms, rooms, unchecked_states
from ranvier.store.tables.unchecked_states import UncheckedState, WantedKey

MAX_WAIT_S: Final = 20.0
"""For the state to be decided again: others do not wait much longer for an answer."""

YOUNG_MS: Final = 600_000
"""So long others are sent elsewhere: most servers that do not answer are back by then. Old rooms have some that are
gone, and nobody must be kept out by them for longer."""

PAUSE_S: Final = 10.0
"""Between two looks at one room on behalf of others."""


class Doubts:
    """Asked before other servers are told of a state."""

    def __init__(self, db: Database, keyring: Keyring, wholeness: Wholeness, clock: Clock) -> None:
        self._db = db
        self._keyring = keyring
        self._wholeness = wholeness
        self._clock = clock
        self._hurried: dict[RoomID, float] = {}

    async def settle(self, room_id: RoomID, event_id: EventID | None = None) -> None:
        """Have the room's state decided again, if keys have come that were lacking; with `event_id`, only where the
        state before that event may be another one then.

        Cost: 2 queries where there is no doubt. Raises: NotFound while the rest may come soon.
        """
        doubt = await self._db.read(_find_doubt, room_id, event_id)
        if doubt is not None and await self._keyring.find_known(_list_keys(doubt)):
            await self._hurry(room_id, doubt)
            doubt = await self._db.read(_find_doubt, room_id, event_id)
        if doubt is not None and 0 <= self._clock.now_ms() - doubt.since_ms < YOUNG_MS:
            # Not Forbidden: the others are to be asked.
            raise NotFound("This server does not know that room well enough yet.")

    async def _hurry(self, room_id: RoomID, doubt: UncheckedState) -> None:
        """Have it looked at now, and wait for that."""
        now = self._clock.monotonic()
        self._hurried = {room: when for room, when in self._hurried.items() if now - when < PAUSE_S}
        if room_id not in self._hurried:
            self._hurried[room_id] = now
            await self._db.write(hurry_recheck, room_id, self._clock.now_ms())
        await self._wholeness.wait(room_id, MAX_WAIT_S, partial(_find_same, wanted=doubt.wanted))


def _list_keys(doubt: UncheckedState) -> list[KeyWanted]:
    return [KeyWanted(key.server, key.key_id, key.valid_at_ms) for key in doubt.wanted]


def _find_doubt(txn: ReadTxn, room_id: RoomID, event_id: EventID | None) -> UncheckedState | None:
    room = rooms.find_room(txn, room_id)
    doubt = None if room is None else unchecked_states.find(txn, room.room_nid)
    if doubt is None or event_id is None:
        return doubt
    nids = [one.event_nid for one in events.list_known(txn, (event_id,)).values()]
    noted = {*partial_rooms.list_among(txn, nids), *unchecked_states.list_history(txn, doubt.room_nid)}
    return None if noted.isdisjoint(nids) else doubt


def _find_same(txn: ReadTxn, room_id: RoomID, *, wanted: Sequence[WantedKey]) -> int | None:
    """The number of the room, while it waits for these keys."""
    doubt = _find_doubt(txn, room_id, None)
    return None if doubt is None or doubt.wanted != wanted else doubt.room_nid
