"""What is kept about other servers: transactions, destinations, the outbox and keys."""

from typing import Any

from ranvier.core.identifiers import ServerName
from ranvier.store.database import Database, Hint, Kind
from ranvier.store.tables import destinations, interned, outbox, received_transactions, server_keys
from ranvier.store.tables.server_keys import KeyDocument, ServerKey


async def _servers(db: Database, count: int = 3) -> list[int]:
    names = [ServerName(f"s{n}") for n in range(count)]
    interner = interned.Interner(ServerName("here"))
    found = await db.write(interned.intern_servers, interner, names)
    assert found == await db.write(interned.intern_servers, interner, names), "made once"
    return [found[name] for name in names]


async def test_a_repeated_transaction_gets_the_first_answer_until_it_expires(db: Database) -> None:
    one, two, _ = await _servers(db)
    await db.write(received_transactions.insert_received, one, "t", b"first", 10)
    await db.write(received_transactions.insert_received, one, "t", b"second", 20)
    assert await db.read(received_transactions.find_received, one, "t") == b"first"
    assert await db.read(received_transactions.find_received, two, "t") is None
    assert await db.write(received_transactions.delete_received, 10) == 0
    assert await db.write(received_transactions.delete_received, 11) == 1
    assert await db.read(received_transactions.find_received, one, "t") is None


async def test_a_destination_fails_recovers_and_never_goes_back(db: Database) -> None:
    one, two, three = await _servers(db)
    for server_nid in (one, two):
        await db.write(destinations.note_success, server_nid, 5, 500)
    await db.write(destinations.note_failure, one, 1_000, 500)
    await db.write(destinations.note_failure, one, 2_000, 1_000)
    assert await db.read(destinations.list_failing, [one, two, three]) == {one}
    due = (await db.read(destinations.list_destinations, [one]))[one]
    assert (due.failing_since_ms, due.retry_at_ms, due.sent_position) == (1_000, 3_000, 5)
    await db.write(destinations.retry_now, one)
    assert (await db.read(destinations.list_destinations, [one]))[one].retry_at_ms == 0
    await db.write(destinations.note_success, one, 7, 4_000)
    await db.write(destinations.note_success, one, 6, 5_000)
    found = await db.read(destinations.list_destinations, [one, two, three])
    assert found.keys() == {one, two}
    assert (found[one].sent_position, found[one].failing_since_ms, found[one].last_success_ms) == (
        7,
        None,
        5_000,
    )


async def test_a_server_that_fails_at_once_has_taken_nothing(db: Database) -> None:
    """What was said before it could first be reached is to be made up for."""
    one, *_ = await _servers(db)
    await db.write(destinations.note_failure, one, 1_000, 500)
    assert (await db.read(destinations.list_destinations, [one]))[one].sent_position == 0


async def test_an_edu_waits_for_each_server_and_its_content_goes_with_the_last(db: Database) -> None:
    told: list[Hint] = []
    db.subscribe(told.extend)
    one, two, _ = await _servers(db)
    first = await db.write(outbox.queue_edu, [one, two, one], "m.direct_to_device", b"1")
    second = await db.write(outbox.queue_edu, [one], "m.direct_to_device", b"2")
    assert {hint.key for hint in told if hint.kind is Kind.SERVER} == {one, two}
    assert [edu.content for edu in await db.read(outbox.list_queued, one, 10)] == [b"1", b"2"]
    await db.write(outbox.delete_sent, one, first)
    assert [edu.position for edu in await db.read(outbox.list_queued, one, 10)] == [second]
    assert [edu.content for edu in await db.read(outbox.list_queued, two, 10)] == [b"1"]
    assert sorted(await db.read(outbox.list_waiting_servers)) == [one, two]
    await db.write(outbox.delete_sent, two, second)
    await db.write(outbox.delete_sent, one, second)

    def contents(txn: Any) -> int:
        return int(txn.value("SELECT COUNT(*) FROM outbox_edus"))

    assert await db.read(contents) == 0


async def test_a_later_edu_with_the_same_key_replaces_the_one_that_waits(db: Database) -> None:
    one, two, _ = await _servers(db)
    await db.write(outbox.queue_edu, [one, two], "m.presence", b"old", "presence 1")
    await db.write(outbox.queue_edu, [one], "m.presence", b"other", "presence 2")
    await db.write(outbox.queue_edu, [one], "m.presence", b"new", "presence 1")
    assert [edu.content for edu in await db.read(outbox.list_queued, one, 10)] == [b"other", b"new"]
    assert [edu.content for edu in await db.read(outbox.list_queued, two, 10)] == [b"old"]


async def test_keys_live_as_long_as_the_longest_document_says_but_revoked_stays_revoked(db: Database) -> None:
    one, two, _ = await _servers(db)

    async def keep(valid_until_ms: int, is_old: bool, key: bytes = b"k") -> tuple[int, bool]:
        row = ServerKey(one, "ed25519:a", key, valid_until_ms, is_old)
        document = KeyDocument(one, valid_until_ms, 1, b"%d" % valid_until_ms)
        await db.write(server_keys.upsert_keys, [row], document)
        (found,) = await db.read(server_keys.list_keys, [one, two])
        return found.valid_until_ms, found.is_old

    assert await keep(100, False) == (100, False)
    assert await keep(200, False) == (200, False)
    assert await keep(150, False) == (200, False)
    assert (await db.read(server_keys.list_key_documents, [one]))[one].json == b"200"
    assert await keep(50, True) == (50, True)
    assert await keep(900, False) == (50, True)
