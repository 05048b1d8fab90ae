"""Visits of browsers, and sessions of devices that meet, on both engines."""

from ranvier.store.tables.rendezvous import (
    RendezvousSession,
    count_rendezvous_sessions,
    delete_expired_rendezvous_sessions,
    delete_rendezvous_session,
    find_rendezvous_session,
    insert_rendezvous_session,
    replace_rendezvous_content,
)
from ranvier.store.tables.sso import (
    count_visits,
    delete_expired_visits,
    delete_visit,
    find_visit,
    insert_visit,
)


async def test_a_visit_is_found_until_it_ends_or_expires(db):
    await db.write(insert_visit, b"t1", b"c1", b'{"a":"\\u0000"}', 100)
    await db.write(insert_visit, b"t2", b"c2", b"{}", 200)
    assert await db.read(find_visit, b"t1", 99) == (b"c1", b'{"a":"\\u0000"}')
    assert await db.read(find_visit, b"t1", 100) is None
    assert await db.read(find_visit, b"c1", 0) is None
    assert await db.write(delete_visit, b"t2") is True
    assert await db.write(delete_visit, b"t2") is False
    assert await db.read(count_visits) == 1
    assert await db.write(delete_expired_visits, 99) == 0
    assert await db.write(delete_expired_visits, 100) == 1
    assert await db.read(count_visits) == 0


async def test_content_is_replaced_only_where_it_is_what_one_saw(db):
    session = RendezvousSession("s", b"\x00\xff", 0, 10, 100)
    await db.write(insert_rendezvous_session, session)
    assert await db.read(find_rendezvous_session, "s", 99) == session
    assert await db.write(replace_rendezvous_content, "s", 0, b"new", 20) is True
    assert await db.write(replace_rendezvous_content, "s", 0, b"other", 30) is False
    assert await db.write(replace_rendezvous_content, "t", 0, b"other", 30) is False
    assert await db.read(find_rendezvous_session, "s", 50) == RendezvousSession("s", b"new", 1, 20, 100)


async def test_a_session_ends(db):
    await db.write(insert_rendezvous_session, RendezvousSession("s", b"", 0, 10, 100))
    await db.write(insert_rendezvous_session, RendezvousSession("t", b"", 0, 10, 200))
    assert await db.read(count_rendezvous_sessions) == 2
    assert await db.read(find_rendezvous_session, "s", 100) is None
    assert await db.write(delete_rendezvous_session, "s", 100) is False
    assert await db.write(delete_rendezvous_session, "s", 99) is True
    assert await db.write(delete_expired_rendezvous_sessions, 200) == 1
    assert await db.read(count_rendezvous_sessions) == 0
