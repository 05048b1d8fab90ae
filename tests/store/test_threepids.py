"""Addresses belong to one account, and go with it."""

from ranvier.store.database import Database
from ranvier.store.tables import threepids
from ranvier.store.tables.interned import Interner, intern_users


async def test_addresses_are_listed_and_deleted_for_their_owner_alone(db: Database) -> None:
    def add(txn, user_nid, address):
        txn.execute(
            """INSERT INTO threepids (medium, address, user_nid, validated_ms, added_ms)
            VALUES ('email', :address, :user_nid, 1, 2)""",
            address=address,
            user_nid=user_nid,
        )

    users = ["@alice:test", "@bob:test"]
    nids = await db.write(intern_users, Interner("test"), users)
    alice, bob = (nids[user_id] for user_id in users)
    for user_nid, address in ((alice, "b@test"), (alice, "a@test"), (bob, "c@test")):
        await db.write(add, user_nid, address)
    assert await db.read(threepids.list_threepids, alice) == [
        threepids.Threepid("email", "a@test", 1, 2),
        threepids.Threepid("email", "b@test", 1, 2),
    ]
    assert not await db.write(threepids.delete_threepid, bob, "email", "a@test")
    assert await db.write(threepids.delete_threepid, alice, "email", "a@test")
    assert not await db.write(threepids.delete_threepids_of_user, alice)
    assert await db.read(threepids.list_threepids, alice) == []
    assert len(await db.read(threepids.list_threepids, bob)) == 1
