"""Aliases, the directory, interned names, stored nodes and the auth graph."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranvier.core import state_map
from ranvier.core.identifiers import RoomAlias, RoomID, ServerName, UserID
from ranvier.store.database import Database
from ranvier.store.tables import aliases, directory, interned, rooms
from ranvier.store.tables.auth_graph import StoredAuthGraph
from ranvier.store.tables.directory import DirectoryPlace, DirectoryQuery
from ranvier.store.tables.prepared import Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes, SnapshotNodes
from tests.store.room_builder import RoomBuilder, accepted, event_id_of, make_pdu, member


async def test_an_alias_names_one_room_until_it_is_deleted_or_moved(db: Database) -> None:
    one = (await db.write(rooms.insert_room, RoomID("!one:here"), "11")).room_nid
    two = (await db.write(rooms.insert_room, RoomID("!two:here"), "11")).room_nid
    alias = RoomAlias("#caf\u00e9 %_'\":here")
    assert await db.write(aliases.insert_alias, alias, one, 1, 10)
    assert not await db.write(aliases.insert_alias, alias, two, 1, 11)
    assert await db.read(aliases.find_alias, alias) == aliases.Alias(alias, one, 1)
    assert await db.write(aliases.move_aliases, one, two) == 1
    assert [a.alias for a in await db.read(aliases.list_aliases, two)] == [alias]
    assert await db.write(aliases.delete_alias, alias)
    assert not await db.write(aliases.delete_alias, alias)


async def _directory(db: Database) -> list[int]:
    first: RoomBuilder | None = None
    nids = []
    for n in range(6):
        room = await RoomBuilder.create(db, f"!{n}:here", first)
        first = first or room
        for user in range(n // 2):
            await room.set_membership(f"{n} {user}", UserID(f"@u{user}:here"), "join")
        summary = rooms.RoomSummary(
            name=f"Room {n}", topic="100% sure" if n == 3 else None, room_type="m.space" if n == 4 else None
        )
        await db.write(rooms.upsert_summary, room.room_nid, summary)
        if n:
            await db.write(directory.publish_room, room.room_nid)
        nids.append(room.room_nid)
    return nids


async def test_the_directory_is_paged_by_size_both_ways(db: Database) -> None:
    nids = await _directory(db)
    wanted = [nids[n] for n in (4, 5, 2, 3, 1)]
    seen: list[int] = []
    after: DirectoryPlace | None = None
    while page := await db.read(directory.list_published, DirectoryQuery(limit=2, after=after)):
        seen += [room.room_nid for room in page]
        after = DirectoryPlace(page[-1].joined_count, page[-1].room_nid)
    assert seen == wanted
    end = DirectoryPlace(0, nids[1])
    back = await db.read(directory.list_published, DirectoryQuery(limit=2, after=end, backwards=True))
    assert [room.room_nid for room in back] == wanted[2:4]
    assert await db.read(directory.count_published, DirectoryQuery(limit=1, after=end)) == 5


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"text": "ROOM 2"}, [2]),
        ({"text": "0%"}, [3]),
        ({"text": "_"}, []),
        ({"text": "\0"}, [4, 5, 2, 3, 1]),
        ({"room_types": ("m.space",)}, [4]),
        ({"room_types": (None,)}, [5, 2, 3, 1]),
        ({"room_types": (None, "m.space"), "text": "4"}, [4]),
        ({"networks": ("irc",)}, []),
    ],
)
async def test_the_directory_is_searched(db: Database, fields: Mapping[str, Any], wanted: list[int]) -> None:
    nids = await _directory(db)
    query = DirectoryQuery(limit=10, **fields)
    found = await db.read(directory.list_published, query)
    assert [nids.index(room.room_nid) for room in found] == wanted
    assert await db.read(directory.count_published, query) == len(wanted)


async def test_hiding_a_room_takes_it_from_its_network_only(db: Database) -> None:
    nid = (await db.write(rooms.insert_room, RoomID("!one:here"), "11")).room_nid
    await db.write(directory.publish_room, nid)
    await db.write(directory.publish_room, nid, "irc")
    await db.write(directory.hide_room, nid)
    assert not await db.read(directory.is_published, nid)
    assert await db.read(directory.is_published, nid, "irc")


async def test_names_keep_their_numbers_and_come_back(db: Database) -> None:
    interner = interned.Interner(ServerName("here"), max_names=2)
    slots = [("t", "k"), ("k", "t"), ("t", ""), ("m.room.member", "\U0001f600 '\"%")]
    numbers = await db.write(interned.intern_state_keys, interner, slots)
    assert len(set(numbers.values())) == len(slots)
    assert await db.write(interned.intern_state_keys, interner, [*slots, ("new", "")]) != numbers
    assert await db.read(interned.find_state_key_nids, interner, [*slots, ("none", "")]) == numbers
    names = await db.read(interned.list_state_keys, interner, [*numbers.values(), 10**9])
    assert names == {nid: slot for slot, nid in numbers.items()}
    users = await db.write(
        interned.intern_users, interner, [UserID("@a:x"), UserID("@b:x"), UserID("@:here")]
    )
    assert await db.read(interned.list_user_ids, interner, list(users.values())) == {
        nid: user for user, nid in users.items()
    }


async def test_names_that_may_be_rolled_back_are_not_kept(db: Database) -> None:
    """What a snapshot shows is; so nobody asks for it again."""
    interner = interned.Interner(ServerName("here"))
    alice, slot = UserID("@a:here"), ("t", "k")

    def look_and_fail(txn: Any) -> None:
        users = interned.intern_users(txn, interner, [alice])
        slots = interned.intern_state_keys(txn, interner, [slot])
        interned.list_user_ids(txn, interner, list(users.values()))
        interned.list_state_keys(txn, interner, list(slots.values()))
        raise LookupError

    with pytest.raises(LookupError):
        await db.write(look_and_fail)
    assert interner.users.number(alice) is None
    assert interner.state_keys.number(slot) is None
    (nid,) = (await db.write(interned.intern_users, interner, [alice])).values()
    (slot_nid,) = (await db.write(interned.intern_state_keys, interner, [slot])).values()
    assert interner.users.name(nid) is None
    await db.read(interned.list_user_ids, interner, [nid])
    await db.read(interned.find_state_key_nids, interner, [slot])
    assert (interner.users.number(alice), interner.users.name(nid)) == (nid, alice)
    assert interner.state_keys.name(slot_nid) == slot


def test_an_interner_forgets_the_oldest_names() -> None:
    names: interned.Names[str] = interned.Names(2)
    names.remember({"a": 1, "b": 2})
    names.remember({"a": 1, "c": 3})
    assert [names.number(name) for name in "abc"] == [None, 2, 3]
    assert [names.name(nid) for nid in (1, 2, 3)] == [None, "b", "c"]
    assert len(names) == 2


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_stored_maps_hold_what_was_put_in_and_equal_maps_have_one_root(
    db: Database, data: st.DataObject
) -> None:
    numbers = st.integers(1, 2**40)
    entries = data.draw(st.dictionaries(numbers, numbers, max_size=200))
    cache = NodeCache(max_bytes=2_000)

    def store(txn: Any, items: list[tuple[int, int]], step: int) -> int:
        nodes = PendingNodes(txn, cache)
        root = state_map.EMPTY
        for start in range(0, len(items), step):
            root = state_map.update(nodes, root, dict(items[start : start + step]))
        return root

    items = list(entries.items())
    root = await db.write(store, items, 1000)
    assert await db.write(store, items[::-1], 37) == root

    def load(txn: Any) -> dict[int, int]:
        return state_map.to_dict(SnapshotNodes(txn, cache), root)

    assert await db.read(load) == entries


async def test_state_resolution_is_told_of_the_auth_graph(db: Database) -> None:
    room = await RoomBuilder.create(db)
    create = make_pdu("create", type="m.room.create", state_key="")
    joins = [
        member(f"join {n}", UserID(f"@u{n}:here"), "join", auth_events=(create.event_id,)) for n in range(5)
    ]
    level = make_pdu(
        "level",
        type="p",
        state_key="",
        auth_events=(create.event_id, event_id_of("join 0"), event_id_of("?")),
    )
    appended = await room.append(*(accepted(pdu) for pdu in (create, *joins, level)))
    create_nid, *join_nids, level_nid = appended.event_nids
    bad = member("bad", UserID("@bad:here"), "join", auth_events=(level.event_id,))
    bad_nid = (await room.append(PreparedEvent(pdu=bad, outcome=Outcome.REJECTED_OUTLIER))).event_nids[0]
    message = await room.say("message", auth_events=(create.event_id,))
    head = await room.read()

    def ask(txn: Any) -> None:
        graph = StoredAuthGraph(txn, room.interner, head, lambda record: make_pdu(record.event_id))
        nodes = graph.auth_nodes([create_nid, join_nids[0], level_nid, bad_nid, message])
        assert [nodes[nid].auth_depth for nid in (create_nid, join_nids[0], level_nid, bad_nid)] == [
            0,
            1,
            2,
            3,
        ]
        assert set(nodes[level_nid].auth) == {create_nid, join_nids[0]}
        assert nodes[message].slot is None
        above = [level_nid, *join_nids[::-1]]
        assert graph.citing({create_nid: 2**62}, 3) == {create_nid: above[:3]}
        assert graph.citing({create_nid: above[2], level_nid: bad_nid}, 10) == {create_nid: above[3:]}
        assert graph.rejected([create_nid, level_nid, bad_nid]) == {bad_nid}
        assert graph.slots([("p", ""), ("q", "")]).keys() == {("p", "")}
        assert graph.events([level_nid]).keys() == {level_nid}

    await db.read(ask)
