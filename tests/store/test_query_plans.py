"""No hot query reads a whole table, or sorts what an index could have ordered. SQLite's planner is asked: it
knows no more about the data than the schema says, so what it does here it does with any amount of data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.core.push.ruleset import ALL_ROOMS
from ranvier.store.database import Database, ReadTxn, Row, WriteTxn
from ranvier.store.tables import (
    aliases,
    appservices,
    auth_graph,
    browser_sessions,
    client_transactions,
    destinations,
    edges,
    events,
    interned,
    jobs,
    memberships,
    message_search,
    notifications,
    oauth_clients,
    oauth_codes,
    oauth_device_codes,
    oauth_grants,
    outbox,
    received_transactions,
    redactions,
    relations,
    rendezvous,
    rooms,
    server_keys,
    sso,
    state,
    to_device,
    unchecked_states,
    user_directory,
)
from ranvier.store.tables import timeline as tl
from tests.store.room_builder import RoomBuilder, accepted, make_pdu

EVENT = EventID("$e")
INTERNER = interned.Interner(ServerName("here"))
FILTER = tl.TimelineFilter(types=("a", "b*"), not_types=("c",), not_sender_nids=(9,), rel_types=("m.thread",))
PAGE = relations.Page(above=0, below=9, backwards=True, limit=5)

HOT_READS: Mapping[str, Callable[[ReadTxn], object]] = {
    "find users": lambda t: interned.find_user_nids(t, INTERNER, [UserID("@a:b")]),
    "find servers": lambda t: interned.find_server_nids(t, INTERNER, [ServerName("b")]),
    "find slots": lambda t: interned.find_state_key_nids(t, INTERNER, [("t", "k"), ("t", "l")]),
    "list users": lambda t: interned.list_user_ids(t, INTERNER, [1, 2]),
    "list slots": lambda t: interned.list_state_keys(t, INTERNER, [1, 2]),
    "events by number": lambda t: events.list_events(t, [1, 2, 3]),
    "events by id": lambda t: events.list_events_by_id(t, [EVENT]),
    "known events": lambda t: events.list_known(t, [EVENT]),
    "live events": lambda t: events.list_live_events(t, 1, 2, 3),
    "page": lambda t: tl.list_page(t, 1, backwards=True, limit=3),
    "page forwards": lambda t: tl.list_page(t, 1, backwards=False, limit=3),
    "filtered page": lambda t: tl.list_page(t, 1, backwards=True, limit=3, only=FILTER),
    "recent": lambda t: tl.list_recent(t, [1, 2, 3], above=0, below=2**60, limit=5),
    "newest": lambda t: tl.list_newest(t, [1, 2, 3]),
    "at or after a time": lambda t: tl.list_events_near(t, 1, 5, forwards=True, limit=3),
    "at or before a time": lambda t: tl.list_events_near(t, 1, 5, forwards=False, limit=3),
    "to bundle": lambda t: relations.list_to_bundle(t, 1, [EVENT], edits=1, references=2),
    "threads seen": lambda t: relations.list_threads_seen(t, 1, [EVENT], below=9, ignored=[1]),
    "parents below": lambda t: relations.list_parents_below(t, 1, [EVENT], None, None, 5),
    "is annotated": lambda t: relations.is_annotated(
        t, 1, relations.Relation(EVENT, "m.annotation", "k"), "t", 1
    ),
    "words of events": lambda t: message_search.search_events(t, (1, 2), ("a", "b"), upto=9, limit=5),
    "rooms that are searched": lambda t: message_search.list_searched_rooms(t, 1, 5),
    "searchable events": lambda t: message_search.list_searchable(t, 1, 2, ("m.room.message",), 5),
    "users by words": lambda t: user_directory.search_users(t, 1, ("a", "b")),
    "edge": lambda t: tl.find_edge(t, 1, above=0, below=9, backwards=True, count=5),
    "free orders": lambda t: tl.free_orders(t, 1, 2**40, 5),
    "room": lambda t: rooms.find_room(t, RoomID("!r:b")),
    "rooms": lambda t: rooms.list_rooms(t, [1, 2]),
    "changed rooms": lambda t: rooms.list_changed_rooms(t, [1, 2, 3], 0),
    "summaries": lambda t: rooms.list_summaries(t, [1, 2]),
    "state": lambda t: state.list_current_state(t, 1),
    "slots": lambda t: state.list_current_slots(t, 1, [1, 2]),
    "slots of rooms": lambda t: state.list_slots_of_rooms(t, [1, 2], [1, 2]),
    "root at": lambda t: state.find_root_at(t, 1, 5),
    "roots at": lambda t: state.list_roots_at(t, [1, 2], 5),
    "auth edges": lambda t: edges.list_auth_nids(t, [1, 2]),
    "gaps": lambda t: edges.list_gaps_below(t, 1, 5, 5),
    "membership": lambda t: memberships.find_membership(t, 1, 1),
    "memberships": lambda t: memberships.list_memberships(t, 1, [1, 2]),
    "rooms of a user": lambda t: memberships.list_rooms_of_user(t, 1, ("join", "invite")),
    "members": lambda t: memberships.list_members(t, 1, limit=5),
    "local members": lambda t: memberships.list_local_members(t, 1),
    "membership changes": lambda t: memberships.list_membership_changes(t, 1, 0, 5),
    "servers in room": lambda t: memberships.is_server_in_room(t, 1, 1),
    "shared rooms": lambda t: memberships.list_shared_rooms(t, 1, 2),
    "sharing among": lambda t: memberships.list_sharing_among(t, 1, [2, 3]),
    "servers sharing": lambda t: memberships.list_servers_sharing(t, 1),
    "relations of": lambda t: relations.list_relations_of(t, [1, 2]),
    "relations page": lambda t: relations.list_relations_page(t, 1, [EVENT], PAGE),
    "threads": lambda t: relations.list_threads(t, 1, 2**60, 5),
    "own threads": lambda t: relations.list_threads(t, 1, 2**60, 5, 1),
    "threads by root": lambda t: relations.list_threads_by_root(t, 1, [EVENT]),
    "redactions": lambda t: redactions.list_redactions(t, [EVENT]),
    "transaction ids": lambda t: client_transactions.list_txn_ids(t, 1, "D", [1, 2]),
    "aliases": lambda t: aliases.list_aliases(t, 1),
    "aliases of rooms": lambda t: aliases.list_aliases_of_rooms(t, [1, 2]),
    "appservice": lambda t: appservices.find_progress(t, "a"),
    "later changes": lambda t: appservices.list_later_changes(t, [1, 2], 5),
    "events elsewhere": lambda t: appservices.list_events_elsewhere(t, 1, 5, 5),
    "local joined": lambda t: appservices.list_local_joined(t, [1, 2]),
    "joined rooms": lambda t: appservices.list_joined_rooms(t, [1, 2]),
    "messages of users": lambda t: to_device.list_messages_of_users(t, [1, 2], 0, 5, 5),
    "received": lambda t: received_transactions.find_received(t, 1, "t"),
    "destinations": lambda t: destinations.list_destinations(t, [1, 2]),
    "outbox": lambda t: outbox.list_queued(t, 1, 5),
    "server keys": lambda t: server_keys.list_keys(t, [1, 2]),
    "citing": lambda t: _graph(t).citing({1: 9, 2: 9}, 5),
    "auth nodes": lambda t: _graph(t).auth_nodes([1, 2]),
    "unchecked history": lambda t: unchecked_states.list_history(t, 1),
    "session of a refresh token": lambda t: oauth_grants.find_grant_of_refresh_token(t, b"x"),
    "session of a spent token": lambda t: oauth_grants.find_grant_of_family(t, b"x"),
    "whose token": lambda t: oauth_grants.find_holder(t, b"x"),
}

HOT_WRITES: Mapping[str, Callable[[WriteTxn], object]] = {
    "keep jobs": lambda t: jobs.extend_jobs(t, "one", 5),
    "release jobs": lambda t: jobs.release_jobs(t, "one", 5),
    "rooms become quiet": lambda t: notifications.change_quiet_rooms(t, 1, {"!r:b"}, {"!s:b"}, 5),
    "all rooms become quiet": lambda t: notifications.change_quiet_rooms(t, 1, (), {ALL_ROOMS}, 5),
    "authorization codes expire": lambda t: oauth_codes.delete_codes(t, 5),
    "device codes expire": lambda t: oauth_device_codes.delete_device_codes(t, 5),
    "clients are not used": lambda t: oauth_clients.delete_unused_oauth_clients(t, 5),
    "browsers expire": lambda t: browser_sessions.delete_expired_browsers(t, 5),
    "a user's browsers": lambda t: browser_sessions.insert_browser(
        t, b"x", browser_sessions.Browser(1, 5, 5)
    ),
    "visits expire": lambda t: sso.delete_expired_visits(t, 5),
    "meetings expire": lambda t: rendezvous.delete_expired_rendezvous_sessions(t, 5),
}

SORTED_BY_INDEX = (
    "live events",
    "page",
    "page forwards",
    "filtered page",
    "newest",
    "members",
    "membership changes",
    "gaps",
    "threads",
    "outbox",
    "due destinations",
)


class Explaining:
    """A WriteTxn that keeps the plan of each query, and writes nothing."""

    is_snapshot = False

    def __init__(self, txn: ReadTxn) -> None:
        self.txn = txn
        self.plans: list[str] = []

    @property
    def position(self) -> int:
        return self.txn.position

    def all(self, sql: str, /, **params: object) -> list[Row]:
        self.plans += [row[3] for row in self.txn.all("EXPLAIN QUERY PLAN " + sql, **params)]
        return self.txn.all(sql, **params)

    def first(self, sql: str, /, **params: object) -> Row | None:
        return next(iter(self.all(sql, **params)), None)

    def value(self, sql: str, /, **params: object) -> Any:
        row = self.first(sql, **params)
        return None if row is None else row[0]

    def execute(self, sql: str, /, **params: object) -> int:
        self.plans += [row[3] for row in self.txn.all("EXPLAIN QUERY PLAN " + sql, **params)]
        return 0

    def execute_many(self, sql: str, rows: Sequence[Mapping[str, object]], /) -> None:
        for row in rows:
            self.execute(sql, **row)


def _graph(txn: ReadTxn) -> auth_graph.StoredAuthGraph:
    room = rooms.Room(1, RoomID("!r:b"), "11", 0, (), 0, False, 0, 0, 0, 0)
    return auth_graph.StoredAuthGraph(txn, INTERNER, room, lambda _: make_pdu("x"))


def _explain(txn: ReadTxn, read: Callable[[ReadTxn], object]) -> Sequence[str]:
    explaining = Explaining(txn)
    read(explaining)
    return explaining.plans


@pytest.fixture
async def sqlite(db: Database, request: pytest.FixtureRequest) -> Database:
    if "postgres" in request.node.callspec.id:
        pytest.skip("SQLite is asked")
    return db


@pytest.mark.parametrize("name", HOT_READS)
async def test_a_hot_query_searches_by_index(sqlite: Database, name: str) -> None:
    plans = await sqlite.read(_explain, HOT_READS[name])
    _check_no_table_is_walked(plans)
    if name in SORTED_BY_INDEX:
        assert not any("TEMP B-TREE FOR ORDER BY" in step for step in plans), plans


@pytest.mark.parametrize("name", HOT_WRITES)
async def test_what_is_changed_is_found_by_index(sqlite: Database, name: str) -> None:
    _check_no_table_is_walked(await sqlite.write(_explain, HOT_WRITES[name]))


def _check_no_table_is_walked(plans: Sequence[str]) -> None:
    assert plans, "no query was made"
    assert not [step for step in plans if step.startswith("SCAN") and not _is_small(step)], plans


def _is_small(step: str) -> bool:
    """Lists of parameters and what was just computed may be read whole."""
    words = step.split()
    return words[1] in ("b", "c", "t", "w", "wanted", "bounds", "(subquery-1)", "(subquery-4)") or (
        "CONSTANT ROW" in step
    )


async def test_a_page_of_recent_events_is_read_from_the_index_alone(sqlite: Database) -> None:
    room = await RoomBuilder.create(sqlite)
    await room.append(accepted(make_pdu("a")))
    plans = await sqlite.read(_explain, HOT_READS["recent"])
    steps = [step for step in plans if step.startswith("SEARCH e ")]
    assert steps
    assert all("COVERING INDEX events_timeline" in step for step in steps), plans
