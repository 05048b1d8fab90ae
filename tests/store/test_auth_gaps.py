"""State events that came before what authorizes them get their place in the auth graph when that comes."""

from collections.abc import Collection

from ranvier.core.identifiers import RoomID, UserID
from ranvier.store.database import Database
from ranvier.store.tables import edges, events
from ranvier.store.tables.prepared import Outcome, PreparedEvent
from tests.store.room_builder import BOB, RoomBuilder, event_id_of, make_pdu, member

NAMES = ("create", "levels", "invite", "join", "leave")
_INVITE = member("invite", BOB, "invite", auth_events=(event_id_of("create"), event_id_of("levels")))


def _outlier(pdu_name: str, *auth: str, slot: tuple[str, str] = ("m.room.topic", "")) -> PreparedEvent:
    pdu = make_pdu(
        pdu_name, type=slot[0], state_key=slot[1], auth_events=tuple([event_id_of(name) for name in auth])
    )
    return PreparedEvent(pdu=pdu, outcome=Outcome.OUTLIER)


async def _graph(db: Database, names: Collection[str]) -> dict[str, tuple[int | None, set[str]]]:
    """Of each stored event its auth depth, and what it has edges to."""
    known = await db.read(events.list_known, [event_id_of(name) for name in names])
    named = {known[event_id_of(name)].event_nid: name for name in names if event_id_of(name) in known}
    cited = await db.read(edges.list_auth_nids, named.keys())
    return {
        name: (known[event_id_of(name)].auth_depth, {named[one] for one in cited.get(nid, ())})
        for nid, name in named.items()
    }


async def test_an_invite_that_came_first_is_linked_when_the_room_comes(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.append(PreparedEvent(pdu=_INVITE, outcome=Outcome.OUTLIER, sets_membership=True))
    assert await _graph(db, NAMES) == {"invite": (0, set())}
    # The events above it are stored while it still lacks its own edges: their depths grow, too.
    await room.append(_outlier("join", "create", "invite"), _outlier("leave", "join"))
    await room.append(_outlier("create"))
    await room.append(_outlier("levels", "create"))
    assert await _graph(db, NAMES) == {
        "create": (0, set()),
        "levels": (1, {"create"}),
        "invite": (2, {"create", "levels"}),
        "join": (3, {"create", "invite"}),
        "leave": (4, {"join"}),
    }


async def test_all_in_one_batch_behind_what_it_cites_is_linked_at_once(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.append(PreparedEvent(pdu=_INVITE, outcome=Outcome.OUTLIER, sets_membership=True))
    again = PreparedEvent(pdu=_INVITE, outcome=Outcome.OUTLIER)
    await room.append(
        _outlier("create"), _outlier("levels", "create"), again, _outlier("join", "create", "invite")
    )
    assert (await _graph(db, NAMES))["join"] == (3, {"create", "invite"})


async def test_an_event_of_another_room_authorizes_nothing(db: Database) -> None:
    room = await RoomBuilder.create(db)
    await room.append(PreparedEvent(pdu=_INVITE, outcome=Outcome.OUTLIER, sets_membership=True))
    other = await RoomBuilder.create(db, "!other:here", room)
    create = make_pdu("create", type="m.room.create", state_key="", room_id=RoomID("!other:here"))
    await other.append(PreparedEvent(pdu=create, outcome=Outcome.OUTLIER))
    assert (await _graph(db, ("invite",))) == {"invite": (0, set())}


async def test_events_that_cite_each_other_in_a_circle_end(db: Database) -> None:
    room = await RoomBuilder.create(db)
    users = [("m.room.member", UserID(f"@{name}:new")) for name in ("one", "two")]
    await room.append(_outlier("one", "two", slot=users[0]))
    await room.append(_outlier("two", "one", slot=users[1]))
    graph = await _graph(db, ("one", "two"))
    assert {name: cited for name, (_, cited) in graph.items()} == {"one": {"two"}, "two": {"one"}}
