"""Numbers for names: servers, users, rooms and state slots (type, state_key). What is stored never changes.

Tables: servers, users, state_keys (rooms: see `rooms`). Growth: one row a name.
Index -> query: the UNIQUE names -> find and intern; the primary keys -> list names of numbers.

An `Interner` keeps names in memory in front of the tables. What a snapshot shows is kept as it is read. A number
that a writing transaction saw or made is told to it (`Names.remember`) when that transaction has committed, so that it
can never hold what was rolled back.
"""

from collections.abc import Callable, Collection, Hashable, Mapping
from threading import Lock
from typing import Final, Generic, TypeVar

import msgspec

from ranvier.core.identifiers import RoomID, ServerName, StateKey, UserID, server_of
from ranvier.store.database import ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches

N = TypeVar("N", bound=Hashable)

MAX_NAMES: Final = 200_000
"""Names of one kind that an Interner keeps: about 40 MB when full."""


class Names(Generic[N]):
    """Names of one kind and their numbers, both ways, bounded: the oldest goes first.

    Any thread may look something up and remember.
    """

    def __init__(self, max_names: int = MAX_NAMES) -> None:
        self._max_names = max_names
        self._numbers: dict[N, int] = {}
        self._names: dict[int, N] = {}
        self._lock = Lock()  # of those who remember

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, name: N) -> int | None:
        return self._numbers.get(name)

    def name(self, nid: int) -> N | None:
        return self._names.get(nid)

    def remember(self, numbers: Mapping[N, int]) -> None:
        """Keep `numbers`, all of which a committed transaction wrote or a snapshot showed."""
        new = {name: nid for name, nid in numbers.items() if name not in self._numbers}
        if not new:
            return
        with self._lock:
            self._numbers.update(new)
            self._names.update((nid, name) for name, nid in new.items())
            while len(self._numbers) > self._max_names:
                oldest = next(iter(self._numbers))
                self._names.pop(self._numbers.pop(oldest), None)


class Interned(msgspec.Struct, frozen=True):
    """Names that a transaction looked up or made, for `Interner.remember` after its commit."""

    servers: Mapping[ServerName, int] = {}
    users: Mapping[UserID, int] = {}
    state_keys: Mapping[StateKey, int] = {}


class Interner:
    """The names that this process has seen. One for each database."""

    def __init__(self, own_server: ServerName, max_names: int = MAX_NAMES) -> None:
        self.own_server: Final = own_server
        self.servers: Final[Names[ServerName]] = Names(max_names)
        self.users: Final[Names[UserID]] = Names(max_names)
        self.rooms: Final[Names[RoomID]] = Names(max_names)
        self.state_keys: Final[Names[StateKey]] = Names(max_names)

    def remember(self, interned: Interned) -> None:
        """Keep what a transaction used. Call it when the transaction has committed."""
        self.servers.remember(interned.servers)
        self.users.remember(interned.users)
        self.state_keys.remember(interned.state_keys)


_FIND_SERVERS: Final = "SELECT server_name, server_nid FROM servers WHERE server_name IN (:names[])"
_INSERT_SERVER: Final = (
    "INSERT INTO servers (server_name) VALUES (:server_name) ON CONFLICT (server_name) DO NOTHING"
)
_FIND_USERS: Final = "SELECT user_id, user_nid FROM users WHERE user_id IN (:names[])"
_INSERT_USER: Final = """
    INSERT INTO users (user_id, server_nid, is_local) VALUES (:user_id, :server_nid, :is_local)
    ON CONFLICT (user_id) DO NOTHING
"""
_FIND_STATE_KEYS: Final = """
    WITH wanted(type, state_key) AS (:slots[2])
    SELECT s.type, s.state_key, s.state_key_nid
    FROM wanted JOIN state_keys s ON s.state_key = wanted.state_key AND s.type = wanted.type
"""
_INSERT_STATE_KEY: Final = """
    INSERT INTO state_keys (type, state_key) VALUES (:type, :state_key)
    ON CONFLICT (state_key, type) DO NOTHING
"""
_LIST_SERVERS: Final = "SELECT server_nid, server_name FROM servers WHERE server_nid IN (:nids[])"
_LIST_USERS: Final = "SELECT user_nid, user_id FROM users WHERE user_nid IN (:nids[])"
_LIST_STATE_KEYS: Final = (
    "SELECT state_key_nid, type, state_key FROM state_keys WHERE state_key_nid IN (:nids[])"
)


def find_server_nids(
    txn: ReadTxn, interner: Interner, names: Collection[ServerName]
) -> dict[ServerName, int]:
    """The numbers of those servers that have one."""
    return _find(txn, interner.servers, names, lambda missing: _pairs(txn, _FIND_SERVERS, missing))


def intern_servers(txn: WriteTxn, interner: Interner, names: Collection[ServerName]) -> dict[ServerName, int]:
    """The numbers of `names`, new ones where there was none."""
    found = find_server_nids(txn, interner, names)
    missing = sorted(set(names) - found.keys())
    if missing:
        txn.execute_many(_INSERT_SERVER, [{"server_name": name} for name in missing])
        found.update(_pairs(txn, _FIND_SERVERS, missing))
    return found


def find_user_nids(txn: ReadTxn, interner: Interner, user_ids: Collection[UserID]) -> dict[UserID, int]:
    """The numbers of those users that have one."""
    return _find(txn, interner.users, user_ids, lambda missing: _pairs(txn, _FIND_USERS, missing))


def intern_users(txn: WriteTxn, interner: Interner, user_ids: Collection[UserID]) -> dict[UserID, int]:
    """The numbers of `user_ids`, new ones where there was none.

    Cost: nothing if the interner knows all; else 1 query, and 2 for each of users and servers that are new.
    Raises: BadIdentifier for an id without a server.
    """
    found = find_user_nids(txn, interner, user_ids)
    # In order, so that two transactions that insert the same names never wait for each other in a circle.
    missing = sorted(set(user_ids) - found.keys())
    if missing:
        server_of_user = {user_id: server_of(user_id) for user_id in missing}
        server_nids = intern_servers(txn, interner, set(server_of_user.values()))
        txn.execute_many(
            _INSERT_USER,
            [
                {
                    "user_id": user_id,
                    "server_nid": server_nids[server],
                    "is_local": int(server == interner.own_server),
                }
                for user_id, server in server_of_user.items()
            ],
        )
        found.update(_pairs(txn, _FIND_USERS, missing))
    return found


def find_state_key_nids(txn: ReadTxn, interner: Interner, slots: Collection[StateKey]) -> dict[StateKey, int]:
    """The numbers of those (type, state_key) that have one."""
    return _find(txn, interner.state_keys, slots, lambda missing: _find_slots(txn, missing))


def intern_state_keys(txn: WriteTxn, interner: Interner, slots: Collection[StateKey]) -> dict[StateKey, int]:
    """The numbers of `slots`, new ones where there was none."""
    found = find_state_key_nids(txn, interner, slots)
    missing = sorted(set(slots) - found.keys())
    if missing:
        txn.execute_many(_INSERT_STATE_KEY, [{"type": type_, "state_key": key} for type_, key in missing])
        found.update(_find_slots(txn, missing))
    return found


def list_server_names(txn: ReadTxn, interner: Interner, nids: Collection[int]) -> dict[int, ServerName]:
    """The names behind the numbers; a number that nothing has is left out."""
    return _list(txn, interner.servers, nids, lambda missing: dict(_rows(txn, _LIST_SERVERS, missing)))


def list_user_ids(txn: ReadTxn, interner: Interner, nids: Collection[int]) -> dict[int, UserID]:
    """The names behind the numbers; a number that nothing has is left out."""
    return _list(txn, interner.users, nids, lambda missing: dict(_rows(txn, _LIST_USERS, missing)))


def list_state_keys(txn: ReadTxn, interner: Interner, nids: Collection[int]) -> dict[int, StateKey]:
    """The slots behind the numbers; a number that nothing has is left out."""
    return _list(
        txn,
        interner.state_keys,
        nids,
        lambda missing: {nid: (type_, key) for nid, type_, key in _rows(txn, _LIST_STATE_KEYS, missing)},
    )


def _find(
    txn: ReadTxn, names: Names[N], wanted: Collection[N], query: Callable[[list[N]], dict[N, int]]
) -> dict[N, int]:
    found: dict[N, int] = {}
    missing: list[N] = []
    for name in wanted:
        nid = names.number(name)
        if nid is None:
            missing.append(name)
        else:
            found[name] = nid
    if missing:
        read = query(missing)
        if txn.is_snapshot:
            names.remember(read)
        found.update(read)
    return found


def _list(
    txn: ReadTxn, names: Names[N], wanted: Collection[int], query: Callable[[list[int]], dict[int, N]]
) -> dict[int, N]:
    found: dict[int, N] = {}
    missing: list[int] = []
    for nid in wanted:
        name = names.name(nid)
        if name is None:
            missing.append(nid)
        else:
            found[nid] = name
    if missing:
        read = query(missing)
        if txn.is_snapshot:
            names.remember({name: nid for nid, name in read.items()})
        found.update(read)
    return found


def _pairs(txn: ReadTxn, sql: str, names: list[N]) -> dict[N, int]:
    found: dict[N, int] = {}
    for batch in in_batches(names):
        found.update(txn.all(sql, names=batch))
    return found


def _rows(txn: ReadTxn, sql: str, nids: list[int]) -> list[Row]:
    return [row for batch in in_batches(nids) for row in txn.all(sql, nids=batch)]


def _find_slots(txn: ReadTxn, slots: list[StateKey]) -> dict[StateKey, int]:
    return {
        (type_, key): nid
        for batch in in_batches(slots)
        for type_, key, nid in txn.all(_FIND_STATE_KEYS, slots=batch)
    }
